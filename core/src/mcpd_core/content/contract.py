"""The contracts of resources and prompts, read from JSON data and written as such.

As those of tools, see `mcpd_core.contract`: reading is strict about what it knows and tolerant of
keys that it does not know; what is left out has the default of `ResourceSpec` or `PromptSpec`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from ..contract import (
    Problem,
    as_array,
    as_flag,
    as_line,
    as_lines,
    as_object,
    as_reference,
    as_runtime,
    as_seconds,
    as_text,
    check_runtime,
)
from ..json_schema import brief
from ..spec import TOOL_NAME, PromptArgument, PromptSpec, ResourceSpec, RuntimeName
from ..text import clean, one_line
from .template import UriTemplate


def read_resources(
    items: object, path: str, plugin: str, runtime: RuntimeName
) -> tuple[ResourceSpec, ...]:
    """Read a list of resources, of which no two templates may match the same URI.

    :param items: JSON data that belongs to the caller.
    :param path: the place, for messages.
    :raises Problem: when it is not a proper one.
    """
    specs: list[ResourceSpec] = []
    for i, item in enumerate(as_array(items, path)):
        where = f"{path}[{i}]"
        facts = _facts(item, where, _RESOURCE_CHECKS, ("uri", "name", "entry"), runtime)
        spec = ResourceSpec(plugin=plugin, **facts)
        names = UriTemplate(spec.uri).names
        for placeholder in spec.complete:
            if placeholder not in names:
                raise Problem(f"{where}.complete", f"{brief(placeholder)} is no placeholder")
        for other in specs:
            if clashes(spec, other):
                raise Problem(where, f"{other.uri!r} matches the same URIs as {spec.uri!r}")
        specs.append(spec)
    return tuple(specs)


def read_prompts(
    items: object, path: str, plugin: str, runtime: RuntimeName
) -> tuple[PromptSpec, ...]:
    """Read a list of prompts, of which no two may have the same name.

    :param items: JSON data that belongs to the caller.
    :param path: the place, for messages.
    :raises Problem: when it is not a proper one.
    """
    specs: dict[str, PromptSpec] = {}
    for i, item in enumerate(as_array(items, path)):
        where = f"{path}[{i}]"
        facts = _facts(item, where, _PROMPT_CHECKS, ("name", "entry"), runtime)
        spec = PromptSpec(plugin=plugin, **facts)
        for argument in spec.complete:
            if all(argument != known.name for known in spec.arguments):
                raise Problem(f"{where}.complete", f"{brief(argument)} is no argument")
        if spec.name in specs:
            raise Problem(where, f"the name {spec.name!r} is taken by another prompt already")
        specs[spec.name] = spec
    return tuple(specs.values())


def clashes(one: ResourceSpec, other: ResourceSpec) -> bool:
    """Whether two resources of one plugin claim the same URI.

    A plugin may offer one URI of its own template as a resource in its own right; it comes first.
    """
    if one.is_template != other.is_template:
        return False
    return overlap(one, other)


def overlap(one: ResourceSpec, other: ResourceSpec) -> bool:
    """Whether some URI is both resources'."""
    if not one.is_template and not other.is_template:
        return one.uri == other.uri
    return UriTemplate(one.uri).overlaps(UriTemplate(other.uri))


class Offering(Protocol):
    """What a plugin offers, as its manifest and its row have it."""

    @property
    def resources(self) -> Sequence[ResourceSpec]:
        """Its resources."""
        ...

    @property
    def prompts(self) -> Sequence[PromptSpec]:
        """Its prompts."""
        ...


def offered_by_both(one: Offering, other: Offering) -> list[str]:
    """Return what the second offers that the first offers too, named for people and sorted."""
    names = {prompt.name for prompt in one.prompts}
    found = {prompt.label for prompt in other.prompts if prompt.name in names}
    found |= {
        resource.label
        for resource in other.resources
        if any(overlap(own, resource) for own in one.resources)
    }
    return sorted(found)


def render_resource(spec: ResourceSpec, *, runtime: RuntimeName) -> dict[str, Any]:
    """Return a resource as the manifest holds it, without what is the default.

    :param runtime: of the plugin; the resource's own is left out when it is the same.
    """
    return _kept(
        {
            "uri": spec.uri,
            "name": one_line(spec.name),
            "title": one_line(spec.title),
            "description": clean(spec.description),
            "mime_type": one_line(spec.mime_type),
            "runtime": None if spec.runtime == runtime else spec.runtime,
            "entry": spec.entry,
            "timeout": spec.timeout,
            "complete": list(spec.complete),
        }
    )


def render_prompt(spec: PromptSpec, *, runtime: RuntimeName) -> dict[str, Any]:
    """Return a prompt as the manifest holds it, without what is the default.

    :param runtime: of the plugin; the prompt's own is left out when it is the same.
    """
    return _kept(
        {
            "name": spec.name,
            "title": one_line(spec.title),
            "description": clean(spec.description),
            "arguments": [
                _kept(
                    {
                        "name": argument.name,
                        "description": clean(argument.description),
                        "required": argument.required,
                    }
                )
                for argument in spec.arguments
            ],
            "runtime": None if spec.runtime == runtime else spec.runtime,
            "entry": spec.entry,
            "timeout": spec.timeout,
            "complete": list(spec.complete),
        }
    )


def _kept(item: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in item.items() if value not in (None, "", False, [])}


def _facts(
    item: object,
    path: str,
    checks: Mapping[str, Callable[[Any, str], Any]],
    needed: tuple[str, ...],
    runtime: RuntimeName,
) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for key, value in as_object(item, path).items():
        check = checks.get(key)
        if check is not None and value is not None:
            facts[key] = check(value, f"{path}.{key}")
    for key in needed:
        if key not in facts:
            raise Problem(path, f"has no {key}")
    check_runtime(facts.setdefault("runtime", runtime), path, runtime)
    return facts


def _uri(value: object, path: str) -> str:
    if not isinstance(value, str):
        raise Problem(path, f"must be a string, not {brief(value)}")
    try:
        UriTemplate(value)
    except ValueError as exc:
        raise Problem(path, str(exc)) from None
    return value


def _prompt_name(value: object, path: str) -> str:
    if not isinstance(value, str) or not TOOL_NAME.match(value):
        raise Problem(
            path, f"{brief(value)} is not a prompt name: use 1 to 64 letters, digits, '_' and '-'"
        )
    return value


def _arguments(value: object, path: str) -> tuple[PromptArgument, ...]:
    arguments: dict[str, PromptArgument] = {}
    for i, item in enumerate(as_array(value, path)):
        where = f"{path}[{i}]"
        facts = as_object(item, where)
        name = as_line(facts.get("name"), f"{where}.name")
        if name in arguments:
            raise Problem(where, f"the argument {name!r} is there already")
        arguments[name] = PromptArgument(
            name,
            as_text(facts.get("description", ""), f"{where}.description"),
            as_flag(facts.get("required", False), f"{where}.required"),
        )
    return tuple(arguments.values())


#: What a key must hold; the keys are the fields of `ResourceSpec` and `PromptSpec`.
_COMMON: dict[str, Callable[[Any, str], Any]] = {
    "entry": as_reference,
    "title": as_line,
    "description": as_text,
    "runtime": as_runtime,
    "timeout": as_seconds,
    "complete": as_lines,
}
_RESOURCE_CHECKS = {**_COMMON, "uri": _uri, "name": as_line, "mime_type": as_line}
_PROMPT_CHECKS = {**_COMMON, "name": _prompt_name, "arguments": _arguments}
