"""The registry adapter: the tools of a server object in the shape that peers looked for."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from .manager import get_tool_manager
from .metadata import RUNTIME_FASTAPI, RUNTIME_TRIO
from .router import RUNTIME_UNKNOWN

HIERARCHICAL_META_TOOL_NAMES = {
    "tools_list_categories",
    "tools_list_tools",
    "tools_get_schema",
    "tools_dispatch",
}


class P2PMCPRegistryAdapter:
    """Describes the tools of a server object, by name.

    :param host_server: has ``tools``, functions by name. When those are the four meta tools and
        nothing else, the tools of `get_tool_manager` are described.
    :param default_runtime: of tools that nothing is known about.
    :param enable_runtime_detection: whether marks and modules of functions are looked at.
    """

    def __init__(
        self,
        host_server: Any,
        default_runtime: str = RUNTIME_FASTAPI,
        enable_runtime_detection: bool = True,
    ) -> None:
        self._host = host_server
        self._default_runtime = default_runtime
        self._enable_runtime_detection = enable_runtime_detection
        self._stated: dict[str, str] = {}

    @property
    def accelerate_instance(self) -> Any:
        """The server object."""
        return self._host

    @property
    def tools(self) -> dict[str, dict[str, Any]]:
        """Each tool as its function, its description, its schema and its runtime."""
        own = getattr(self._host, "tools", None)
        if not isinstance(own, dict):
            return {}
        if own and HIERARCHICAL_META_TOOL_NAMES.issuperset(own):
            return self._of_the_manager()
        return {
            str(name): self._described(function, self._runtime_of(str(name), function))
            for name, function in own.items()
            if callable(function)
        }

    def _described(
        self,
        function: Callable[..., Any],
        runtime: str,
        schema: dict[str, Any] | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        trio = runtime == RUNTIME_TRIO
        return {
            "function": function,
            "description": str(getattr(function, "__doc__", None) or ""),
            "input_schema": schema or {},
            "runtime": runtime,
            "runtime_metadata": {
                "is_async": inspect.iscoroutinefunction(function),
                "is_trio_native": trio,
                "requires_trio_context": trio,
                **more,
            },
        }

    def _of_the_manager(self) -> dict[str, dict[str, Any]]:
        manager = get_tool_manager()
        manager.discover_categories()
        found = {}
        for category in manager.categories.values():
            for name, spec in category.specs.items():
                function = _dispatching(category.name, name, spec.description)
                found[name] = self._described(
                    function,
                    self._default_runtime,
                    dict(spec.input_schema),
                    category=category.name,
                    hierarchical=True,
                )
        return found

    def _runtime_of(self, name: str, function: Callable[..., Any]) -> str:
        if name in self._stated:
            return self._stated[name]
        if not self._enable_runtime_detection:
            return self._default_runtime
        marked = getattr(function, "_mcp_runtime", None)
        if marked in (RUNTIME_FASTAPI, RUNTIME_TRIO):
            return str(marked)
        module = str(getattr(function, "__module__", "")).lower()
        return RUNTIME_TRIO if "trio" in module or "mcplusplus" in module else RUNTIME_FASTAPI

    async def validate_p2p_message(self, msg: dict[str, Any]) -> bool:
        """Ask the server object whether a message may be believed; without an answer, no."""
        validate = getattr(self._host, "validate_p2p_message", None)
        if not callable(validate):
            return False
        answer = validate(msg)
        return bool(await answer if inspect.isawaitable(answer) else answer)

    def register_trio_tool(self, name: str) -> None:
        """State that a tool is trio's."""
        self._stated[name] = RUNTIME_TRIO

    def register_fastapi_tool(self, name: str) -> None:
        """State that a tool is asyncio's."""
        self._stated[name] = RUNTIME_FASTAPI

    def is_trio_tool(self, name: str) -> bool:
        """Whether a tool is trio's, stated or found out."""
        found = self._stated.get(name) or self.tools.get(name, {}).get("runtime")
        return found == RUNTIME_TRIO

    def get_tools_by_runtime(self, runtime: str) -> dict[str, dict[str, Any]]:
        """Return those of one runtime."""
        return {name: each for name, each in self.tools.items() if each["runtime"] == runtime}

    def get_trio_tools(self) -> dict[str, dict[str, Any]]:
        """Return those of trio."""
        return self.get_tools_by_runtime(RUNTIME_TRIO)

    def get_fastapi_tools(self) -> dict[str, dict[str, Any]]:
        """Return those of asyncio."""
        return self.get_tools_by_runtime(RUNTIME_FASTAPI)

    def get_runtime_stats(self) -> dict[str, Any]:
        """Return how many there are of each runtime."""
        runtimes = [each["runtime"] for each in self.tools.values()]
        return {
            "total_tools": len(runtimes),
            "trio_tools": runtimes.count(RUNTIME_TRIO),
            "fastapi_tools": runtimes.count(RUNTIME_FASTAPI),
            "unknown_tools": runtimes.count(RUNTIME_UNKNOWN),
            "runtime_detection_enabled": self._enable_runtime_detection,
            "default_runtime": self._default_runtime,
        }

    def clear_runtime_cache(self) -> None:
        """Do nothing: what is found out is not kept, and what was stated stays."""


def _dispatching(category: str, name: str, description: str) -> Callable[..., Any]:
    async def wrapper(**kwargs: Any) -> dict[str, Any]:
        return await get_tool_manager().dispatch(category, name, kwargs)

    wrapper.__name__ = wrapper.__qualname__ = name
    wrapper.__doc__ = description
    return wrapper
