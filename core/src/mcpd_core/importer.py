"""Running plugin code for the first time, without betting the process on it.

An import may raise, call `sys.exit`, or never return. So plugin code is imported on a thread of its
own, one import at a time, within a time limit. An import that never returns costs its thread; it
blocks no other import for long, and it is not tried a second time.
"""

from __future__ import annotations

import importlib
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from importlib.util import find_spec
from typing import Any

from .errors import McpdError, PluginLoadError, ToolUnavailable
from .families import INSTALL_TRIO
from .faults import DistributionFault, explain_import_failure
from .text import error_text, shown

#: Seconds after which a running import no longer keeps the next one waiting.
PATIENCE = 2.0

#: Frames of these files say nothing about where a plugin failed.
_OWN_FILES = (__file__, importlib.__file__)


def expect_trio() -> None:
    """Make sure, without importing it, that trio is there.

    :raises ToolUnavailable: when it is not.
    """
    if find_spec("trio") is None:
        raise ToolUnavailable(
            "The tool is written for trio, which cannot be imported here.", hint=INSTALL_TRIO
        )


class Importer:
    """Imports plugin modules on dedicated threads.

    Imports run one after the other, as they would in a program that starts normally, because some
    libraries do not bear being imported at the same time as each other. Only behind an import that
    takes longer than `PATIENCE` seconds is the next one started beside it.

    :param timeout: seconds that one import may take.
    :param patience: seconds after which the next import is started beside a running one.
    :param faults: the damaged distributions that are known of; they explain failures.
    """

    def __init__(
        self,
        timeout: float = 30.0,
        *,
        patience: float = PATIENCE,
        faults: Sequence[DistributionFault] = (),
    ) -> None:
        self._timeout = timeout
        self._patience = min(patience, timeout)
        self._faults = faults
        self._changed = threading.Condition()
        self._waiting: deque[_Job] = deque()
        self._running: list[_Job] = []
        self._loaded: dict[str, Future[Any]] = {}
        self._hung: set[str] = set()
        self._watched = False

    def load(
        self, reference: str, *, plugin: str = "", then: Callable[[Any], Any] | None = None
    ) -> Future[Any]:
        """Import a module, or an object in one.

        What was loaded once is not loaded again, and two who ask at the same time share the work.
        The future cannot be cancelled, because others may be waiting for it.

        :param reference: ``module`` or ``module:attribute``.
        :param plugin: the plugin it belongs to, for messages; the top-level package by default.
        :param then: called with the object, on the import thread and within the time limit; its
            answer becomes the result, and is not kept.
        :returns: a future with the object, or with a `PluginLoadError` that tells the reason.
        """
        module = reference.partition(":")[0]
        plugin = plugin or module.partition(".")[0]
        with self._changed:
            if module in self._hung:
                return _failed(self._hung_error(plugin, module))
            if then is None and reference in self._loaded:
                return self._loaded[reference]
            job = _Job(reference, module, plugin, partial(_resolve, reference, plugin, then))
            if then is None:
                self._loaded[reference] = job.future
            self._queue(job)
        return job.future

    def run(self, function: Callable[[], Any], *, reference: str, plugin: str) -> Future[Any]:
        """Run what imports a module in its own way, as `load` imports one: on the import thread,
        within the time limit, and not again when it has hung.

        :param function: its answer becomes the result, and is not kept.
        :param reference: ``module:attribute`` of what it makes. Another one of a module that has
            hung is not tried, whoever has imported that.
        :param plugin: the plugin it belongs to, for messages.
        """
        module = reference.partition(":")[0]
        with self._changed:
            if module in self._hung:
                return _failed(self._hung_error(plugin, module))
            job = _Job(reference, module, plugin, function, foreign=True)
            self._queue(job)
        return job.future

    def _queue(self, job: _Job) -> None:
        self._waiting.append(job)
        if self._watched:
            self._changed.notify_all()
        else:
            self._watched = True
            threading.Thread(target=self._watch, name="mcpd-import-watch", daemon=True).start()

    # The watch starts the imports and ends those that take too long. It lives while there are any.

    def _watch(self) -> None:
        with self._changed:
            while self._waiting or self._running:
                now = time.monotonic()
                for job in [job for job in self._running if now >= job.started + self._timeout]:
                    self._give_up(job)
                patient_until = [job.started + self._patience for job in self._running]
                if self._waiting and all(now >= moment for moment in patient_until):
                    self._start(self._waiting.popleft())
                    continue
                moments = [job.started + self._timeout for job in self._running]
                if self._waiting:
                    moments += [moment for moment in patient_until if moment > now]
                if moments:
                    self._changed.wait(max(0.0, min(moments) - now))
            self._watched = False

    def _start(self, job: _Job) -> None:
        if job.module in self._hung:
            self._settle(job, error=self._hung_error(job.plugin, job.module))
            return
        job.started = time.monotonic()
        self._running.append(job)
        # A daemon thread: one that never ends must not keep the process from ending.
        threading.Thread(
            target=self._run, args=(job,), name=f"mcpd-import-{job.module}", daemon=True
        ).start()

    def _give_up(self, job: _Job) -> None:
        self._running.remove(job)
        self._hung.add(job.module)
        self._settle(job, error=self._hung_error(job.plugin, job.module))

    def _hung_error(self, plugin: str, module: str) -> PluginLoadError:
        return PluginLoadError(
            plugin,
            f"Importing {module} of plugin {plugin!r} had not finished after {self._timeout:g} s; "
            "it is not tried again in this process.",
            hint="Find out what the module waits for when it is imported, then restart mcpd; or "
            "raise [executor] import_timeout.",
        )

    def _settle(self, job: _Job, *, result: Any = None, error: BaseException | None = None) -> None:
        if error is None:
            job.future.set_result(result)
        else:
            # A failure is not kept: what was missing may have been installed meanwhile.
            if self._loaded.get(job.reference) is job.future:
                del self._loaded[job.reference]
            job.future.set_exception(error)

    def _run(self, job: _Job) -> None:
        result, error = None, None
        try:
            result = job.work()
        except BaseException as exc:  # noqa: BLE001 - a boundary: sys.exit and interrupts included
            error = _load_error(job, exc, self._faults)
        with self._changed:
            if job in self._running:
                self._running.remove(job)
                self._settle(job, result=result, error=error)
                self._changed.notify_all()
            else:
                # Too late for this job, but the module is there after all (or raised at last):
                # to ask for it now is safe, because nothing hangs any more.
                self._hung.discard(job.module)


