"""Tools that differ in what they take: annotated or not, with defaults of every kind."""

from __future__ import annotations

from .templates import File, Shape, Told

BARE = File(
    "joiner.py",
    """# No docstring, no annotations.
# @BOMB@


def join_words(words, separator="-"):
    return {"success": True, "joined": separator.join(words)}


def join_nothing():
    return {"success": True, "joined": ""}
""",
    tools=(
        Told(
            "join_words",
            {"words": ["a", "b"]},
            {"success": True, "joined": "a-b"},
            required=("words",),
            optional=("separator",),
        ),
        Told("join_nothing", {}, {"success": True, "joined": ""}),
    ),
)

VARIADIC = File(
    "mixtures.py",
    '''"""Parameters of every kind."""
# @BOMB@


def mix_options(base: str, **options) -> dict:
    """Mix options into a base.

    Args:
        base: What they are mixed into.
        **options: Whatever else there is.
    """
    return {"success": True, "base": base, "options": options}


def mix_numbers(first: int, *others: int, factor: int = 1) -> dict:
    """Mix numbers."""
    return {"success": True, "sum": (first + sum(others)) * factor}


def mix_places(one, two=2, /, three=3, *, four, five=5):
    """Mix what is given by place with what is given by name."""
    return {"success": True, "all": [one, two, three, four, five]}
''',
    tools=(
        Told(
            "mix_options",
            {"base": "flour", "water": 2},
            {"success": True, "base": "flour", "options": {"water": 2}},
            required=("base",),
            described={"base": "What they are mixed into."},
            summary="Mix options into a base.",
        ),
        Told(
            "mix_numbers",
            {"first": 2, "factor": 3},
            {"success": True, "sum": 6},
            required=("first",),
            optional=("factor",),
            summary="Mix numbers.",
        ),
        Told(
            "mix_places",
            {"one": 1, "four": 4},
            {"success": True, "all": [1, 2, 3, 4, 5]},
            required=("one", "four"),
            optional=("two", "three", "five"),
            summary="Mix what is given by place",
        ),
    ),
)

DEFAULTS = File(
    "defaults.py",
    '''"""Defaults that are no literals."""
# @BOMB@
import os
import time
from dataclasses import field
from pathlib import Path
from typing import Any, Dict, List, Optional

LIMITS = {"pages": 20}


def _labels() -> List[str]:
    return ["new"]


def find_pages(
    query: str,
    limit: int = LIMITS["pages"],
    since: float = time.time() * 0,
    folder: str = os.path.join("a", "b"),
    labels: List[str] = _labels(),
    extra: Optional[Dict[str, Any]] = None,
    weights: dict = {},
    marks: tuple = (1, 2),
    depth: int = 2 + 1,
    offset: int = -1,
) -> Dict[str, Any]:
    """Find pages."""
    found = [query, limit, since, folder, labels, extra, weights, list(marks), depth, offset]
    return {"success": True, "found": found}


def make_pages(titles: List[str] = field(default_factory=list), home: Path = Path("/")) -> dict:
    """Make pages, with a default that is a mistake of whoever wrote it."""
    return {"success": True, "titles": titles, "home": str(home)}
''',
    tools=(
        Told(
            "find_pages",
            {"query": "q", "offset": "3"},
            {"success": True, "found": ["q", 20, 0.0, "a/b", ["new"], None, {}, [1, 2], 3, 3]},
            required=("query",),
            optional=(
                "limit",
                "since",
                "folder",
                "labels",
                "extra",
                "weights",
                "marks",
                "depth",
                "offset",
            ),
            summary="Find pages.",
        ),
        Told(
            "make_pages",
            {"titles": ["t"], "home": "/srv"},
            {"success": True, "titles": ["t"], "home": "/srv"},
            optional=("titles", "home"),
            summary="Make pages",
        ),
    ),
)

