"""The code of a tool: functions, tool objects and classes, and what they return in its stead."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import sniffio

from mcpd_core import InvalidArguments, InvalidOutput, PluginLoadError
from mcpd_legacy_tools.running import functions
from mcpd_legacy_tools.running.functions import Code, run_async, run_sync


def answer_of(found: Any, *, is_method: bool = False, **arguments: Any) -> Any:
    """Call code the way its own nature demands."""
    code = Code("t", found, tuple(arguments), is_method=is_method)
    code.check(arguments)
    if code.is_async:
        return asyncio.run(run_async(code)(**arguments))
    return run_sync(code, "asyncio")(**arguments)


async def library() -> str:
    await asyncio.sleep(0)
    return sniffio.current_async_library()


def test_an_async_function_is_awaited_and_a_plain_one_called() -> None:
    assert answer_of(library) == "asyncio"
    assert answer_of(lambda a, b=2: a + b, a=1) == 3


def test_a_parameter_that_has_no_name_for_callers_is_passed_by_place() -> None:
    def divide(a: int, b: int, /, *, digits: int = 0) -> float:
        return round(a / b, digits)

    assert answer_of(divide, digits=1, b=4, a=10) == 2.5


def test_a_wrapped_async_function_is_still_async() -> None:
    @functools.wraps(library)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return library(*args, **kwargs)

    code = Code("t", wrapped, ())
    assert code.is_async
    assert asyncio.run(run_async(code)()) == "asyncio"


def test_an_awaitable_from_a_plain_function_is_awaited_in_a_loop_of_its_own() -> None:
    async def where() -> tuple[str, int]:
        return sniffio.current_async_library(), threading.get_ident()

    def plain() -> Awaitable[Any]:
        return where()

    code = Code("t", plain, ())
    assert not code.is_async
    assert run_sync(code, "asyncio")() == ("asyncio", threading.get_ident())
    assert run_sync(code, "trio")() == ("trio", threading.get_ident())


def counting(n: int) -> Iterator[int]:
    yield from range(n)


async def counting_slowly(n: int) -> AsyncIterator[int]:
    for i in range(n):
        await asyncio.sleep(0)
        yield i


@pytest.mark.parametrize("generator", [counting, counting_slowly])
def test_a_generator_answers_with_the_list_of_what_it_yields(
    generator: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert answer_of(generator, n=3) == [0, 1, 2]
    monkeypatch.setattr(functions, "MOST_ITEMS", 3)
    with pytest.raises(InvalidOutput, match="yielded more than 3 things") as caught:
        answer_of(generator, n=1_000)
    assert not caught.value.retryable


def test_a_generator_that_is_stopped_cleans_up(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.append("plain")

    async def endless_too() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.append("async")

    monkeypatch.setattr(functions, "MOST_ITEMS", 5)
    for generator in (endless, endless_too):
        with pytest.raises(InvalidOutput):
            answer_of(generator)
    assert closed == ["plain", "async"]


def test_a_plain_function_may_return_an_async_generator() -> None:
    assert answer_of(lambda: counting_slowly(2)) == [0, 1]


class Tool:
    def __init__(self) -> None:
        self.calls = 0

    async def execute(self, parameters: dict[str, Any]) -> dict[str, Any]:
        self.calls += 1
        return {"calls": self.calls, **parameters}


class Named:
    def execute(self, query: str, limit: int = 5) -> list[Any]:
        return [query, limit]


class Either:
    def execute(self, params: Any = None, **kwargs: Any) -> list[Any]:
        return [params, kwargs]


class Loose:
    def execute(self, **kwargs: Any) -> dict[str, Any]:
        return kwargs


class Own:
    def execute(self, parameters: dict[str, Any]) -> Any:
        return parameters


@pytest.mark.parametrize(
    ("tool", "arguments", "answer"),
    [
        (Tool(), {"a": 1}, {"calls": 1, "a": 1}),
        (Tool(), {}, {"calls": 1}),
        (Named(), {"query": "x"}, ["x", 5]),
        (Either(), {"a": 1}, [{"a": 1}, {}]),
        (Either(), {"params": 1}, [1, {}]),
        (Loose(), {"a": 1}, {"a": 1}),
        # It has a parameter of that very name, which is not where everything goes.
        (Own(), {"parameters": {"x": 1}}, {"x": 1}),
    ],
)
def test_execute_is_given_its_arguments_by_name_or_all_in_one(
    tool: Any, arguments: dict[str, Any], answer: Any
) -> None:
    assert answer_of(tool.execute, is_method=True, **arguments) == answer
    # What a decorator has made of a function is such an object, too.
    if not isinstance(tool, Tool):
        assert answer_of(tool, **arguments) == answer


def test_what_cannot_be_called_is_refused() -> None:
    with pytest.raises(PluginLoadError, match="t is a int, which cannot be called"):
        Code("t", 5, ())


def test_arguments_that_the_code_does_not_take_are_refused_before_it_runs() -> None:
    code = Code("t", lambda a: a, ("a", "b"))
    with pytest.raises(InvalidArguments, match="does not take these arguments: .*'b'") as caught:
        code.check({"a": 1, "b": 2})
    assert "restart" in caught.value.hint


def test_code_without_a_signature_takes_what_it_is_given() -> None:
    assert Code("t", max, ("iterable",)).open_ended
