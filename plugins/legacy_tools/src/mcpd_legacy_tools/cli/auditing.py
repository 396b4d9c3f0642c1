"""``mcpd legacy audit``: the tools whose code shows made-up data."""

from __future__ import annotations

import click

from mcpd_core.commandline import FAILED, OK, note, write_json

from .looking import counted, look, mark_data, options_of, selecting, show


@click.command()
@selecting
def audit(category: str | None, tree: str | None, config: str | None, as_json: bool) -> int:
    """Show the tools whose code shows mock or placeholder data, with file and line.

    Looked at are names, comments, strings and docstrings of each tool's code, of what it leads to
    in its own file, and of the modules called *_engine that it works with. What is found need not
    run in every call; what is not found may still be made up.

    The exit status is 1 when such a tool is found, and 0 when none is.
    """
    found = look(options_of(config), tree, category)
    marked = [tool for tool in found.tools if tool.marks]
    if as_json:
        write_json(
            [
                {
                    "name": tool.name,
                    "tree": tool.tree,
                    "category": tool.category,
                    "file": tool.file,
                    "line": tool.line,
                    "marks": [mark_data(mark) for mark in tool.marks],
                }
                for tool in marked
            ]
        )
    else:
        rows = [
            (tool.name, f"{mark.file}:{mark.line}", mark.text)
            for tool in marked
            for mark in tool.marks
        ]
        show(("tool", "code", "line"), rows)
        note(f"Made-up data shows in {len(marked)} of {counted(len(found.tools), 'tool')}.")
    return FAILED if marked else OK
