"""`list_categories`: what kinds of tools there are, and how many of each can run here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import Field
from typing_extensions import NotRequired, TypedDict

from mcpd_core import Context, ToolSpec, tool

#: Names that a reason is told with before they are only counted.
_MOST_NAMED = 5


class Lack(TypedDict):
    """Why some tools of a category cannot run here."""

    reason: Annotated[str, Field(description="What they lack, and what to do about it.")]
    count: Annotated[int, Field(description="How many of them.")]
    tools: Annotated[list[str], Field(description=f"Their names, {_MOST_NAMED} of them at most.")]


class Category(TypedDict):
    """One category."""

    name: Annotated[str, Field(description="Empty for the tools that have none.")]
    tools: Annotated[int, Field(description="How many tools it has.")]
    ready: NotRequired[
        Annotated[int, Field(description="How many of them can run here, as far as is known.")]
    ]
    lacks: NotRequired[
        Annotated[list[Lack], Field(description="Why the others cannot, most frequent first.")]
    ]


class Categories(TypedDict):
    """All categories, by name."""

    categories: list[Category]
    tools: Annotated[int, Field(description="How many tools there are in all.")]
    ready: NotRequired[Annotated[int, Field(description="How many of them can run here.")]]


@tool(
    title="List the categories of tools",
    category="catalog",
    read_only=True,
    open_world=False,
    tags=("discover", "ready", "missing", "install"),
)
async def list_categories(
    ctx: Context,
    readiness: Annotated[
        bool,
        Field(
            description="Whether to tell which tools can run here; looking can take seconds the "
            "first time."
        ),
    ] = True,
) -> Categories:
    """List the categories of tools: how many tools each has, how many of them can run here, and
    what the others lack.

    Nothing is imported for it. A tool counts as ready unless its plugin knows better.
    """
    by_category: dict[str, list[ToolSpec]] = {}
    for spec in ctx.tools():
        if spec.listed:
            by_category.setdefault(spec.category, []).append(spec)
    names = [spec.name for specs in by_category.values() for spec in specs]
    lacking = await ctx.readiness(names) if readiness else None
    told: Categories = {
        "categories": [_told(name, by_category[name], lacking) for name in sorted(by_category)],
        "tools": len(names),
    }
    if lacking is not None:
        told["ready"] = len(names) - len(lacking)
    return told


def _told(name: str, specs: Sequence[ToolSpec], lacking: Mapping[str, str] | None) -> Category:
    category: Category = {"name": name, "tools": len(specs)}
    if lacking is not None:
        by_reason: dict[str, list[str]] = {}
        for spec in specs:
            if spec.name in lacking:
                by_reason.setdefault(lacking[spec.name], []).append(spec.name)
        ordered = sorted(by_reason.items(), key=lambda item: (-len(item[1]), item[0]))
        category["ready"] = len(specs) - sum(map(len, by_reason.values()))
        category["lacks"] = [
            {"reason": reason, "count": len(tools), "tools": tools[:_MOST_NAMED]}
            for reason, tools in ordered
        ]
    return category
