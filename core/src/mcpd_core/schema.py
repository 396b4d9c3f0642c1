"""From a typed function to its contract, its argument check and the shape of its answer.

The function is the single source: pydantic derives the JSON Schema from its annotations, and the
same pydantic validator checks every call. Importing this module imports pydantic, so listings,
which read manifests, stay away from it.
"""

from __future__ import annotations

import difflib
import inspect
import logging
import math
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import pydantic
import pydantic_core
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema
from typing_extensions import NotRequired, TypedDict, get_type_hints

from .context import Context
from .errors import InvalidArguments, InvalidOutput, PluginLoadError, ToolUnavailable
from .marks import ToolMark, mark_of
from .spec import CallResult, Placement, RuntimeName, ToolSpec

_log = logging.getLogger(__name__)

_TEXT_ONLY = (str, None, type(None), Any, inspect.Signature.empty)


def tools_of(module: ModuleType) -> list[Callable[..., Any]]:
    """Return the ``@tool`` functions that a module defines itself, in the order of its source."""
    found = [
        f
        for f in vars(module).values()
        if inspect.isfunction(f) and f.__module__ == module.__name__ and mark_of(f) is not None
    ]
    return sorted(found, key=lambda f: f.__code__.co_firstlineno)


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
        if not inspect.isfunction(function):
            # Not shown: it may be anything at all, the environment with its secrets included.
            raise PluginLoadError(
                plugin,
                f"A tool is a function, and this is a {type(function).__name__}.",
                hint="Mark the function with @tool.",
            )
        mark = mark_of(function)
        where = f"{function.__module__}:{function.__qualname__}"
        if mark is None:
            raise PluginLoadError(
                plugin, f"{where} is not a tool.", hint="Mark the function with @tool."
            )
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise PluginLoadError(
                plugin,
                f"{where} is a generator, which cannot be a tool.",
                hint="Return a list, and report what is done meanwhile with ctx.progress.",
            )
        self.function = function
        self.is_async = inspect.iscoroutinefunction(function)
        try:
            # Not typing's, which wraps `Annotated[T | None, ...] = None` once more on Python 3.10.
            hints = get_type_hints(function, include_extras=True)
            fields, defaults, self.context_parameter = _parameters(function, hints)
            self._arguments = _adapter(f"{mark.name}_arguments", fields)
            self._wrapped, self._answer = _answer_adapter(
                mark.name, hints.get("return", inspect.Signature.empty)
            )
            input_schema = _input_schema(self._arguments, defaults)
            output_schema = None if self._answer is None else _output_schema(self._answer)
        except Exception as error:  # the boundary: annotations are code of the plugin
            raise PluginLoadError(
                plugin,
                f"{where} cannot be a tool: {(str(error) or type(error).__name__).splitlines()[0]}",
                hint="Every parameter needs a type that JSON can carry.",
            ) from error
        self._names = tuple(fields)
        self.spec = ToolSpec(
            name=mark.name,
            title=mark.title,
            description=inspect.cleandoc(function.__doc__ or ""),
            category=mark.category,
            input_schema=input_schema,
            output_schema=output_schema,
            annotations=mark.annotations,
            runtime=mark.runtime or runtime,
            placement=_placement(mark, self.is_async, where, plugin),
            entry=where,
            plugin=plugin,
            timeout=mark.timeout,
            long_running=mark.long_running,
            aliases=mark.aliases,
            tags=mark.tags,
        )

    def validate(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments as Python values, ready to be passed to the function.

        :raises InvalidArguments: naming each argument that does not fit; an unknown one with the
            name that comes closest.
        """
        try:
            checked: dict[str, Any] = self._arguments.validate_python(dict(arguments))
        except pydantic.ValidationError as error:
            raise self._refusal(error) from None
        except Exception as error:  # the boundary: validators are code of the plugin
            _log.exception("A validator of the tool %s raised.", self.spec.name)
            raise ToolUnavailable(
                f"The arguments of the tool {self.spec.name!r} cannot be checked: one of its "
                f"validators failed ({type(error).__name__}).",
                hint="This is a defect of the tool; report it to its plugin.",
            ) from error
        return checked

    def _refusal(self, error: pydantic.ValidationError) -> InvalidArguments:
        problems = []
        for item in error.errors(include_url=False, include_context=False, include_input=False):
            path = ".".join(str(part) for part in item["loc"])
            if item["type"] == "extra_forbidden":
                close = difflib.get_close_matches(path, self._names, n=1)
                hint = f"did you mean {close[0]!r}" if close else self._known_names()
                problems.append({"argument": path, "problem": f"unknown argument; {hint}"})
            elif item["type"] == "missing":
                problems.append({"argument": path, "problem": "required, but missing"})
            else:
                text = item["msg"]
                problems.append({"argument": path, "problem": text[:1].lower() + text[1:]})
        listed = "; ".join(f"{p['argument']}: {p['problem']}" for p in problems)
        return InvalidArguments(
            f"The arguments do not fit the tool {self.spec.name!r}: {listed}.",
            hint="Correct them and call again.",
            data={"problems": problems},
        )

    def _known_names(self) -> str:
        return f"the tool takes {', '.join(self._names)}" if self._names else "the tool takes none"

    def answer(self, value: Any) -> CallResult:
        """Turn what the function returned into the shape that clients receive.

        :raises InvalidOutput: when it does not fit the declared output, or JSON cannot carry it.
        """
        try:
            if isinstance(value, CallResult):
                return _as_json(value)
            if self._answer is not None:
                data = {"result": value} if self._wrapped else value
                # Validated first: pydantic's serialiser alone lets missing fields pass.
                checked = self._answer.validate_python(data)
                structured = self._answer.dump_python(checked, mode="json", by_alias=True)
                return _structured(structured)
            if value is None:
                return CallResult("")
            if isinstance(value, str):
                return CallResult(value)
            plain = pydantic_core.to_jsonable_python(value)
            if isinstance(plain, dict):
                return _structured(plain)
        except pydantic.ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            path = ".".join(str(part) for part in first["loc"])
            raise InvalidOutput(
                f"The tool {self.spec.name!r} returned what its own output schema refuses: "
                f"{path}: {first['msg']}.",
                hint="This is a defect of the tool; report it to its plugin.",
                retryable=False,
            ) from error
        except (pydantic_core.PydanticSerializationError, ValueError) as error:
            raise InvalidOutput(
                f"The tool {self.spec.name!r} returned a value of type "
                f"{type(value).__name__}, which JSON cannot carry.",
                hint="This is a defect of the tool; report it to its plugin.",
                retryable=False,
            ) from error
        return CallResult(to_json(plain))


def to_json(value: Any) -> str:
    """Return JSON data as compact text."""
    return pydantic_core.to_json(value, inf_nan_mode="null").decode()


def _as_json(result: CallResult) -> CallResult:
    """Check an answer that a tool has shaped itself."""
    if not isinstance(result.text, str):
        raise ValueError("text is not text")
    if result.structured is None:
        return result
    # The text is what clients without structured data see, so it has to say the same.
    return _structured(pydantic_core.to_jsonable_python(result.structured), result.error)


def _structured(data: Any, error: Mapping[str, Any] | None = None) -> CallResult:
    text = to_json(data)
    # JSON has no NaN and no infinity; where the text says null instead, the data does too.
    return CallResult(text, pydantic_core.from_json(text) if "null" in text else data, error)


def _parameters(
    function: Callable[..., Any], hints: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any], str | None]:
    """Split the parameters into typed fields, their defaults, and the one for the `Context`."""
    fields: dict[str, Any] = {}
    defaults: dict[str, Any] = {}
    context_parameter = None
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TypeError(f"parameter {name!r} cannot be passed by name")
        hint = hints.get(name, Any)
        if hint is Context:
            if context_parameter is not None:
                raise TypeError(f"{context_parameter!r} and {name!r} are both annotated Context")
            context_parameter = name
        elif parameter.default is parameter.empty:
            fields[name] = hint
        elif isinstance(parameter.default, FieldInfo):
            raise TypeError(f"parameter {name!r}: write Annotated[T, Field(...)] = default")
        else:
            # An absent argument leaves the default to Python itself.
            fields[name] = NotRequired[hint]
            defaults[name] = parameter.default
    return fields, defaults, context_parameter


def _adapter(name: str, fields: dict[str, Any]) -> pydantic.TypeAdapter[Any]:
    # A TypedDict rather than a model: a parameter may have any name, "schema" or "copy" included.
    make: Any = TypedDict
    shape = make(name, fields)
    shape.__pydantic_config__ = pydantic.ConfigDict(extra="forbid")
    return pydantic.TypeAdapter(shape)


def _answer_adapter(name: str, hint: Any) -> tuple[bool, pydantic.TypeAdapter[Any] | None]:
    """Return whether the answer is wrapped as ``{"result": ...}``, and its adapter if it has one.

    Clients of every protocol revision accept an output schema only when its root is an object.
    """
    if hint in _TEXT_ONLY or hint is CallResult:
        return False, None
    adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(hint)
    if _is_object(adapter.json_schema(mode="serialization")):
        return False, adapter
    return True, _adapter(f"{name}_result", {"result": hint})


def _is_object(schema: Mapping[str, Any]) -> bool:
    reference = schema.get("$ref", "")
    if reference.startswith("#/$defs/"):
        return _is_object(schema["$defs"][reference.removeprefix("#/$defs/")])
    return schema.get("type") == "object"


class _PlainSchema(GenerateJsonSchema):
    """JSON Schema without the titles that only repeat the names of the fields."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _input_schema(
    adapter: pydantic.TypeAdapter[Any], defaults: Mapping[str, Any]
) -> dict[str, Any]:
    schema = adapter.json_schema(mode="validation", schema_generator=_PlainSchema)
    schema.pop("title", None)
    for name, default in defaults.items():
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


def _placement(mark: ToolMark, is_async: bool, where: str, plugin: str) -> Placement:
    placement = mark.placement or ("loop" if is_async else "thread")
    if is_async and placement == "thread":
        raise PluginLoadError(
            plugin,
            f"{where} is an `async def` placed in a thread.",
            hint='Write it as a `def`, or leave out placement="thread".',
        )
    return placement
