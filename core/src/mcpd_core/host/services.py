"""The services of the enabled plugins: started once, owned by one runtime, stopped in reverse."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import McpdError, PluginLoadError, ServiceUnavailable
from ..hookspecs import Transport
from ..runtimes import Gate, Runtime
from ..services import Health, Service
from ..spec import CallResult, Principal, Progress, ToolSpec
from .looking import current as watched
from .streams import Receive, Send, serve_over

if TYPE_CHECKING:
    from .host import Host

T = TypeVar("T")

#: Serves one client over a connected socket, which it closes; awaited on the host's loop.
StreamServer = Callable[[socket.socket, Principal, str], Awaitable[None]]

_log = logging.getLogger(__name__)

#: Seconds after which a call no longer waits for a service to start.
START_LIMIT = 30.0


class Services:
    """Starts, hands out and stops services. Used on the host's loop."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._declared: dict[str, tuple[Service, str]] = {}
        self._running: dict[str, _Running] = {}

    def declare(self, plugin: str, service: Service) -> None:
        """Make a service of a plugin known; it is not started.

        :raises PluginLoadError: when another plugin declares the same name.
        """
        taken = self._declared.get(service.name)
        if taken is not None:
            raise PluginLoadError(
                plugin,
                f"The plugins {taken[1]!r} and {plugin!r} both declare a service {service.name!r}.",
                hint="Disable one of them.",
            )
        self._declared[service.name] = (service, plugin)

    def declare_transport(self, plugin: str, transport: Transport) -> None:
        """Make a transport of a plugin known: a service that is started with the server.

        :raises PluginLoadError: when another plugin declares the same name.
        """
        name = f"transport:{transport.name}"
        service = Service(name, transport.factory, transport.runtime, start="serve")
        self.declare(plugin, service)

    async def start_all(self, plugin: str | None = None) -> None:
        """Start the services that start with the server; a failure is logged.

        :param plugin: whose services; ``None`` for all.
        """
        starting = {
            name: asyncio.ensure_future(self.get(name))
            for name, (service, owner) in self._declared.items()
            if service.start == "serve" and plugin in (None, owner)
        }
        try:
            # Side by side: one that takes long must not keep the others from starting.
            await asyncio.gather(*starting.values(), return_exceptions=True)
        finally:
            for name, start in starting.items():
                start.cancel()
                if start.done() and not start.cancelled() and (error := start.exception()):
                    _log.error("Plugin %s: %s", self._declared[name][1], error)

    async def withdraw(self, plugin: str) -> None:
        """Stop the services of a plugin in the reverse order of their start, and forget them."""
        names = [name for name, (_, owner) in self._declared.items() if owner == plugin]
        for name in names:
            del self._declared[name]
        for name in [name for name in reversed(self._running) if name in names]:
            # Known until it has ended: what still runs belongs into the health of the host.
            await self._stop(self._running[name])
            del self._running[name]

    async def get(self, name: str) -> _Running:
        """Return a running service, started if need be.

        :raises ServiceUnavailable: when nobody declares it, it failed, or the host is closing.
        """
        running = self._running.get(name)
        if running is None or running.failed_to_start:
            # What was missing may be there by now.
            running = self._start(name)
        # Not awaited itself: another caller may wait for the same start.
        await asyncio.wait([running.started], timeout=START_LIMIT)
        if not running.started.done():
            raise ServiceUnavailable(
                f"The service {name!r} has not started in {START_LIMIT:g} s.",
                hint="Try again later; it may be waiting for itself.",
            )
        if running.problem:
            raise ServiceUnavailable(running.problem, hint="The server's log has the details.")
        return running

    def _start(self, name: str) -> _Running:
        declared = self._declared.get(name)
        if declared is None:
            raise ServiceUnavailable(
                f"No enabled plugin offers the service {name!r}.",
                hint="Look at `mcpd plugins list` for one that is disabled or missing.",
            )
        if self._host.closing:
            raise ServiceUnavailable(f"The service {name!r} is not started any more.")
        running = _Running(declared[0], declared[1], self._host)
        self._running[name] = running
        return running

    def health(self) -> dict[str, Health]:
        """Return how each service that was started is."""
        return {name: running.health() for name, running in self._running.items()}

    async def aclose(self) -> None:
        """Stop every service in the reverse order of its start, waiting for each."""
        for running in reversed(list(self._running.values())):
            await self._stop(running)

    async def _stop(self, running: _Running) -> None:
        try:
            await running.stop()
        except Exception:  # noqa: BLE001 - the boundary of a plugin's code
            _log.exception("The service %s could not be stopped.", running.service.name)


