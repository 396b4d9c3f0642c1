"""What the server keeps for one TCP connection, over all requests that come on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

from mcp.server.runner import ServerRunner

from ...spec import Principal
from ..session import Session
from .peers import Door

_numbers = count(1)


class HttpConnection:
    """One client's connection.

    :param sock: our end.
    :param door: decides who is at the other one.
    :param abandon: closes it at once, whatever it was in the middle of.
    :ivar number: unique in this process.
    :ivar lost: whether the client has closed it.
    :ivar described: how the client described itself the last time, and the runner of its requests
        (the era of 2026-07-28).
    """

    def __init__(self, sock: Any, door: Door, abandon: Callable[[], None]) -> None:
        self._sock = sock
        self._door = door
        self._principal: Principal | None = None
        self._asked = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._session: Session | None = None
        self.number = next(_numbers)
        self.abandon = abandon
        self.lost = False
        self.described: tuple[Any, ServerRunner[Any]] | None = None

    @property
    def principal(self) -> Principal | None:
        """Who is at the other end; ``None`` for somebody who is to be refused."""
        if not self._asked:
            self._asked = True
            self._principal = self._door.principal(self._sock)
        return self._principal

    @property
    def session(self) -> Session:
        """What handlers are told about the client, in the era that knows no sessions."""
        if self._session is None:
            assert self.principal is not None
            self._session = Session(self.principal, f"http:{self.number}")
        return self._session

    @contextmanager
    def cancelling(self) -> Iterator[None]:
        """Cancel the current task when the client goes while the block runs."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            yield
        finally:
            self._tasks.discard(task)

    def close(self) -> None:
        """Note that the client has gone."""
        self.lost = True
        for task in self._tasks:
            task.cancel()
