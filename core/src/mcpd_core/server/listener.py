"""Accepts clients on the Unix socket and runs one session for each."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
import sys
from collections.abc import Awaitable, Callable
from itertools import count

from ..spec import Principal
from .session import Session
from .streams import LineChannel

log = logging.getLogger(__name__)

#: Seconds for which accepting rests after the process ran out of descriptors.
_REST = 1.0


class Listener:
    """The sessions of one listening socket.

    The accept loop is ours, and not asyncio's server object, because a daemon that is about to
    leave must look into the accept queue once more (`backlog`).

    :param serve: serves one client until it leaves.
    :param changed: called with the number of connected clients whenever it changes.
    """

    def __init__(
        self,
        serve: Callable[[LineChannel, Session], Awaitable[None]],
        changed: Callable[[int], None],
    ) -> None:
        self._serve = serve
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._listening: socket.socket | None = None
        self._resting: asyncio.TimerHandle | None = None
        self._numbers = count(1)
        self._sessions: dict[asyncio.Task[None], LineChannel | None] = {}

    def listen(self, sock: socket.socket) -> None:
        """Accept clients from now on.

        :param sock: listening and non-blocking; this object closes it.
        """
        self._listening = sock
        self._loop.add_reader(sock.fileno(), self.backlog)

    def backlog(self) -> int:
        """Take whoever waits in the accept queue.

        :returns: how many clients were taken.
        """
        taken = 0
        while self._listening is not None:
            try:
                sock, _ = self._listening.accept()
            except (BlockingIOError, InterruptedError):
                break
            except ConnectionAbortedError:
                continue
            except OSError as exc:
                # Out of descriptors or memory: the client stays in the queue, and asking again at
                # once would spin.
                log.error("cannot accept a client: %s", exc)
                self._rest()
                break
            taken += self._take(sock)
        return taken

    def stop(self) -> None:
        """Accept nobody any more; whoever is connected stays."""
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None
        if self._listening is not None:
            self._loop.remove_reader(self._listening.fileno())
            self._listening.close()
            self._listening = None

    async def close(self, timeout: float) -> None:
        """Stop, end every session and wait for it.

        :param timeout: seconds after which sessions are cancelled; a client that does not read its
            last answers costs no more than this.
        """
        self.stop()
        for channel in self._sessions.values():
            if channel is not None:
                channel.end()
        if not self._sessions:
            return
        _, late = await asyncio.wait(set(self._sessions), timeout=timeout)
        for task in late:
            channel = self._sessions[task]
            if channel is not None:
                channel.abort()
            task.cancel()
        if late:
            # No deadline: a session that is cancelled has only bounded waits left.
            await asyncio.wait(late)

    def _take(self, sock: socket.socket) -> int:
        uid = peer_uid(sock)
        if uid not in (os.geteuid(), 0):
            log.warning("refused a connection of user %d", uid)
            sock.close()
            return 0
        sock.setblocking(False)
        session = Session(Principal("local", str(uid)), f"socket:{next(self._numbers)}")
        task = self._loop.create_task(self._run(sock, session), name=session.client)
        self._sessions[task] = None
        task.add_done_callback(self._gone)
        self._changed(len(self._sessions))
        return 1

    async def _run(self, sock: socket.socket, session: Session) -> None:
        channel = LineChannel()
        task = asyncio.current_task()
        assert task is not None
        await self._loop.connect_accepted_socket(lambda: channel, sock)
        self._sessions[task] = channel
        log.debug("%s connected as %s", session.client, session.principal)
        try:
            await self._serve(channel, session)
        finally:
            await channel.close()

    def _gone(self, task: asyncio.Task[None]) -> None:
        del self._sessions[task]
        if not task.cancelled() and (failure := task.exception()) is not None:
            # The boundary of a session: its failure must not disturb the others.
            log.error("%s ended by a failure", task.get_name(), exc_info=failure)
        else:
            log.debug("%s disconnected", task.get_name())
        self._changed(len(self._sessions))

    def _rest(self) -> None:
        assert self._listening is not None
        self._loop.remove_reader(self._listening.fileno())
        self._resting = self._loop.call_later(_REST, self._wake)

    def _wake(self) -> None:
        self._resting = None
        if self._listening is not None:
            self._loop.add_reader(self._listening.fileno(), self.backlog)


def peer_uid(sock: socket.socket) -> int:
    """Ask the kernel which user is at the other end of a Unix socket.

    Where there is no portable way to ask, the answer is our own user: the socket's mode (0600) and
    that of its directory (0700) have let nobody else through.
    """
    if sys.platform == "linux":
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        uid: int = struct.unpack("3i", credentials)[1]
    else:
        uid = os.geteuid()
    return uid
