"""One category of a tree: its tools, described and run without a server."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from threading import Lock
from typing import Any

import anyio.to_thread

from mcpd_core import CallResult, LoadedTool, ToolSpec

from ..meta.names import PLUGIN
from ..meta.schemas import brief, described
from ..options import Options, TreeOptions
from ..provider import described as described_tool
from ..records import LegacyTool
from ..scan import scan
from .metadata import RUNTIME_TRIO
from .trio_thread import run_code

#: One import at a time: modules of a tree find each other while they are loaded.
_importing = Lock()


def scanned(root: Path | None, category: str = "") -> list[LegacyTool]:
    """Return the tools of a tree, or of the installed package.

    :param root: the directory of the categories; ``None`` for the installed package.
    :param category: only this one.
    """
    trees = () if root is None else (TreeOptions(str(root)),)
    include = (f"{category}/*",) if category else ()
    return list(scan(Options(trees=trees, installed=root is None, include=include)).tools)


class ToolCategory:
    """A category of tools.

    Its tools are those that mcpd's scan finds, which are more than the old rule of names did; a
    file that is broken keeps no other from being found. Nothing is imported before a tool is run.

    :param path: its directory.
    """

    def __init__(self, name: str, path: Path, description: str = "") -> None:
        self.name = name
        self.path = Path(path)
        self.description = description
        self._specs: dict[str, ToolSpec] | None = None
        self._loaded: dict[str, LoadedTool] = {}

    def discover_tools(self) -> None:
        """Find the tools, once."""
        if self._specs is None:
            self.fill(scanned(self.path.parent, self.path.name))

    def fill(self, tools: Iterable[LegacyTool]) -> None:
        """Take tools that have been found already."""
        self._specs = {tool.tool: _spec(tool) for tool in tools}

    @property
    def specs(self) -> Mapping[str, ToolSpec]:
        """The contracts of the tools, by their names."""
        self.discover_tools()
        return self._specs or {}

    def list_tools(self) -> list[dict[str, Any]]:
        """Return name and short description of each tool."""
        return [{**brief(spec, self.name), "name": name} for name, spec in self.specs.items()]

    def get_tool_schema(self, tool_name: str) -> dict[str, Any] | None:
        """Describe a tool in the old form, with its JSON Schema as ``input_schema``."""
        spec = self.specs.get(tool_name)
        return None if spec is None else {**described(spec, self.name), "name": tool_name}

    def get_tool(self, tool_name: str) -> Callable[..., Any] | None:
        """Return the code of a tool, imported, as a function that takes its arguments by name.

        It is ``async def`` where the code is. Its arguments are held to the schema, and what it
        returns is the payload that a client would get.

        :raises Exception: whatever the module raises while it is imported.
        """
        spec = self.specs.get(tool_name)
        if spec is None:
            return None
        loaded = self._load(spec)
        if inspect.iscoroutinefunction(loaded.function):

            async def awaited(**arguments: Any) -> Any:
                return payload(await loaded.function(**_checked(loaded, arguments)))

            return _named(awaited, tool_name, spec)

        def called(**arguments: Any) -> Any:
            return payload(loaded.function(**_checked(loaded, arguments)))

        return _named(called, tool_name, spec)

    async def run(self, tool_name: str, arguments: Mapping[str, Any]) -> CallResult:
        """Import the code of a tool, if need be, and run it once, where it belongs.

        :raises KeyError: when there is no such tool.
        :raises InvalidArguments: when they do not fit.
        :raises Exception: whatever importing its module raises.
        """
        spec = self.specs[tool_name]
        loaded = await anyio.to_thread.run_sync(self._load, spec)
        checked = _checked(loaded, arguments)
        result = await run_code(
            loaded.function, (), checked, in_trio_loop=spec.runtime == RUNTIME_TRIO
        )
        assert isinstance(result, CallResult)
        return result

    def _load(self, spec: ToolSpec) -> LoadedTool:
        with _importing:
            if spec.name not in self._loaded:
                # The first tool pays for what running tools takes.
                from ..running.loading import load

                self._loaded[spec.name] = load(spec)
            return self._loaded[spec.name]

    def clear_schema_cache(self) -> None:
        """Do nothing: descriptions are not kept."""

    def cache_info(self) -> dict[str, int]:
        """Return the counts of a cache that is always empty."""
        return {"hits": 0, "misses": 0, "size": 0}


def payload(result: CallResult) -> Any:
    """Return what a tool returned, as JSON data."""
    return result.text if result.structured is None else result.structured


def _spec(tool: LegacyTool) -> ToolSpec:
    return ToolSpec(
        name=tool.name,
        description=described_tool(tool),
        input_schema=tool.input_schema,
        entry=tool.entry,
        plugin=PLUGIN,
        category=tool.category,
        runtime=tool.runtime,
        placement="loop" if tool.is_async else "thread",
        source=tool.source,
        aliases=tool.aliases,
    )


def _checked(loaded: LoadedTool, arguments: Mapping[str, Any]) -> dict[str, Any]:
    return dict(arguments if loaded.check is None else loaded.check(arguments))


def _named(function: Callable[..., Any], name: str, spec: ToolSpec) -> Callable[..., Any]:
    function.__name__ = function.__qualname__ = name
    function.__doc__ = spec.description
    vars(function)["_mcp_runtime"] = RUNTIME_TRIO if spec.runtime == RUNTIME_TRIO else "fastapi"
    return function
