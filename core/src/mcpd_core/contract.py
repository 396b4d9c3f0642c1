"""The contract of one tool, read from JSON data that anybody may have written.

Reading is strict about what it knows and tolerant of keys that it does not know. Texts are cleaned
on the way in, so that whoever shows them later need not think of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from functools import partial
from typing import Any

from . import json_schema
from .json_schema import SchemaProblem, brief
from .spec import (
    ALIAS,
    LEAST_MEMORY_MB,
    PLACEMENTS,
    RUNTIMES,
    TOOL_NAME,
    Annotations,
    Placement,
    RuntimeName,
    ToolSpec,
)
from .text import clean, error_text, one_line

#: Seconds in a year, the longest timeout that a tool may ask for.
LONGEST_TIMEOUT = 31_536_000

#: `module:function`, of which either may be dotted.
ENTRY = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*\Z")
#: The keys of a tool's annotations: the fields of `Annotations`.
ANNOTATIONS = ("read_only", "destructive", "idempotent", "open_world")


class Problem(Exception):
    """What is wrong at one place of a file; becomes a `ManifestError` that names the plugin."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}" if path else problem)


def plain(items: object) -> object:
    """Return a copy that consists of JSON data and nothing else, so that it can be trusted."""
    try:
        return json.loads(json.dumps(items, allow_nan=False, default=_as_dict))
    except KeyboardInterrupt:
        raise
    except BaseException as exc:  # noqa: BLE001 - anybody's objects may raise anything while they are read
        raise Problem("", f"it cannot be JSON ({error_text(exc)})") from None


def plain_each(items: Sequence[object], at_a_time: int = 100) -> Iterator[Any]:
    """Copy the items of an array as `plain` does; not all at once, because they may be large."""
    for start in range(0, len(items), at_a_time):
        copied = plain(items[start : start + at_a_time])
        assert isinstance(copied, list)
        yield from copied


