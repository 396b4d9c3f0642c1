"""Tools that differ in where they are: nested packages, files at the root, names, neighbours."""

from __future__ import annotations

from .templates import File, Shape, Told

NESTED = (
    File(
        "_engine.py",
        '''"""What the tools of a nested package share; no tool is in here."""
# @BOMB@


def press_fruit(fruit, kilos):
    """Press fruit."""
    return {"success": True, "fruit": fruit, "litres": kilos * 0.5}
''',
        excluded=(("press_fruit", "private"),),
    ),
    File(
        "presses/cold.py",
        '''"""A tool two directories deep, which imports what lies above it."""
# @BOMB@
from .._engine import press_fruit
from .warm.units import as_kilos


def press_cold(fruit: str, kilos: float = 1.0) -> dict:
    """Press fruit without heating it."""
    return press_fruit(fruit, as_kilos(kilos))
''',
        tools=(
            Told(
                "press_cold",
                {"fruit": "apple", "kilos": 4},
                {"success": True, "fruit": "apple", "litres": 2.0},
                required=("fruit",),
                optional=("kilos",),
                summary="Press fruit without heating it.",
            ),
        ),
        imports=("_engine.py", "presses/warm/__init__.py", "presses/warm/units.py"),
    ),
    File(
        "presses/warm/units.py",
        '''"""A tool three directories deep."""
# @BOMB@


def as_kilos(amount: float) -> float:
    """Turn an amount into kilograms."""
    return float(amount)
''',
        tools=(
            Told(
                "as_kilos",
                {"amount": 3},
                3.0,
                required=("amount",),
                summary="Turn an amount into kilograms.",
            ),
        ),
    ),
)

#: A command line, and functions that others have defined.
COMMAND = (
    File(
        "ferry_status.py",
        '''"""A tool that is a command as well."""
# @BOMB@
import argparse
import json
from os.path import basename, join
from typing import Any, Dict


def ferry_status(harbour: str) -> Dict[str, Any]:
    """Say when the ferry leaves.

    Args:
        harbour: Where it leaves from.
    """
    return {"success": True, "harbour": basename(join("x", harbour))}


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser()
    parser.add_argument("harbour")
    print(json.dumps(ferry_status(parser.parse_args().harbour)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
''',
        tools=(
            Told(
                "ferry_status",
                {"harbour": "Kiel"},
                {"success": True, "harbour": "Kiel"},
                required=("harbour",),
                described={"harbour": "Where it leaves from."},
                summary="Say when the ferry leaves.",
            ),
        ),
        excluded=(("main", "main"),),
    ),
    File(
        "harbours.py",
        '''"""Nothing but what another module has defined."""
# @BOMB@
from .ferry_status import ferry_status

__all__ = ["ferry_status"]
''',
        excluded=(("ferry_status", "re-export"),),
    ),
)

#: Functions that serve the server, or other functions, and nobody's client.
GLUE = (
    File(
        "server_glue.py",
        '''"""What ties tools to the old server."""
# @BOMB@
import contextlib
import logging
from typing import Any, Callable, Dict


class GlueTool:
    """A class that runs, and says nothing of itself."""

    def execute(self, amount: int) -> Dict[str, Any]:
        """Run it."""
        return {"success": True, "amount": amount}


@contextlib.contextmanager
def glued(name: str):
    """Hold things together."""
    yield name


def register_tools(server) -> None:
    """Register the tools of this category."""


def watch_glue(callback: Callable[[int], None], interval: float = 1.0) -> None:
    """Call back whenever something comes off."""


def glue_parts(parts: list, logger: logging.Logger = logging.getLogger(__name__)) -> Dict[str, Any]:
    """Glue parts; only code would give it a logger."""
    return {"success": True, "parts": len(parts)}
''',
        tools=(
            Told(
                "glue_parts",
                {"parts": [1, 2]},
                {"success": True, "parts": 2},
                required=("parts",),
                summary="Glue parts",
            ),
        ),
        excluded=(
            ("GlueTool.execute", "unnamed"),
            ("glued", "decorator"),
            ("register_tools", "registers"),
            ("watch_glue", "type"),
        ),
    ),
    File(
        "glue_helpers.py",
        '''"""Helpers, as the name of the file says."""
# @BOMB@


def as_text(value: object) -> str:
    """Turn anything into text."""
    return str(value)
''',
        excluded=(("as_text", "helper"),),
    ),
)

