"""Tools that answer otherwise: plain values, exceptions, what is yielded, printed or made up."""

from __future__ import annotations

from .templates import File, Shape, Told

PLAIN = File(
    "arithmetic.py",
    '''"""Values that are in no envelope."""
# @BOMB@


def halve_number(number: float) -> float:
    """Halve a number."""
    return number / 2


def list_divisors(number: int) -> list:
    """List what divides a number."""
    return [n for n in range(1, number + 1) if number % n == 0]


def spell_number(number: int) -> str:
    """Spell a number."""
    return ["zero", "one", "two"][number]


def forget_number(number: int) -> None:
    """Forget a number."""
''',
    tools=(
        Told("halve_number", {"number": 5}, 2.5, required=("number",), summary="Halve a number."),
        Told(
            "list_divisors",
            {"number": "6"},
            [1, 2, 3, 6],
            required=("number",),
            summary="List what divides a number.",
        ),
        Told("spell_number", {"number": 2}, "two", required=("number",), summary="Spell a number."),
        Told("forget_number", {"number": 2}, "", required=("number",), summary="Forget a number."),
    ),
)

RAISING = File(
    "strict_checks.py",
    '''"""Tools that raise."""
# @BOMB@


def check_weight(grams: int) -> dict:
    """Check a weight."""
    if grams > 100:
        raise ValueError(f"{grams} grams are too many")
    return {"grams": grams}


async def check_nothing() -> dict:
    """Raise, whatever comes."""
    raise RuntimeError("nothing was checked")
''',
    tools=(
        Told(
            "check_weight",
            {"grams": 101},
            fails=True,
            says="101 grams are too many",
            required=("grams",),
            summary="Check a weight.",
        ),
        Told(
            "check_nothing",
            {},
            is_async=True,
            fails=True,
            says="nothing was checked",
            summary="Raise, whatever comes.",
        ),
    ),
)

YIELDING = File(
    "streams.py",
    '''"""Yields one thing after the other, with which the old server could not answer."""
# @BOMB@


def stream_squares(up_to: int):
    """Yield squares."""
    for number in range(up_to):
        yield number * number


async def stream_cubes(up_to: int):
    """Yield cubes."""
    for number in range(up_to):
        yield number**3


def collect_squares(up_to: int) -> list:
    """Collect squares."""
    return list(stream_squares(up_to))
''',
    tools=(
        Told(
            "stream_squares",
            {"up_to": 3},
            [0, 1, 4],
            required=("up_to",),
            summary="Yield squares.",
        ),
        Told(
            "stream_cubes",
            {"up_to": 3},
            [0, 1, 8],
            is_async=True,
            required=("up_to",),
            summary="Yield cubes.",
        ),
        Told(
            "collect_squares",
            {"up_to": 3},
            [0, 1, 4],
            required=("up_to",),
            summary="Collect squares.",
        ),
    ),
)

PRINTING = File(
    "chatter.py",
    '''"""Prints when it is imported, and when it is called."""
# @BOMB@
import os
import sys

print("a stray line of an import")
sys.stdout.flush()


def chatter_on(words: int = 1) -> dict:
    """Print, and answer."""
    print("chatter " * words, flush=True)
    os.write(1, b"a stray write\\n")
    return {"success": True, "words": words}
''',
    tools=(
        Told(
            "chatter_on",
            {"words": 3},
            {"success": True, "words": 3},
            optional=("words",),
            summary="Print, and answer.",
        ),
    ),
)

MOCKED = File(
    "forecasts.py",
    '''"""Forecasts that are made up, and one that is not."""
# @BOMB@


class MockForecastService:
    """Mock forecast service for testing purposes."""

    def forecast(self, place):
        return {"place": place, "sky": "clear"}


def invent_forecast(place: str) -> dict:
    """Forecast the weather."""
    # Mock data until there is a service
    return {"status": "success", "forecast": {"place": place, "sky": "clear"}}


def ask_forecast(place: str) -> dict:
    """Ask the service for a forecast."""
    return {"status": "success", "forecast": MockForecastService().forecast(place)}


def round_degrees(degrees: float) -> dict:
    """Round degrees."""
    return {"status": "success", "degrees": round(degrees)}
''',
    tools=(
        Told(
            "invent_forecast",
            {"place": "Kiel"},
            {"status": "success", "forecast": {"place": "Kiel", "sky": "clear"}},
            required=("place",),
            summary="Forecast the weather.",
            mocked=True,
        ),
        Told(
            "ask_forecast",
            {"place": "Kiel"},
            {"status": "success", "forecast": {"place": "Kiel", "sky": "clear"}},
            required=("place",),
            summary="Ask the service for a forecast.",
            mocked=True,
        ),
        Told(
            "round_degrees",
            {"degrees": 21.4},
            {"status": "success", "degrees": 21},
            required=("degrees",),
            summary="Round degrees.",
        ),
    ),
)

SHAPES = (
    Shape("values in no envelope", (PLAIN,)),
    Shape("exceptions", (RAISING,)),
    Shape("generators", (YIELDING,)),
    Shape("prints", (PRINTING,)),
    Shape("mock data", (MOCKED,)),
)
