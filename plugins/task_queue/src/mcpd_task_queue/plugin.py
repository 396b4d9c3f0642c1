"""The plugin's hooks. Nothing heavy is imported before a hook is called."""

from __future__ import annotations

from mcpd_core import Registrar, Service, ServiceFinder, hookimpl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from pydantic import BaseModel

    from mcpd_core import Ask, Finding, HttpRoute, RpcHandler


@hookimpl
def mcpd_register_tools(registrar: Registrar) -> None:
    """Offer the tools; with a manifest this is only called to make it."""
    from .tools import MODULES

    for module in MODULES:
        registrar.add_module(module)


@hookimpl
def mcpd_services() -> list[Service]:
    """Declare the store with its workers; they run for as long as the server."""
    return [Service("task_queue", "mcpd_task_queue.service:open_service", "trio", start="serve")]


@hookimpl
def mcpd_settings() -> tuple[str, type[BaseModel]]:
    """Name the section of the settings file, and the model that checks it."""
    from .settings import TaskQueueSettings

    return "task_queue", TaskQueueSettings


@hookimpl
def mcpd_rpc_methods(services: ServiceFinder) -> Mapping[str, RpcHandler]:
    """Answer what only the owner of the server may ask for."""
    from .rpc import methods

    return methods(services)


@hookimpl
def mcpd_doctor_checks(data_dir: Path, ask: Ask | None) -> Iterable[Finding]:
    """Look whether the stored tasks are sound."""
    from .checks import examine

    return examine(data_dir, ask)


@hookimpl
def mcpd_http_routes(services: ServiceFinder) -> Iterable[HttpRoute]:
    """Serve the metrics."""
    from .pages import routes

    return routes(services)
