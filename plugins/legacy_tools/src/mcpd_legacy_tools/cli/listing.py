"""``mcpd legacy list``: the tools, what is left out and why, and what could not be read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from mcpd_core.commandline import note, write_json

from ..options import Options
from ..placement import placed
from ..readiness import needs_of
from ..records import LegacyTool, Scan
from ..requirements import Missing
from .looking import counted, look, mark_data, options_of, place, selecting, show


@click.command("list")
@click.option("--excluded", is_flag=True, help="The public functions that are no tools, and why.")
@click.option(
    "--problems", is_flag=True, help="What cannot be read, and which names were several tools'."
)
@selecting
def list_(
    excluded: bool,
    problems: bool,
    category: str | None,
    tree: str | None,
    config: str | None,
    as_json: bool,
) -> None:
    """List the tools of the trees: where each is, where it runs, what it lacks to run here, and
    whether its code shows made-up data.

    Nothing of a tree is imported, and no daemon is asked.
    """
    chosen = options_of(config)
    found = look(chosen, tree, category)
    if excluded:
        _print_excluded(found, as_json)
    elif problems:
        _print_problems(found, as_json)
    else:
        _print_tools(found, chosen, as_json)


def _print_tools(found: Scan, chosen: Options, as_json: bool) -> None:
    needs = needs_of(found.tools)
    if as_json:
        write_json(
            {
                "trees": [{"name": each.name, "path": each.path} for each in found.trees],
                "tools": [
                    _data(each, _runs_in(each, chosen, found), needs[each.name])
                    for each in found.tools
                ],
                "excluded": len(found.excluded),
                "problems": len(found.problems),
                "collisions": len(found.collisions),
            }
        )
        return
    show(
        ("tool", "code", "runs in", "ready", "data"),
        [
            (
                each.name,
                place(found, each.tree, each.file, each.line),
                _runs_in(each, chosen, found),
                _ready(needs[each.name]),
                "made up" if each.marks else "",
            )
            for each in found.tools
        ],
    )
    _sum_up(found, needs)


def _sum_up(found: Scan, needs: Mapping[str, Missing]) -> None:
    ready = sum(not missing.hopeless for missing in needs.values())
    categories = len({tool.category for tool in found.tools})
    note(
        f"{counted(len(found.tools), 'tool')} in {counted(categories, 'category')}; "
        f"{ready} can run here."
    )
    made_up = sum(bool(tool.marks) for tool in found.tools)
    if made_up:
        note(f"Made-up data shows in {made_up} of them: `mcpd legacy audit` shows where.")
    if found.excluded:
        left_out = counted(len(found.excluded), "public function")
        note(f"Left out: {left_out}; --excluded tells why.")
    if found.problems or found.collisions:
        problems = counted(len(found.problems), "problem")
        collisions = counted(len(found.collisions), "collision")
        note(f"Names and files: {problems}, {collisions}; --problems tells more.")


def _runs_in(tool: LegacyTool, chosen: Options, found: Scan) -> str:
    confinement = chosen.confined(found.tree_options.get(tool.tree), tool.category)
    facts = placed(tool, confinement, auto_install=chosen.auto_install)
    place: str = facts["placement"]
    return tool.runtime if place == "loop" else place


def _ready(missing: Missing) -> str:
    if not missing.hopeless:
        return "yes"
    return missing.hint or "no: its tree is incomplete"


def _data(tool: LegacyTool, runs_in: str, missing: Missing) -> dict[str, Any]:
    return {
        "name": tool.name,
        "tree": tool.tree,
        "category": tool.category,
        "file": tool.file,
        "line": tool.line,
        "function": tool.function,
        "source": tool.source,
        "runs_in": runs_in,
        "ready": not missing.hopeless,
        "reason": missing.reason,
        "install": missing.install,
        "missing": list(missing.modules),
        "optional": list(missing.optional),
        "programs": list(missing.programs),
        "marks": [mark_data(mark) for mark in tool.marks],
    }


def _print_excluded(found: Scan, as_json: bool) -> None:
    if as_json:
        write_json(
            [
                {
                    "function": each.function,
                    "tree": each.tree,
                    "file": each.file,
                    "line": each.line,
                    "reason": each.reason,
                }
                for each in found.excluded
            ]
        )
        return
    show(
        ("function", "code", "left out because"),
        [
            (each.function, place(found, each.tree, each.file, each.line), each.reason)
            for each in found.excluded
        ],
    )
    note(f"Left out: {counted(len(found.excluded), 'public function')}.")


def _print_problems(found: Scan, as_json: bool) -> None:
    if as_json:
        write_json(
            {
                "problems": [
                    {"tree": each.tree, "file": each.file, "message": each.message}
                    for each in found.problems
                ],
                "collisions": [
                    {"name": each.name, "where": list(each.where)} for each in found.collisions
                ],
            }
        )
        return
    rows = [
        (f"{each.tree}/{each.file}" if each.file else each.tree, each.message)
        for each in found.problems
    ]
    rows += [
        (each.name, f"Several tools would have this name; they are {', '.join(each.where)}.")
        for each in found.collisions
    ]
    show(("what", "problem"), rows)
    if not rows:
        note("Every file can be read, and every name is one tool's.")