class _Job:
    """One import that somebody waits for.

    :ivar foreign: whether it is of code that the plugin only serves.
    """

    def __init__(
        self,
        reference: str,
        module: str,
        plugin: str,
        work: Callable[[], Any],
        *,
        foreign: bool = False,
    ) -> None:
        self.reference = reference
        self.module = module
        self.plugin = plugin
        self.work = work
        self.foreign = foreign
        self.started = 0.0
        self.future = _future()


def _future() -> Future[Any]:
    future: Future[Any] = Future()
    # Running futures cannot be cancelled: one impatient waiter must not take it from the others.
    future.set_running_or_notify_cancel()
    return future


def _failed(error: BaseException) -> Future[Any]:
    future = _future()
    future.set_exception(error)
    return future


def _resolve(reference: str, plugin: str, then: Callable[[Any], Any] | None) -> Any:
    module, _, path = reference.partition(":")
    found: Any = importlib.import_module(module)
    for name in filter(None, path.split(".")):
        try:
            found = getattr(found, name)
        except AttributeError as exc:
            raise PluginLoadError(
                plugin,
                f"{module} of plugin {plugin!r} has no {name!r}.",
                hint="If the plugin was changed, make its manifest anew: mcpd plugins manifest DIR",
            ) from exc
    return found if then is None else then(found)


def _load_error(
    job: _Job, exc: BaseException, faults: Sequence[DistributionFault]
) -> PluginLoadError:
    what = f"{job.reference} of plugin {job.plugin!r} cannot be loaded"
    try:
        error = _explained(job, what, exc, faults)
    except BaseException:  # noqa: BLE001 - whatever an exception does, those who wait are told
        error = PluginLoadError(job.plugin, f"{what}: {error_text(exc)}.")
    if error is not exc:
        error.__cause__ = exc
    return error


def _explained(
    job: _Job, what: str, exc: BaseException, faults: Sequence[DistributionFault]
) -> PluginLoadError:
    # A plugin's own kind of error need not have what ours have; asking for it raises then.
    if isinstance(exc, PluginLoadError) and isinstance(exc.message + exc.hint, str):
        return exc
    explanation = explain_import_failure(exc, faults)
    if explanation is not None:
        return PluginLoadError(job.plugin, f"{what}: {explanation.message}", hint=explanation.hint)
    if isinstance(exc, McpdError):
        return PluginLoadError(job.plugin, f"{what}: {exc.message}", hint=exc.hint)
    if isinstance(exc, SystemExit):
        code = shown(exc.code)
        return PluginLoadError(job.plugin, f"{what}: it called sys.exit({code}){_at(exc)}.")
    hint = ""
    if isinstance(exc, ModuleNotFoundError) and exc.name:
        hint = (
            f"The module {exc.name!r} is missing: install what it belongs to, where mcpd runs."
            if job.foreign
            else f"The module {exc.name!r} is missing: reinstall the plugin's distribution."
        )
    return PluginLoadError(job.plugin, f"{what}: {error_text(exc)}{_at(exc)}.", hint=hint)


def _at(exc: BaseException) -> str:
    """Say in which file and line an exception came up."""
    frames = [
        frame
        for frame in traceback.extract_tb(exc.__traceback__)
        if not frame.filename.startswith("<frozen") and frame.filename not in _OWN_FILES
    ]
    return f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
