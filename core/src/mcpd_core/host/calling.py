"""The way of a call: look up, authorise, admit, bind, validate, route, run, shape, observe."""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..context import Context
from ..errors import InvalidArguments, NotStarted, UnknownTool
from ..executor import Admission
from ..hookspecs import Outcome
from ..spec import Call, CallResult, Offer, Principal, Progress, ToolSpec
from .answering import answered, answered_misfit
from .binding import Apart, Binder, Bound
from .content import CompletionSpec, ContentCalls
from .flight import Flights, closed
from .lane import Lane
from .lanes import Lanes, before
from .policy import authorise
from .scope import Scope
from .share import Lease, Share

if TYPE_CHECKING:
    from ..catalog import Catalog
    from ..hooks import Hooks
    from ..inventory import Inventory
    from .content_binding import BoundContent
    from .statistics import Statistics
    from .usage import Usage
    from .watchdog import Watchdog


class CallPath(ContentCalls):
    """The part of the host that every call goes through, top-level, nested, or only checked."""

    catalog: Catalog
    inventory: Inventory
    data_dir: Path | None
    closing: bool
    lanes: Lanes
    statistics: Statistics
    watchdog: Watchdog
    _ids: Iterator[str]
    _hooks: Hooks
    _binder: Binder
    _admission: dict[str, Admission]
    _flights: Flights
    _usage: Usage

    @abstractmethod
    async def service(self, name: str, lane: Lane, *, user: Offer | None = None) -> Any: ...

    @abstractmethod
    async def readiness(self, specs: Sequence[ToolSpec]) -> dict[str, str]: ...

    async def _lead(
        self,
        spec: Offer,
        arguments: Mapping[str, Any],
        *,
        principal: Principal,
        client: str,
        admission: Literal["client", "worker"] = "client",
        timeout: float | None = None,
        within: float | None = None,
        cancel_grace: Callable[[], float] | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        on_log: Callable[[str, str], None] | None = None,
        trace: Mapping[str, str] | None = None,
        on_start: Callable[[], None] | None = None,
        max_result_bytes: int | None = None,
    ) -> CallResult:
        if self.closing:
            raise closed()
        if timeout is None:
            timeout = spec.timeout or self.settings.executor.timeout
        if within is not None:
            timeout = min(timeout, within)
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
            on_start=on_start,
            max_result_bytes=max_result_bytes,
            cancel_grace=cancel_grace,
        )
        flight = self._flights.track(call)
        with flight, self._usage.of(spec.plugin), self.statistics.of(spec):
            try:
                return await self._admitted(call, self.lanes.loop)
            except asyncio.CancelledError:
                answer = flight.answer()
                if answer is None:
                    raise
                return answer

    async def call_nested(
        self,
        parent: Scope,
        name: str,
        arguments: Mapping[str, Any],
        *,
        until: float | None = None,
        on_start: Callable[[], None] | None = None,
        own_permit: bool = False,
        relay: bool = False,
    ) -> CallResult:
        """Call a tool from within another; awaited where `Lanes.beside` says (see `Context.call`).

        :param until: `time.monotonic` time that counts in place of the tool's own timeout.
        :param own_permit: never runs under the permit of the parent, which waits for several.
        :param relay: whether its progress and its log lines are those of the parent.
        """
        outer = parent.call
        if parent.share.ended:
            raise NotStarted(
                f"The tool {name!r} was not started, because the call of the {outer.spec.label} "
                "from within which it was asked for has ended.",
                hint="Have a tool wait for all that it starts before it returns.",
            )
        spec = self._look_up(name, outer.principal, within=outer.spec.plugin)
        deadline = outer.deadline
        if until is None and spec.timeout is not None:
            until = time.monotonic() + spec.timeout
        if until is not None:
            deadline = until if deadline is None else min(until, deadline)
        call = Call(
            id=next(self._ids),
            spec=spec,
            arguments=arguments,
            principal=outer.principal,
            client=outer.client,
            deadline=deadline,
            parent=outer,
            on_progress=outer.on_progress if relay else None,
            on_log=outer.on_log if relay else None,
            trace=outer.trace,
            admission=outer.admission,
            on_start=on_start,
            cancel_grace=outer.cancel_grace,
        )
        lane = self.lanes.beside(parent.lane)
        with self._usage.of(spec.plugin), self.statistics.of(spec):
            nested = None if own_permit else parent.share.nested()
            if nested is None:
                return await self._admitted(call, lane, parent.lane)
            with nested:
                return await self._perform(call, lane, nested, parent.lane)

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

    async def _admitted(self, call: Call, lane: Lane, origin: Lane | None = None) -> CallResult:
        admission = self._admission[call.admission]
        client, tool = call.client, call.spec.label
        permit = admission.admit(client, tool)
        if permit is None:
            acquire = partial(admission.acquire, client, tool, deadline=call.deadline)
            permit = await lane.run_in_host(acquire)
        with Share(Lease(admission, permit)) as share:
            return await self._perform(call, lane, share, origin)

    def largest_answer(self, call: Call) -> int:
        """Return how many bytes the answer to a call may have."""
        return call.max_result_bytes or self.settings.executor.max_result_bytes

    async def _perform(
        self, call: Call, lane: Lane, share: Share, origin: Lane | None
    ) -> CallResult:
        """Bind, validate, run, shape and observe one call.

        :param lane: in which this is awaited, on the host's thread.
        :param origin: where the caller's code runs, if that is another tool in a lane.
        """
        bound = self._binder.get(call.spec)
        if bound is None:
            bind = partial(self._bind, call.spec, call.deadline)
            bound = await lane.run_in_host(bind)
        if isinstance(bound, Apart):
            return await lane.run_in_host(partial(self._perform_apart, bound, call, share))
        try:
            arguments = bound.function.validate(call.arguments)
        except InvalidArguments as misfit:
            limit = self.largest_answer(call)
            return answered_misfit(call, bound, misfit, limit=limit)
        scope = Scope(self, call, self.lanes.of(bound, origin or lane), share)
        if bound.function.context_parameter is not None:
            arguments[bound.function.context_parameter] = Context(scope)
        run = partial(self.lanes.run_tool, bound, scope, arguments, lane)
        if scope.lane is not None and self.lanes.beside(scope.lane) is scope.lane:
            run = partial(self.watchdog.run, call, run)
        if isinstance(call.spec, CompletionSpec):
            # Nobody observes what a person types.
            self._flights.started(call)
            limit = self.largest_answer(call)
            return await answered(call, run, bound.function.answer, lane.name, limit=limit)
        return await self._observed(call, run, bound.function.answer, lane.name)

    async def _perform_apart(self, bound: Apart, call: Call, share: Share) -> CallResult:
        """Do what `_perform` does for a tool in a process; awaited on the host's loop."""
        scope = Scope(self, call, self.lanes.loop, share)
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
        library: str,
    ) -> CallResult:
        """Run a tool whose arguments are checked, before the eyes of the observers.

        :param answer: shapes what ``run`` returns.
        """
        self._flights.started(call)
        self._hooks.before_call(call)
        statistics = self.statistics.of(call.spec)
        statistics.started()
        started = time.perf_counter()
        result: CallResult | None = None
        error: BaseException | None = None
        try:
            limit = self.largest_answer(call)
            result = await answered(call, run, answer, library, limit=limit)
            return result
        except BaseException as raised:
            error = raised
            raise
        finally:
            seconds = time.perf_counter() - started
            statistics.ended(result, seconds)
            if self._hooks.call_observers():
                self._hooks.after_call(call, Outcome(result, error, seconds))
            # The error's traceback holds this frame, and with it the arguments.
            error = None
