"""`Host`: the way of every call, and the owner of everything a call needs."""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import anyio

from ..catalog import Catalog
from ..context import Context
from ..errors import (
    DeadlineExceeded,
    McpdError,
    ToolCrashed,
    UnknownTool,
)
from ..executor import Admission, Limits
from ..hooks import Hooks
from ..hookspecs import Outcome
from ..importer import Importer
from ..runtimes import Expired
from ..services import Health
from ..spec import Call, CallResult, Principal, Progress, ToolSpec
from .binding import Binder, Bound
from .flight import Flights, closed
from .lanes import Lanes, before
from .plugins import enlist
from .policy import authorise, may_call
from .scope import Library, Scope, Share
from .services import ServiceProxy, Services
from .shaping import failure, shaped

if TYPE_CHECKING:
    from ..inventory import Inventory
    from ..settings import Settings

_log = logging.getLogger(__name__)


class Host:
    """Owns catalog, runtimes, services and executor; every call goes through `call`.

    Use it as an async context manager on the asyncio loop that is to be the host's. Leaving it
    cancels what still runs, closes services in reverse order, and then the runtimes.

    :param inventory: the plugins, as `mcpd_core.selection.select` chose them.
    :param data_dir: the directory that this process owns, or ``None`` when it owns none; services
        that keep data are unavailable then.
    """

    def __init__(self, inventory: Inventory, settings: Settings, *, data_dir: Path | None) -> None:
        self.inventory = inventory
        self.settings = settings
        self.data_dir = data_dir
        self.catalog = Catalog(inventory.specs())
        self.closing = False
        self.plugin_settings: dict[str, Any] = {}
        limits = settings.executor
        self.importer = Importer(limits.import_timeout, faults=inventory.faults)
        self._hooks = Hooks(on_broken=self._on_broken)
        self._binder = Binder(self.importer, self._hooks)
        self._admission = {
            "client": Admission(
                Limits(limits.concurrency, limits.per_client, limits.per_tool, limits.queue)
            ),
            "worker": Admission(
                Limits(limits.workers, limits.workers, limits.workers, limits.queue)
            ),
        }
        self._services = Services(self)
        self._ids = (f"{secrets.token_hex(3)}-{n}" for n in itertools.count(1))

    # --- life ---------------------------------------------------------------------------------

    async def __aenter__(self) -> Host:
        limits = self.settings.executor
        self.lanes = Lanes(
            self.importer,
            threads=limits.concurrency + limits.workers,
            patience=limits.cancel_grace,
        )
        self._flights = Flights()
        await enlist(self, self._hooks, self._services)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.stop_accepting()
        await self.drain(0.0)
        try:
            await self._services.aclose()
        finally:
            await self.lanes.aclose()

    async def start_services(self) -> None:
        """Start the services that start with the server; a failure is logged."""
        await self._services.start_all()

    def stop_accepting(self) -> None:
        """Refuse further calls, except those that calls in flight make themselves."""
        self.closing = True

    async def drain(self, grace: float) -> None:
        """Wait for the calls in flight, then cancel what is left and wait for its clean-up.

        :param grace: seconds to wait before cancelling.
        """
        await self._flights.drain(grace)

    @property
    def in_flight(self) -> int:
        """How many top-level calls have been accepted and not answered."""
        return len(self._flights)

    def pending(self) -> list[str]:
        """Return why the process must not exit although no client is connected."""
        return [health.pending for health in self.health().values() if health.pending]

    def health(self) -> dict[str, Health]:
        """Return how each service that was started is."""
        return self._services.health()

    # --- calls --------------------------------------------------------------------------------

    def tools_for(self, principal: Principal) -> tuple[ToolSpec, ...]:
        """Return the tools that a principal may call and is told of, by name."""
        return tuple(spec for spec in self.catalog.specs if may_call(principal, spec))

    async def call(
        self,
        name: str,
        arguments: Mapping[str, Any],
        *,
        principal: Principal,
        client: str,
        timeout: float | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        on_log: Callable[[str, str], None] | None = None,
        trace: Mapping[str, str] | None = None,
        admission: Literal["client", "worker"] = "client",
    ) -> CallResult:
        """Call a tool; awaited on the host's loop. Cancelling the awaiting task cancels the tool.

        :param client: whose queue the call joins when permits are short.
        :param timeout: seconds for everything, the wait for a permit included; ``None`` means the
            tool's own or the host's default.
        :param on_progress: called on this thread for each progress report of the tool.
        :param on_log: called on this thread with level and text of each log line of the tool.
        :param trace: W3C trace context of the request.
        :returns: the answer; a tool's failure is an answer too.
        :raises CallRefused: when the tool did not start.
        """
        if self.closing:
            raise closed()
        spec = self._look_up(name, principal)
        if timeout is None:
            timeout = spec.timeout or self.settings.executor.timeout
        call = Call(
            id=next(self._ids),
            spec=spec,
            arguments=arguments,
            principal=principal,
            client=client,
            deadline=time.monotonic() + timeout,
            on_progress=on_progress,
            on_log=on_log,
            trace=trace or {},
            admission=admission,
        )
        with self._flights.track(call):
            try:
                return await self._admitted(call, "asyncio")
            except asyncio.CancelledError:
                answer = self._flights.answer_to_shed(call)
                if answer is None:
                    raise
                return answer

    async def call_nested(
        self, parent: Scope, name: str, arguments: Mapping[str, Any]
    ) -> CallResult:
        """Call a tool from within another; awaited in the parent's library (see `Context.call`)."""
        outer = parent.call
        spec = self._look_up(name, outer.principal)
        deadline = outer.deadline
        if spec.timeout is not None:
            own = time.monotonic() + spec.timeout
            deadline = own if deadline is None else min(own, deadline)
        call = Call(
            id=next(self._ids),
            spec=spec,
            arguments=arguments,
            principal=outer.principal,
            client=outer.client,
            deadline=deadline,
            parent=outer,
            trace=outer.trace,
            admission=outer.admission,
        )
        # A thread's nested call has been brought to the loop by `submit`.
        library: Library = "asyncio" if parent.library == "thread" else parent.library
        if parent.share.held:
            with parent.share.works(parent):
                return await self._perform(call, library, parent.share)
        return await self._admitted(call, library)

    async def check(
        self, name: str, arguments: Mapping[str, Any], *, principal: Principal
    ) -> ToolSpec:
        """Refuse what `call` would refuse, without running anything; awaited on the host's loop.

        :raises CallRefused: when the call would be refused, `Busy` apart.
        """
        spec = self._look_up(name, principal)
        bound = self._binder.get(spec) or await self._bind(spec, None)
        bound.function.validate(arguments)
        return spec

    async def _bind(self, spec: ToolSpec, deadline: float | None) -> Bound:
        binding = asyncio.ensure_future(self._binder.bind(spec))
        problem = f"The code of the tool {spec.name!r} has not been loaded in time."
        return await before(deadline, binding, problem)

    def _look_up(self, name: str, principal: Principal) -> ToolSpec:
        spec = self.catalog.get(name)
        if spec is None:
            close = self.catalog.close_matches(name)
            raise UnknownTool(
                f"No tool is called {name!r}.",
                hint=f"Did you mean {' or '.join(map(repr, close))}?" if close else "",
            )
        authorise(principal, spec)
        return spec

    async def _admitted(self, call: Call, library: Library) -> CallResult:
        admission = self._admission[call.admission]
        permit = await self.lanes.from_library(
            library,
            partial(admission.acquire, call.client, call.spec.name, deadline=call.deadline),
        )
        share = Share(admission, permit)
        try:
            with share.works(None):
                return await self._perform(call, library, share)
        finally:
            share.close()

    async def _perform(self, call: Call, library: Library, share: Share) -> CallResult:
        """Bind, validate, run, shape and observe one call, in the library of its caller."""
        bound = self._binder.get(call.spec)
        if bound is None:
            bind = partial(self._bind, call.spec, call.deadline)
            bound = await self.lanes.from_library(library, bind)
        arguments = bound.function.validate(call.arguments)
        target = library if bound.target == "any" else bound.target
        scope = Scope(self, call, target, share)
        if bound.function.context_parameter is not None:
            arguments[bound.function.context_parameter] = Context(scope)
        self._flights.started(call)
        self._hooks.before_call(call)
        started = time.perf_counter()
        result: CallResult | None = None
        error: BaseException | None = None
        try:
            result = await self._result(bound, scope, arguments, library)
            return result
        except BaseException as raised:
            error = raised
            raise
        finally:
            self._hooks.after_call(call, Outcome(result, error, time.perf_counter() - started))
            # The error's traceback holds this frame, and with it the arguments.
            error = None

    async def _result(
        self, bound: Bound, scope: Scope, arguments: dict[str, Any], library: Library
    ) -> CallResult:
        """Run the tool and turn whatever happens, cancellation apart, into an answer."""
        name = bound.spec.name
        try:
            value = await self.lanes.run_tool(bound, scope, arguments, library)
            return shaped(
                bound.function.answer(value),
                tool=name,
                limit=self.settings.executor.max_result_bytes,
            )
        except Expired:
            return failure(
                DeadlineExceeded(
                    f"The tool {name!r} was cancelled at its deadline.",
                    hint="Ask for less, allow more time, or defer it as a task.",
                )
            )
        except McpdError as error:
            return failure(error)
        except BaseException as error:
            if _is_cancellation(error, library):
                raise
            _log.exception(
                "The tool %s of the plugin %s raised, in the call %s.",
                name,
                bound.spec.plugin,
                scope.call.id,
            )
            return failure(
                ToolCrashed(
                    f"The tool {name!r} failed unexpectedly ({type(error).__name__}).",
                    hint=f"The server's log has the details under {scope.call.id}.",
                )
            )

    async def service(self, name: str, library: Library) -> Any:
        """Return a service for code that runs in ``library`` (see `Context.service`)."""
        running = await self.lanes.from_library(library, partial(self._services.get, name))
        if running.service.runtime == library:
            return running.object
        if library == "trio":
            return ServiceProxy(running, self.lanes.trio.run_in_host)
        assert running.runtime is not None
        return ServiceProxy(running, running.runtime.run)

    # --- plugins ------------------------------------------------------------------------------

    def _on_broken(self, plugin: str, reason: str) -> None:
        self.revise(self.inventory.with_broken(plugin, reason))

    def revise(self, inventory: Inventory) -> None:
        """Offer the tools of another set of plugins from now on."""
        self.inventory = inventory
        self.catalog = Catalog(inventory.specs())


def _is_cancellation(error: BaseException, library: Library) -> bool:
    """Whether an exception is the cancellation of the caller, which runs in ``library``.

    trio delivers it inside a group when other tasks of a nursery raised meanwhile. In asyncio it
    is never in a group, and one that a tool has put there is the tool's own affair.
    """
    cancelled = anyio.get_cancelled_exc_class()
    # Exception groups are built in from Python 3.11 on, and backported before.
    subgroup = getattr(error, "subgroup", None)
    if library == "trio" and subgroup is not None:
        return subgroup(cancelled) is not None
    return isinstance(error, cancelled)
