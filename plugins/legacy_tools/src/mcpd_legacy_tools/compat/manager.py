"""The hierarchical tool manager: categories, their tools, and calls of them, without a server."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio

from mcpd_core import CallResult, InvalidArguments

from ..meta.tools import description_of
from .category import ToolCategory, scanned

_SHUTTING_DOWN = "Server is shutting down — no new tool calls accepted."


class HierarchicalToolManager:
    """Finds the tools of a tree and runs them.

    :param tools_root: the directory of the categories, wherever it lies; by default that of the
        installed package ``ipfs_datasets_py``.
    :ivar categories: by name.
    """

    def __init__(self, tools_root: Path | str | None = None) -> None:
        self.tools_root = None if tools_root is None else Path(tools_root)
        self.categories: dict[str, ToolCategory] = {}
        self._lazy: dict[str, Callable[[], ToolCategory]] = {}
        self._discovered = False
        self._shutting_down = False
        self._running = 0
        self._idle: anyio.Event | None = None

    # --- finding ------------------------------------------------------------------------------

    def discover_categories(self) -> None:
        """Find the categories and their tools, once, without importing any."""
        if self._discovered:
            return
        found: dict[str, list[Any]] = {}
        if self.tools_root is not None and self.tools_root.is_dir():
            for path in self.tools_root.iterdir():
                if path.is_dir() and not path.name.startswith(("_", ".")):
                    found[path.name] = []
        for tool in scanned(self.tools_root):
            found.setdefault(tool.category, []).append(tool)
        for name, tools in sorted(found.items()):
            path = _directory(name, tools, self.tools_root)
            category = ToolCategory(name, path, description_of(path))
            category.fill(tools)
            self.categories.setdefault(name, category)
        self._discovered = True

    def lazy_register_category(self, name: str, loader: Callable[[], ToolCategory]) -> None:
        """Add a category that is made when it is first asked for."""
        self._lazy[name] = loader

    def get_category(self, name: str) -> ToolCategory | None:
        """Return a category, if there is one of that name."""
        self.discover_categories()
        if name not in self.categories and name in self._lazy:
            self.categories[name] = self._lazy.pop(name)()
        return self.categories.get(name)

    async def list_categories(self, include_count: bool = False) -> list[dict[str, Any]]:
        """Return name and description of each category, and how many tools it has."""
        await anyio.to_thread.run_sync(self.discover_categories)
        listed = []
        for name in sorted({*self.categories, *self._lazy}):
            lazy = name in self._lazy
            category = self.get_category(name) if include_count else self.categories.get(name)
            about: dict[str, Any] = {
                "name": name,
                "description": category.description if category else "",
                "lazy": lazy,
            }
            if include_count and category is not None:
                about["tool_count"] = len(category.specs)
            listed.append(about)
        return listed

    async def list_tools(self, category: str) -> dict[str, Any]:
        """Return the tools of a category, or an error with the categories that there are."""
        found = await self._category(category)
        if found is None:
            return self._no_category(category)
        tools = found.list_tools()
        return {
            "status": "success",
            "category": category,
            "description": found.description,
            "tool_count": len(tools),
            "tools": tools,
        }

    async def get_tool_schema(self, category: str, tool: str) -> dict[str, Any]:
        """Describe a tool in the old form, with its JSON Schema as ``input_schema``."""
        found = await self._category(category)
        if found is None:
            return {"status": "error", "error": f"Category '{category}' not found"}
        schema = found.get_tool_schema(tool)
        if schema is None:
            return _no_tool(category, tool)
        return {"status": "success", "schema": schema}

    async def _category(self, name: str) -> ToolCategory | None:
        return await anyio.to_thread.run_sync(self.get_category, name)

    def _no_category(self, category: str) -> dict[str, Any]:
        return {
            "status": "error",
            "error": f"Category '{category}' not found",
            "available_categories": list(self.categories),
        }

    # --- calling ------------------------------------------------------------------------------

    async def dispatch(
        self, category: str, tool: str, params: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Run a tool once and return its answer, an object with a ``request_id``.

        Whatever goes wrong is answered as ``{"status": "error", ...}``.
        """
        if self._shutting_down:
            return {"status": "error", "error": _SHUTTING_DOWN}
        request = {"request_id": str(uuid.uuid4())}
        found = await self._category(category)
        if found is None:
            return {**self._no_category(category), **request}
        if tool not in found.specs:
            names = {"available_tools": list(found.specs)}
            return {**_no_tool(category, tool), **names, **request}
        about = {"category": category, "tool": tool, **request}
        self._running += 1
        try:
            result = await found.run(tool, params or {})
        except InvalidArguments as error:
            return {"status": "error", "error": f"Invalid parameters: {error}", **about}
        except Exception as error:  # noqa: BLE001 - the old answer to whatever a tool raises
            return {"status": "error", "error": str(error), **about}
        finally:
            self._running -= 1
            if not self._running and self._idle is not None:
                self._idle.set()
        return _answer(result, about)

    async def dispatch_parallel(
        self,
        calls: Sequence[Mapping[str, Any]],
        *,
        return_exceptions: bool = True,
        max_concurrent: int | None = None,
    ) -> list[dict[str, Any]]:
        """Run several tools at once and return their answers, in their order.

        :param calls: each with ``category``, ``tool`` and, perhaps, ``params``.
        :param return_exceptions: accepted; `dispatch` answers failures and does not raise them.
        :param max_concurrent: how many run at a time; all of them by default.
        """
        answers: dict[int, dict[str, Any]] = {}
        limiter = anyio.Semaphore(max(1, max_concurrent or len(calls)))

        async def run(index: int, call: Mapping[str, Any]) -> None:
            async with limiter:
                answers[index] = await self.dispatch(
                    call.get("category", ""), call.get("tool", ""), call.get("params")
                )

        async with anyio.create_task_group() as group:
            for index, call in enumerate(calls):
                group.start_soon(run, index, call)
        return [answers[index] for index in range(len(calls))]

    async def graceful_shutdown(
        self,
        timeout: float = 30.0,
    ) -> dict[str, Any]:
        """Take no more calls, wait for those that run, and forget the categories.

        The manager stays shut. Calls that outlast the time limit are left running.

        :param timeout: seconds.
        """
        self._shutting_down = True
        status = "ok"
        if self._running:
            self._idle = anyio.Event()
            with anyio.move_on_after(timeout) as scope:
                await self._idle.wait()
            if scope.cancelled_caught:
                status = "timeout"
        cleared = len(self.categories)
        self.categories.clear()
        return {"status": status, "categories_cleared": cleared}


