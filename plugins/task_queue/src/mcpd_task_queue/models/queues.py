"""A queue after a change."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict


class QueueState(TypedDict):
    """A queue after it was paused or resumed."""

    queue: str
    paused: bool
    changed: Annotated[bool, Field(description="False: it was so already.")]
    waiting: Annotated[int, Field(description="How many of your tasks wait in it.")]
    running: Annotated[int, Field(description="How many of its tasks go on running.")]


class ClearedQueue(TypedDict):
    """A queue after it was cleared."""

    queue: str
    cancelled: Annotated[int, Field(description="How many waiting tasks were cancelled.")]
    waiting: Annotated[int, Field(description="What was left: recurring tasks.")]
    running: Annotated[int, Field(description="How many of its tasks go on running.")]
