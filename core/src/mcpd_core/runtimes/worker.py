"""One worker process, as the host sees it; the other side is `mcpd_core.child`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

from ..child import BOOT
from .base import Expired, supervise

#: Seconds after a process has ended in which what it said before may still arrive.
_LAST_WORDS = 1.0

#: Told of each ``progress`` and ``log`` message.
Told = Callable[[Mapping[str, Any]], None]


class Died(Exception):
    """Raised when a process ended before it answered.

    :param status: its exit status; negative for a signal, as in `subprocess`.
    :param problem: why it was killed, when it was the host that did.
    """

    def __init__(self, status: int, problem: str = "") -> None:
        super().__init__(problem or ending(status))
        self.status = status
        self.problem = problem


def ending(status: int) -> str:
    """Say in words how a process ended."""
    if status >= 0:
        return f"it ended with exit status {status}"
    try:
        return f"it was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"it was ended by signal {-status}"


class Worker(asyncio.Protocol):
    """A process that runs one call at a time. Made and used on the host's loop.

    :param config: what `mcpd_core.child.main` takes, apart from what is about this connection.
    :param grace: seconds between SIGTERM and SIGKILL.
    :param longest: bytes of the longest message that is taken from it.
    :ivar pid: its process id.
    :ivar served: how many calls it has run.
    :ivar usable: whether another call may be given to it.
    :ivar gone: done when the process has ended.
    """

    def __init__(self, config: Mapping[str, Any], *, grace: float, longest: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._grace = grace
        self._longest = longest
        self._buffer = bytearray()
        self._transport: asyncio.WriteTransport | None = None
        self._lost = False
        self._status: int | None = None
        self._problem = ""
        self._killing = False
        self._timers: list[asyncio.TimerHandle] = []
        self._answer: dict[str, Any] | None = None
        self._done: asyncio.Future[None] | None = None
        self._told: Told | None = None
        self.served = 0
        self.usable = True
        self.gone: asyncio.Future[None] = self._loop.create_future()
        self._ours, theirs = socket.socketpair()
        with theirs:
            self._process = self._spawn(dict(config), theirs)
        self.pid = self._process.pid
        threading.Thread(target=self._wait, name=f"mcpd-reaper-{self.pid}", daemon=True).start()

    def _spawn(self, config: dict[str, Any], theirs: socket.socket) -> subprocess.Popen[bytes]:
        config.update(
            descriptor=theirs.fileno(),
            parent=os.getpid(),
            path=[os.path.abspath(entry) for entry in sys.path],
        )
        try:
            # On the loop's thread, and not in a helper: Linux counts the end of the thread that
            # started a process as the end of its parent. In a session of its own, so that an
            # interrupt typed at the terminal is the host's to deal with.
            return subprocess.Popen(
                [sys.executable, "-c", BOOT, json.dumps(config)],
                stdin=subprocess.DEVNULL,
                # What a tool prints goes to the log: standard output may be somebody's wire.
                stdout=_log_descriptor(),
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        except BaseException:
            self._ours.close()
            raise

    async def connect(self) -> None:
        """Open our end of the connection; awaited once, before anything is asked."""
        self._ours.setblocking(False)
        await self._loop.create_unix_connection(lambda: self, sock=self._ours)

    # --- asking -----------------------------------------------------------------------------------

    async def ask(
        self,
        request: Mapping[str, Any],
        *,
        deadline: float | None,
        name: str,
        told: Told | None = None,
        grace: Callable[[], float] | None = None,
    ) -> dict[str, Any]:
        """Send a request and wait for its answer.

        At the deadline, and when the waiting task is cancelled, the process is killed, and waited
        for until it is gone.

        :param deadline: `time.monotonic` time.
        :param name: what is waited for, for the log.
        :param told: told of what the tool reports meanwhile.
        :param grace: returns the seconds between SIGTERM and SIGKILL, if they are not as usual.
        :raises Expired: when the deadline passed.
        :raises Died: when the process ended before it answered.
        """
        if self.gone.done() or self._transport is None:
            raise Died(self.status, self._problem)
        self._answer = None
        self._told = told
        self._done = self._loop.create_future()
        self._transport.write(json.dumps(request).encode() + b"\n")
        try:
            stop = partial(self.kill, grace)
            expired = await supervise(self._done, stop, deadline=deadline, name=name)
        finally:
            self._told = None
            if self._answer is None:
                self.usable = False
        if expired:
            raise Expired
        answer: dict[str, Any] | None = self._answer
        if answer is None:
            raise Died(self.status, self._problem)
        return answer

    @property
    def status(self) -> int:
        """The exit status; 0 for as long as there is none."""
        return self._status or 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\n")) >= 0:
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            self._receive(line)
        if len(self._buffer) > self._longest:
            self._give_up("it sent more than can be an answer")

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self.usable = False
        if self._status is not None:
            self._conclude()

    def _receive(self, line: bytes) -> None:
        if self._killing:
            return
        # What comes from there is as trustworthy as the tool.
        try:
            message = json.loads(line) if len(line) <= self._longest else None
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            self._give_up("it sent what is no answer")
        elif message.get("kind") in ("progress", "log"):
            if self._told is not None:
                self._told(message)
        elif self._done is not None and not self._done.done():
            self._answer = message
            self._done.set_result(None)

    def _give_up(self, problem: str) -> None:
        self._problem = problem
        self._signal_all(signal.SIGKILL)
        self._killing = True

    # --- ending -----------------------------------------------------------------------------------

    def kill(self, grace: Callable[[], float] | None = None) -> None:
        """End the process: SIGTERM now, SIGKILL after the grace."""
        self.usable = False
        if self._status is None and not self._killing:
            self._killing = True
            self._process.send_signal(signal.SIGTERM)
            self._later(self._grace if grace is None else grace())

    def retire(self) -> None:
        """Let an idle process end."""
        self.usable = False
        self.cancel_timers()
        if self._transport is not None:
            self._transport.close()
        if self._status is None:
            self._later(self._grace)

    def later(self, seconds: float, function: Callable[[], None]) -> None:
        """Call a function after some time, unless `cancel_timers` or the end comes first."""
        self._timers.append(self._loop.call_later(seconds, function))

    def cancel_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def _later(self, seconds: float) -> None:
        self.later(seconds, lambda: self._signal_all(signal.SIGKILL))

    def _signal_all(self, number: signal.Signals) -> None:
        """Signal the process and those that it has started in its session."""
        if self._status is None:
            _signal_group(self.pid, number)

    def _wait(self) -> None:
        """Wait for the end of the process, in a thread of its own."""
        if hasattr(os, "waitid"):
            # Until it is reaped, its id cannot come to belong to anybody else.
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
            _signal_group(self.pid, signal.SIGKILL)
        status = self._process.wait()
        try:
            self._loop.call_soon_threadsafe(self._on_exit, status)
        except RuntimeError:
            # The loop was closed before; nobody waits any more.
            return

    def _on_exit(self, status: int) -> None:
        self._status = status
        self.usable = False
        self.cancel_timers()
        if self._lost or self._transport is None:
            self._conclude()
        else:
            # A process that has escaped from the session may hold the connection open.
            self.later(_LAST_WORDS, self._conclude)

    def _conclude(self) -> None:
        self.cancel_timers()
        if self._transport is not None:
            self._transport.abort()
        if self._done is not None and not self._done.done():
            self._done.set_result(None)
        if not self.gone.done():
            self.gone.set_result(None)


def _signal_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        # Gone, or not in its session yet; macOS has another error for a group of the dead.
        return


def _log_descriptor() -> int:
    """Return the descriptor of this process's log."""
    try:
        os.fstat(2)
    except OSError:
        return subprocess.DEVNULL
    return 2
