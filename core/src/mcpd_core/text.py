"""Text that others wrote, made fit to be shown: to a person's terminal, in a log, to a model.

Plugins, distributions and tools bring texts of their own. What is invisible in them can only do
harm: terminal escapes rewrite the screen, bidirectional controls reorder a line, and tag characters
speak to a model without any person seeing it.
"""

from __future__ import annotations

import re
from functools import lru_cache

#: Longer descriptions of other people's objects and exceptions are cut.
_LONGEST = 2000

#: Besides C0 and C1: bidirectional controls, what has no width, and tag characters.
_INVISIBLE = "\u061c\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f"


@lru_cache(maxsize=8)
def _harmful(keep: str) -> re.Pattern[str]:
    controls = (*range(0x20), *range(0x7F, 0xA0))
    kept = "".join(re.escape(chr(code)) for code in controls if chr(code) not in keep)
    return re.compile(f"[{kept}{_INVISIBLE}]")


def clean(text: str, keep: str = "\n\t\r") -> str:
    """Return a text without what cannot be seen and could do harm.

    Left out are the C0 and C1 control characters, bidirectional controls, characters without width
    and Unicode tag characters. What no encoding can carry, a lone surrogate, becomes U+FFFD.

    :param keep: the control characters that may stay.
    """
    if text.isprintable():  # nearly every text is, and none of the above
        return text
    text = _harmful(keep).sub("", text)
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def one_line(text: str) -> str:
    """Return a text as `clean` does, with a space wherever a line ended.

    Only a text that needs it is touched; then every other white space becomes one space, too.
    """
    return text if text.isprintable() else " ".join(clean(text).split())


def shown(value: object) -> str:
    """Return the `repr` of anybody's object; never raises."""
    try:
        return _cut(clean(repr(value)))
    except BaseException:  # noqa: BLE001 - to describe a failure must not be another one
        return f"<{type(value).__name__}, whose repr() fails>"


def error_text(error: BaseException) -> str:
    """Return what an exception says, preceded by its type; never raises."""
    kind = type(error).__name__
    try:
        text = _cut(clean(str(error)))
    except BaseException:  # noqa: BLE001 - to describe a failure must not be another one
        return f"{kind}, whose str() fails"
    return f"{kind}: {text}" if text else kind


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
