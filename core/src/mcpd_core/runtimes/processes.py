"""Worker processes for tools that are CPU-bound or not trusted.

Processes are spawned, never forked: each is a fresh interpreter (`mcpd_core.child`). One is started
when a call finds none idle, serves the tools of one plugin with one memory limit, is used again,
and is replaced after a number of calls. The host hands over JSON and gets JSON back; the tool's
module is not imported here.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

from .. import errors
from ..child import MORE_CPU_TIME
from ..errors import (
    CallRefused,
    InvalidArguments,
    InvalidOutput,
    McpdError,
    ProcessDied,
    ToolCrashed,
    ToolError,
    ToolUnavailable,
)
from ..executor import Admission, Limits
from ..manifest import render_tool
from ..settings import ProcessesSettings
from ..spec import Call, CallResult, Progress, ToolSpec
from ..text import clean
from .base import Expired
from .worker import Died, Worker

_log = logging.getLogger(__name__)

#: Messages are JSON in ASCII, where a byte of text may take six.
_JSON_FACTOR = 6
_ENVELOPE = 1 << 18


class ProcessRuntime:
    """A pool of worker processes that grows to its limit. Used on the host's loop.

    :param patience: seconds between SIGTERM and SIGKILL.
    :param import_timeout: seconds that importing a tool's module may take.
    :param max_result_bytes: the size of the largest answer.
    """

    name = "process"
    rung = "spawn"

    def __init__(
        self,
        settings: ProcessesSettings,
        *,
        patience: float,
        import_timeout: float,
        max_result_bytes: int,
    ) -> None:
        self._settings = settings
        self._patience = patience
        self._import_timeout = import_timeout
        self._max_result_bytes = max_result_bytes
        # The queue has no end of its own: whoever waits here has been admitted to the host.
        slots = settings.workers
        self._slots = Admission(Limits(slots, slots, slots, 1 << 30))
        self._workers: dict[Worker, tuple[str, int]] = {}
        #: The one that has been idle for the longest time is first.
        self._idle: list[Worker] = []

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes that have not ended."""
        return tuple(worker.pid for worker in self._workers)

    @asynccontextmanager
    async def prepared(self, spec: ToolSpec, runs_in: str, call: Call) -> AsyncIterator[Errand]:
        """Have a worker that has imported the tool and accepted the arguments.

        :param spec: the tool as its manifest has it.
        :param runs_in: the library of its ``async def`` code; ``any`` is served by asyncio.
        :raises CallRefused: when the tool cannot be loaded, the arguments do not fit, or no process
            came free before the deadline.
        """
        memory_mb = spec.memory_mb or self._settings.memory_mb
        permit = await self._slots.acquire(call.client, spec.plugin, deadline=call.deadline)
        try:
            worker = self._take(spec.plugin, memory_mb) or await self._spawn(spec, memory_mb)
            try:
                limits = (memory_mb, spec.cpu_seconds or self._settings.cpu_seconds)
                errand = Errand(worker, spec, call, limits, self._max_result_bytes)
                await errand.prepare(runs_in)
                yield errand
            finally:
                self._put_back(worker)
        finally:
            self._slots.release(permit)

    def _take(self, plugin: str, memory_mb: int) -> Worker | None:
        # The one used last: the others may grow old and be let go.
        for worker in reversed(self._idle):
            if self._workers[worker] == (plugin, memory_mb):
                self._idle.remove(worker)
                worker.cancel_timers()
                return worker
        return None

    async def _spawn(self, spec: ToolSpec, memory_mb: int) -> Worker:
        if self._idle and len(self._workers) >= self._settings.workers:
            self._retire(self._idle[0])
        config = {"memory_mb": memory_mb, "import_timeout": self._import_timeout}
        longest = 2 * _JSON_FACTOR * self._max_result_bytes + _ENVELOPE
        try:
            worker = Worker(config, grace=self._patience, longest=longest)
        except OSError as error:
            raise ToolUnavailable(
                f"The tool {spec.name!r} needs a process, and none can be started: "
                f"{error.strerror or error}.",
                hint="Try again later; the machine may be short of memory or processes.",
            ) from error
        self._workers[worker] = (spec.plugin, memory_mb)
        worker.gone.add_done_callback(lambda _: self._forget(worker))
        await worker.connect()
        _log.debug("process %d was started for the plugin %s", worker.pid, spec.plugin)
        return worker

    def _put_back(self, worker: Worker) -> None:
        if worker.usable and worker.served < self._settings.calls:
            self._idle.append(worker)
            worker.later(self._settings.idle_timeout, lambda: self._retire(worker))
        else:
            worker.retire()

    def _retire(self, worker: Worker) -> None:
        if worker in self._idle:
            self._idle.remove(worker)
        worker.retire()

    def _forget(self, worker: Worker) -> None:
        self._workers.pop(worker, None)
        if worker in self._idle:
            self._idle.remove(worker)

    def dismiss(self, plugin: str) -> None:
        """Let the idle processes of a plugin end."""
        for worker in [w for w in self._idle if self._workers[w][0] == plugin]:
            self._retire(worker)

    async def aclose(self) -> None:
        """End every process and wait until it is gone."""
        workers = list(self._workers)
        for worker in workers:
            # Nobody waits for a call any more, so that there is nothing to be cleaned up.
            worker.retire()
        if workers:
            # Without a limit: SIGKILL follows.
            await asyncio.wait([worker.gone for worker in workers])


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

    async def prepare(self, runs_in: str) -> None:
        """See `ProcessRuntime.prepared`."""
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
            answer = await self._worker.ask(request, deadline=self._call.deadline, name=name)
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

        def told(message: Mapping[str, Any]) -> None:
            if message["kind"] == "log":
                log(str(message.get("level")), str(message.get("message")))
            elif (progress := _progress(message)) is not None:
                report(progress)

        deadline = self._call.deadline
        remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
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
