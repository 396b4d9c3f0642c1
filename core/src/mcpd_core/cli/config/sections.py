"""The sections of the core, with what their documentation says about each setting."""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from dataclasses import MISSING, dataclass, fields
from typing import Any

from ...settings import core_sections, setting_schema

_IVAR = re.compile(r"^:ivar (\w+):\s*(.*?)(?=^:ivar |\Z)", re.MULTILINE | re.DOTALL)
_TITLE = re.compile(r"``\[\w+\]``:\s*(.*?)(?=\n\n|\Z)", re.DOTALL)

_HEAD = """\
# Settings of mcpd. What is commented out is the default.
# A variable MCPD_<SECTION>__<KEY> wins over this file, and a flag over both;
# `mcpd config show` tells what holds. Other sections belong to the plugin of that name.
"""


@dataclass(frozen=True)
class Setting:
    """One setting of a core section.

    :ivar text: what it means, in one paragraph.
    :ivar default: what holds when nobody sets it; ``None`` when that is a case of its own.
    :ivar schema: what it takes from a file, as JSON Schema.
    """

    key: str
    text: str
    default: Any
    schema: dict[str, Any]


@dataclass(frozen=True)
class Section:
    """One section of the core.

    :ivar text: what it is about, in one sentence.
    """

    name: str
    text: str
    settings: tuple[Setting, ...]


def sections() -> tuple[Section, ...]:
    """Return the sections of the core, in the order in which they are declared."""
    return tuple(_section(name, model) for name, model in core_sections().items())


def template() -> str:
    """Return a settings file in which every setting is explained and commented out."""
    lines = [_HEAD]
    for section in sections():
        lines += _comment(section.text)
        lines.append(f"[{section.name}]")
        for setting in section.settings:
            lines += _comment(setting.text)
            lines.append(f"#{setting.key} = {_toml(setting)}")
        lines.append("")
    return "\n".join(lines)


def _section(name: str, model: type[Any]) -> Section:
    documentation = inspect.getdoc(model) or ""
    title = _TITLE.match(documentation)
    texts = {key: _flowing(text) for key, text in _IVAR.findall(documentation)}
    return Section(
        name,
        _sentence(_flowing(title[1])) if title else "",
        tuple(
            Setting(
                item.name,
                _sentence(texts.get(item.name, "")),
                None if item.default is MISSING else item.default,
                setting_schema(item),
            )
            for item in fields(model)
        ),
    )


def _flowing(text: str) -> str:
    # The marks of reStructuredText say nothing to the reader of a TOML file.
    return " ".join(text.split()).replace("``", "`")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, 90)]


def _toml(setting: Setting) -> str:
    """Write a default as TOML; JSON is the same thing for what settings are made of."""
    if setting.default is None:
        return '["..."]' if setting.schema.get("type") == "array" else '"..."'
    return json.dumps(setting.default)
