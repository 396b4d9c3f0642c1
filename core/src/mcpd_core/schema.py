"""From a typed function to its contract, its argument check and the shape of its answer.

The function is the single source: pydantic derives the JSON Schema from its annotations, and the
same pydantic validator checks every call. Importing this module imports pydantic, so listings,
which read manifests, stay away from it.
"""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import ModuleType
from typing import Any

import pydantic
import pydantic_core
from pydantic.json_schema import GenerateJsonSchema

from .blocks import NotABlock, as_block, in_words, is_made_of_blocks, promises_blocks
from .errors import InvalidArguments, InvalidOutput, PluginLoadError
from .marks import mark_of
from .parameters import Parameters, checked_function, dict_adapter, marked_functions
from .spec import CallResult, RuntimeName, ToolSpec

_log = logging.getLogger(__name__)

_TEXT_ONLY = (str, None, type(None), Any, inspect.Signature.empty)


def tools_of(module: ModuleType) -> list[Callable[..., Any]]:
    """Return the ``@tool`` functions that a module defines itself, in the order of its source."""
    return marked_functions(module, mark_of)


def describe(function: Callable[..., Any], *, plugin: str, runtime: RuntimeName) -> ToolSpec:
    """Return the contract of a ``@tool`` function.

    :param plugin: the name of the plugin that offers it.
    :param runtime: the runtime that the plugin's entry-point group declares.
    :raises PluginLoadError: when the function cannot be a tool; the reason names it.
    """
    return ToolFunction(function, plugin=plugin, runtime=runtime).spec