class _Running:
    """One service, from its start to its end, in one task of its owner runtime."""

    def __init__(self, service: Service, plugin: str, host: Host) -> None:
        self.service = service
        self.problem = ""
        self.was_started = False
        self.object: Any = None
        self.runtime: Runtime | None = None
        self._plugin = plugin
        self._host = host
        self._stop: Gate | None = None
        self.started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.get_running_loop().create_task(
            self._run(), name=f"service {service.name}"
        )

    @property
    def failed_to_start(self) -> bool:
        return self.started.done() and not self.was_started

    async def _run(self) -> None:
        name = self.service.name
        # The call that needed it first has nothing to do with what it does from now on.
        watched.set(None)
        try:
            factory = await asyncio.wrap_future(self._host.importer.load(self.service.factory))
            self.runtime = await self._host.lanes.runtime(self.service.runtime)
            self._stop = self.runtime.gate()
            view = HostView(self._host, self.service, self._plugin)
            await self.runtime.run(partial(self._own, factory, view, self._stop))
            self.problem = f"The service {name!r} has been stopped."
        except asyncio.CancelledError:
            self.problem = f"The service {name!r} was stopped while it started."
        except McpdError as error:
            self.problem = f"The service {name!r} {self._verb()}: {error}"
            _log.error("%s", self.problem)
        except BaseException as error:  # noqa: BLE001 - the boundary: sys.exit included
            self.problem = f"The service {name!r} {self._verb()}: {type(error).__name__}."
            _log.exception("The service %s of the plugin %s %s.", name, self._plugin, self._verb())
        finally:
            self.object = None
            if not self.started.done():
                self.started.set_result(None)

    def _verb(self) -> str:
        return "failed" if self.was_started else "cannot be started"

    async def _own(self, factory: Callable[[Any], Any], view: HostView, stop: Gate) -> None:
        async with factory(view) as self.object:
            self.was_started = True
            self.started.set_result(None)
            await stop.wait()

    def health(self) -> Health:
        if self.problem:
            return Health(False, self.problem)
        if self.object is None:
            return Health(True, "starting", pending=f"{self.service.name} is starting")
        try:
            answer = self.object.health()
        except Exception as error:  # noqa: BLE001 - the boundary of a plugin's code
            _log.exception("health() of the service %s raised.", self.service.name)
            return Health(False, f"health() raised {type(error).__name__}.")
        return answer if isinstance(answer, Health) else Health(False, "health() is malformed.")

    async def stop(self) -> None:
        if self.started.done() and self._stop is not None:
            self._stop.open()
        else:
            self._task.cancel()
        await asyncio.wait([self._task])


class HostView:
    """What one service sees of the host: `mcpd_core.ServiceHost`."""

    def __init__(self, host: Host, service: Service, plugin: str) -> None:
        self._host = host
        self._loop = asyncio.get_running_loop()
        self._in_trio = service.runtime == "trio"
        self.name = service.name
        self.settings = host.plugin_settings.get(plugin)
        self.log = logging.getLogger(f"mcpd.service.{service.name}")
        self._clients = itertools.count(1)

    @property
    def data_dir(self) -> Path:
        if self._host.data_dir is None:
            raise ServiceUnavailable(
                f"The service {self.name!r} needs a data directory, and this process owns none."
            )
        return self._host.data_dir

    def tool(self, name: str) -> ToolSpec | None:
        return self._host.catalog.get(name)

    async def call(
        self,
        tool: str,
        arguments: Mapping[str, Any],
        *,
        principal: Principal,
        client: str,
        timeout: float | None = None,
        within: float | None = None,
        cancel_grace: Callable[[], float] | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        on_log: Callable[[str, str], None] | None = None,
        max_result_bytes: int | None = None,
    ) -> CallResult:
        return await self._from_here(
            partial(
                self._host.call,
                tool,
                arguments,
                principal=principal,
                client=client,
                timeout=timeout,
                within=within,
                cancel_grace=cancel_grace,
                on_progress=on_progress,
                on_log=on_log,
                max_result_bytes=max_result_bytes,
                admission="worker",
            )
        )

    def call_soon(self, function: Callable[[], object]) -> None:
        try:
            # Not in the context of whoever asks, which may be that of another call.
            self._loop.call_soon_threadsafe(function, context=contextvars.Context())
        except RuntimeError:
            if not self._loop.is_closed():
                raise

    @property
    def followed(self) -> bool:
        return self._host.updates.followed

    def resource_changed(self, uri: str, *, principal: Principal | None = None) -> None:
        self._host.updates.changed(uri, principal)

    def on_closing(self, callback: Callable[[], None]) -> Callable[[], None]:
        return self._host.on_closing(callback)

    async def check(
        self, tool: str, arguments: Mapping[str, Any], *, principal: Principal
    ) -> ToolSpec:
        return await self._from_here(
            partial(self._host.check, tool, arguments, principal=principal)
        )

    async def serve_stream(self, receive: Receive, send: Send, *, principal: Principal) -> None:
        server = self._host.stream_server
        if server is None:
            raise ServiceUnavailable("This process serves no clients.")
        client = f"{self.name}:{next(self._clients)}"

        async def serve(sock: socket.socket) -> None:
            # In a task of its own, where a cancellation is delivered once.
            apart = (await self._host.lanes.runtime("asyncio")).run
            await self._from_here(partial(apart, partial(server, sock, principal, client)))

        await serve_over(receive, send, serve)

    async def _from_here(self, function: Callable[[], Awaitable[T]]) -> T:
        if self._in_trio:
            return await self._host.lanes.trio.run_in_host(function)
        return await function()


class ServiceProxy:
    """A service as seen from another runtime: each of its methods is awaited."""

    def __init__(self, running: _Running, cross: Callable[[Callable[[], Any]], Any]) -> None:
        self._running = running
        self._cross = cross

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def method(*args: Any, **kwargs: Any) -> Any:
            async def inside() -> Any:
                if self._running.object is None:
                    raise ServiceUnavailable(self._running.problem)
                answer = getattr(self._running.object, name)(*args, **kwargs)
                return await answer if hasattr(answer, "__await__") else answer

            return await self._cross(inside)

        return method
