"""From a typed function to a resource, a prompt or a completion: contract, check and answer.

An answer takes the form of a `CallResult`, as that of any call does, with ``structured`` data that
`mcpd_core.host` gives its callers. Importing this module imports pydantic.
"""

from __future__ import annotations

import base64
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pydantic_core
from typing_extensions import get_type_hints

from ..blocks import NotABlock, as_block
from ..context import Context
from ..errors import InvalidOutput, PluginLoadError
from ..parameters import Parameters, checked_function
from ..schema import to_json
from ..spec import CallResult, PromptArgument, PromptSpec, ResourceSpec, RuntimeName
from .marks import Completer, PromptMark, ResourceMark, prompt_mark_of, resource_mark_of
from .template import UriTemplate

#: The most values that an answer to a completion may hold; the protocol's number.
MOST_VALUES = 100


class _ContentFunction:
    """What the functions of resources and prompts have in common.

    :ivar function: the function itself.
    :ivar is_async: whether it is an ``async def``.
    :ivar context_parameter: the parameter that receives the `Context`, or ``None``.
    :ivar completions: what suggests values, by parameter.
    """

    kind = ""

    def __init__(
        self, function: Callable[..., Any], plugin: str, mark: ResourceMark | PromptMark, where: str
    ) -> None:
        self.function = function
        self.is_async = inspect.iscoroutinefunction(function)
        try:
            self._parameters = Parameters(function, name=function.__name__)
            self.context_parameter = self._parameters.context
            self._schemas = _text_schemas(self._parameters)
            self._check_names(mark)
            stray = sorted(set(mark.complete) - set(self._parameters.names))
            if stray:
                raise TypeError(f"{stray[0]!r} is to be completed and is no parameter")
            self.completions = {
                name: CompletionFunction(completer, name, self._parameters.names)
                for name, completer in mark.complete.items()
            }
        except Exception as error:  # the boundary: annotations are code of the plugin
            raise PluginLoadError(
                plugin,
                f"{where} cannot be a {self.kind}: "
                f"{(str(error) or type(error).__name__).splitlines()[0]}",
                hint="Every parameter needs a type that text can be read as.",
            ) from error

    def _check_names(self, mark: Any) -> None:
        """Compare the parameters with what the mark says; nothing to compare by default."""


