"""The parameters of a plugin's function: typed by its annotations, and checked by them."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import pydantic
from pydantic.fields import FieldInfo
from typing_extensions import NotRequired, TypedDict, get_type_hints

from .context import Context
from .errors import InvalidArguments, PluginLoadError, ToolUnavailable

_log = logging.getLogger(__name__)


def marked_functions(module: ModuleType, is_marked: Callable[[Any], Any]) -> list[Any]:
    """Return the functions with a mark that a module defines itself, in the order of its source.

    :param is_marked: tells whether a function carries the mark.
    """
    found = [
        f
        for f in vars(module).values()
        if inspect.isfunction(f) and f.__module__ == module.__name__ and is_marked(f)
    ]
    return sorted(found, key=lambda f: f.__code__.co_firstlineno)


def checked_function(
    function: Any, *, plugin: str, is_marked: Callable[[Any], Any], kind: str
) -> str:
    """Make sure of what an entry of a contract leads to.

    :param kind: what the function is to be: the name of the decorator.
    :returns: where it is, as ``module:function``.
    :raises PluginLoadError: when it cannot be that.
    """
    if not inspect.isfunction(function):
        # Not shown: it may be anything at all, the environment with its secrets included.
        raise PluginLoadError(
            plugin,
            f"A {kind} is a function, and this is a {type(function).__name__}.",
            hint=f"Name a function with the @{kind} mark.",
        )
    where = f"{function.__module__}:{function.__qualname__}"
    if not is_marked(function):
        raise PluginLoadError(
            plugin, f"{where} is not a {kind}.", hint=f"Mark the function with @{kind}."
        )
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise PluginLoadError(
            plugin,
            f"{where} is a generator, which cannot be a {kind}.",
            hint="Return a list, and report what is done meanwhile with ctx.progress.",
        )
    return where


class Parameters:
    """The parameters of one function.

    :param name: what the function offers, for the names in schemas.
    :ivar names: those that callers give, in the order of the source.
    :ivar defaults: the default of each that may be left out.
    :ivar context: the one that receives the `Context`, or ``None``.
    :ivar returns: the return annotation.
    :ivar adapter: checks arguments, given as a mapping.
    :raises Exception: whatever annotations raise, which are code of the plugin.
    """

    def __init__(self, function: Callable[..., Any], *, name: str) -> None:
        # Not typing's, which wraps `Annotated[T | None, ...] = None` once more on Python 3.10.
        hints = get_type_hints(function, include_extras=True)
        self.returns = hints.get("return", inspect.Signature.empty)
        self.defaults: dict[str, Any] = {}
        self.context: str | None = None
        fields = self._split(function, hints)
        self.names = tuple(fields)
        self.adapter = dict_adapter(f"{name}_arguments", fields)

    def _split(self, function: Callable[..., Any], hints: Mapping[str, Any]) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                raise TypeError(f"parameter {name!r} cannot be passed by name")
            hint = hints.get(name, Any)
            if hint is Context:
                if self.context is not None:
                    raise TypeError(f"{self.context!r} and {name!r} are both annotated Context")
                self.context = name
            elif parameter.default is parameter.empty:
                fields[name] = hint
            elif isinstance(parameter.default, FieldInfo):
                raise TypeError(f"parameter {name!r}: write Annotated[T, Field(...)] = default")
            else:
                # An absent argument leaves the default to Python itself.
                fields[name] = NotRequired[hint]
                self.defaults[name] = parameter.default
        return fields

    def check(self, arguments: Mapping[str, Any], *, of: str) -> dict[str, Any]:
        """Return the arguments as Python values, ready to be passed to the function.

        :param of: whose they are, such as ``tool 'add'``.
        :raises InvalidArguments: naming each argument that does not fit; an unknown one with the
            name that comes closest.
        :raises ToolUnavailable: when a validator of the plugin failed.
        """
        try:
            checked: dict[str, Any] = self.adapter.validate_python(dict(arguments))
        except pydantic.ValidationError as error:
            raise self._refusal(error, of) from None
        except Exception as error:  # the boundary: validators are code of the plugin
            raise cannot_check(of, error) from error
        return checked

    def _refusal(self, error: pydantic.ValidationError, of: str) -> InvalidArguments:
        problems = []
        for item in error.errors(include_url=False, include_context=False, include_input=False):
            path = ".".join(str(part) for part in item["loc"])
            if item["type"] == "extra_forbidden":
                import difflib  # only needed for this message

                close = difflib.get_close_matches(path, self.names, n=1)
                hint = f"did you mean {close[0]!r}" if close else self._known_names(of)
                problems.append({"argument": path, "problem": f"unknown argument; {hint}"})
            elif item["type"] == "missing":
                problems.append({"argument": path, "problem": "required, but missing"})
            else:
                text = item["msg"]
                problems.append({"argument": path, "problem": text[:1].lower() + text[1:]})
        listed = "; ".join(f"{p['argument']}: {p['problem']}" for p in problems)
        return InvalidArguments(
            f"The arguments do not fit the {of}: {listed}.",
            hint="Correct them and call again.",
            data={"problems": problems},
        )

    def _known_names(self, of: str) -> str:
        kind = of.partition(" ")[0]
        return f"the {kind} takes {', '.join(self.names) or 'none'}"


def cannot_check(of: str, error: BaseException) -> ToolUnavailable:
    """Log that the code which checks arguments failed itself, and return what callers are told.

    :param of: whose arguments, such as ``tool 'add'``.
    """
    _log.error("A validator of the %s raised.", of, exc_info=error)
    kind = of.partition(" ")[0]
    return ToolUnavailable(
        f"The arguments of the {of} cannot be checked: one of its validators failed "
        f"({type(error).__name__}).",
        hint=f"This is a defect of the {kind}; report it to its plugin.",
    )


def dict_adapter(name: str, fields: dict[str, Any]) -> pydantic.TypeAdapter[Any]:
    """Return what checks a mapping with exactly these fields."""
    # A TypedDict rather than a model: a parameter may have any name, "schema" or "copy" included.
    make: Any = TypedDict
    shape = make(name, fields)
    shape.__pydantic_config__ = pydantic.ConfigDict(extra="forbid")
    return pydantic.TypeAdapter(shape)
