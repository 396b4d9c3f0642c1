"""Docstrings in the styles of Google, NumPy and Sphinx: what they say about parameters.

The styles are those that Sphinx's napoleon extension and its Python domain describe. A docstring is
for people: whatever does not fit a style is left where it is, as a part of the description.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

#: A description longer than this is cut: all tools travel in one list.
MOST_CHARACTERS = 2_000
_MOST_OF_A_PARAMETER = 600
_LONGEST_DOCSTRING = 60_000

_PARAMETERS = frozenset(
    [
        "args",
        "arguments",
        "parameters",
        "params",
        "keyword_args",
        "keyword_arguments",
        "other_parameters",
    ]
)
_OTHERS = frozenset(
    [
        "return",
        "returns",
        "yield",
        "yields",
        "raise",
        "raises",
        "example",
        "examples",
        "note",
        "notes",
        "attributes",
        "see_also",
        "references",
        "warning",
        "warnings",
        "warns",
        "todo",
        "usage",
    ]
)
#: What the schema or nobody needs to say again.
_DROPPED = _PARAMETERS | {"raise", "raises", "warns", "todo"}

_GOOGLE_HEADER = re.compile(r"([A-Z][A-Za-z]*(?: [A-Za-z]+)?)\s?:\s*\Z")
_GOOGLE_ITEM = re.compile(r"(\*{0,2}\w+)\s*(?:\(((?:[^()]|\([^()]*\))*)\))?\s*:(?:\s+(.*))?\Z")
_NUMPY_RULE = re.compile(r"-{3,}\s*\Z|={3,}\s*\Z")
_NUMPY_ITEM = re.compile(r"(\*{0,2}\w+(?:\s*,\s*\*{0,2}\w+)*)\s*(?::\s*(.*))?\Z")
_FIELD = re.compile(r"[:@](\w+)(?:\s+([^:]*?))?\s*:(?:\s+(.*))?\Z")
_PARAMETER_FIELDS = frozenset(["param", "parameter", "arg", "argument", "key", "keyword"])
_FIELDS = _PARAMETER_FIELDS | frozenset(
    [
        "type",
        "return",
        "returns",
        "rtype",
        "raise",
        "raises",
        "except",
        "exception",
        "var",
        "ivar",
        "cvar",
        "vartype",
        "meta",
        "yields",
        "ytype",
    ]
)


@dataclass
class Documented:
    """What a docstring says of one parameter; either may be empty."""

    type: str = ""
    description: str = ""


@dataclass
class Docstring:
    """A docstring, taken apart.

    :ivar description: what it says besides the parameters and the errors.
    :ivar parameters: by name, without asterisks.
    """

    description: str = ""
    parameters: dict[str, Documented] = field(default_factory=dict)


def read(text: str) -> Docstring:
    """Take a docstring apart; any text will do.

    :param text: as it is in the source, with its indentation.
    """
    lines = _dedented(text[:_LONGEST_DOCSTRING])
    doc = Docstring()
    kept: list[str] = []
    place = 0
    while place < len(lines):
        after = _field(lines, place, doc) or _section(lines, place, doc)
        if after:
            place = after
        else:
            kept.append(lines[place])
            place += 1
    doc.description = _cut(_joined(kept), MOST_CHARACTERS)
    for each in doc.parameters.values():
        each.description = _cut(" ".join(each.description.split()), _MOST_OF_A_PARAMETER)
        each.type = " ".join(each.type.split())
    return doc


def _dedented(text: str) -> list[str]:
    lines = [line.rstrip() for line in text.expandtabs().splitlines()]
    margin = min((_indent(line) for line in lines[1:] if line), default=0)
    first = [lines[0].lstrip()] if lines else []
    return first + [line[margin:] for line in lines[1:]]


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _joined(lines: list[str]) -> str:
    text = "\n".join(lines).strip()
    return re.sub(r"\n{3,}", "\n\n", text)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 3].rstrip()}..."


def _block(lines: list[str], start: int, indent: int) -> int:
    """Return where what is indented more than ``indent`` ends, blank lines within it included."""
    end = place = start
    while place < len(lines):
        if lines[place]:
            if _indent(lines[place]) <= indent:
                break
            end = place + 1
        place += 1
    return end


# --- Sphinx --------------------------------------------------------------------------------------


def _field(lines: list[str], place: int, doc: Docstring) -> int | None:
    line = lines[place]
    if not line.lstrip().startswith((":", "@")):
        return None
    match = _FIELD.match(line.strip())
    if match is None or match[1] not in _FIELDS:
        return None
    end = _block(lines, place + 1, _indent(line))
    body = "\n".join([match[3] or "", *lines[place + 1 : end]]).strip()
    subject = (match[2] or "").split()
    if match[1] in _PARAMETER_FIELDS and subject:
        _note(doc, subject[-1], " ".join(subject[:-1]), body)
    elif match[1] == "type" and subject:
        _note(doc, subject[-1], body, "")
    elif match[1] in ("return", "returns") and body:
        # It is the one field that a model is helped by.
        lines[place:end] = ["", f"Returns: {body}"]
        return None
    return end


def _note(doc: Docstring, name: str, kind: str, description: str) -> None:
    noted = doc.parameters.setdefault(name.lstrip("\\*"), Documented())
    noted.type = noted.type or kind
    noted.description = noted.description or description


# --- sections ------------------------------------------------------------------------------------


def _section(lines: list[str], place: int, doc: Docstring) -> int | None:
    line = lines[place]
    if not line:
        return None
    if place + 1 < len(lines) and _NUMPY_RULE.match(lines[place + 1].strip()):
        name = line.strip().lower().replace(" ", "_")
        if name not in _PARAMETERS and name not in _OTHERS:
            return None
        end = _numpy_end(lines, place + 2, _indent(line))
        if name in _PARAMETERS:
            _numpy_items(lines[place + 2 : end], doc)
        return end if name in _DROPPED else None
    match = _GOOGLE_HEADER.match(line.strip())
    if match is None:
        return None
    name = match[1].lower().replace(" ", "_")
    if name not in _DROPPED:
        return None
    end = _block(lines, place + 1, _indent(line))
    if name in _PARAMETERS:
        _google_items(lines[place + 1 : end], doc)
    return end


def _google_items(lines: list[str], doc: Docstring) -> None:
    margin = min((_indent(line) for line in lines if line), default=0)
    noted: Documented | None = None
    for line in lines:
        match = None
        if line and _indent(line) == margin:
            match = _GOOGLE_ITEM.match(line.strip().removeprefix("- "))
        if match is not None:
            noted = doc.parameters.setdefault(match[1].lstrip("*"), Documented())
            noted.type = match[2] or noted.type
            noted.description = match[3] or ""
        elif noted is not None:
            noted.description += f"\n{line}"


def _numpy_end(lines: list[str], start: int, indent: int) -> int:
    """Return where a section ends: at the next header of its depth, or at what is indented less."""
    for place in range(start, len(lines)):
        line = lines[place]
        if not line:
            continue
        ruled = place + 1 < len(lines) and _NUMPY_RULE.match(lines[place + 1].strip())
        if _indent(line) < indent or (ruled and _indent(line) == indent):
            return place
    return len(lines)


def _numpy_items(lines: list[str], doc: Docstring) -> None:
    margin = min((_indent(line) for line in lines if line), default=0)
    noted: list[Documented] = []
    for line in lines:
        match = _NUMPY_ITEM.match(line.strip()) if line and _indent(line) == margin else None
        if match is not None:
            names = [name.strip().lstrip("*") for name in match[1].split(",")]
            noted = [doc.parameters.setdefault(name, Documented()) for name in names]
            for each in noted:
                each.type = match[2] or each.type
        else:
            for each in noted:
                each.description += f"\n{line}"