def _as_dict(value: object) -> dict[Any, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is no JSON type")


def facts_of(spec: ToolSpec) -> dict[str, Any]:
    """Return a contract that code has made as an item that `read_tools` can check."""
    facts = {field.name: getattr(spec, field.name) for field in fields(ToolSpec)}
    if isinstance(spec.annotations, Annotations):
        facts["annotations"] = asdict(spec.annotations)
    return facts


def read_tools(items: object, path: str, plugin: str, runtime: RuntimeName) -> tuple[ToolSpec, ...]:
    """Read a list of tools, of which no two may claim the same name, nor share a process that would
    have two memory limits.

    :param items: JSON data that belongs to the caller.
    :param path: the place, for messages.
    :raises Problem: when it is not a proper one.
    """
    return read_each_tool(as_array(items, path), path, plugin, runtime)


def read_each_tool(
    items: Iterable[Any], path: str, plugin: str, runtime: RuntimeName
) -> tuple[ToolSpec, ...]:
    """Read tools as `read_tools` does, from an array that need not be there all at once."""
    specs = []
    owner: dict[str, str] = {}
    limits: dict[str, int | None] = {}
    same = _Same()
    for i, item in enumerate(items):
        where = f"{path}[{i}]"
        spec = _tool(as_object(item, where), where, plugin, runtime, same)
        for name in (spec.name, *spec.aliases):
            if name in owner:
                raise Problem(where, f"the name {name!r} is taken by {owner[name]} already")
            owner[name] = where
        if spec.process and limits.setdefault(spec.process, spec.memory_mb) != spec.memory_mb:
            raise Problem(
                where, f"the tools that share the process {spec.process!r} differ in memory_mb"
            )
        specs.append(spec)
    return tuple(specs)


class _Same:
    """What tools of one list have in common, to be kept once.

    :ivar schemas: see `json_schema.check`.
    :ivar texts: by themselves.
    """

    def __init__(self) -> None:
        self.schemas: json_schema.Known = {}
        self.texts: dict[str, str] = {}


#: The keys whose texts many tools of a list have in common.
_COMMON = frozenset({"category", "loader", "placement", "process", "runtime", "source"})
_SCHEMAS = frozenset({"input_schema", "output_schema"})


def _tool(
    item: Mapping[str, Any], path: str, plugin: str, runtime: RuntimeName, same: _Same
) -> ToolSpec:
    # A listing reads hundreds of tools: only the keys that are there are looked at.
    facts: dict[str, Any] = {}
    for key, value in item.items():
        if value is None:
            continue
        if key in _SCHEMAS:
            facts[key] = _object_schema(value, f"{path}.{key}", same.schemas)
        elif (check := _CHECKS.get(key)) is not None:
            checked = check(value, f"{path}.{key}")
            facts[key] = same.texts.setdefault(checked, checked) if key in _COMMON else checked
    if "name" not in facts:
        raise Problem(path, "has no name")
    if "entry" not in facts:
        raise Problem(path, f"tool {facts['name']!r} has no entry")
    own = facts.setdefault("runtime", runtime)
    if not facts.get("loader"):
        # What the entry-point group declares is about the plugin's own code.
        check_runtime(own, path, runtime)
    if facts.get("process") and facts.get("placement") != "process":
        raise Problem(f"{path}.process", "goes with the placement `process` only")
    facts.setdefault("description", "")
    if "input_schema" not in facts:
        facts["input_schema"] = no_arguments()
    return ToolSpec(plugin=plugin, **facts)


def check_runtime(own: RuntimeName, path: str, runtime: RuntimeName) -> None:
    """Make sure that a function for one runtime may belong to a plugin of another.

    :param own: what the function is for.
    :param runtime: what the plugin's entry-point group declares.
    :raises Problem: when it may not.
    """
    if own != runtime and "any" not in (own, runtime):
        raise Problem(f"{path}.runtime", f"{own!r} cannot be served by a plugin of {runtime!r}")


def no_arguments() -> dict[str, Any]:
    """Return the input schema of a tool that says nothing of its arguments."""
    return {"type": "object", "properties": {}, "additionalProperties": False}


# --- one value at a time: what it is as the type that it must have, or a `Problem` ---------------


def as_object(value: object, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Problem(path, f"must be an object, not {brief(value)}")
    return value


def as_array(value: object, path: str) -> Sequence[Any]:
    if not isinstance(value, (list, tuple)):
        raise Problem(path, f"must be an array, not {brief(value)}")
    return value


def as_text(value: object, path: str) -> str:
    if not isinstance(value, str):
        raise Problem(path, f"must be a string, not {brief(value)}")
    return clean(value)


def as_line(value: object, path: str) -> str:
    return one_line(as_text(value, path))


def as_lines(value: object, path: str) -> tuple[str, ...]:
    return tuple(as_line(item, f"{path}[{i}]") for i, item in enumerate(as_array(value, path)))


def as_flag(value: object, path: str) -> bool:
    if not isinstance(value, bool):
        raise Problem(path, f"must be true or false, not {brief(value)}")
    return value


def as_seconds(value: object, path: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise Problem(path, f"must be a positive number of seconds, not {brief(value)}")
    if value > LONGEST_TIMEOUT:
        raise Problem(path, f"{brief(value)} seconds are more than a year ({LONGEST_TIMEOUT})")
    return value


def _at_least(least: int, value: object, path: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise Problem(path, f"must be a whole number of at least {least}, not {brief(value)}")
    return value


def _tool_name(value: object, path: str) -> str:
    if not isinstance(value, str) or not TOOL_NAME.match(value):
        raise Problem(
            path, f"{brief(value)} is not a tool name: use 1 to 64 letters, digits, '_' and '-'"
        )
    return value


def _alias(value: object, path: str) -> str:
    if not isinstance(value, str) or not ALIAS.match(value):
        raise Problem(
            path, f"{brief(value)} is not an alias: use 1 to 128 letters, digits, '_', '-' and '.'"
        )
    return value


def _aliases(value: object, path: str) -> tuple[str, ...]:
    return tuple(_alias(item, f"{path}[{i}]") for i, item in enumerate(as_array(value, path)))


def _process_name(value: object, path: str) -> str:
    if value != "" and (not isinstance(value, str) or not ALIAS.match(value)):
        raise Problem(
            path, f"{brief(value)} is no name of a process: use letters, digits, '_', '-' and '.'"
        )
    return value


def as_reference(value: object, path: str) -> str:
    if not isinstance(value, str) or not ENTRY.match(value):
        raise Problem(path, f"{brief(value)} is not of the form `module:function`")
    return value


def _loader(value: object, path: str) -> str:
    return "" if value == "" else as_reference(value, path)


def as_runtime(value: object, path: str) -> RuntimeName:
    if value not in RUNTIMES:
        raise Problem(path, f"must be one of {', '.join(RUNTIMES)}, not {brief(value)}")
    return value


def _placement(value: object, path: str) -> Placement:
    if value not in PLACEMENTS:
        raise Problem(path, f"must be one of {', '.join(PLACEMENTS)}, not {brief(value)}")
    return value


def _annotations(value: object, path: str) -> Annotations:
    item = as_object(value, path)
    return Annotations(
        **{key: as_flag(item[key], f"{path}.{key}") for key in ANNOTATIONS if key in item}
    )


def _object_schema(value: object, path: str, known: json_schema.Known) -> dict[str, Any]:
    try:
        return json_schema.check(value, known)
    except SchemaProblem as problem:
        raise Problem(path + problem.place, problem.problem) from None


#: What a key of a tool must hold; with the schemas, the keys are the fields of `ToolSpec`.
_CHECKS: dict[str, Callable[[Any, str], Any]] = {
    "name": _tool_name,
    "description": as_text,
    "entry": as_reference,
    "title": as_line,
    "category": as_line,
    "annotations": _annotations,
    "runtime": as_runtime,
    "placement": _placement,
    "timeout": as_seconds,
    "long_running": as_flag,
    "aliases": _aliases,
    "tags": as_lines,
    "listed": as_flag,
    "memory_mb": partial(_at_least, LEAST_MEMORY_MB),
    "cpu_seconds": partial(_at_least, 1),
    "loader": _loader,
    "source": as_line,
    "process": _process_name,
}