class ToolFunction:
    """A tool's function with its contract, its argument check and its answer's shape.

    :ivar spec: the contract, derived from the function.
    :ivar function: the function itself.
    :ivar is_async: whether it is an ``async def``.
    :ivar context_parameter: the parameter that receives the `Context`, or ``None``.
    """

    def __init__(self, function: Callable[..., Any], *, plugin: str, runtime: RuntimeName) -> None:
        where = checked_function(function, plugin=plugin, is_marked=mark_of, kind="tool")
        mark = mark_of(function)
        assert mark is not None
        self.function = function
        self.is_async = inspect.iscoroutinefunction(function)
        try:
            self._parameters = Parameters(function, name=mark.name)
            self._promises_blocks = promises_blocks(self._parameters.returns)
            self._wrapped, self._answer = _answer_adapter(mark.name, self._parameters.returns)
            input_schema = _input_schema(self._parameters)
            output_schema = None if self._answer is None else _output_schema(self._answer)
        except Exception as error:  # the boundary: annotations are code of the plugin
            raise PluginLoadError(
                plugin,
                f"{where} cannot be a tool: {(str(error) or type(error).__name__).splitlines()[0]}",
                hint="Every parameter needs a type that JSON can carry.",
            ) from error
        self.context_parameter = self._parameters.context
        self._on_misfit = mark.on_misfit
        self.spec = ToolSpec(
            name=mark.name,
            title=mark.title,
            description=inspect.cleandoc(function.__doc__ or ""),
            category=mark.category,
            input_schema=input_schema,
            output_schema=output_schema,
            annotations=mark.annotations,
            runtime=mark.runtime or runtime,
            placement=mark.placement or ("loop" if self.is_async else "thread"),
            entry=where,
            plugin=plugin,
            timeout=mark.timeout,
            long_running=mark.long_running,
            aliases=mark.aliases,
            tags=mark.tags,
            listed=mark.listed,
            memory_mb=mark.memory_mb,
            cpu_seconds=mark.cpu_seconds,
            process=mark.process,
        )

    def validate(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments as Python values, ready to be passed to the function.

        :raises InvalidArguments: naming each argument that does not fit; an unknown one with the
            name that comes closest.
        """
        return self._parameters.check(arguments, of=self.spec.label)

    def answer_to(self, misfit: InvalidArguments, arguments: Mapping[str, Any]) -> CallResult:
        """Answer arguments that do not fit, if the tool's author wants to do that.

        :raises InvalidArguments: the one given, if not.
        """
        if self._on_misfit is None:
            raise misfit
        try:
            return _as_json(self._on_misfit(misfit, arguments))
        except Exception:  # noqa: BLE001 - the boundary: it is code of the plugin
            _log.exception("The on_misfit of the %s raised.", self.spec.label)
            raise misfit from None

    def answer(self, value: Any) -> CallResult:
        """Turn what the function returned into the shape that clients receive.

        :raises InvalidOutput: when it does not fit the declared output, or JSON cannot carry it.
        """
        return shaped_answer(partial(self._shaped, value), value, tool=self.spec.name)

    def _shaped(self, value: Any) -> CallResult:
        if isinstance(value, CallResult):
            return self._fitting(_as_json(value))
        if self._answer is None:
            return untyped(value, as_blocks=self._promises_blocks)
        data = {"result": value} if self._wrapped else value
        # Validated first: pydantic's serialiser alone lets missing fields pass.
        checked = self._answer.validate_python(data)
        return _structured(self._answer.dump_python(checked, mode="json", by_alias=True))

    def _fitting(self, result: CallResult) -> CallResult:
        """Hold what the tool has shaped itself to the output schema, if it has one.

        Some clients hold the data of a failure to it as well: data that does not fit is left out.
        """
        if self._answer is None:
            return result
        try:
            if result.structured is not None or result.error is None:
                self._answer.validate_python(result.structured)
        except pydantic.ValidationError:
            if result.error is None:
                raise
            return replace(result, structured=None)
        return result


def shaped_answer(shape: Callable[[], CallResult], value: Any, *, tool: str) -> CallResult:
    """Shape an answer, and say what is wrong where that cannot be.

    :param shape: makes the answer from ``value``.
    :param tool: the name of the tool that returned it.
    :raises InvalidOutput: when it does not fit the declared output, or JSON cannot carry it.
    """
    try:
        return shape()
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        path = ".".join(str(part) for part in first["loc"])
        problem = f"returned what its own output schema refuses: {path}: {first['msg']}"
        raise _defect(tool, problem) from error
    except NotABlock as error:
        problem = (
            f"returned a list with something that is neither text nor a content block: {error}"
        )
        raise _defect(tool, problem) from error
    except (pydantic_core.PydanticSerializationError, ValueError) as error:
        problem = f"returned a value of type {type(value).__name__}, which JSON cannot carry"
        raise _defect(tool, problem) from error


def _defect(tool: str, problem: str) -> InvalidOutput:
    return InvalidOutput(
        f"The tool {tool!r} {problem}.",
        hint="This is a defect of the tool; report it to its plugin.",
        retryable=False,
    )


def untyped(value: Any, *, as_blocks: bool = False) -> CallResult:
    """Shape what a tool returned that declares no output.

    :param as_blocks: whether lists of text and content blocks are meant as such.
    :raises ValueError: when JSON cannot carry it.
    """
    if isinstance(value, CallResult):
        return _as_json(value)
    if value is None:
        return CallResult("")
    if as_blocks or is_made_of_blocks(value):
        return _of_blocks(value if isinstance(value, (list, tuple)) else (value,))
    if isinstance(value, str):
        return CallResult(value)
    plain = pydantic_core.to_jsonable_python(value)
    return _structured(plain) if isinstance(plain, dict) else CallResult(to_json(plain))


def to_json(value: Any) -> str:
    """Return JSON data as compact text."""
    return pydantic_core.to_json(value, inf_nan_mode="null").decode()


def _as_json(result: CallResult) -> CallResult:
    """Check an answer that a tool has shaped itself."""
    if not isinstance(result.text, str):
        raise ValueError("text is not text")
    if result.content:
        made = _of_blocks(result.content)
        result = replace(result, text=result.text or made.text, content=made.content)
    if result.structured is None:
        return result
    # The text is what clients without structured data see, so it has to say the same.
    own = _structured(pydantic_core.to_jsonable_python(result.structured), result.error)
    return replace(own, content=result.content)


def _of_blocks(items: Sequence[object]) -> CallResult:
    """Turn text and content blocks into an answer."""
    blocks = tuple(pydantic_core.to_jsonable_python(as_block(item)) for item in items)
    return CallResult(in_words(blocks), content=blocks)


def _structured(data: Any, error: Mapping[str, Any] | None = None) -> CallResult:
    text = to_json(data)
    # JSON has no NaN and no infinity; where the text says null instead, the data does too.
    return CallResult(text, pydantic_core.from_json(text) if "null" in text else data, error)


def _answer_adapter(name: str, hint: Any) -> tuple[bool, pydantic.TypeAdapter[Any] | None]:
    """Return whether the answer is wrapped as ``{"result": ...}``, and its adapter if it has one.

    Clients of every protocol revision accept an output schema only when its root is an object.
    """
    if hint in _TEXT_ONLY or hint is CallResult or promises_blocks(hint):
        return False, None
    adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(hint)
    if _is_object(adapter.json_schema(mode="serialization")):
        return False, adapter
    return True, dict_adapter(f"{name}_result", {"result": hint})


def _is_object(schema: Mapping[str, Any]) -> bool:
    reference = schema.get("$ref", "")
    if reference.startswith("#/$defs/"):
        return _is_object(schema["$defs"][reference.removeprefix("#/$defs/")])
    return schema.get("type") == "object"


class _PlainSchema(GenerateJsonSchema):
    """JSON Schema without the titles that only repeat the names of the fields."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _input_schema(parameters: Parameters) -> dict[str, Any]:
    schema = parameters.adapter.json_schema(mode="validation", schema_generator=_PlainSchema)
    schema.pop("title", None)
    for name, default in parameters.defaults.items():
        if isinstance(default, (set, frozenset)):
            # In an order that does not change from one run to the next.
            default = sorted(default, key=repr)
        shown = pydantic_core.to_jsonable_python(default, by_alias=True)
        if isinstance(shown, float) and not math.isfinite(shown):
            raise ValueError(f"JSON has no number for the default {shown} of {name!r}")
        _property_of(schema, name)["default"] = shown
    schema.setdefault("properties", {})
    return schema


def _property_of(schema: dict[str, Any], name: str) -> dict[str, Any]:
    properties: dict[str, Any] = schema["properties"]
    if name not in properties:
        raise TypeError(f"parameter {name!r} has an alias; give the parameter that name instead")
    found: dict[str, Any] = properties[name]
    return found


def _output_schema(adapter: pydantic.TypeAdapter[Any]) -> dict[str, Any]:
    schema = adapter.json_schema(mode="serialization", schema_generator=_PlainSchema)
    schema.pop("title", None)
    # A schema that is only a reference lacks the root type that clients look for.
    schema.setdefault("type", "object")
    return schema
