"""A thread that looks at what the host's thread does, for as long as calls run there.

It sleeps between its looks, forty of them a second, fewer when nothing happens. When no call has
run for a while it ends, so that an idle host has neither the thread nor its wake-ups.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from .looking import Looker, Watched
from .stalls import Stall, Stalls

_log = logging.getLogger(__name__)

#: Seconds without a call after which the thread ends.
LINGER = 10.0
#: Ticks of the loop within the time that is tolerated.
_TICKS = 5


class Sampler:
    """Finds the calls that block the host's thread. Made on the host's loop.

    :param tolerated: seconds that a call may keep the loop to itself.
    :param trio_task: tells which task of trio runs in the host's thread.
    :param report: called with each stall, in the sampler's thread.
    """

    def __init__(
        self,
        tolerated: float,
        trio_task: Callable[[], Any],
        report: Callable[[Stall[Watched]], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._host_thread = threading.get_ident()
        self._tolerated = tolerated
        self._trio_task = trio_task
        self._report = report
        self._running = 0
        self._entered = 0
        self._beats = 0
        self._beat_asked = False
        #: When the loop is to tick next, if it does.
        self._due: float | None = None
        #: Whether the host's thread has done nothing for so long that it is left in peace.
        self._calm = False
        #: Whether the thread looks; otherwise the next call has to wake it.
        self._looking = False
        #: Guards the two that follow: whether there is a thread, and whether it should look.
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._woken = threading.Event()
        self._closing = False
        # Held until `close`: waiting for it is a sleep that can be ended.
        self._rest = threading.Lock()
        self._rest.acquire()

    @property
    def alive(self) -> bool:
        """Whether the thread exists."""
        return self._thread is not None

    # --- on the host's thread -----------------------------------------------------------------

    def enter(self) -> None:
        """Count a call whose code starts in the host's thread."""
        self._running += 1
        self._entered += 1
        self._calm = False
        if not self._looking:
            self._wake()
        if self._due is None:
            self._tick()

    def leave(self) -> None:
        """Count a call whose code has returned."""
        self._running -= 1

    def _wake(self) -> None:
        with self._lock:
            self._looking = True
            self._woken.set()
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, name="mcpd-watchdog", daemon=True
                )
                self._thread.start()

    def close(self) -> None:
        """End the thread, if there is one; no call may start afterwards."""
        with self._lock:
            self._closing = True
            self._rest.release()
            self._woken.set()
            thread = self._thread
        if thread is not None:
            # It may be in the middle of a log line that nobody reads; then it is left behind.
            thread.join(timeout=1.0)

    def _beat(self) -> None:
        self._beats += 1
        self._beat_asked = False

    def _tick(self) -> None:
        """Show that the loop turns, for as long as a call runs; see `stalls` on what for."""
        if self._calm or not self._running:
            self._due = None
            return
        self._due = time.monotonic() + self._tolerated / _TICKS
        self._loop.call_later(self._tolerated / _TICKS, self._tick)

    # --- in the thread ------------------------------------------------------------------------

    def _work(self) -> None:
        looker = Looker(self._host_thread, self._loop, self._trio_task)
        try:
            with looker.timing_collections():
                while self._wanted():
                    self._look_until_quiet(looker)
        except Exception:  # noqa: BLE001 - the boundary of the thread
            # What it reads is not made to be read by others, and calls are none the worse for it.
            _log.exception("The watchdog has failed; what blocks the loop is not found any more.")

    def _wanted(self) -> bool:
        """Wait until a call has started; tell whether one did before it was time to end."""
        self._looking = False
        if self._running:
            # It started after the last look and before the line above, and has woken nobody.
            self._looking = True
        else:
            self._woken.wait(LINGER)
        with self._lock:
            wanted = (self._looking or self._woken.is_set()) and not self._closing
            self._woken.clear()
            if not wanted:
                self._thread = None
            return wanted

    def _look_until_quiet(self, looker: Looker) -> None:
        """Look again and again until no call has run for the time between two looks."""
        stalls: Stalls[Watched] = Stalls(self._tolerated)
        entered = -1
        while self._running or self._entered != entered:
            entered = self._entered
            if self._rest.acquire(timeout=stalls.interval):
                break
            self._tell(stalls.see(looker.look(self._beats, self._due)))
            self._calm = stalls.calm
            if stalls.suspicious and not self._beat_asked:
                self._ask_for_a_beat()
        self._tell(stalls.end())

    def _ask_for_a_beat(self) -> None:
        self._beat_asked = True
        try:
            self._loop.call_soon_threadsafe(self._beat)
        except RuntimeError:
            _log.debug("The loop has been closed under the watchdog.")

    def _tell(self, stall: Stall[Watched] | None) -> None:
        if stall is not None:
            self._report(stall)
