"""``tool_metadata`` and the registry that it writes to."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

RUNTIME_FASTAPI = "fastapi"
RUNTIME_TRIO = "trio"
RUNTIME_AUTO = "auto"

F = TypeVar("F", bound=Callable[..., Any])

_log = logging.getLogger(__name__)
_RUNTIMES = (RUNTIME_FASTAPI, RUNTIME_TRIO, RUNTIME_AUTO)


@dataclass(frozen=True)
class ToolMetadata:
    """What is known about a tool.

    mcpd acts upon the runtime and the time limit of a tool in a tree; the rest is there to be asked
    for, as it was with the old server.

    :ivar runtime: ``fastapi`` (which meant asyncio), ``trio``, or ``auto``.
    :ivar timeout_seconds: seconds; ``None`` is no limit.
    :raises ValueError: when there is no such runtime.
    """

    name: str
    runtime: str = RUNTIME_AUTO
    requires_p2p: bool = False
    category: str = "general"
    priority: int = 5
    timeout_seconds: float | None = 30.0
    retry_policy: str = "none"
    memory_intensive: bool = False
    cpu_intensive: bool = False
    io_intensive: bool = False
    mcp_schema: dict[str, Any] | None = None
    mcp_description: str | None = None
    cache_ttl: float | None = None
    schema_version: str = "1.0"
    deprecated: bool = False
    deprecation_message: str = ""
    _func: Callable[..., Any] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.runtime not in _RUNTIMES:
            raise ValueError(f"Invalid runtime: {self.runtime}")

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the function."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "_func"}

    def validate_complete(self) -> list[str]:
        """Return what is missing or contradicts itself."""
        checks = (
            (not self.name, "Tool name is required"),
            (not self.mcp_description, "MCP description is recommended"),
            (not self.mcp_schema, "MCP schema is recommended"),
            (
                self.requires_p2p and self.runtime == RUNTIME_FASTAPI,
                "P2P tool should use trio runtime",
            ),
        )
        return [warning for wrong, warning in checks if wrong]


class ToolMetadataRegistry:
    """The metadata of all tools, by name.

    A name that is registered anew has only its newer runtime and category.
    """

    def __init__(self) -> None:
        self._registry: dict[str, ToolMetadata] = {}

    def register(self, metadata: ToolMetadata) -> None:
        """Add or replace the metadata of a tool."""
        existing = self._registry.get(metadata.name)
        if existing is not None and existing.runtime != metadata.runtime:
            _log.warning(
                "Tool %r re-registered with different runtime: %s -> %s",
                metadata.name,
                existing.runtime,
                metadata.runtime,
            )
        self._registry[metadata.name] = metadata

    def get(self, tool_name: str) -> ToolMetadata | None:
        """Return the metadata of a tool, if it is known."""
        return self._registry.get(tool_name)

    def list_by_runtime(self, runtime: str) -> list[ToolMetadata]:
        """Return those of a runtime."""
        return [each for each in self._registry.values() if each.runtime == runtime]

    def list_by_category(self, category: str) -> list[ToolMetadata]:
        """Return those of a category."""
        return [each for each in self._registry.values() if each.category == category]

    def list_all(self) -> list[ToolMetadata]:
        """Return all of them."""
        return list(self._registry.values())

    get_by_runtime = list_by_runtime
    get_by_category = list_by_category

    def get_statistics(self) -> dict[str, Any]:
        """Return how many there are, by runtime and by category."""
        found = self.list_all()
        categories = dict.fromkeys(each.category for each in found)
        return {
            "total": len(found),
            "total_tools": len(found),
            "by_runtime": {runtime: len(self.list_by_runtime(runtime)) for runtime in _RUNTIMES},
            "by_category": {name: len(self.list_by_category(name)) for name in categories},
            "p2p_tools": sum(each.requires_p2p for each in found),
            "categories": len(categories),
        }

    def clear(self) -> None:
        """Forget all of them."""
        self._registry.clear()


_registry = ToolMetadataRegistry()


def get_registry(context: Any = None) -> ToolMetadataRegistry:
    """Return the registry of a server context, or else the one of this process."""
    found = _registry if context is None else context.metadata_registry
    assert isinstance(found, ToolMetadataRegistry)
    return found


def tool_metadata(
    runtime: str = RUNTIME_AUTO,
    requires_p2p: bool = False,
    category: str = "general",
    priority: int = 5,
    timeout_seconds: float | None = 30.0,
    retry_policy: str = "none",
    memory_intensive: bool = False,
    cpu_intensive: bool = False,
    io_intensive: bool = False,
    mcp_schema: dict[str, Any] | None = None,
    mcp_description: str | None = None,
    cache_ttl: float | None = None,
    schema_version: str = "1.0",
    deprecated: bool = False,
    deprecation_message: str = "",
) -> Callable[[F], F]:
    """Note metadata on a function and in the registry; the function stays as it is.

    The parameters are the fields of `ToolMetadata`.

    :raises ValueError: when there is no such runtime.
    """
    given = dict(locals())

    def decorate(function: F) -> F:
        name = getattr(function, "__name__", type(function).__name__)
        told = mcp_description or inspect.getdoc(function) or f"Tool: {name}"
        metadata = ToolMetadata(
            **{**given, "name": name, "mcp_description": told, "_func": function}
        )
        get_registry().register(metadata)
        marks = {
            "_mcp_metadata": metadata,
            "_mcp_runtime": runtime,
            "_mcp_requires_p2p": requires_p2p,
            "_mcp_category": category,
            "_mcp_priority": priority,
        }
        for mark, value in marks.items():
            setattr(function, mark, value)
        return function

    return decorate


def get_tool_metadata(func_or_name: Callable[..., Any] | str) -> ToolMetadata | None:
    """Return the metadata of a function, or of the tool of that name."""
    if isinstance(func_or_name, str):
        return get_registry().get(func_or_name)
    own = getattr(func_or_name, "_mcp_metadata", None)
    if isinstance(own, ToolMetadata):
        return own
    return get_registry().get(getattr(func_or_name, "__name__", ""))