TWINS = (
    File(
        "old_index.py",
        '''"""One of two that define a function of the same name."""
# @BOMB@


def open_index(path: str) -> dict:
    """Open an index, as it used to be."""
    return {"success": True, "path": path, "by": "old"}
''',
        tools=(
            Told(
                "open_index",
                {"path": "p"},
                {"success": True, "path": "p", "by": "old"},
                required=("path",),
                summary="Open an index, as it used to be.",
            ),
        ),
    ),
    File(
        "new_index.py",
        '''"""One of two that define a function of the same name."""
# @BOMB@


def open_index(path: str, lock: bool = True) -> dict:
    """Open an index."""
    return {"success": True, "path": path, "by": "new", "lock": lock}
''',
        tools=(
            Told(
                "open_index",
                {"path": "p", "lock": False},
                {"success": True, "path": "p", "by": "new", "lock": False},
                required=("path",),
                optional=("lock",),
                summary="Open an index.",
            ),
        ),
    ),
)

_LONG = "translate_the_collected_correspondence_of_a_whole_century_into_verse"
NAMES = File(
    "names.py",
    f'''"""Names that cannot be used as they are."""
# @BOMB@


def {_LONG}(letters: int) -> dict:
    """Translate letters."""
    return {{"success": True, "letters": letters}}


def größe_messen(länge: float) -> dict:
    """Measure, in German."""
    return {{"success": True, "länge": länge}}
''',
    tools=(
        Told(
            _LONG,
            {"letters": 5},
            {"success": True, "letters": 5},
            required=("letters",),
            summary="Translate letters.",
        ),
        Told(
            "größe_messen",
            {"länge": 1.5},
            {"success": True, "länge": 1.5},
            required=("länge",),
            summary="Measure, in German.",
        ),
    ),
)

LATIN = File(
    "alt_kodiert.py",
    '''# -*- coding: latin-1 -*-
"""Written before UTF-8, and says so: \xe4\xf6\xfc."""
# @BOMB@


def greet_guest(guest: str) -> dict:
    """Gr\xfc\xdfe einen Gast."""
    return {"success": True, "text": "Gr\xfc\xdfe, " + guest}
'''.encode("latin-1"),
    tools=(
        Told(
            "greet_guest",
            {"guest": "Ada"},
            {"success": True, "text": "Gr\xfc\xdfe, Ada"},
            required=("guest",),
            summary="Gr\xfc\xdfe einen Gast.",
        ),
    ),
)

ROOT = File(
    "harbour_tools.py",
    '''"""A file beside the categories, which the old server never found."""
# @BOMB@


async def harbour_list(limit: int = 50) -> dict:
    """List the harbours.

    Args:
        limit: How many at most.
    """
    return {"success": True, "harbours": [], "limit": limit}


harbour_list._mcp_runtime = "trio"
''',
    tools=(
        Told(
            "harbour_list",
            {"limit": 3},
            {"success": True, "harbours": [], "limit": 3},
            is_async=True,
            runtime="trio",
            optional=("limit",),
            described={"limit": "How many at most."},
            summary="List the harbours.",
        ),
    ),
)

OPTIONAL = File(
    "pictures.py",
    '''"""Can do without what it tries to import."""
# @BOMB@
try:
    import mcpd_absent_pictures as pictures
except ImportError:
    pictures = None


def show_picture(name: str) -> dict:
    """Show a picture, if it can."""
    return {"success": True, "name": name, "shown": pictures is not None}
''',
    tools=(
        Told(
            "show_picture",
            {"name": "sea"},
            {"success": True, "name": "sea", "shown": False},
            required=("name",),
            summary="Show a picture",
        ),
    ),
)

SHAPES = (
    Shape("nested packages and helpers", NESTED),
    Shape("command lines and re-exports", COMMAND),
    Shape("functions for the server and for other functions", GLUE),
    Shape("one name in two files", TWINS, twins=("open_index",)),
    Shape("names that are too long or not ASCII", (NAMES,)),
    Shape("not UTF-8, with a coding cookie", (LATIN,)),
    Shape("a file at the root", (ROOT,), at_root=True, once=True),
    Shape("a missing dependency within try", (OPTIONAL,)),
)
