"""Worker processes for tools that are CPU-bound or not trusted.

Processes are spawned, never forked: each is a fresh interpreter (`mcpd_core.child`). One is started
when a call finds none idle, serves the tools of one plugin with one memory limit, is used again,
and is replaced after a number of calls. The host hands over JSON and gets JSON back; the tool's
module is not imported here.

Tools whose contract names a process share that one, because they share state: it is never replaced
for its age. It stays until it dies, is killed, or its plugin goes. There are as many of these as
there are names, whatever the limit of the others is, which could otherwise never start again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from ..errors import ToolUnavailable
from ..executor import Admission, Limits, Permit
from ..settings import ProcessesSettings
from ..spec import Call, ToolSpec
from .errands import Errand
from .worker import Worker, ending

_log = logging.getLogger(__name__)

#: Messages are JSON in ASCII, where a byte of text may take six.
_JSON_FACTOR = 6
_ENVELOPE = 1 << 18


class ProcessRuntime:
    """A pool of worker processes that grows to its limit, and beside it those that tools share by
    name. Used on the host's loop.

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
        #: By plugin and name.
        self._shared: dict[tuple[str, str], _Shared] = {}
        #: All that have not ended, the oldest first.
        self._living: dict[Worker, None] = {}
        self._loading: set[asyncio.Task[Errand]] = set()
        #: The one that has been idle for the longest time is first.
        self._idle: list[Worker] = []

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes that have not ended."""
        return tuple(worker.pid for worker in self._living)

    @asynccontextmanager
    async def prepared(self, spec: ToolSpec, runs_in: str, call: Call) -> AsyncIterator[Errand]:
        """Have a worker that has imported the tool and accepted the arguments.

        :param spec: the tool as its manifest has it.
        :param runs_in: the library of its ``async def`` code; ``any`` is served by asyncio.
        :raises CallRefused: when the tool cannot be loaded, the arguments do not fit, or no process
            came free before the deadline.
        """
        prepared = self._prepared_in_shared if spec.process else self._prepared_in_pool
        async with prepared(spec, runs_in, call) as errand:
            yield errand

    @asynccontextmanager
    async def _prepared_in_pool(
        self, spec: ToolSpec, runs_in: str, call: Call
    ) -> AsyncIterator[Errand]:
        permit = await self._slots.acquire(call.client, spec.plugin, deadline=call.deadline)
        try:
            memory_mb = self._memory_of(spec)
            worker = self._take(spec.plugin, memory_mb) or await self._spawn(spec, memory_mb)
            try:
                errand = self._errand(worker, spec, call)
                await errand.prepare(runs_in, deadline=call.deadline)
                yield errand
            finally:
                self._put_back(worker)
        finally:
            self._slots.release(permit)

    def _errand(self, worker: Worker, spec: ToolSpec, call: Call) -> Errand:
        limits = (self._memory_of(spec), spec.cpu_seconds or self._settings.cpu_seconds)
        return Errand(worker, spec, call, limits, self._max_result_bytes)

    def _memory_of(self, spec: ToolSpec) -> int:
        return spec.memory_mb or self._settings.memory_mb

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
        worker = await self._start(spec)
        self._workers[worker] = (spec.plugin, memory_mb)
        worker.gone.add_done_callback(lambda _: self._forget(worker))
        return worker

    async def _start(self, spec: ToolSpec) -> Worker:
        config = {
            "memory_mb": self._memory_of(spec),
            "import_timeout": self._import_timeout,
            "shared": bool(spec.process),
        }
        longest = 2 * _JSON_FACTOR * self._max_result_bytes + _ENVELOPE
        try:
            worker = Worker(config, grace=self._patience, longest=longest)
        except OSError as error:
            raise ToolUnavailable(
                f"The tool {spec.name!r} needs a process, and none can be started: "
                f"{error.strerror or error}.",
                hint="Try again later; the machine may be short of memory or processes.",
            ) from error
        self._living[worker] = None
        worker.gone.add_done_callback(lambda _: self._living.pop(worker))
        try:
            await worker.connect()
        except BaseException:
            worker.retire()
            raise
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

    # --- shared by name ---------------------------------------------------------------------------

    @asynccontextmanager
    async def _prepared_in_shared(
        self, spec: ToolSpec, runs_in: str, call: Call
    ) -> AsyncIterator[Errand]:
        shared = self._shared.setdefault((spec.plugin, spec.process), _Shared())
        permit = await shared.slots.acquire(call.client, spec.plugin, deadline=call.deadline)
        # Whoever gives up while a tool is loaded does not end what others keep in the process.
        loading = asyncio.ensure_future(self._load_in_shared(shared, spec, runs_in, call))
        try:
            yield await _before(loading, call.deadline, spec)
        finally:
            if loading.done():
                shared.settle(permit)
            else:
                self._loading.add(loading)
                loading.add_done_callback(partial(self._on_loaded, shared, permit))

    async def _load_in_shared(
        self, shared: _Shared, spec: ToolSpec, runs_in: str, call: Call
    ) -> Errand:
        worker = shared.worker
        if worker is None or not worker.usable:
            worker = shared.worker = await self._start(spec)
            worker.gone.add_done_callback(partial(shared.on_end, worker, spec))
        errand = self._errand(worker, spec, call)
        # The process limits what it imports: the loader, and then the tool.
        limit = 2 * self._import_timeout + self._patience
        await errand.prepare(runs_in, deadline=time.monotonic() + limit)
        return errand

    def _on_loaded(self, shared: _Shared, permit: Permit, loading: asyncio.Task[Errand]) -> None:
        self._loading.discard(loading)
        if not loading.cancelled():
            # Whoever asked has given up; the next one who asks is told.
            loading.exception()
        shared.settle(permit)

    def dismiss(self, plugin: str) -> None:
        """Let the idle processes of a plugin end, and those that its tools share."""
        for worker in [w for w in self._idle if self._workers[w][0] == plugin]:
            self._retire(worker)
        for key in [key for key in self._shared if key[0] == plugin]:
            self._shared.pop(key).dismiss()

    async def aclose(self) -> None:
        """End every process and wait until it is gone."""
        for shared in self._shared.values():
            shared.dismiss()
        workers = list(self._living)
        for worker in workers:
            # Nobody waits for a call any more, so that there is nothing to be cleaned up.
            worker.retire()
        if workers:
            # Without a limit: SIGKILL follows.
            await asyncio.wait([worker.gone for worker in workers])
        if self._loading:
            await asyncio.wait(self._loading)


class _Shared:
    """A process that tools share by name.

    :ivar slots: whose turn it is; it serves one call at a time.
    :ivar worker: the process, unless it has not been needed, or can be used no more.
    """

    def __init__(self) -> None:
        # The queue has no end of its own, like that of the others.
        self.slots = Admission(Limits(1, 1, 1, 1 << 30))
        self.worker: Worker | None = None
        self._dismissed = False

    def settle(self, permit: Permit) -> None:
        """Let the next call have the process, or a new one."""
        if self.worker is not None and not self.worker.usable:
            self._release()
        self.slots.release(permit)

    def dismiss(self) -> None:
        """Let the process end, with what its tools kept there."""
        self._dismissed = True
        self._release()

    def _release(self) -> None:
        worker, self.worker = self.worker, None
        if worker is not None:
            worker.retire()

    def on_end(self, worker: Worker, spec: ToolSpec, _: object) -> None:
        """Note that the process has ended."""
        if self.worker is worker:
            self.worker = None
        if not self._dismissed:
            _log.warning(
                "The process %r (%d) of the plugin %s has ended, and what its tools kept there is "
                "lost: %s. The next call starts it anew.",
                spec.process,
                worker.pid,
                spec.plugin,
                ending(worker.status),
            )


async def _before(loading: asyncio.Task[Errand], deadline: float | None, spec: ToolSpec) -> Errand:
    """Wait for a tool to be loaded, which goes on without us.

    :raises ToolUnavailable: when the deadline passed.
    """
    timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
    await asyncio.wait([loading], timeout=timeout)
    if not loading.done():
        raise ToolUnavailable(
            f"The code of the {spec.label} has not been loaded in time.",
            hint="Try again: the work that was waited for goes on.",
        )
    return loading.result()