class ResourceFunction(_ContentFunction):
    """The function of a resource with its contract, its check and its answer's shape.

    :ivar spec: the contract, derived from the function.
    """

    kind = "resource"

    def __init__(self, function: Callable[..., Any], *, plugin: str, runtime: RuntimeName) -> None:
        where = checked_function(
            function, plugin=plugin, is_marked=resource_mark_of, kind="resource"
        )
        mark = resource_mark_of(function)
        assert mark is not None
        super().__init__(function, plugin, mark, where)
        self.spec = ResourceSpec(
            uri=mark.uri,
            name=mark.name,
            entry=where,
            plugin=plugin,
            title=mark.title,
            description=inspect.cleandoc(function.__doc__ or ""),
            mime_type=mark.mime_type,
            runtime=mark.runtime or runtime,
            timeout=mark.timeout,
            complete=tuple(sorted(mark.complete)),
        )

    def _check_names(self, mark: ResourceMark) -> None:
        placeholders, names = UriTemplate(mark.uri).names, self._parameters.names
        if set(placeholders) != set(names):
            raise TypeError(
                f"{mark.uri!r} has the placeholders {_listed(placeholders)}, and the function the "
                f"parameters {_listed(names)}"
            )

    def validate(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of the placeholders as the function takes them.

        :raises InvalidArguments: when one of them does not fit.
        """
        return self._parameters.check(arguments, of=self.spec.label)

    def answer(self, value: Any) -> CallResult:
        """Shape what was read: ``mime_type``, and ``text`` or ``blob`` (base64).

        :raises InvalidOutput: when it is nothing that can be sent.
        """
        if isinstance(value, str):
            kind, content = "text/plain", {"text": value}
        elif isinstance(value, (bytes, bytearray, memoryview)):
            kind = "application/octet-stream"
            content = {"blob": base64.b64encode(value).decode()}
        elif value is None:
            raise _unfit(self.spec.label, "returned nothing")
        else:
            kind, content = "application/json", {"text": to_json(_plain(self.spec.label, value))}
        return _structured({"mime_type": self.spec.mime_type or kind, **content})


class PromptFunction(_ContentFunction):
    """The function of a prompt with its contract, its check and its answer's shape.

    :ivar spec: the contract, derived from the function.
    """

    kind = "prompt"

    def __init__(self, function: Callable[..., Any], *, plugin: str, runtime: RuntimeName) -> None:
        where = checked_function(function, plugin=plugin, is_marked=prompt_mark_of, kind="prompt")
        mark = prompt_mark_of(function)
        assert mark is not None
        super().__init__(function, plugin, mark, where)
        self.spec = PromptSpec(
            name=mark.name,
            entry=where,
            plugin=plugin,
            title=mark.title,
            description=inspect.cleandoc(function.__doc__ or ""),
            arguments=tuple(
                PromptArgument(
                    name,
                    str(self._schemas[name].get("description", "")),
                    name not in self._parameters.defaults,
                )
                for name in self._parameters.names
            ),
            runtime=mark.runtime or runtime,
            timeout=mark.timeout,
            complete=tuple(sorted(mark.complete)),
        )

    def validate(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments as the function takes them.

        :raises InvalidArguments: naming each that does not fit.
        """
        return self._parameters.check(arguments, of=self.spec.label)

    def answer(self, value: Any) -> CallResult:
        """Shape what was written: ``messages``, each with ``role`` and a content block.

        :raises InvalidOutput: when it is nothing that can be sent.
        """
        if isinstance(value, str):
            value = [("user", value)]
        if not isinstance(value, (list, tuple)):
            raise _unfit(
                self.spec.label,
                f"returned a {type(value).__name__}, neither text nor a list of messages",
            )
        return _structured({"messages": [self._message(item) for item in value]})

    def _message(self, item: Any) -> dict[str, Any]:
        match item:
            case (role, content) if not isinstance(item, str):
                pass
            case {"role": role, "content": content}:
                pass
            case _:
                raise _unfit(self.spec.label, "returned a message without role and content")
        if role not in ("user", "assistant"):
            raise _unfit(self.spec.label, f"returned a message of the role {role!r:.40}")
        try:
            block = as_block(content)
        except NotABlock:
            raise _unfit(
                self.spec.label, "returned a message whose content is no content block"
            ) from None
        return {"role": role, "content": _plain(self.spec.label, block)}


class CompletionFunction:
    """A function that suggests values for one parameter of a resource or a prompt.

    :param parameter: the one that is completed.
    :param names: all parameters of the resource or the prompt.
    :ivar is_async: whether it is an ``async def``.
    :ivar context_parameter: the parameter that receives the `Context`, or ``None``.
    :raises TypeError: when it cannot be called as it would have to be.
    """

    def __init__(self, function: Completer, parameter: str, names: Sequence[str]) -> None:
        self._what = f"completion of {parameter!r}"
        if not inspect.isfunction(function):
            raise TypeError(f"the {self._what} is no function")
        hints = get_type_hints(function)
        self.function = function
        self.is_async = inspect.iscoroutinefunction(function)
        self.context_parameter: str | None = None
        own: list[inspect.Parameter] = []
        for name, declared in inspect.signature(function).parameters.items():
            if hints.get(name) is Context:
                self.context_parameter = name
            else:
                own.append(declared)
        if not own or own[0].kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD:
            raise TypeError(f"the {self._what} does not take what has been typed so far")
        self._prefix, self._known = own[0].name, [declared.name for declared in own[1:]]
        for declared in own[1:]:
            if declared.name not in names or declared.default is inspect.Parameter.empty:
                raise TypeError(
                    f"the {self._what} takes {declared.name!r}, which is no other parameter with a "
                    "default"
                )

    def validate(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments as the function takes them.

        :param arguments: ``value``, what has been typed, and ``known``, other parameters' values.
        """
        known = arguments["known"]
        passed = {name: known[name] for name in self._known if name in known}
        return {**passed, self._prefix: arguments["value"]}

    def answer(self, value: Any) -> CallResult:
        """Shape the suggestions: ``values`` (not more than `MOST_VALUES`) and their ``total``.

        :raises InvalidOutput: when they are no list of text.
        """
        if not isinstance(value, (list, tuple)) or not all(isinstance(v, str) for v in value):
            raise _unfit(self._what, "returned something else than a list of text")
        return _structured({"values": list(value[:MOST_VALUES]), "total": len(value)})


def _listed(names: Sequence[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _text_schemas(parameters: Parameters) -> Mapping[str, Mapping[str, Any]]:
    """Return the parameters' JSON Schemas, having made sure that each can be read from text."""
    schema = parameters.adapter.json_schema(mode="validation")
    definitions = schema.get("$defs", {})
    properties: dict[str, Mapping[str, Any]] = schema.get("properties", {})
    for name, item in properties.items():
        reference = item.get("$ref", "").removeprefix("#/$defs/")
        if definitions.get(reference, item).get("type") in ("array", "object"):
            raise TypeError(f"parameter {name!r} is no single value")
    return properties


def _plain(label: str, value: Any) -> Any:
    try:
        return pydantic_core.to_jsonable_python(value, by_alias=True, inf_nan_mode="null")
    except (pydantic_core.PydanticSerializationError, ValueError) as error:
        raise _unfit(
            label, f"returned a value of type {type(value).__name__}, which JSON cannot carry"
        ) from error


def _structured(data: dict[str, Any]) -> CallResult:
    return CallResult(to_json(data), data)


def _unfit(label: str, problem: str) -> InvalidOutput:
    return InvalidOutput(
        f"The {label} {problem}.",
        hint="This is a defect of its plugin; report it there.",
        retryable=False,
    )
