"""A store as a whole: how it is, and a copy of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from .tasks import TaskState


class StoreHealth(NamedTuple):
    """How a store is, from memory.

    :ivar ok: whether the last change was committed.
    :ivar detail: the last failure, when not; else what may become one, if anything.
    :ivar counts: tasks per state, of all principals.
    """

    ok: bool
    detail: str
    counts: Mapping[TaskState, int] = MappingProxyType({})


class BackedUp(NamedTuple):
    """A backup that was made.

    :ivar path: the folder that it is in.
    :ivar bytes: of the copied tasks; what is kept beside them comes on top.
    :ivar tasks: how many it has.
    :ivar blobs: how many large results it has.
    :ivar seconds: how long it took.
    """

    path: Path
    bytes: int
    tasks: int
    blobs: int
    seconds: float
