"""``tools_list_categories``, ``tools_list_tools``, ``tools_get_schema``, ``tools_dispatch``.

Arguments and answers are those of the old server; a failure is marked as one besides.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Annotated, Any

import pydantic_core
from pydantic import Field

from mcpd_core import CallRefused, CallResult, Context, InvalidArguments, McpdError, ToolSpec, tool

from ..opening import never_waiting
from . import names
from .schemas import brief, described

CATEGORY = "legacy"

#: Seconds; the tool that is called has a limit of its own, which counts.
_LONGEST = 86_400.0
#: Bytes of a ``category.json``.
_LARGEST = 64 * 1024

CategoryName = Annotated[str, Field(min_length=1, max_length=200)]
ToolName = Annotated[str, Field(min_length=1, max_length=200)]


def _misfit(error: McpdError, arguments: Mapping[str, Any]) -> CallResult:
    return _failure(error, {"error": f"Invalid parameters: {error.message}"})


@tool(category=CATEGORY, read_only=True, open_world=False, on_misfit=_misfit)
def tools_list_categories(ctx: Context, include_count: bool = False) -> CallResult:
    """List the categories of tools. Each has a name for tools_list_tools.

    include_count adds how many tools each of them has.
    """
    categories: list[dict[str, Any]] = []
    for name, specs in names.by_category(ctx.tools()).items():
        category = {"name": name, "description": _description(name, specs), "lazy": False}
        if include_count:
            category["tool_count"] = len(specs)
        categories.append(category)
    return _result(
        {"status": "success", "category_count": len(categories), "categories": categories}
    )


@tool(category=CATEGORY, read_only=True, open_world=False, on_misfit=_misfit)
def tools_list_tools(category: CategoryName, ctx: Context) -> CallResult:
    """List the tools of one category, with a short description of each."""
    specs = ctx.tools()
    found = names.members(category, specs)
    if found is None:
        return _no_category(category, {"available_categories": list(names.by_category(specs))})
    category, members = found
    return _result(
        {
            "status": "success",
            "category": category,
            "description": _description(category, members),
            "tool_count": len(members),
            "tools": [brief(spec, category) for spec in members],
        }
    )


@tool(category=CATEGORY, read_only=True, open_world=False, on_misfit=_misfit)
def tools_get_schema(category: CategoryName, tool: ToolName, ctx: Context) -> CallResult:
    """Describe one tool: its parameters, its defaults, and the JSON Schema of its arguments."""
    spec = names.find(category, tool, ctx)
    if spec is None:
        groups = names.members(category, ctx.tools())
        return _no_category(category, {}) if groups is None else _no_tool(groups, tool, {})
    found = names.members(category, [spec])
    return _result(
        {"status": "success", "schema": described(spec, found[0] if found else category)}
    )


@tool(category=CATEGORY, timeout=_LONGEST, on_misfit=_misfit)
async def tools_dispatch(
    category: CategoryName,
    tool: ToolName,
    ctx: Context,
    params: Annotated[dict[str, Any] | None, Field(description="The tool's arguments.")] = None,
) -> CallResult:
    """Call a tool by its category and its name; tools_get_schema tells what arguments it takes."""
    request = {"request_id": ctx.call_id}
    spec = names.find(category, tool, ctx)
    if spec is None:
        groups = names.members(category, ctx.tools())
        if groups is None:
            categories = list(names.by_category(ctx.tools()))
            return _no_category(category, {"available_categories": categories, **request}, tool)
        own = [names.own_name(each, groups[0]) for each in groups[1]]
        return _no_tool(groups, tool, {"available_tools": own, **request})
    about = {"category": category, "tool": tool, **request}
    try:
        answer = await ctx.call(spec.name, params or {}, relay=True)
    except InvalidArguments as error:
        return _failure(error, {"error": f"Invalid parameters: {error.message}", **about})
    except CallRefused as error:
        return _failure(error, {"error": error.message, **about})
    return _handed_on(answer, about)


def _handed_on(answer: CallResult, about: Mapping[str, Any]) -> CallResult:
    """Return the answer of a tool as the old server would have: an object with an id of its own."""
    data = answer.structured
    if data is None:
        if answer.error is not None:
            message = str(answer.error.get("message") or answer.text)
            data = {"status": "error", "error": message, **about}
        elif answer.content:
            return answer
        else:
            data = {"status": "success", "result": answer.text}
    data = {**data}
    data.setdefault("request_id", about["request_id"])
    return replace(answer, text=_json(data), structured=data)


# --- answers -------------------------------------------------------------------------------------


def _result(data: dict[str, Any], error: Mapping[str, Any] | None = None) -> CallResult:
    return CallResult(_json(data), data, error)


def _json(data: Mapping[str, Any]) -> str:
    return pydantic_core.to_json(data).decode()


def _failure(error: McpdError, data: Mapping[str, Any]) -> CallResult:
    details = {
        **error.data,
        "code": error.code,
        "message": error.message,
        "hint": error.hint,
        "retryable": getattr(error, "retryable", True),
    }
    return _result({"status": "error", **data}, details)


def _no_category(category: str, data: Mapping[str, Any], tool: str = "") -> CallResult:
    hint = "tools_list_categories tells which there are."
    return _unknown(f"Category '{category}' not found", tool, hint, data)


def _no_tool(
    found: tuple[str, Sequence[ToolSpec]], tool: str, data: Mapping[str, Any]
) -> CallResult:
    category, members = found
    hint = "tools_list_tools tells which there are."
    if several := names.namesakes(category, tool, members):
        hint = f"Several have that name. Say which: {', '.join(several)}."
    return _unknown(f"Tool '{tool}' not found in category '{category}'", tool, hint, data)


def _unknown(message: str, tool: str, hint: str, data: Mapping[str, Any]) -> CallResult:
    answer = {"status": "error", "error": message, **data}
    if why := names.why_absent(tool):
        answer["message"] = hint = why
    error = {"code": "unknown_tool", "message": message, "hint": hint, "retryable": False}
    return _result(answer, error)


def _description(category: str, specs: Sequence[ToolSpec]) -> str:
    for spec in specs:
        if spec.source:
            for directory in PurePath(spec.source).parents:
                if directory.name == category:
                    return description_of(directory)
            return ""
    return ""


def description_of(directory: PurePath) -> str:
    """Return what the ``category.json`` of a directory of tools says, if there is one."""
    try:
        file = directory / "category.json"
        with open(file, encoding="utf-8", opener=never_waiting) as content:
            data = json.loads(content.read(_LARGEST))
    except (OSError, ValueError, RecursionError):
        return ""  # it is optional, and no tool depends on it
    found = data.get("description", "") if isinstance(data, dict) else ""
    return found if isinstance(found, str) else ""
