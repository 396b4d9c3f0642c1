"""One running call: what its `Context` reaches, and the permit it shares with its nested calls."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from ..errors import CallCancelled, McpdError
from ..executor import Admission, Permit
from ..spec import Call, CallResult, Progress, ToolSpec
from .shaping import one_line

if TYPE_CHECKING:
    from .host import Host

#: In which library the code of a call runs.
Library = Literal["asyncio", "trio", "thread"]

_log = logging.getLogger("mcpd.tool")


class Share:
    """The permit of a top-level call, shared with the calls nested in it.

    It is given back for as long as each of the calls that nobody below them works for is in
    `waiting`, and for good when the top-level call has ended.
    """

    def __init__(self, admission: Admission, permit: Permit) -> None:
        self._admission = admission
        self._permit = permit
        self._working = 0
        self._waiting = 0
        self._closed = False

    @property
    def held(self) -> bool:
        """Whether the permit is in use, so that a nested call may run under it."""
        return self._permit.held

    @contextmanager
    def works(self, parent: Scope | None) -> Iterator[None]:
        """Count a call as working; its parent does not count while it waits for it.

        :param parent: the call that this one is nested in, if it runs under the same permit.
        """
        self._working += 1
        if parent is not None:
            parent.nested += 1
            self._working -= parent.nested == 1
        try:
            yield
        finally:
            if parent is not None:
                parent.nested -= 1
                self._working += parent.nested == 0
            self._working -= 1
            self._settle()

    @asynccontextmanager
    async def waiting(self) -> AsyncIterator[None]:
        self._waiting += 1
        self._settle()
        try:
            yield
        finally:
            self._waiting -= 1
            self._settle()

    def close(self) -> None:
        """Give the permit back for good: what a tool has left running may still call `waiting`."""
        self._closed = True
        self._admission.release(self._permit)

    def _settle(self) -> None:
        if self._closed:
            return
        if self._working > self._waiting:
            if not self._permit.held:
                self._admission.take(self._permit)
        elif self._waiting:
            self._admission.release(self._permit)


class Scope:
    """What stands behind the `Context` of one call; see `mcpd_core.context.CallScope`."""

    def __init__(self, host: Host, call: Call, library: Library, share: Share) -> None:
        self.call = call
        self.library = library
        self.share = share
        self._host = host
        #: How many calls of the same permit are nested in this one at the moment.
        self.nested = 0
        self._cancelled = threading.Event()
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Tell a ``def`` tool to stop, and cancel the calls it waits for."""
        self._cancelled.set()
        for task in list(self._tasks):
            task.cancel()

    def check_cancelled(self) -> None:
        if self.cancelled:
            raise CallCancelled(f"The call of {self.call.spec.name!r} was cancelled.")

    def report(self, progress: Progress) -> None:
        if self.call.on_progress is not None:
            self._host.lanes.on_loop(self.call.on_progress, progress)

    def log(self, level: str, message: str) -> None:
        message = one_line(message)
        number = logging.getLevelName(level.upper())
        _log.log(
            number if isinstance(number, int) else logging.INFO,
            "%s [%s] %s",
            self.call.spec.name,
            self.call.id,
            message,
        )
        if self.call.on_log is not None:
            self._host.lanes.on_loop(self.call.on_log, level, message)

    async def call_tool(self, tool: str, arguments: Mapping[str, Any]) -> CallResult:
        self._refuse_in_thread("call")
        return await self._host.call_nested(self, tool, arguments)

    async def check(self, tool: str, arguments: Mapping[str, Any]) -> ToolSpec:
        self._refuse_in_thread("check")
        return await self._host.lanes.from_library(
            self.library,
            partial(self._host.check, tool, arguments, principal=self.call.principal),
        )

    async def service(self, name: str) -> Any:
        self._refuse_in_thread("service")
        return await self._host.service(name, self.library)

    def waiting(self) -> Any:
        return self.share.waiting()

    def call_from_thread(self, tool: str, arguments: Mapping[str, Any]) -> CallResult:
        if self.library != "thread":
            raise McpdError(
                "call_from_thread is for `def` tools, which run in worker threads.",
                hint="Write `await ctx.call(...)`.",
            )
        self.check_cancelled()
        call = partial(self._host.call_nested, self, tool, arguments)
        # No deadline: the nested call has that of this one.
        outcome = self._host.lanes.submit(call, self._own).result()
        if outcome.cancelled:
            raise CallCancelled(f"The call of {self.call.spec.name!r} was cancelled.")
        result: CallResult = outcome.unwrap()
        return result

    def _own(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self.cancelled:
            task.cancel()

    def _refuse_in_thread(self, method: str) -> None:
        if self.library == "thread":
            raise McpdError(
                f"Context.{method} is awaited, and a `def` tool runs in a thread without a loop.",
                hint="Use ctx.call_from_thread, or write the tool as `async def`.",
            )
