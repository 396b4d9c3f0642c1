"""What a tool in a process of its own reaches through its `Context`, and how it is stopped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NoReturn, Protocol

from .errors import CallCancelled, McpdError
from .spec import Call, CallResult, Progress, ToolSpec


class Sender(Protocol):
    """Sends messages to the host."""

    def send(self, message: Mapping[str, Any]) -> None:
        """Send one message; any thread may."""
        ...


class Stopped(BaseException):
    """Interrupts a ``def`` tool; no `Exception`, so that a tool does not swallow it by accident."""


def _interrupt() -> NoReturn:
    raise Stopped


class ChildScope:
    """What stands behind the `Context` of a call in this process."""

    def __init__(self, child: Sender, call: Call, deadline: float | None) -> None:
        self.call = replace(call, deadline=deadline)
        self.cancelled = False
        self._child = child
        self._stop: Callable[[], Any] = _interrupt

    def on_cancel(self, stop: Callable[[], Any]) -> None:
        """Say how the tool is stopped, unless by an exception out of nowhere."""
        self._stop = stop
        if self.cancelled:
            stop()

    def cancel(self) -> None:
        """Stop the tool; called by the handler of a signal, once."""
        if not self.cancelled:
            self.cancelled = True
            self._stop()

    def check_cancelled(self) -> None:
        if self.cancelled:
            raise CallCancelled(f"The call of {self.call.spec.name!r} was cancelled.")

    def report(self, progress: Progress) -> None:
        done, total = float(progress.done), progress.total
        self._child.send(
            {
                "kind": "progress",
                "done": done,
                "total": None if total is None else float(total),
                "message": str(progress.message),
            }
        )

    def log(self, level: str, message: str) -> None:
        self._child.send({"kind": "log", "level": str(level), "message": str(message)})

    async def call_tool(
        self, tool: str, arguments: Mapping[str, Any], *, relay: bool = False
    ) -> CallResult:
        raise self._apart("call other tools")

    async def call_many(self, calls: Any, **options: Any) -> Any:
        raise self._apart("call other tools")

    @property
    def callers(self) -> tuple[str, ...]:
        raise self._apart("see which tools called it")

    @property
    def max_result_bytes(self) -> int:
        raise self._apart("see how large an answer may be")

    async def check(self, tool: str, arguments: Mapping[str, Any]) -> ToolSpec:
        raise self._apart("ask about other tools")

    def find_tool(self, name: str) -> ToolSpec | None:
        raise self._apart("ask about other tools")

    def tools(self) -> tuple[ToolSpec, ...]:
        raise self._apart("ask about other tools")

    async def readiness(self, tools: Any) -> dict[str, str]:
        raise self._apart("ask about other tools")

    async def service(self, name: str) -> Any:
        raise self._apart("use services")

    def waiting(self) -> Any:
        raise self._apart("give its permit back")

    def call_many_from_thread(self, calls: Any, **options: Any) -> Any:
        raise self._apart("call other tools")

    def call_from_thread(self, tool: str, arguments: Mapping[str, Any]) -> CallResult:
        raise self._apart("call other tools")

    def _apart(self, what: str) -> McpdError:
        return McpdError(
            f"The tool {self.call.spec.name!r} runs in a process of its own and cannot {what}.",
            hint='Place it with "loop" or "thread", or let another tool call both.',
        )
