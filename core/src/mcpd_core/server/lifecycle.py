"""When a server ends: on a signal, or when it has not been needed for a while."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from types import TracebackType

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Turns the first SIGINT or SIGTERM into `wait` returning, and the second into an exit.

    As a context manager it holds the loop's signal handlers.
    """

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> Stop:
        for number in SIGNALS:
            self._loop.add_signal_handler(number, self._signalled, number)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        for number in SIGNALS:
            self._loop.remove_signal_handler(number)

    def request(self, reason: str) -> None:
        """End the server, as a first signal does."""
        if not self._event.is_set():
            log.info("stopping: %s", reason)
            self._event.set()

    async def wait(self) -> None:
        """Wait for the first signal or request; there is no deadline, a server runs until then."""
        await self._event.wait()

    def _signalled(self, number: int) -> None:
        if self._event.is_set():
            # Somebody insists. What a clean exit would have done is done by the next start.
            os._exit(128 + number)
        self.request(signal.Signals(number).name)


#: Seconds that a server stays at least for the client that it was started for.
FIRST_CLIENT = 1.0


class Linger:
    """Lets a server that was started on demand leave after its last client has.

    :param seconds: how long it stays without a client.
    :param needed: reasons to stay although no client is connected; asked again after the same time.
    :param leave: called when it may leave; it must cope with a client that comes at this moment.
    """

    def __init__(
        self, seconds: float, *, needed: Callable[[], list[str]], leave: Callable[[], None]
    ) -> None:
        self._seconds = seconds
        self._needed = needed
        self._leave = leave
        self._timer: asyncio.TimerHandle | None = None
        self._visited = False

    def clients(self, number: int) -> None:
        """Note how many clients are connected."""
        self.cancel()
        self._visited = self._visited or number > 0
        if number == 0:
            seconds = self._seconds if self._visited else max(self._seconds, FIRST_CLIENT)
            self._timer = asyncio.get_running_loop().call_later(seconds, self._expired)

    def cancel(self) -> None:
        """Stay."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expired(self) -> None:
        self._timer = None
        reasons = self._needed()
        if reasons:
            log.debug("staying without clients: %s", "; ".join(reasons))
            self.clients(0)
        else:
            self._leave()
