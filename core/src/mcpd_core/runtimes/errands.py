"""One call in a worker process: what the host asks of it, and what it makes of the answers."""

from __future__ import annotations

import json
import logging
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, TypeVar

from .. import errors
from ..child import MORE_CPU_TIME
from ..errors import (
    CallRefused,
    DeadlineExceeded,
    InvalidArguments,
    InvalidOutput,
    McpdError,
    ProcessDied,
    ToolCrashed,
    ToolError,
    ToolUnavailable,
)
from ..manifest import render_tool
from ..spec import Call, CallResult, Progress, ToolSpec
from ..text import clean
from .base import Expired
from .worker import Died, Worker

_log = logging.getLogger(__name__)

E = TypeVar("E", bound=McpdError)


class Errand:
    """One call in a worker process, from the check of its arguments to its answer."""

    def __init__(
        self,
        worker: Worker,
        spec: ToolSpec,
        call: Call,
        limits: tuple[int, int],
        max_result_bytes: int,
    ) -> None:
        self._worker = worker
        self._spec = spec
        self._call = call
        self._memory_mb, self._cpu_seconds = limits
        self._max_result_bytes = max_result_bytes
        #: Whether the code promises something else than the manifest.
        self.stale = False

    @property
    def pid(self) -> int:
        """The process."""
        return self._worker.pid

    async def prepare(self, runs_in: str, *, deadline: float | None) -> None:
        """See `ProcessRuntime.prepared`.

        :param deadline: `time.monotonic` time at which the process is killed.
        """
        try:
            await self._prepare(runs_in, deadline)
        except McpdError as error:
            raise self._with_loss(error) from error.__cause__

    async def _prepare(self, runs_in: str, deadline: float | None) -> None:
        arguments = dict(self._call.arguments)
        self._refuse_what_is_not_json(arguments)
        request = {
            "op": "prepare",
            "entry": self._spec.entry,
            "plugin": self._spec.plugin,
            "runtime": self._spec.runtime,
            "runs_in": runs_in,
            "contract": render_tool(self._spec, runtime="any"),
            "arguments": arguments,
            "call": self._facts(),
        }
        name = f"Loading the tool {self._spec.name}"
        try:
            answer = await self._worker.ask(request, deadline=deadline, name=name)
        except Expired:
            raise ToolUnavailable(
                f"The code of the tool {self._spec.name!r} has not been loaded in time.",
                hint="Try again with more time.",
            ) from None
        except Died as died:
            raise ToolUnavailable(
                f"The process of the tool {self._spec.name!r} died while its code was loaded: "
                f"{died}.",
                hint=self._why(died),
            ) from None
        if answer.get("last"):
            self._worker.usable = False
        if answer.get("kind") == "ready":
            self.stale = answer.get("stale") is True
            return
        raise _refusal(answer, self._spec)

    def _refuse_what_is_not_json(self, arguments: Mapping[str, Any]) -> None:
        for name, value in arguments.items():
            try:
                json.dumps(value)
            except (TypeError, ValueError, RecursionError) as error:
                raise InvalidArguments(
                    f"The argument {name!r} does not fit the tool {self._spec.name!r}, which runs "
                    f"in a process of its own: arguments have to be JSON data ({error}).",
                    hint="Correct it and call again.",
                ) from None

    def _facts(self) -> dict[str, Any]:
        call = self._call
        return {
            "id": call.id,
            "principal": asdict(call.principal),
            "client": call.client,
            "trace": dict(call.trace),
            "admission": call.admission,
        }

    async def run(
        self, *, report: Callable[[Progress], None], log: Callable[[str, str], None]
    ) -> CallResult:
        """Run the tool.

        :param report: told of its progress.
        :param log: told of level and text of its log lines.
        :raises Expired: when the deadline passed; the process is gone.
        :raises McpdError: when the tool failed, or its process died.
        """
        try:
            return await self._run(report, log)
        except Expired:
            if not self._spec.process:
                raise
            expired = DeadlineExceeded(
                f"The {self._spec.label} was cancelled at its deadline.",
                hint="Ask for less, allow more time, or defer it as a task.",
            )
            raise self._with_loss(expired) from None
        except McpdError as error:
            raise self._with_loss(error) from error.__cause__

    async def _run(
        self, report: Callable[[Progress], None], log: Callable[[str, str], None]
    ) -> CallResult:
        def told(message: Mapping[str, Any]) -> None:
            if message["kind"] == "log":
                log(str(message.get("level")), str(message.get("message")))
            elif (progress := _progress(message)) is not None:
                report(progress)

        deadline = self._call.deadline
        remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
        if remaining == 0.0 and self._spec.process:
            raise Expired  # before anything runs that would have to be killed
        self._worker.served += 1
        try:
            answer = await self._worker.ask(
                {"op": "run", "remaining": remaining, "cpu_seconds": self._cpu_seconds},
                deadline=deadline,
                name=f"The tool {self._spec.name}",
                told=told,
                grace=self._call.cancel_grace,
            )
        except Died as died:
            raise self._death(died) from None
        if answer.get("last"):
            self._worker.usable = False
        return self._result(answer)

    def _with_loss(self, error: E) -> E:
        """Say in an error that the state of a shared process has gone with it, if that is so."""
        if self._spec.process and not self._worker.usable:
            lost = (
                f"The process {self._spec.process!r} has ended, and what its tools kept there is "
                "lost; the next call starts it anew."
            )
            error.hint = f"{error.hint} {lost}".lstrip()
        return error

    def _result(self, answer: Mapping[str, Any]) -> CallResult:
        kind = answer.get("kind")
        if kind == "done":
            text, structured = answer.get("text"), answer.get("structured")
            error, content = answer.get("error"), answer.get("content", [])
            if (
                isinstance(text, str)
                and all(part is None or isinstance(part, dict) for part in (structured, error))
                and isinstance(content, list)
                and all(isinstance(block, dict) for block in content)
            ):
                return CallResult(text, structured, error, tuple(content))
        elif kind == "failed":
            raise _failure(answer)
        elif kind == "crashed":
            _log.error(
                "The tool %s of the plugin %s raised, in the call %s.\n%s",
                self._spec.name,
                self._spec.plugin,
                self._call.id,
                clean(str(answer.get("traceback"))),
            )
            raise ToolCrashed(
                f"The tool {self._spec.name!r} failed unexpectedly ({answer.get('type')}).",
                hint=f"The server's log has the details under {self._call.id}.",
            )
        self._worker.usable = False
        raise ProcessDied(
            f"The process of the tool {self._spec.name!r} sent what is no answer.",
            hint="This is a defect of the tool; report it to its plugin.",
        )

    def _death(self, died: Died) -> McpdError:
        if died.problem:
            return InvalidOutput(
                f"The process of the tool {self._spec.name!r} was killed: {died.problem} "
                f"(an answer may have {self._max_result_bytes} bytes).",
                hint="Ask for less, for example a page of it.",
                retryable=False,
            )
        if died.status == -signal.SIGXCPU:
            return errors.OutOfCpuTime(
                f"The process of the tool {self._spec.name!r} was killed: it used more than the "
                f"{self._cpu_seconds} s of CPU time that a call may use, and did not stop.",
                hint=MORE_CPU_TIME,
                retryable=False,
            )
        return ProcessDied(
            f"The process of the tool {self._spec.name!r} died before it answered: {died}.",
            hint=self._why(died),
        )

    def _why(self, died: Died) -> str:
        if died.status == -signal.SIGKILL:
            return "Perhaps the machine ran out of memory; the system's log would say so."
        return (
            f"The server's log may have its last words. A process that needs more than its "
            f"{self._memory_mb} MiB of memory may end like that, too."
        )


