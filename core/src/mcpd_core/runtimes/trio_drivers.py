"""The ladder: what moves trio on in the host's thread, and which of these ways is taken.

`trio_fused` steps trio by itself, `trio_guest` lets trio's public guest mode do it. Which one is
used is decided once, before a run begins, so that nothing ever runs a second time because a driver
failed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Literal, Protocol

from ..errors import ToolUnavailable

if TYPE_CHECKING:
    import trio
    import trio.lowlevel

    from .trio_private import Obstacle

_log = logging.getLogger(__name__)

#: What is asked for: a rung of the ladder, or the best one that works here.
Choice = Literal["auto", "fused", "guest"]


class Work(Protocol):
    """What a driver starts a task for.

    :ivar ended: whether it has ended.
    """

    ended: bool

    async def run(self) -> None:
        """Do it; awaited in trio."""
        ...


class Driver(Protocol):
    """What moves a run of trio on in the host's thread. Used on the host's loop, for one run.

    :ivar rung: what it is called.
    """

    rung: str

    def start(
        self,
        main: Callable[[], Awaitable[None]],
        on_end: Callable[[BaseException | None], None],
    ) -> None:
        """Begin the run.

        :param main: the run's main function.
        :param on_end: called once when the run has ended, with what it died of.
        """
        ...

    def spawn(self, nursery: trio.Nursery, work: Work, name: object) -> None:
        """Start a task, in a copy of the current context; it may have ended on return."""
        ...

    def reschedule(self, task: trio.lowlevel.Task) -> None:
        """Let a task go on that waits to be rescheduled."""
        ...


def choose(choice: Choice, loop: asyncio.AbstractEventLoop, *, eager: bool = True) -> Driver:
    """Return the driver that was asked for, or the best one that works here.

    :raises ToolUnavailable: when ``fused`` was asked for and cannot be had.
    """
    from . import trio_private
    from .trio_guest import GuestDriver

    if choice != "guest":
        obstacle = trio_private.obstacle(untested=choice == "fused")
        if obstacle is None:
            from .trio_fused import FusedDriver

            return FusedDriver(loop, eager=eager)
        if choice == "fused":
            raise ToolUnavailable(
                f"trio cannot be driven without a thread: {obstacle.reason}.",
                hint='Set trio = "auto" in the section [runtimes].',
            )
        _tell(obstacle)
    return GuestDriver(loop)


_told: set[str] = set()


def _tell(obstacle: Obstacle) -> None:
    """Log why guest mode is used, once for each reason."""
    if obstacle.reason not in _told:
        _told.add(obstacle.reason)
        _log.log(
            logging.INFO if obstacle.by_design else logging.WARNING,
            "trio runs in guest mode, which is slower: %s.",
            obstacle.reason,
        )
