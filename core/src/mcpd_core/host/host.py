"""`Host`: the way of every call, and the owner of everything a call needs."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from typing_extensions import Unpack

from ..catalog import Catalog
from ..context import Context
from ..errors import InvalidArguments, UnknownTool
from ..executor import Admission, Limits
from ..hooks import Hooks
from ..hookspecs import Outcome
from ..importer import Importer
from ..services import Health
from ..spec import Call, CallResult, Offer, Principal, Progress, ToolSpec
from .answering import answered, answered_misfit
from .binding import Apart, Binder, Bound
from .content import CallOptions, CompletionSpec, ContentCalls
from .extras import Extras
from .flight import Flights, closed
from .lanes import Lanes, before
from .plugins import enlist
from .policy import authorise, may_call
from .scope import Library, Scope, Share
from .services import ServiceProxy, Services
from .switching import Switched, Switches
from .usage import Usage

if TYPE_CHECKING:
    from ..inventory import Inventory
    from ..settings import Settings
    from .content_binding import BoundContent
    from .services import StreamServer


class Host(ContentCalls):
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
        self.content = inventory.content()
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
        self._watchers: list[Callable[[], None]] = []
        #: What plugins add to the server.
        self.extras = Extras(self._hooks, lambda: {row.name for row in self.inventory.enabled})
        #: Serves a client over a connected socket, on behalf of a principal and under a name; set
        #: by the server, where there is one.
        self.stream_server: StreamServer | None = None
        self._ids = (f"{secrets.token_hex(3)}-{n}" for n in itertools.count(1))

    # --- life ---------------------------------------------------------------------------------

    async def __aenter__(self) -> Host:
        self.lanes = Lanes(self.importer, self.settings)
        self._flights = Flights()
        self._usage = Usage()
        self._switches = Switches(self, self._hooks, self._services, self._usage)
        await enlist(self, self._hooks, self._services)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.stop_accepting()
        await self.drain(0.0)
        try:
            await self._switches.aclose()
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
        http = self.settings.http
        return tuple(s for s in self.catalog.specs if s.listed and may_call(principal, s, http))

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
        return await self._lead(
            self._look_up(name, principal),
            arguments,
            principal=principal,
            client=client,
            admission=admission,
            timeout=timeout,
            on_progress=on_progress,
            on_log=on_log,
            trace=trace,
        )

    async def _lead(
        self,
        spec: Offer,
        arguments: Mapping[str, Any],
        *,
        principal: Principal,
        client: str,
        admission: Literal["client", "worker"] = "client",
        **options: Unpack[CallOptions],
    ) -> CallResult:
        if self.closing:
            raise closed()
        timeout = options.get("timeout")
        if timeout is None:
            timeout = spec.timeout or self.settings.executor.timeout
        call = Call(
            id=next(self._ids),
            spec=spec,
            arguments=arguments,
            principal=principal,
            client=client,
            deadline=time.monotonic() + timeout,
            on_progress=options.get("on_progress"),
            on_log=options.get("on_log"),
            trace=options.get("trace") or {},
            admission=admission,
        )
        with self._flights.track(call), self._usage.of(spec.plugin):
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
        spec = self._look_up(name, outer.principal, within=outer.spec.plugin)
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
        with self._usage.of(spec.plugin):
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
        if isinstance(bound, Apart):
            await self._check_apart(bound, arguments, principal)
        else:
            bound.function.validate(arguments)
        return spec

    async def _bind(self, spec: Offer, deadline: float | None) -> Bound | Apart | BoundContent:
        binding = asyncio.ensure_future(self._binder.bind(spec))
        problem = f"The code of the {spec.label} has not been loaded in time."
        return await before(deadline, binding, problem)

    def _look_up(self, name: str, principal: Principal, *, within: str = "") -> ToolSpec:
        """Return the tool of a name, if the principal may call it.

        :param within: the plugin whose tool makes the call: what is in flight when its plugin is
            disabled can be finished.
        """
        spec = self.catalog.get(name)
        if spec is None:
            disabled, row = self.inventory.disabled_tool(name)
            if disabled is not None and row is not None:
                if row.name != within:
                    raise UnknownTool(
                        f"The tool {name!r} is not offered: its plugin {row.name!r} is disabled.",
                        hint=f"Enable it: mcpd plugins enable {row.name}",
                        data={"plugin": row.name, "state": row.state},
                    )
                spec = disabled
        if spec is None:
            close = self.catalog.close_matches(name)
            raise UnknownTool(
                f"No tool is called {name!r}.",
                hint=f"Did you mean {' or '.join(map(repr, close))}?" if close else "",
            )
        authorise(principal, spec, self.settings.http)
        return spec

    async def _admitted(self, call: Call, library: Library) -> CallResult:
        admission = self._admission[call.admission]
        permit = await self.lanes.from_library(
            library,
            partial(admission.acquire, call.client, call.spec.label, deadline=call.deadline),
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
        if isinstance(bound, Apart):
            apart = partial(self._perform_apart, bound, call, share)
            return await self.lanes.from_library(library, apart)
        try:
            arguments = bound.function.validate(call.arguments)
        except InvalidArguments as misfit:
            limit = self.settings.executor.max_result_bytes
            return answered_misfit(call, bound, misfit, limit=limit)
        target = library if bound.target == "any" else bound.target
        scope = Scope(self, call, target, share)
        if bound.function.context_parameter is not None:
            arguments[bound.function.context_parameter] = Context(scope)
        run = partial(self.lanes.run_tool, bound, scope, arguments, library)
        if isinstance(call.spec, CompletionSpec):
            # Nobody observes what a person types.
            self._flights.started(call)
            limit = self.settings.executor.max_result_bytes
            return await answered(call, run, bound.function.answer, library, limit=limit)
        return await self._observed(call, run, bound.function.answer, library)

    async def _perform_apart(self, bound: Apart, call: Call, share: Share) -> CallResult:
        """Do what `_perform` does for a tool in a process; awaited on the host's loop."""
        scope = Scope(self, call, "asyncio", share)
        ready = self.lanes.processes.prepared(bound.declared, bound.spec.runtime, call)
        async with ready as errand:
            if errand.stale:
                self._binder.report_stale(bound.declared)
            run = partial(errand.run, report=scope.report, log=scope.log)
            return await self._observed(call, run, lambda result: result, "asyncio")

    async def _check_apart(
        self, bound: Apart, arguments: Mapping[str, Any], principal: Principal
    ) -> None:
        deadline = time.monotonic() + self.settings.executor.timeout
        call = Call(next(self._ids), bound.spec, arguments, principal, "check", deadline)
        async with self.lanes.processes.prepared(bound.declared, bound.spec.runtime, call):
            # That it got so far is the answer.
            return

    async def _observed(
        self,
        call: Call,
        run: Callable[[], Awaitable[Any]],
        answer: Callable[[Any], CallResult],
        library: Library,
    ) -> CallResult:
        """Run a tool whose arguments are checked, before the eyes of the observers.

        :param answer: shapes what ``run`` returns.
        """
        self._flights.started(call)
        self._hooks.before_call(call)
        started = time.perf_counter()
        result: CallResult | None = None
        error: BaseException | None = None
        try:
            limit = self.settings.executor.max_result_bytes
            result = await answered(call, run, answer, library, limit=limit)
            return result
        except BaseException as raised:
            error = raised
            raise
        finally:
            self._hooks.after_call(call, Outcome(result, error, time.perf_counter() - started))
            # The error's traceback holds this frame, and with it the arguments.
            error = None

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

    async def set_enabled(self, plugin: str, enabled: bool) -> Switched:
        """Enable or disable a plugin, now and for the future; awaited on the host's loop.

        The tools of a disabled plugin are gone at once. Calls of them that are in flight finish;
        then its services are stopped and its hooks are forgotten. The choice is kept in the data
        directory, if there is one.

        :param plugin: its name, its distribution's if that has no other, or
            ``distribution:plugin``.
        :raises SelectionError: when there is no such plugin, or it cannot be enabled; nothing has
            changed then.
        :raises SettingsError: when the choice cannot be kept; the change itself stands.
        """
        return await self._switches.set(plugin, enabled)

    def _on_broken(self, plugin: str, reason: str) -> None:
        self.revise(self.inventory.with_broken(plugin, reason))

    def revise(self, inventory: Inventory) -> None:
        """Offer the tools of another set of plugins from now on."""
        self.inventory = inventory
        self.catalog = Catalog(inventory.specs())
        self.content = inventory.content()
        self.extras.forget()
        for watcher in list(self._watchers):
            watcher()

    def on_change(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back whenever other tools may be offered than before.

        :param callback: called on whatever thread made the change; it must not raise.
        :returns: what ends it.
        """
        self._watchers.append(callback)

        def forget() -> None:
            if callback in self._watchers:
                self._watchers.remove(callback)

        return forget
