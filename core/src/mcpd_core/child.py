"""The other side of process placement: a fresh interpreter that runs one call at a time.

The host starts it, talks to it in lines of JSON over a socket, and never imports what it runs. The
tool's module is imported here, the arguments are checked here, and the answer is shaped here; only
JSON goes back, because the host must not unpickle what code it does not trust has made.

A call takes two requests: ``prepare`` imports and checks, ``run`` runs. SIGTERM stops the call that
runs: an ``async def`` is cancelled, a ``def`` is interrupted by an exception; the process ends when
the tool has cleaned up, and when the host has gone.

CPU time is limited per call, twice: at the limit SIGPROF stops the call like SIGTERM does, and a
call that does not stop is ended by the kernel's SIGXCPU `CPU_GRACE` seconds of CPU time later. A
limit of the process alone could not be lifted again for its next call.
"""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import pydantic_core

from .child_scope import ChildScope, Stopped
from .context import Context
from .errors import (
    CallRefused,
    McpdError,
    OutOfCpuTime,
    OutOfMemory,
    PluginLoadError,
    ToolUnavailable,
)
from .foreign import ForeignFunction, start_loading
from .importer import Importer, expect_trio
from .manifest import parse_tools, render_tool
from .schema import ToolFunction
from .spec import Call, CallResult, Principal, ToolSpec

if TYPE_CHECKING:
    import asyncio

#: What the interpreter is started with. The working directory must not shadow anybody's module.
BOOT = (
    "import sys; sys.path[:] = filter(None, sys.path); import json; c = json.loads(sys.argv[1]); "
    "sys.path[:] = c['path']; from mcpd_core.child import main; main(c)"
)

#: Seconds of CPU time that a call may use to clean up when it has used up those that it had.
CPU_GRACE = 2
MORE_CPU_TIME = "Ask for less, or allow more: [processes] cpu_seconds, or cpu_seconds of the tool."

#: `prctl` option of Linux: the signal that this process gets when its parent ends.
_PR_SET_PDEATHSIG = 1


def main(config: Mapping[str, Any]) -> None:
    """Serve the host until it leaves.

    :param config: ``descriptor`` of the socket, ``parent`` process id, ``memory_mb`` as limit (0 is
        none), ``import_timeout`` in seconds, and whether it is ``shared`` by tools that keep state.
    """
    _die_with(config["parent"])
    sys.argv[:] = ["mcpd-worker"]
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    child = Child(config)
    if config["memory_mb"]:
        limit = config["memory_mb"] * 1024 * 1024
        with suppress(ValueError, OSError):  # not every system has the limit
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with suppress(Stopped):
        child.serve()


