"""`Context`: what a running tool may ask of the host."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal, Protocol

from .spec import Answer, Call, CallResult, Principal, Progress, ToolCall, ToolSpec


class CallScope(Protocol):
    """What the host provides behind a `Context`; not for use by tools."""

    @property
    def call(self) -> Call: ...

    @property
    def callers(self) -> tuple[str, ...]: ...

    @property
    def max_result_bytes(self) -> int: ...

    @property
    def cancelled(self) -> bool: ...

    def check_cancelled(self) -> None: ...

    def report(self, progress: Progress) -> None: ...

    def log(self, level: str, message: str) -> None: ...

    async def call_tool(
        self, tool: str, arguments: Mapping[str, Any], *, relay: bool
    ) -> CallResult: ...

    async def call_many(
        self,
        calls: Sequence[ToolCall],
        *,
        limit: int | None,
        mode: Literal["collect", "first_error"],
        timeout: float | None,
        on_answer: Callable[[int, Answer], None] | None,
    ) -> list[Answer]: ...

    async def check(self, tool: str, arguments: Mapping[str, Any]) -> ToolSpec: ...

    def find_tool(self, name: str) -> ToolSpec | None: ...

    def tools(self) -> tuple[ToolSpec, ...]: ...

    async def readiness(self, tools: Sequence[str]) -> dict[str, str]: ...

    async def service(self, name: str) -> Any: ...

    def waiting(self) -> AbstractAsyncContextManager[None]: ...

    def call_from_thread(self, tool: str, arguments: Mapping[str, Any]) -> CallResult: ...

    def call_many_from_thread(
        self,
        calls: Sequence[ToolCall],
        *,
        limit: int | None,
        mode: Literal["collect", "first_error"],
        timeout: float | None,
        on_answer: Callable[[int, Answer], None] | None,
    ) -> list[Answer]: ...


class Context:
    """One call, as seen by the tool that runs it.

    A tool receives it through a parameter annotated ``Context``; the parameter is not part of the
    tool's schema. It is valid while the call runs, and no longer.

    Example::

        @tool(read_only=True)
        async def count(up_to: int, ctx: Context) -> int:
            \"\"\"Count, and report how far the counting is.\"\"\"
            for n in range(up_to):
                ctx.progress(n, up_to)
            return up_to
    """

    __slots__ = ("_scope",)

    def __init__(self, scope: CallScope) -> None:
        self._scope = scope

    @property
    def call_id(self) -> str:
        """The id of this call; it appears in the log."""
        return self._scope.call.id

    @property
    def tool(self) -> str:
        """The name of the tool that runs."""
        return self._scope.call.spec.name

    @property
    def principal(self) -> Principal:
        """On whose behalf the tool runs."""
        return self._scope.call.principal

    @property
    def client(self) -> str:
        """The connection, or the deferred work, that the call came from."""
        return self._scope.call.client

    @property
    def callers(self) -> tuple[str, ...]:
        """The tools from within which this call was made, the outermost first."""
        return self._scope.callers

    @property
    def max_result_bytes(self) -> int:
        """How large the answer may be: bytes of its text, or of its structured data as JSON."""
        return self._scope.max_result_bytes

    @property
    def deadline(self) -> float | None:
        """The `time.monotonic` time at which the call is cancelled; ``None`` when there is none."""
        return self._scope.call.deadline

    def remaining(self) -> float | None:
        """Seconds left until the deadline, at least 0; ``None`` when there is no deadline."""
        deadline = self.deadline
        return None if deadline is None else max(0.0, deadline - time.monotonic())

    def progress(self, done: float, total: float | None = None, message: str = "") -> None:
        """Tell the caller how far the work is. Never blocks; may be called from any thread.

        :param done: how far, in any unit; it should only ever grow.
        :param total: what ``done`` will be at the end, when that is known.
        """
        self._scope.report(Progress(done, total, message))

    def log(self, level: str, message: str) -> None:
        """Write one line to the server's log and, where the client asked for it, to the client.

        Never blocks; may be called from any thread.

        :param level: ``debug``, ``info``, ``warning`` or ``error``.
        """
        self._scope.log(level, message)

    async def call(
        self, tool: str, arguments: Mapping[str, Any] | None = None, *, relay: bool = False
    ) -> CallResult:
        """Call another tool with this call's principal, permit and deadline.

        It is validated, authorised and observed like any call. A tool of the same runtime is
        awaited directly; a tool of another runtime is bridged.

        :param relay: whether what the other tool tells of its progress and logs reaches the client
            as if this one had; for a tool that does nothing but call another.
        :returns: the answer; look at `CallResult.is_error`.
        :raises CallRefused: when the tool did not start.
        """
        return await self._scope.call_tool(tool, arguments or {}, relay=relay)

    async def call_many(
        self,
        calls: Sequence[ToolCall],
        *,
        limit: int | None = None,
        mode: Literal["collect", "first_error"] = "collect",
        timeout: float | None = None,
        on_answer: Callable[[int, Answer], None] | None = None,
    ) -> list[Answer]:
        """Call several tools at once, with this call's principal and deadline.

        Each is admitted with a permit of its own, and this call gives its permit back meanwhile, so
        a client has no more calls running than without a batch. However it ends, by a failure of
        one call or because this one is cancelled, nothing of it runs on.

        Example::

            answers = await ctx.call_many([ToolCall("fetch", {"url": url}) for url in urls])
            texts = [a.text for a in answers if isinstance(a, CallResult) and not a.is_error]

        :param limit: how many may run at once, at least 1; ``None``, or more than may run for one
            client, means as many as may.
        :param mode: ``collect`` makes every call whatever becomes of the others; ``first_error``
            cancels what runs when one fails, waits for its clean-up, and starts nothing more.
        :param timeout: seconds for all of them; each has its own as well.
        :param on_answer: called on the host's thread with the index and the answer of each call
            that ended by itself, as they come; it must not block. What it raises ends the batch,
            and is raised.
        :returns: an answer for each call, in their order: a `CallResult`; a `CallRefused` when the
            tool did not start, a `NotStarted` when that is because the batch ended before its turn;
            or a `CallCancelled` when it was cancelled while it ran.
        """
        return await self._scope.call_many(
            calls, limit=limit, mode=mode, timeout=timeout, on_answer=on_answer
        )

    async def check(self, tool: str, arguments: Mapping[str, Any] | None = None) -> ToolSpec:
        """Refuse now what `call` would refuse, without running the tool.

        Useful before work is deferred. The tool's module is imported, since only its code can say
        whether the arguments fit.

        :returns: the contract of the tool.
        :raises CallRefused: as `call` would.
        """
        return await self._scope.check(tool, arguments or {})

    def find_tool(self, name: str) -> ToolSpec | None:
        """Return the contract of the tool of that name or alias, if the principal may call it.

        ``None`` when there is none. Costs next to nothing, and imports nothing.
        """
        return self._scope.find_tool(name)

    def tools(self) -> tuple[ToolSpec, ...]:
        """Return the contracts of all tools that the principal may call, sorted by name.

        Those that are not listed are among them; see `ToolSpec.listed`.
        """
        return self._scope.tools()

    async def readiness(self, tools: Sequence[str]) -> dict[str, str]:
        """Ask why tools cannot run here, such as for want of a library.

        Plugins that know are asked, which can take seconds the first time; what they answer is kept
        for a minute. Nothing is imported for it.

        :param tools: names of tools.
        :returns: by name, what a tool lacks and what to do about it. Those that are not in it are
            ready, as far as anybody knows.
        """
        return await self._scope.readiness(tools)

    async def service(self, name: str) -> Any:
        """Return a service, started if need be.

        :returns: the object itself when it lives in this tool's runtime, else a proxy each of
            whose methods is awaited.
        :raises ServiceUnavailable: when no enabled plugin offers it, or it could not be started.
        """
        return await self._scope.service(name)

    def waiting(self) -> AbstractAsyncContextManager[None]:
        """Give the call's permit back for as long as the tool only waits.

        Use it around a wait for other work, so that those who wait cannot keep the work itself from
        running::

            async with ctx.waiting():
                await finished.wait()
        """
        return self._scope.waiting()

    def call_from_thread(self, tool: str, arguments: Mapping[str, Any] | None = None) -> CallResult:
        """Do what `call` does, from a ``def`` tool that runs in a worker thread.

        :raises CallRefused: when the tool did not start.
        """
        return self._scope.call_from_thread(tool, arguments or {})

    def call_many_from_thread(
        self,
        calls: Sequence[ToolCall],
        *,
        limit: int | None = None,
        mode: Literal["collect", "first_error"] = "collect",
        timeout: float | None = None,
        on_answer: Callable[[int, Answer], None] | None = None,
    ) -> list[Answer]:
        """Do what `call_many` does, from a ``def`` tool that runs in a worker thread."""
        return self._scope.call_many_from_thread(
            calls, limit=limit, mode=mode, timeout=timeout, on_answer=on_answer
        )

    @property
    def cancelled(self) -> bool:
        """Whether the call was cancelled or is past its deadline; for ``def`` tools, which nothing
        can interrupt."""
        return self._scope.cancelled

    def check_cancelled(self) -> None:
        """End a ``def`` tool whose call was cancelled, by raising.

        :raises CallCancelled: when `cancelled` is true; let it pass through.
        """
        self._scope.check_cancelled()
