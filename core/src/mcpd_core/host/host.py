"""`Host`: the owner of everything that a call needs."""

from __future__ import annotations

import itertools
import logging
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..catalog import Catalog
from ..content.template import UriTemplate
from ..executor import Admission, Limits
from ..hooks import Hooks
from ..importer import Importer
from ..services import Health
from ..spec import Answer, CallResult, Offer, Principal, Progress, ToolCall, ToolSpec
from .binding import Binder
from .calling import CallPath
from .extras import Extras, Finder
from .flight import Flights
from .lane import Lane
from .lanes import Lanes
from .many import Mode, OnAnswer, call_many
from .overview import overview
from .plugins import enlist
from .policy import may_call
from .readiness import Readiness
from .services import ServiceProxy, Services
from .statistics import Statistics
from .switching import Switched, Switches
from .updates import Updates
from .usage import Usage
from .watchdog import Watchdog

if TYPE_CHECKING:
    from ..inventory import Inventory
    from ..settings import Settings
    from .services import StreamServer

log = logging.getLogger(__name__)


class Host(CallPath):
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
        #: Who follows which resource.
        self.updates = Updates(self._readable)
        self._services = Services(self)
        self._watchers: list[Callable[[], None]] = []
        self._at_close: dict[object, Callable[[], None]] = {}
        self._at_close_lock = threading.Lock()
        #: What plugins add to the server.
        self.extras = Extras(
            self._hooks, lambda: {row.name for row in self.inventory.enabled}, Finder(self)
        )
        #: Serves a client over a connected socket, on behalf of a principal and under a name; set
        #: by the server, where there is one.
        self.stream_server: StreamServer | None = None
        # Ids of different hosts differ, because their logs may be read together.
        start = secrets.token_hex(3)
        self._ids = (f"{start}-{n}" for n in itertools.count(1))

    # --- life ---------------------------------------------------------------------------------

    async def __aenter__(self) -> Host:
        self.lanes = Lanes(self.importer, self.settings)
        self._flights = Flights()
        self._usage = Usage()
        self.statistics = Statistics()
        self.watchdog = Watchdog(
            self.settings.watchdog, self._binder.move_to_thread, self.lanes.trio_task
        )
        self._readiness = Readiness(self._hooks)
        self._switches = Switches(self, self._hooks, self._services, self._usage)
        await enlist(self, self._hooks, self._services)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.stop_accepting()
        await self.drain(0.0)
        try:
            await self._switches.aclose()
            await self._readiness.aclose()
            await self._services.aclose()
        finally:
            await self.lanes.aclose()
            self.updates.close()
            self.watchdog.close()

    async def start_services(self) -> None:
        """Start the services that start with the server; a failure is logged."""
        await self._services.start_all()

    def stop_accepting(self) -> None:
        """Refuse further calls, except those that calls in flight make themselves."""
        with self._at_close_lock:
            self.closing = True
            callbacks, self._at_close = self._at_close, {}
        for callback in callbacks.values():
            try:
                callback()
            except Exception:
                # The boundary of a plugin's code; the others are to be told, and the server stops.
                log.exception("a service could not be told that the server stops")

    def on_closing(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back, once, as soon as further calls are refused: perhaps at once.

        :param callback: called on the thread that stops the host, or on this one; it must neither
            wait nor raise.
        :returns: what ends it.
        """
        token = object()
        with self._at_close_lock:
            closing = self.closing
            if not closing:
                self._at_close[token] = callback
        if closing:
            callback()

        def forget() -> None:
            self._at_close.pop(token, None)

        return forget

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

    def overview(self) -> dict[str, Any]:
        """Return what runs and what became of the calls, as JSON data (see `overview`)."""
        return overview(self, self._binder, self._admission)

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
        within: float | None = None,
        cancel_grace: Callable[[], float] | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        on_log: Callable[[str, str], None] | None = None,
        trace: Mapping[str, str] | None = None,
        admission: Literal["client", "worker"] = "client",
        on_start: Callable[[], None] | None = None,
        max_result_bytes: int | None = None,
    ) -> CallResult:
        """Call a tool; awaited on the host's loop. Cancelling the awaiting task cancels the tool.

        :param client: whose queue the call joins when permits are short.
        :param timeout: seconds for everything, the wait for a permit included; ``None`` means the
            tool's own or the host's default.
        :param within: seconds that it may take at most, whichever timeout counts otherwise.
        :param cancel_grace: see `Call.cancel_grace`.
        :param on_progress: called on this thread for each progress report of the tool.
        :param on_log: called on this thread with level and text of each log line of the tool.
        :param trace: W3C trace context of the request.
        :param on_start: called on this thread when the tool starts.
        :param max_result_bytes: as for `ServiceHost.call`.
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
            within=within,
            cancel_grace=cancel_grace,
            on_progress=on_progress,
            on_log=on_log,
            trace=trace,
            on_start=on_start,
            max_result_bytes=max_result_bytes,
        )

    async def call_many(
        self,
        calls: Sequence[ToolCall],
        *,
        principal: Principal,
        client: str,
        limit: int | None = None,
        mode: Mode = "collect",
        timeout: float | None = None,
        admission: Literal["client", "worker"] = "client",
        on_answer: OnAnswer | None = None,
    ) -> list[Answer]:
        """Call several tools; awaited on the host's loop. However it ends, nothing runs on.

        :param limit: how many may run at once, at least 1; ``None``, or more than may run for one
            client, means as many as may.
        :param mode: ``first_error`` cancels what runs when a call fails, and starts nothing more.
        :param timeout: seconds for all of them; each has its own as well.
        :param on_answer: called on this thread with the index and the answer of each call that
            ended by itself, as they come; what it raises ends the batch, and is raised.
        :returns: an answer for each call, in their order.
        """
        return await call_many(
            self,
            calls,
            principal=principal,
            client=client,
            limit=limit,
            mode=mode,
            timeout=timeout,
            admission=admission,
            on_answer=on_answer,
        )

    async def service(self, name: str, lane: Lane, *, user: Offer | None = None) -> Any:
        """Return a service for code that runs in ``lane`` (see `Context.service`).

        :param user: the tool whose code it is.
        """
        if user is not None:
            self._binder.note_service(user)
        running = await self.lanes.beside(lane).run_in_host(partial(self._services.get, name))
        assert running.runtime is not None
        if running.runtime is lane:
            return running.object
        return ServiceProxy(running, partial(self.lanes.cross, lane, running.runtime))

    async def readiness(self, specs: Sequence[ToolSpec]) -> dict[str, str]:
        """Return why tools cannot run here, by name; awaited on the host's loop.

        Their plugins are asked, in worker threads, and what they say is kept for a minute.
        """
        return await self._readiness.of(specs)

    def _readable(self, principal: Principal, uri: str) -> str | None:
        """Return the usual spelling of a URI that a principal may read, else ``None``."""
        found = self.content.resource(uri)
        if found is None or not may_call(principal, found[0], self.settings.http):
            return None
        spec, values = found
        return UriTemplate(spec.uri).expand(values) if spec.is_template else spec.uri

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