def _die_with(parent: int) -> None:
    """Let the kernel end this process when the host is killed, whatever it is busy with."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


class Child:
    """Answers the host's requests, one after the other."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._memory_mb: int = config["memory_mb"]
        self._loops = KeptLoop() if config["shared"] else None
        self._socket = socket.socket(fileno=config["descriptor"])
        # What a tool executes must not keep the connection open.
        self._socket.set_inheritable(False)
        self._sending = threading.Lock()
        self._importer = Importer(config["import_timeout"])
        self._bound: dict[tuple[str, str], ToolFunction | ForeignFunction] = {}
        self._prepared: Callable[[float | None], Any] | None = None
        self._requests: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        self._scope: ChildScope | None = None
        self._cpu_seconds = 0
        self._out_of_cpu_time = False
        signal.signal(signal.SIGTERM, self._on_term)
        signal.signal(signal.SIGPROF, self._on_cpu_time)

    def serve(self) -> None:
        """Answer requests until the host hangs up."""
        threading.Thread(target=self._read, name="mcpd-requests", daemon=True).start()
        last = False
        while not last and (request := self._requests.get()) is not None:
            answer = self._answer(request)
            last = bool(answer.get("last"))
            self.send(answer)

    def send(self, message: Mapping[str, Any]) -> None:
        """Send one message; any thread may."""
        line = json.dumps(message).encode() + b"\n"
        with self._sending, suppress(OSError):
            # An error means that the host has gone, and then this process ends as well.
            self._socket.sendall(line)

    def _read(self) -> None:
        with self._socket.makefile("rb") as lines:
            for line in lines:
                self._requests.put(json.loads(line))
        if self._scope is not None:
            # Nobody is left to answer to, or to enforce a deadline.
            os._exit(1)
        self._requests.put(None)

    def _on_term(self, number: int, frame: object) -> None:
        if self._scope is None:
            raise Stopped
        self._scope.cancel()

    def _on_cpu_time(self, number: int, frame: object) -> None:
        if self._scope is not None:
            self._out_of_cpu_time = True
            self._scope.cancel()

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            if request["op"] == "prepare":
                return self._prepare(request)
            return self._run(request)
        except MemoryError:
            problem: type[McpdError] = OutOfMemory
        except Stopped:
            if not self._out_of_cpu_time:
                raise
            problem = OutOfCpuTime
        # Outside of the clauses, which would keep alive what used up the memory.
        return {**_described(self._exhausted(problem), "failed"), "last": True}

    def _exhausted(self, problem: type[McpdError]) -> McpdError:
        if problem is OutOfCpuTime:
            return OutOfCpuTime(
                f"The tool used more than the {self._cpu_seconds} s of CPU time that a call of it "
                f"may use.",
                hint=MORE_CPU_TIME,
                retryable=False,
            )
        return OutOfMemory(
            f"The tool needed more than the {self._memory_mb} MiB of memory that its process may "
            f"use.",
            hint="Ask for less, or allow more: [processes] memory_mb, or memory_mb of the tool.",
            retryable=False,
        )

    # --- preparing --------------------------------------------------------------------------------

    def _prepare(self, request: dict[str, Any]) -> dict[str, Any]:
        stale = False
        try:
            key = (request["entry"], request["contract"]["name"])
            function = self._bound.get(key)
            if function is None:
                function = self._bound[key] = self._bind(request)
                if isinstance(function, ToolFunction):
                    contract = json.loads(json.dumps(render_tool(function.spec, runtime="any")))
                    stale = contract != request["contract"]
            if function.is_async and request["runs_in"] == "trio":
                expect_trio()
            arguments = function.validate(request["arguments"])
        except PluginLoadError as error:
            refusal = ToolUnavailable(error.message, hint=error.hint)
            # A new process may find what was missing in this one; but not at the price of what
            # other tools keep here.
            return {**_described(refusal, "refused"), "last": self._loops is None}
        except CallRefused as error:
            return _described(error, "refused")
        call = _call(request["call"], function.spec)
        self._prepared = partial(self._call_tool, function, arguments, call, request["runs_in"])
        return {"kind": "ready", "stale": stale}

    def _bind(self, request: Mapping[str, Any]) -> ToolFunction | ForeignFunction:
        contract, plugin = request["contract"], request["plugin"]
        if contract.get("loader"):
            (spec,) = parse_tools([contract], plugin=plugin, runtime="any")
            load = self._importer.load(spec.loader, plugin=plugin).result()
            return start_loading(self._importer, load, spec).result()
        loaded = self._importer.load(request["entry"], plugin=plugin).result()
        return ToolFunction(loaded, plugin=plugin, runtime=request["runtime"])

    # --- running ----------------------------------------------------------------------------------

    def _run(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._prepared is not None
        run, self._prepared = self._prepared, None
        self._limit_cpu_time(request["cpu_seconds"])
        try:
            result: CallResult = run(request["remaining"])
        except MemoryError:
            raise
        except McpdError as error:
            return _described(error, "failed")
        except Stopped:
            raise
        except BaseException as error:  # noqa: BLE001 - the boundary: reported to the host
            if self._stopped():
                raise Stopped from None
            return {
                "kind": "crashed",
                "type": type(error).__name__,
                "traceback": traceback.format_exc(),
            }
        finally:
            self._scope = None
            self._limit_cpu_time(0)
            sys.stdout.flush()
        return {
            "kind": "done",
            "text": result.text,
            "structured": result.structured,
            "error": None if result.error is None else _plain(result.error),
            "content": result.content,
        }

    def _limit_cpu_time(self, seconds: int) -> None:
        """Allow so much CPU time from now on; 0 is no limit."""
        signal.setitimer(signal.ITIMER_PROF, seconds)
        soft = hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        if seconds:
            self._cpu_seconds = seconds
            usage = resource.getrusage(resource.RUSAGE_SELF)
            used = math.ceil(usage.ru_utime + usage.ru_stime)
            soft = used + seconds + CPU_GRACE
            if hard != resource.RLIM_INFINITY:
                soft = min(soft, hard)
        resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))

    def _call_tool(
        self,
        function: ToolFunction | ForeignFunction,
        arguments: dict[str, Any],
        call: Call,
        runs_in: str,
        remaining: float | None,
    ) -> CallResult:
        deadline = None if remaining is None else time.monotonic() + remaining
        scope = ChildScope(self, call, deadline)
        if function.context_parameter is not None:
            arguments[function.context_parameter] = Context(scope)
        run = partial(function.function, **arguments)
        self._scope = scope
        if not function.is_async:
            value = run()
        elif runs_in == "trio":
            value = _in_trio(run, scope)
        else:
            value = _in_asyncio(run, scope, self._loops)
        if scope.cancelled:
            # Too late: the host waits for the end of the process.
            raise Stopped
        return function.answer(value)

    def _stopped(self) -> bool:
        return self._scope is not None and self._scope.cancelled


class KeptLoop:
    """An event loop that outlives a call, for tools whose modules keep what is bound to it."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, main: Coroutine[Any, Any, Any]) -> Any:
        """Run one coroutine to its end; what else it has started goes on in the next."""
        import asyncio

        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        # A `def` may have used another one meanwhile, and left none behind.
        asyncio.set_event_loop(self._loop)
        return self._loop.run_until_complete(main)


def _in_asyncio(run: Callable[[], Any], scope: ChildScope, kept: KeptLoop | None) -> Any:
    import asyncio

    async def main() -> Any:
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        scope.on_cancel(lambda: loop.call_soon_threadsafe(task.cancel))
        return await run()

    return asyncio.run(main()) if kept is None else kept.run(main())


def _in_trio(run: Callable[[], Any], scope: ChildScope) -> Any:
    import trio

    async def main() -> Any:
        token = trio.lowlevel.current_trio_token()
        with trio.CancelScope() as cancel_scope:
            scope.on_cancel(lambda: token.run_sync_soon(cancel_scope.cancel))
            return await run()

    return trio.run(main)


def _call(facts: Mapping[str, Any], spec: ToolSpec) -> Call:
    return Call(
        id=facts["id"],
        spec=spec,
        arguments={},
        principal=Principal(**facts["principal"]),
        client=facts["client"],
        trace=facts["trace"],
        admission=facts["admission"],
    )


def _described(error: McpdError, kind: str) -> dict[str, Any]:
    return {
        "kind": kind,
        "code": error.code,
        "message": error.message,
        "hint": error.hint,
        "retryable": bool(getattr(error, "retryable", True)),
        "data": _plain(error.data),
    }


def _plain(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a tool says about its failure as JSON data, whatever it is."""
    try:
        plain: dict[str, Any] = pydantic_core.to_jsonable_python(
            dict(data), fallback=repr, inf_nan_mode="null"
        )
        json.dumps(plain)
    except (ValueError, TypeError):
        return {"data": repr(data)}
    return plain
