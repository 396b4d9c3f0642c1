"""Files that cannot be read, and tools that can be listed and not be called."""

from __future__ import annotations

from .templates import BOMB, File, Shape, Told

#: The size of what is too large to be somebody's code, in bytes.
LARGE = 5 * 1024 * 1024

SYNTAX = File(
    "half_written.py",
    f'''"""Somebody was interrupted."""
{BOMB}

def write_half(text: str) -> dict:
    """Write half of a text."""
    return {{"success": True, "half": text[: len(text)
''',
    problem="syntax",
)

ZEROS = File(
    "zeros.py",
    b'"""Holds a zero byte."""\n\0\ndef zero() -> int:\n    return 0\n',
    problem="syntax",
)

MISCODED = File(
    "miscoded.py",
    b'"""Not UTF-8, and nothing says so."""\n\n\ndef greet() -> str:\n    return "Gr\xfc\xdfe"\n',
    problem="encoding",
)

BOTTOMLESS = File(
    "bottomless.py",
    f'"""Nested more deeply than any parser reads."""\n{BOMB}DEPTH = {"-" * 200_000}1\n',
    problem="depth",
)


TABLE = File(
    "word_table.py",
    f'''"""A table of words that somebody calls code."""
{BOMB}

def look_up(word: str) -> bool:
    """Look a word up."""
    return word in WORDS


WORDS = []
''',
    problem="size",
    repeated='WORDS += ["' + "word " * 18 + '"]\n',
    size=LARGE,
)

CIRCULAR = (
    File(
        "chicken.py",
        '''"""Needs the egg."""
# @BOMB@
from .egg import EGG


def hatch_chicken(count: int = 1) -> dict:
    """Hatch chickens."""
    return {"success": True, "from": EGG, "count": count}


CHICKEN = "chicken"
''',
        tools=(
            Told(
                "hatch_chicken",
                runs=False,
                says="circular import",
                optional=("count",),
                summary="Hatch chickens.",
            ),
        ),
        imports=("egg.py",),
    ),
    File(
        "egg.py",
        '''"""Needs the chicken."""
# @BOMB@
from .chicken import CHICKEN


def lay_egg(size: str = "large") -> dict:
    """Lay an egg."""
    return {"success": True, "by": CHICKEN, "size": size}


EGG = "egg"
''',
        tools=(
            Told(
                "lay_egg",
                runs=False,
                says="circular import",
                optional=("size",),
                summary="Lay an egg.",
            ),
        ),
        imports=("chicken.py",),
    ),
)

EXITING = File(
    "leaving.py",
    '''"""Ends the process that imports it."""
# @BOMB@
import sys

sys.exit(3)


def leave_late(minutes: int = 5) -> dict:
    """Leave late."""
    return {"success": True, "minutes": minutes}
''',
    tools=(
        Told(
            "leave_late",
            runs=False,
            says="exit",
            optional=("minutes",),
            summary="Leave late.",
        ),
    ),
)

HANGING = File(
    "waiting.py",
    '''"""Waits for what never comes, while it is imported."""
# @BOMB@
import threading

threading.Event().wait()


def wait_longer(minutes: int = 5) -> dict:
    """Wait longer."""
    return {"success": True, "minutes": minutes}
''',
    tools=(
        Told(
            "wait_longer",
            runs=False,
            says="import",
            optional=("minutes",),
            summary="Wait longer.",
        ),
    ),
)

RAISING = File(
    "refusing.py",
    '''"""Refuses to be imported."""
# @BOMB@
raise RuntimeError("this machine is not supported")


def refuse_more() -> dict:
    """Refuse more."""
    return {"success": True}
''',
    tools=(
        Told(
            "refuse_more",
            runs=False,
            says="this machine is not supported",
            summary="Refuse more.",
        ),
    ),
)

MISSING = File(
    "orchestra.py",
    '''"""Cannot do without what nobody has."""
# @BOMB@
import mcpd_absent_strings
from mcpd_absent_brass.horns import Horn


def play_piece(piece: str) -> dict:
    """Play a piece."""
    return {"success": True, "piece": mcpd_absent_strings.play(piece, Horn())}
''',
    tools=(
        Told(
            "play_piece",
            {"piece": "p"},
            runs=False,
            says="pip install",
            missing=("mcpd_absent_strings", "mcpd_absent_brass"),
            required=("piece",),
            summary="Play a piece.",
        ),
    ),
)

MISSING_BELOW = (
    File(
        "_players.py",
        '''"""Cannot do without what nobody has either."""
# @BOMB@
from mcpd_absent_drums import drum


def all_play(piece):
    """Play."""
    return drum(piece)
''',
        excluded=(("all_play", "private"),),
    ),
    File(
        "concert.py",
        '''"""Cannot do without a neighbour that cannot do without what nobody has."""
# @BOMB@
from ._players import all_play


def give_concert(piece: str) -> dict:
    """Give a concert."""
    return {"success": True, "piece": all_play(piece)}
''',
        tools=(
            Told(
                "give_concert",
                {"piece": "p"},
                runs=False,
                says="pip install",
                missing=("mcpd_absent_drums",),
                required=("piece",),
                summary="Give a concert.",
            ),
        ),
        imports=("_players.py",),
    ),
)

SHAPES = (
    Shape("syntax errors", (SYNTAX, ZEROS)),
    Shape("not UTF-8, without a coding cookie", (MISCODED,)),
    Shape("nested too deeply", (BOTTOMLESS,), once=True),
    Shape("5 MB", (TABLE,), once=True),
    Shape("circular imports", CIRCULAR),
    Shape("ends the process when imported", (EXITING,)),
    Shape("hangs when imported", (HANGING,), once=True),
    Shape("raises when imported", (RAISING,)),
    Shape("missing dependencies", (MISSING,)),
    Shape("a missing dependency of a neighbour", MISSING_BELOW),
)
