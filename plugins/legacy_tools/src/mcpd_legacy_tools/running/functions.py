"""The code of a tool as something that is called with its arguments by name.

A tool of a tree is a function, an object that a decorator has made of one, or a class with a method
``execute``. What it returns may still have to be waited for or collected:

* an awaitable is awaited: in the runtime of the tool when its source says ``async def``, else in a
  loop of its own in the thread of the call;
* a generator, synchronous or not, is run to its end, and the answer is the list of what it yields,
  of which there may be `MOST_ITEMS`.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import closing
from typing import Any

from mcpd_core import InvalidArguments, InvalidOutput, PluginLoadError

from .packages import PLUGIN

#: How many things a generator may yield. Some never end, and nothing can interrupt a thread.
MOST_ITEMS = 10_000

#: How classes call the one parameter that receives all arguments.
_ALL = frozenset({"arguments", "args", "input", "inputs", "kwargs", "parameters", "params"})


class Code:
    """The code of one tool.

    :param tool: its name, for messages.
    :param found: what its entry leads to: a function, a bound method, or an object that can be
        called or has a method ``execute``.
    :param names: the parameters that the tool's schema names.
    :param is_method: whether it is a method ``execute``, which may want its arguments in one
        mapping.
    :ivar function: the function or the method itself, which has the annotations.
    :ivar open_ended: whether it takes arguments that it does not name.
    :raises PluginLoadError: when it cannot be called with arguments by name.
    """

    def __init__(
        self, tool: str, found: Any, names: Iterable[str], *, is_method: bool = False
    ) -> None:
        if not inspect.isroutine(found) and callable(getattr(found, "execute", None)):
            found, is_method = found.execute, True
        if not callable(found):
            raise PluginLoadError(
                PLUGIN, f"{tool} is a {type(found).__name__}, which cannot be called."
            )
        self._tool = tool
        self.function: Callable[..., Any] = found
        self._signature = _signature(found)
        self._in_one = is_method and _wants_a_mapping(self._signature, frozenset(names))
        parameters = self._signature.parameters.values()
        self._by_place = [p.name for p in parameters if p.kind is p.POSITIONAL_ONLY]
        self.open_ended = not self._in_one and any(p.kind is p.VAR_KEYWORD for p in parameters)

    @property
    def is_async(self) -> bool:
        """Whether it is written as ``async def``, below any decorators that tell of what they
        wrap."""
        inner = inspect.unwrap(self.function)
        return inspect.iscoroutinefunction(inner) or inspect.isasyncgenfunction(inner)

    def check(self, arguments: Mapping[str, Any]) -> None:
        """Make sure that the code takes arguments, whatever the scan has read.

        :raises InvalidArguments: when it does not.
        """
        args, kwargs = self._laid_out(arguments)
        try:
            self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise InvalidArguments(
                f"The code of the tool {self._tool!r} does not take these arguments: {error}.",
                hint="Perhaps its file was changed after it had been listed: restart the server.",
            ) from None

    def call(self, arguments: Mapping[str, Any]) -> Any:
        """Call the code."""
        args, kwargs = self._laid_out(arguments)
        return self.function(*args, **kwargs)

    def _laid_out(self, arguments: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        if self._in_one:
            return [dict(arguments)], {}
        by_place = [arguments[name] for name in self._by_place if name in arguments]
        return by_place, {n: v for n, v in arguments.items() if n not in self._by_place}

    def room(self, items: list[Any]) -> None:
        """Make sure that a generator may yield one thing more.

        :raises InvalidOutput: when it has yielded too many.
        """
        if len(items) >= MOST_ITEMS:
            raise InvalidOutput(
                f"The tool {self._tool!r} is a generator, and yielded more than {MOST_ITEMS:,} "
                "things: it may never end.",
                hint="Ask for less, for example by a limit, if the tool has one.",
                retryable=False,
            )


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):  # some of those written in C have none
        parameter = inspect.Parameter("arguments", inspect.Parameter.VAR_KEYWORD)
        return inspect.Signature([parameter])


def _wants_a_mapping(signature: inspect.Signature, names: frozenset[str]) -> bool:
    """Whether a method takes its arguments in one mapping rather than by name."""
    parameters = list(signature.parameters.values())
    named = {p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    required = {p.name for p in parameters if p.name in named and p.default is p.empty}
    if names and names <= named:
        return False
    if len(required) == 1 or (not required and named & _ALL):
        (first, *_) = [p for p in parameters if p.name in named]
        return first.name in (required or _ALL) and first.name not in names
    return False


def run_async(code: Code) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Return an ``async def`` that calls the code and waits for what it returns."""

    async def run(**arguments: Any) -> Any:
        value = code.call(arguments)
        if inspect.isawaitable(value):
            value = await value
        if isinstance(value, AsyncIterator):
            return await _collected_async(code, value)
        return _collected(code, value)

    return run


def run_sync(code: Code, library: str) -> Callable[..., Any]:
    """Return a ``def`` that calls the code, and waits in a loop of its own for what it returns.

    :param library: that of the loop, ``asyncio`` or ``trio``.
    """

    def run(**arguments: Any) -> Any:
        _leave_the_loop()
        value = code.call(arguments)
        if inspect.isawaitable(value):
            value = _in_a_loop(_waited(value), library)
        if isinstance(value, AsyncIterator):
            return _in_a_loop(_collected_async(code, value), library)
        return _collected(code, value)

    return run


def _leave_the_loop() -> None:
    """Let code in a thread run a loop of its own.

    A thread has a copy of its caller's context, in which anyio may have noted the caller's loop;
    where there is such a note, `anyio.run` refuses.
    """
    sniffio = sys.modules.get("sniffio")
    if sniffio is not None:
        sniffio.current_async_library_cvar.set(None)


async def _waited(value: Awaitable[Any]) -> Any:
    return await value


def _in_a_loop(value: Coroutine[Any, Any, Any], library: str) -> Any:
    async def main() -> Any:
        return await value

    if library == "trio":
        import trio

        return trio.run(main)
    import asyncio

    return asyncio.run(main())


def _collected(code: Code, value: Any) -> Any:
    if not inspect.isgenerator(value):
        return value
    items: list[Any] = []
    with closing(value):
        for item in value:
            code.room(items)
            items.append(item)
    return items


async def _collected_async(code: Code, value: AsyncIterator[Any]) -> list[Any]:
    items: list[Any] = []
    try:
        async for item in value:
            code.room(items)
            items.append(item)
    finally:
        if inspect.isasyncgen(value):
            await value.aclose()
    return items
