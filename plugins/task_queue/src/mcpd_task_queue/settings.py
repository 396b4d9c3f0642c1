"""The ``[task_queue]`` section of ``mcpd.toml``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class TaskQueueSettings(BaseModel):
    """How the task queue works. Times are in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    workers: Annotated[
        int, Field(ge=1, le=1_000, description="How many tasks run at the same time.")
    ] = 4
    registered_slots: Annotated[
        int,
        Field(
            ge=0,
            le=1_000,
            description="How many tasks the workers that clients register may run at the same "
            "time, all together and besides those of `workers`. What the server runs at all at "
            "the same time is limited by `workers` of [executor].",
        ),
    ] = 12
    lease: Annotated[
        float,
        Field(
            ge=1,
            le=86_400,
            description="How long a task stays with a worker that shows no sign of life. Live "
            "workers renew it three times as often, however long the task runs.",
        ),
    ] = 30.0
    retention: Annotated[
        float,
        Field(
            ge=0,
            le=3_650 * 86_400,
            description="How long a task and its result are kept after it has ended.",
        ),
    ] = 7 * 86_400.0
    largest_arguments: Annotated[
        int,
        Field(
            ge=1_024,
            le=64 * 1024 * 1024,
            description="How many bytes of JSON the arguments of one task may take.",
        ),
    ] = 1024 * 1024
    largest_log: Annotated[
        int,
        Field(
            ge=8 * 1024 * 1024,
            le=1 << 40,
            description="How many bytes the write-ahead log may have before new tasks are refused. "
            "It gets there only while another program keeps a transaction of the database open.",
        ),
    ] = 256 * 1024 * 1024
    largest_result: Annotated[
        int,
        Field(
            ge=1_024,
            le=1024 * 1024 * 1024,
            description="How many bytes of JSON the result of one task may take; with a larger one "
            "it fails.",
        ),
    ] = 64 * 1024 * 1024
    inline_result: Annotated[
        int,
        Field(
            ge=0,
            le=1024 * 1024,
            description="How many of them are kept in the database. Larger results are files in "
            "the folder `blobs` beside it.",
        ),
    ] = 64 * 1024
    first_retry: Annotated[
        float,
        Field(
            gt=0,
            le=86_400,
            description="Longest wait before the second attempt; it doubles with each further one.",
        ),
    ] = 2.0
    longest_retry: Annotated[
        float, Field(gt=0, le=86_400, description="Longest wait before any attempt.")
    ] = 300.0
    ageing: Annotated[
        float,
        Field(
            ge=0,
            le=365 * 86_400,
            description="How many seconds of waiting are worth a step of priority. 0: none; a task "
            "then waits for as long as there is one of a higher priority.",
        ),
    ] = 300.0
    durability: Annotated[
        Literal["full", "normal"],
        Field(
            description="'full': what was acknowledged survives a power cut. 'normal': it survives "
            "the death of the process only."
        ),
    ] = "full"
