"""One running call: what its `Context` reaches, and the permit it shares with its nested calls."""

from __future__ import annotations

import concurrent.futures
import logging
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from ..errors import CallCancelled, McpdError
from ..executor import Admission, Permit
from ..spec import Call, CallResult, Progress, ToolSpec

if TYPE_CHECKING:
    from .host import Host

#: In which library the code of a call runs.
Library = Literal["asyncio", "trio", "thread"]

_log = logging.getLogger("mcpd.tool")


class Share:
    """The permit of a top-level call, shared with the calls nested in it."""

    def __init__(self, admission: Admission, permit: Permit) -> None:
        self.admission = admission
        self.permit = permit
        self._waiting = 0

    @property
    def held(self) -> bool:
        """Whether the permit is in use, so that a nested call may run under it."""
        return self.permit.held

    @asynccontextmanager
    async def waiting(self) -> AsyncIterator[None]:
        self._waiting += 1
        self.admission.release(self.permit)
        try:
            yield
        finally:
            self._waiting -= 1
            if not self._waiting:
                self.admission.take(self.permit)


class Scope:
    """What stands behind the `Context` of one call; see `mcpd_core.context.CallScope`."""

    def __init__(self, host: Host, call: Call, library: Library, share: Share) -> None:
        self.call = call
        self.library = library
        self.share = share
        self._host = host
        self._cancelled = threading.Event()
        self._nested: set[concurrent.futures.Future[CallResult]] = set()

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Tell a ``def`` tool to stop, and cancel the calls it waits for."""
        self._cancelled.set()
        for future in list(self._nested):
            future.cancel()

    def check_cancelled(self) -> None:
        if self.cancelled:
            raise CallCancelled(f"The call of {self.call.spec.name!r} was cancelled.")

    def report(self, progress: Progress) -> None:
        if self.call.on_progress is not None:
            self._host.lanes.on_loop(self.call.on_progress, progress)

    def log(self, level: str, message: str) -> None:
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
        future = self._host.lanes.submit(partial(self._host.call_nested, self, tool, arguments))
        self._nested.add(future)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise CallCancelled(f"The call of {self.call.spec.name!r} was cancelled.") from None
        finally:
            self._nested.discard(future)

    def _refuse_in_thread(self, method: str) -> None:
        if self.library == "thread":
            raise McpdError(
                f"Context.{method} is awaited, and a `def` tool runs in a thread without a loop.",
                hint="Use ctx.call_from_thread, or write the tool as `async def`.",
            )
