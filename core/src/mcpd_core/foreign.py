"""Code that was not written for this host: made fit to be called by a loader of its plugin.

A tool's contract may name a loader. The code itself carries no mark then, so that nothing can be
derived from it: the contract is taken at its word, and what checks arguments and shapes answers is
what the loader says.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Any

from .errors import CallRefused, InvalidArguments, PluginLoadError
from .importer import Importer
from .parameters import cannot_check
from .schema import shaped_answer, untyped
from .spec import CallResult, LoadedTool, ToolSpec

#: Makes the code of a tool from its contract.
Loader = Callable[[ToolSpec], LoadedTool]


def start_loading(importer: Importer, load: Loader, spec: ToolSpec) -> Future[ForeignFunction]:
    """Have a loader make the code of a tool, as any code of a plugin is imported.

    The module of the tool's entry counts as what is imported: when that hangs, the tools of other
    modules can still be loaded by the same loader.

    :param load: what the contract's ``loader`` stands for.
    :returns: a future with the function, or with a `PluginLoadError` that tells the reason.
    """
    work = partial(_made, load, spec)
    return importer.run(work, reference=spec.entry, plugin=spec.plugin)


def _made(load: Loader, spec: ToolSpec) -> ForeignFunction:
    return ForeignFunction(load(spec), spec)


class ForeignFunction:
    """What `ToolFunction` is for a marked function, for one that a loader has made fit.

    :param loaded: what the loader returned.
    :ivar spec: the contract, with the placement that the code can have.
    :ivar function: the code.
    :ivar is_async: whether it is an ``async def``.
    :ivar context_parameter: the parameter that receives the `Context`, or ``None``.
    :raises PluginLoadError: when a loader may not return that.
    """

    def __init__(self, loaded: LoadedTool, spec: ToolSpec) -> None:
        _expect_fit(loaded, spec)
        self.function = loaded.function
        self.is_async = _is_async(loaded.function)
        self.context_parameter = loaded.context or None
        self._check = loaded.check
        self._answer = loaded.answer
        threaded = spec.placement == "loop" and not self.is_async
        self.spec = replace(spec, placement="thread") if threaded else spec

    def validate(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments as the loader's check makes them.

        :raises InvalidArguments: when they do not fit.
        :raises ToolUnavailable: when the check itself failed.
        """
        if self._check is None:
            return dict(arguments)
        try:
            return dict(self._check(dict(arguments)))
        except CallRefused:
            raise
        except (Exception, SystemExit) as error:  # the boundary: it is code of the plugin
            raise cannot_check(self.spec.label, error) from error

    def answer_to(self, misfit: InvalidArguments, arguments: Mapping[str, Any]) -> CallResult:
        """Refuse arguments that do not fit.

        :raises InvalidArguments: the one given.
        """
        raise misfit

    def answer(self, value: Any) -> CallResult:
        """Turn what the function returned into the shape that clients receive.

        :raises InvalidOutput: when JSON cannot carry it.
        """
        made = value if self._answer is None else self._answer(value)
        return shaped_answer(partial(untyped, made), made, tool=self.spec.name)


def _expect_fit(loaded: object, spec: ToolSpec) -> None:
    problem = ""
    function: Any = getattr(loaded, "function", None)
    if not isinstance(loaded, LoadedTool):
        problem = f"returned a {type(loaded).__name__}, which is no LoadedTool"
    elif not callable(function):
        problem = f"returned a {type(function).__name__}, which cannot be called, as function"
    elif inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        problem = "returned a generator, which cannot be a tool"
    if problem:
        raise PluginLoadError(
            spec.plugin,
            f"The loader {spec.loader} {problem}, for the {spec.label}.",
            hint="This is a defect of the plugin; report it to its authors.",
        )


def _is_async(function: Callable[..., Any]) -> bool:
    call = getattr(type(function), "__call__", None)  # noqa: B004 - an object may be one as well
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)