def _directory(category: str, tools: Sequence[Any], root: Path | None) -> Path:
    if root is not None or not tools:
        return (root or Path()) / category
    file = Path(tools[0].source)
    return next((path for path in file.parents if path.name == category), file.parent)


def _no_tool(category: str, tool: str) -> dict[str, Any]:
    return {"status": "error", "error": f"Tool '{tool}' not found in category '{category}'"}


def _answer(result: CallResult, about: Mapping[str, Any]) -> dict[str, Any]:
    if result.structured is not None:
        return {"request_id": about["request_id"], **result.structured}
    if result.error is not None:
        return {"status": "error", "error": result.text, **about}
    return {
        "status": "success",
        "result": result.text,
        "request_id": about["request_id"],
    }


_manager: HierarchicalToolManager | None = None


def get_tool_manager(context: Any = None) -> HierarchicalToolManager:
    """Return the manager of a server context, or else the one of this process."""
    global _manager
    if context is not None:
        found = context.tool_manager
        assert isinstance(found, HierarchicalToolManager)
        return found
    if _manager is None:
        _manager = HierarchicalToolManager()
    return _manager


async def tools_list_categories(include_count: bool = False) -> dict[str, Any]:
    """List the categories of the manager of this process."""
    categories = await get_tool_manager().list_categories(include_count=include_count)
    return {"status": "success", "category_count": len(categories), "categories": categories}


async def tools_list_tools(category: str) -> dict[str, Any]:
    """List the tools of a category of the manager of this process."""
    return await get_tool_manager().list_tools(category)


async def tools_get_schema(category: str, tool: str) -> dict[str, Any]:
    """Describe a tool of the manager of this process."""
    return await get_tool_manager().get_tool_schema(category, tool)


async def tools_dispatch(
    category: str, tool: str, params: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Run a tool of the manager of this process."""
    return await get_tool_manager().dispatch(category, tool, params)


__all__ = [
    "HierarchicalToolManager",
    "ToolCategory",
    "get_tool_manager",
    "tools_dispatch",
    "tools_get_schema",
    "tools_list_categories",
    "tools_list_tools",
]
