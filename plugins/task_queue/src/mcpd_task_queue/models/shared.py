"""What several answers have."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

Time = Annotated[str, Field(description="ISO 8601, UTC.")]


class Counts(TypedDict):
    """How many tasks are in which state."""

    scheduled: int
    ready: int
    paused: int
    running: int
    succeeded: int
    failed: int
    cancelled: int
    dead: int
    uncertain: int
