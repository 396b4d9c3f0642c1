"""One running call: what its `Context` reaches."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import CallCancelled, McpdError
from ..spec import Answer, Call, CallResult, Progress, ToolCall, ToolSpec
from .lane import Lane
from .many import call_many_within
from .policy import may_call
from .shaping import one_line
from .share import Share

if TYPE_CHECKING:
    from .calling import CallPath

T = TypeVar("T")

_log = logging.getLogger("mcpd.tool")


class Scope:
    """What stands behind the `Context` of one call; see `mcpd_core.context.CallScope`.

    :ivar lane: where the call's code runs; ``None`` for a ``def`` in a worker thread, which has no
        loop.
    """

    def __init__(self, host: CallPath, call: Call, lane: Lane | None, share: Share) -> None:
        self.call = call
        self.lane = lane
        self.share = share
        self._host = host
        self._cancelled = False
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def callers(self) -> tuple[str, ...]:
        names: list[str] = []
        call = self.call.parent
        while call is not None:
            names.append(call.spec.name)
            call = call.parent
        return tuple(reversed(names))

    @property
    def max_result_bytes(self) -> int:
        return self._host.largest_answer(self.call)

    @property
    def cancelled(self) -> bool:
        return self._cancelled

    def cancel(self) -> None:
        """Tell a ``def`` tool to stop, and cancel the calls it waits for."""
        self._cancelled = True
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

    async def call_tool(
        self, tool: str, arguments: Mapping[str, Any], *, relay: bool = False
    ) -> CallResult:
        call = partial(self._host.call_nested, self, tool, arguments, relay=relay)
        return await self._host.lanes.in_host(self._awaited("call"), call)

    async def call_many(self, calls: Sequence[ToolCall], **options: Any) -> list[Answer]:
        many = partial(call_many_within, self._host, self, calls, **options)
        return await self._host.lanes.in_host(self._awaited("call_many"), many)

    async def check(self, tool: str, arguments: Mapping[str, Any]) -> ToolSpec:
        check = partial(self._host.check, tool, arguments, principal=self.call.principal)
        return await self._awaited("check").run_in_host(check)

    def find_tool(self, name: str) -> ToolSpec | None:
        spec = self._host.catalog.get(name)
        return spec if spec is not None and self._may_call(spec) else None

    def tools(self) -> tuple[ToolSpec, ...]:
        return tuple(filter(self._may_call, self._host.catalog.specs))

    def _may_call(self, spec: ToolSpec) -> bool:
        return may_call(self.call.principal, spec, self._host.settings.http)

    async def readiness(self, tools: Sequence[str]) -> dict[str, str]:
        specs = [spec for name in tools if (spec := self.find_tool(name)) is not None]
        lane = self._awaited("readiness")
        return await self._host.lanes.in_host(lane, partial(self._host.readiness, specs))

    async def service(self, name: str) -> Any:
        lane = self._awaited("service")
        service = partial(self._host.service, name, lane, user=self.call.spec)
        return await self._host.lanes.in_host(lane, service)

    @asynccontextmanager
    async def waiting(self) -> AsyncIterator[None]:
        on_loop = self._host.lanes.on_loop
        on_loop(self.share.wait)
        try:
            yield
        finally:
            on_loop(self.share.resume)

    def call_from_thread(self, tool: str, arguments: Mapping[str, Any]) -> CallResult:
        return self._from_thread("call", partial(self._host.call_nested, self, tool, arguments))

    def call_many_from_thread(self, calls: Sequence[ToolCall], **options: Any) -> list[Answer]:
        many = partial(call_many_within, self._host, self, calls, **options)
        return self._from_thread("call_many", many)

    def _from_thread(self, method: str, function: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Wait in a worker thread for what runs on the host's loop."""
        if self.lane is not None:
            raise McpdError(
                f"{method}_from_thread is for `def` tools, which run in worker threads.",
                hint=f"Write `await ctx.{method}(...)`.",
            )
        self.check_cancelled()
        # No deadline: the nested call has that of this one.
        outcome = self._host.lanes.submit(function, self._own).result()
        if outcome.cancelled:
            raise CallCancelled(f"The call of {self.call.spec.name!r} was cancelled.")
        result: T = outcome.unwrap()
        return result

    def _own(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self.cancelled:
            task.cancel()

    def _awaited(self, method: str) -> Lane:
        """Return the lane, in which a method of the context is awaited."""
        if self.lane is None:
            raise McpdError(
                f"Context.{method} is awaited, and a `def` tool runs in a thread without a loop.",
                hint="Use ctx.call_from_thread, or write the tool as `async def`.",
            )
        return self.lane
