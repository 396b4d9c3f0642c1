"""What becomes of tools that block the loop: they are named, counted, and moved if that is wanted.

How they are found is the matter of `mcpd_core.host.sampling`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from ..settings import WatchdogSettings
from ..spec import Call, Offer
from .looking import Watched, current
from .sampling import Sampler
from .stalls import Stall

T = TypeVar("T")

_log = logging.getLogger(__name__)

#: Seconds between two lines of the log about the same tool.
PAUSE = 60.0


@dataclass
class Record:
    """What is known against one tool, resource or prompt.

    :ivar offences: how often it has blocked the loop.
    :ivar seconds: for how long, all in all.
    :ivar longest: for how long at a time, at most.
    :ivar place: where its code was found the last time.
    :ivar judged: whether it has been moved to a thread on account of that, or has turned out to be
        one that cannot be.
    """

    spec: Offer
    offences: int = 0
    seconds: float = 0.0
    longest: float = 0.0
    place: str = ""
    judged: bool = False
    _written: float = float("-inf")
    _unwritten: int = 0

    def charge(self, stall: Stall[Watched]) -> None:
        """Count a stall; one that lasts is counted once, and its time when it has ended."""
        if not stall.told:
            self.offences += 1
        if not stall.lasts:
            self.seconds += stall.seconds
        self.longest = max(self.longest, stall.seconds)
        self.place = str(stall.place)

    def may_be_written(self, now: float) -> bool:
        """Tell whether the log takes a line about it at a time, and count it if not."""
        if now < self._written + PAUSE:
            self._unwritten += 1
            return False
        self._written = now
        return True

    def unwritten(self) -> int:
        """Return how many lines were left out since the last one."""
        number, self._unwritten = self._unwritten, 0
        return number

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON data; times in seconds."""
        return {
            "offences": self.offences,
            "seconds": round(self.seconds, 3),
            "longest": round(self.longest, 3),
            "place": self.place,
        }


class Watchdog:
    """Watches the calls that run in the host's thread. Made on the host's loop.

    :param move: has the later calls of a tool, named by its label, run in a thread; tells whether
        they do. Called on the host's thread.
    :param trio_task: tells which task of trio runs in the host's thread.
    """

    def __init__(
        self,
        settings: WatchdogSettings,
        move: Callable[[str], bool],
        trio_task: Callable[[], Any],
    ) -> None:
        self._settings = settings
        self._move_to_thread = move
        self._loop = asyncio.get_running_loop()
        self._records: dict[str, Record] = {}
        self._policies = {
            **dict.fromkeys(settings.move, "move"),
            **dict.fromkeys(settings.report, "report"),
            **dict.fromkeys(settings.ignore, "ignore"),
        }
        self._sampler = Sampler(settings.threshold, trio_task, self._charge)

    @property
    def looking(self) -> bool:
        """Whether there is a thread that looks."""
        return self._sampler.alive

    def record(self, spec: Offer) -> Record | None:
        """Return what is known against a tool, resource or prompt, if anything is."""
        record = self._records.get(spec.label)
        return record if record is not None and record.spec.plugin == spec.plugin else None

    async def run(self, call: Call, function: Callable[[], Awaitable[T]]) -> T:
        """Run the code of a call, or wait for it, in the host's thread and under watch.

        Whatever runs in this context, and in tasks that are started in it, is taken for the call's.
        """
        if self._policy(call.spec) == "ignore":
            return await function()
        watched, outer = Watched(call), current.get()
        current.set(watched)
        self._sampler.enter()
        try:
            return await function()
        finally:
            watched.active = False
            self._sampler.leave()
            # Not by a token: a coroutine that was abandoned is closed in any context.
            current.set(outer)

    def close(self) -> None:
        """Stop watching."""
        self._sampler.close()

    def _policy(self, spec: Offer) -> str:
        return self._policies.get(spec.name, self._settings.policy)

    def _recorded(self, spec: Offer) -> Record:
        record = self.record(spec)
        if record is None:
            record = self._records[spec.label] = Record(spec)
        return record

    # --- in the sampler's thread --------------------------------------------------------------

    def _charge(self, stall: Stall[Watched]) -> None:
        call = stall.suspect.call
        record = self._recorded(call.spec)
        record.charge(stall)
        # What became of a stall that was told of while it lasted is told in any case.
        if record.may_be_written(time.monotonic()) or stall.told:
            _log.warning(
                "The %s of the plugin %s has blocked the loop for %.2f s%s, at %s, in the call "
                "%s%s. Nothing else could run. Wait with await there, or declare "
                'placement="thread" (or "process" for what computes); [watchdog] in the settings '
                "can move it to a thread.",
                call.spec.label,
                call.spec.plugin,
                stall.seconds,
                " so far" if stall.lasts else "",
                stall.place,
                call.id,
                _more(record.unwritten()),
            )
        guilty = record.offences >= self._settings.offences and not record.judged
        if guilty and self._policy(call.spec) == "move":
            try:
                self._loop.call_soon_threadsafe(self._judge, record)
            except RuntimeError:
                _log.debug("The loop has been closed under the watchdog.")

    # --- on the host's thread -----------------------------------------------------------------

    def _judge(self, record: Record) -> None:
        if record.judged:
            return
        record.judged = True
        if self._move_to_thread(record.spec.label):
            _log.warning(
                "The %s of the plugin %s has blocked the loop %d times: its next calls run in a "
                "thread.",
                record.spec.label,
                record.spec.plugin,
                record.offences,
            )
        else:
            _log.warning(
                "The %s of the plugin %s has blocked the loop %d times and stays where it is: only "
                "a tool that uses no service can be moved to a thread.",
                record.spec.label,
                record.spec.plugin,
                record.offences,
            )


def _more(unwritten: int) -> str:
    return f" (and {unwritten} more times since the last line)" if unwritten else ""
