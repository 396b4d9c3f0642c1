"""Regular expressions whose matching may take a time that is exponential in the text's length.

Python's ``re`` tries one way after the other of dividing a text among the parts of an expression.
Where a repetition repeats something that itself can match in several ways, as in ``(a+)+$``, every
further character doubles the number of ways: thirty of them hold up a process for minutes, and the
interpreter's lock with it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

if sys.version_info >= (3, 11):
    from re import _constants as sre_constants  # type: ignore[attr-defined]
    from re import _parser as sre_parse  # type: ignore[attr-defined]
else:
    import sre_constants
    import sre_parse

#: Repetitions from which on one is taken for endless; below, the ways are few.
_ENDLESS = 4
_REPEATS = (sre_constants.MAX_REPEAT, sre_constants.MIN_REPEAT)


def is_steady(pattern: str) -> bool:
    """Whether no repetition of an expression repeats what can match in several ways.

    Some that are harmless, because what they repeat is told apart by its first character, count as
    not steady. Polynomial time, as of ``.*.*x``, is not looked for.

    :raises re.error: when it is no regular expression.
    """
    return not any(map(_is_ambiguous, _repeated(sre_parse.parse(pattern))))


def _repeated(parsed: Any) -> Iterator[Any]:
    """Yield what endless repetitions repeat."""
    for operator, argument in parsed:
        if operator in _REPEATS and argument[1] >= _ENDLESS:
            yield argument[2]
        for inner in _parts(argument):
            yield from _repeated(inner)


def _is_ambiguous(parsed: Any) -> bool:
    for operator, argument in parsed:
        if operator is sre_constants.BRANCH:
            return True
        if operator in _REPEATS and argument[0] != argument[1]:
            return True
        if any(_is_ambiguous(inner) for inner in _parts(argument)):
            return True
    return False


def _parts(argument: Any) -> Iterator[Any]:
    """Yield the expressions within an argument of an operator."""
    if isinstance(argument, sre_parse.SubPattern):
        yield argument
    elif isinstance(argument, (tuple, list)):
        for each in argument:
            yield from _parts(each)