TYPED = File(
    "drawing.py",
    '''"""Parameters of types that are declared here."""
from __future__ import annotations

# @BOMB@
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Dict, List, Literal, Optional, TypedDict


class Colour(Enum):
    """A colour."""

    RED = "red"
    BLUE = "blue"


class Style(TypedDict, total=False):
    """How it is drawn."""

    width: int
    dashed: bool


@dataclass
class Point:
    """A place."""

    x: float
    y: float = 0.0
    labels: List[str] = field(default_factory=list)


def draw_line(
    start: Point,
    colour: Colour = Colour.RED,
    style: Optional[Style] = None,
    ends: Literal["round", "square"] = "round",
    layer: int | None = None,
) -> Dict[str, Any]:
    """Draw a line."""
    return {
        "success": True,
        "start": [start.x, start.y, start.labels],
        "colour": colour.value,
        "style": style,
        "ends": ends,
        "layer": layer,
    }


def draw_points(points: List[Point], format: str = "svg", type: str = "dot") -> Dict[str, Any]:
    """Draw points."""
    return {"success": True, "drawn": len(points), "format": format, "type": type}
''',
    tools=(
        Told(
            "draw_line",
            {"start": {"x": 1, "labels": ["a"]}, "colour": "blue", "style": {"width": 2}},
            {
                "success": True,
                "start": [1.0, 0.0, ["a"]],
                "colour": "blue",
                "style": {"width": 2},
                "ends": "round",
                "layer": None,
            },
            required=("start",),
            optional=("colour", "style", "ends", "layer"),
            summary="Draw a line.",
        ),
        Told(
            "draw_points",
            {"points": [{"x": 1}, {"x": 2, "y": 3}]},
            {"success": True, "drawn": 2, "format": "svg", "type": "dot"},
            required=("points",),
            optional=("format", "type"),
            summary="Draw points.",
        ),
    ),
)

FOREIGN = File(
    "travel.py",
    '''"""Annotations that nobody can read, or that JSON has no type for."""
from __future__ import annotations

# @BOMB@
from datetime import date
from typing import TYPE_CHECKING, Union

if TYPE_CHECKING:
    from nowhere import Vehicle


def plan_travel(day: date, days: "int" = 1) -> dict:
    """Plan a journey."""
    return {"success": True, "year": day.year, "days": days}


def board_vehicle(vehicle: Vehicle, seats: Union[int, "list[int]"] = 1) -> dict:
    """Board a vehicle."""
    return {"success": True, "vehicle": vehicle, "seats": seats}
''',
    tools=(
        Told(
            "plan_travel",
            {"day": "2024-02-29"},
            {"success": True, "year": 2024, "days": 1},
            required=("day",),
            optional=("days",),
            summary="Plan a journey.",
        ),
        Told(
            "board_vehicle",
            {"vehicle": "ferry", "seats": [1, 2]},
            {"success": True, "vehicle": "ferry", "seats": [1, 2]},
            required=("vehicle",),
            optional=("seats",),
            summary="Board a vehicle.",
        ),
    ),
)

DECORATED = File(
    "decorated.py",
    '''"""Decorators of the tree, of the standard library, and that keep no signature."""
# @BOMB@
import functools
from typing import Any, Dict

CALLS = []


def _counted(function):
    @functools.wraps(function)
    def counting(*args, **kwargs):
        CALLS.append(function.__name__)
        return function(*args, **kwargs)

    return counting


def _named(name):
    def decorate(function):
        def renamed(*args, **kwargs):
            return {**function(*args, **kwargs), "by": name}

        return renamed

    return decorate


@_counted
def wrap_present(paper: str = "red") -> Dict[str, Any]:
    """Wrap a present."""
    return {"success": True, "paper": paper, "calls": CALLS[-1]}


@_named("nobody")
def sign_present(card: str) -> Dict[str, Any]:
    """Sign a present."""
    return {"success": True, "card": card}


@functools.lru_cache(maxsize=None)
def weigh_present(grams: int) -> Dict[str, Any]:
    """Weigh a present."""
    return {"success": True, "grams": grams}
''',
    tools=(
        Told(
            "wrap_present",
            {"paper": "blue"},
            {"success": True, "paper": "blue", "calls": "wrap_present"},
            optional=("paper",),
            summary="Wrap a present.",
        ),
        Told(
            "sign_present",
            {"card": "c"},
            {"success": True, "card": "c", "by": "nobody"},
            required=("card",),
            summary="Sign a present.",
        ),
        Told(
            "weigh_present",
            {"grams": 7},
            {"success": True, "grams": 7},
            required=("grams",),
            summary="Weigh a present.",
        ),
    ),
)

SHAPES = (
    Shape("no annotations, no docstring", (BARE,)),
    Shape("*args, **kwargs, by place, by name", (VARIADIC,)),
    Shape("defaults that are no literals", (DEFAULTS,)),
    Shape("Literal, Enum, TypedDict, dataclass", (TYPED,)),
    Shape("annotations that cannot be read", (FOREIGN,)),
    Shape("decorators", (DECORATED,)),
)
