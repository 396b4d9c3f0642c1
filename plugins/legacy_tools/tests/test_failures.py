"""The exceptions of old code, as their callers are told of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.lowlevel

from mcpd_core import CallCancelled, ToolError, WrongLibrary
from mcpd_legacy_tools.running.failures import told


@pytest.mark.parametrize(
    ("error", "message", "hint"),
    [
        (ValueError("no such mode"), "raised ValueError: no such mode", "Perhaps an argument"),
        (RuntimeError(), "raised RuntimeError", "The server's log"),
        (OSError(2, "gone"), "raised FileNotFoundError: [Errno 2] gone", "The server's log"),
        (RuntimeError("x" * 9_000), "x...", "The server's log"),
    ],
)
def test_callers_are_told_what_an_exception_says(
    error: Exception, message: str, hint: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ToolError) as caught, told("t"):
        raise error
    assert caught.value.message.startswith("The tool 't' raised ")
    assert caught.value.message.endswith(message)
    assert len(caught.value.message) < 3_000
    assert caught.value.hint.startswith(hint)
    assert caught.value.__cause__ is error
    assert [(r.levelno, bool(r.exc_info)) for r in caplog.records] == [(logging.WARNING, True)]


@pytest.mark.parametrize(
    "error",
    [
        ToolError("made on purpose"),
        CallCancelled("cancelled"),
        MemoryError(),
        KeyboardInterrupt(),
    ],
)
def test_what_is_not_the_tools_affair_passes_through(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, told("t"):
        raise error
    assert caught.value is error


async def sleeps_in_trio() -> None:
    await trio.lowlevel.checkpoint()


async def sleeps_in_asyncio() -> None:
    await asyncio.sleep(0.001)


@pytest.mark.parametrize(
    ("run", "hint"),
    [
        (lambda: asyncio.run(sleeps_in_trio()), "mark it as written for trio"),
        (lambda: trio.run(sleeps_in_asyncio), "because it is marked so"),
        (lambda: asyncio.get_running_loop(), "because it is a `def`"),
        (lambda: trio.run(in_trio, trio.run, sleeps_in_trio), "write the tool as a `def`"),
    ],
)
def test_code_that_mixes_up_the_libraries_is_told_how_to_mend_it(
    run: Callable[[], Any], hint: str
) -> None:
    with pytest.raises(WrongLibrary) as caught, told("t"):
        run()
    assert hint in caught.value.hint
    assert not caught.value.retryable


async def in_trio(function: Callable[..., Any], *args: Any) -> None:
    function(*args)


def test_a_failure_in_a_nursery_is_told_as_itself() -> None:
    async def fails() -> None:
        raise ValueError("no such peer")

    async def tool() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fails)

    with pytest.raises(ToolError, match="raised ValueError: no such peer"), told("t"):
        trio.run(tool)


def test_an_exception_that_cannot_be_put_into_words_is_told_all_the_same() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise ValueError

    with (
        pytest.raises(ToolError, match="raised Mute: an exception that cannot be put into words"),
        told("t"),
    ):
        raise Mute