def _progress(message: Mapping[str, Any]) -> Progress | None:
    done, total = message.get("done"), message.get("total")
    if isinstance(done, (int, float)) and isinstance(total, (int, float, type(None))):
        return Progress(done, total, str(message.get("message") or ""))
    return None


def _details(answer: Mapping[str, Any]) -> dict[str, Any]:
    data = answer.get("data")
    return {
        "hint": str(answer.get("hint") or ""),
        "data": data if isinstance(data, dict) else {},
    }


def _refusal(answer: Mapping[str, Any], spec: ToolSpec) -> CallRefused:
    message, details = str(answer.get("message")), _details(answer)
    if answer.get("code") == InvalidArguments.code:
        return InvalidArguments(message, **details)
    if answer.get("code") == ToolUnavailable.code:
        return ToolUnavailable(
            f"The tool {spec.name!r} of the plugin {spec.plugin!r} cannot be loaded: {message}",
            **details,
        )
    return ToolUnavailable(
        f"The tool {spec.name!r} of the plugin {spec.plugin!r} cannot be run: {message}", **details
    )


def _failure(answer: Mapping[str, Any]) -> ToolError:
    """Return what a tool has raised, or the nearest thing: it may be of a class of its own."""
    code = str(answer.get("code"))
    kind = {kind.code: kind for kind in (errors.OutOfCpuTime, errors.OutOfMemory)}.get(
        code, ToolError
    )
    error = kind(
        str(answer.get("message")),
        retryable=answer.get("retryable") is not False,
        **_details(answer),
    )
    error.code = code
    return error
