"""Signals in every phase of a trio run, in processes of their own.

They belong to the host. What Ctrl-C raises never arrives inside of trio's scheduler, and a tool
that runs then is cancelled and cleans up.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from .runtime_kit import HAS_EPOLL, HAS_UVLOOP

PROGRAM = """
    import asyncio, os, signal, sys, time
    import trio
    from mcpd_core.runtimes import ThreadBridge, TrioRuntime

    rung, loop_name, handling, phase = sys.argv[1:]
    if loop_name == "uvloop":
        import uvloop
        uvloop.install()

    def say(word):
        print(word, flush=True)

    def hit(number=signal.SIGINT):
        os.kill(os.getpid(), number)

    def busy():
        # Python code of a step: a handler that raised here would raise inside of trio.
        end = time.monotonic() + 0.05
        while time.monotonic() < end:
            pass

    async def waits():
        try:
            say("ready")
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                if phase == "clean-up":
                    # The second one: the first has cancelled the tool.
                    await trio.sleep(0.02)
                    hit()
                    busy()
                await trio.sleep(0.05)
            say("cleaned up")

    async def in_a_step():
        await trio.sleep(0.01)
        busy(); hit(); busy()
        say("step went on")
        await waits()

    async def in_an_eager_step():
        hit(); busy()
        say("step went on")
        await waits()

    async def main():
        loop = asyncio.get_running_loop()
        assert type(loop).__module__.startswith(loop_name)
        task = asyncio.current_task()
        if handling == "handled":
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, task.cancel)
        runtime = ThreadBridge("trio", patience=20) if rung == "thread" else TrioRuntime(rung)
        await runtime.start()
        assert runtime.rung == rung
        tool = {"step": in_a_step, "eager": in_an_eager_step}.get(phase, waits)
        try:
            call = asyncio.ensure_future(runtime.run(tool))
            if phase == "idle":
                loop.call_later(0.1, hit)
            elif phase == "clean-up":
                first = signal.SIGTERM if handling == "handled" else signal.SIGINT
                loop.call_later(0.05, hit, first)
            await call
        finally:
            await runtime.aclose()
            say("closed")

    try:
        asyncio.run(main())
    except asyncio.CancelledError:
        say("cancelled")
    except KeyboardInterrupt:
        say("interrupted")
    trio.run(trio.sleep, 0)
    say("trio runs")
"""

PHASES = ["idle", "step", "eager", "clean-up"]
HANDLINGS = ["plain", "handled"]


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("handling", HANDLINGS)
@pytest.mark.parametrize(
    ("rung", "loop"),
    [
        pytest.param(
            rung,
            loop,
            id=f"{rung}-{loop}",
            marks=pytest.mark.skipif(
                (loop == "uvloop" and not HAS_UVLOOP) or (rung == "fused" and not HAS_EPOLL),
                reason="cannot be had here",
            ),
        )
        for rung, loop in (
            ("fused", "asyncio"),
            ("fused", "uvloop"),
            ("guest", "asyncio"),
            ("thread", "asyncio"),
        )
    ],
)
def test_a_signal_ends_the_host_after_the_tool_has_cleaned_up(
    rung: str, loop: str, handling: str, phase: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), rung, loop, handling, phase],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        cwd=tmp_path,
    )
    said = done.stdout.splitlines()
    if (handling, phase) == ("plain", "clean-up") and sys.version_info < (3, 11):
        pytest.skip("this asyncio.run leaves the clean-up behind at a second Ctrl-C")
    assert done.returncode == 0, done.stderr
    assert "TrioInternalError" not in done.stderr
    if phase in ("step", "eager"):
        assert "step went on" in said
    assert "cleaned up" in said
    assert said.index("cleaned up") < said.index("closed")
    assert said[-2] == ("cancelled" if handling == "handled" else "interrupted")
    assert said[-1] == "trio runs"


INTERRUPTIONS = """
    import asyncio, os, signal, sys
    import trio
    from mcpd_core import runtimes
    from mcpd_core.runtimes import TrioRuntime

    rung = sys.argv[1]
    modules = ("base", "trio_crossings", "trio_fused", "trio_guest", "trio_runtime")
    folder = os.path.dirname(runtimes.__file__)
    files = {os.path.join(folder, name + ".py") for name in modules}

    async def work(runtime, loop):
        far = loop.create_task(runtime.run(trio.sleep_forever))
        await runtime.run(trio.lowlevel.checkpoint)
        await runtime.run(lambda: trio.sleep(0.001))
        await runtime.run(lambda: runtime.run_in_host(lambda: asyncio.sleep(0)))
        far.cancel()
        await asyncio.wait([far])

    async def end(runtime):
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        closing = asyncio.ensure_future(runtime.aclose())
        _, waiting = await asyncio.wait([closing, *others], timeout=20)
        return not waiting

    def interrupt_at(number):
        count, place = 0, None

        def on_line(frame, event, _):
            nonlocal count, place
            if event == "line":
                count += 1
                if count == number:
                    sys.settrace(None)
                    place = f"{frame.f_code.co_filename}:{frame.f_lineno}"
                    # As Python does it; a signal would find the frame of this function.
                    signal.getsignal(signal.SIGINT)(signal.SIGINT, frame)
            return on_line

        loop = asyncio.new_event_loop()
        runtime = TrioRuntime(rung)
        loop.run_until_complete(runtime.start())
        main = loop.create_task(work(runtime, loop))
        sys.settrace(lambda frame, *_: on_line if frame.f_code.co_filename in files else None)
        try:
            loop.run_until_complete(main)
            assert place is None
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        assert loop.run_until_complete(end(runtime)), f"somebody waits for ever after {place}"
        loop.close()
        return place is not None

    number = 1
    while interrupt_at(number):
        number += 1
    print("lines", number - 1)
"""


@pytest.mark.parametrize(
    ("rung", "lines"),
    [
        pytest.param(
            "fused",
            300,
            marks=pytest.mark.skipif(not HAS_EPOLL, reason="the fused driver needs epoll"),
        ),
        ("guest", 150),
    ],
)
def test_an_interrupt_at_any_line_leaves_nobody_waiting(rung: str, lines: int) -> None:
    """A host whose handler raises, as Python's own does, can always be closed afterwards."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(INTERRUPTIONS), rung],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[1]) > lines


@pytest.mark.skipif(not HAS_EPOLL, reason="the fused driver needs epoll")
def test_the_hosts_handler_is_its_own_again_when_the_runtime_is_closed() -> None:
    program = """
        import asyncio, signal
        from mcpd_core.runtimes import TrioRuntime

        def handler(*_): pass

        async def main():
            signal.signal(signal.SIGINT, handler)
            runtime = TrioRuntime("fused")
            await runtime.start()
            assert signal.getsignal(signal.SIGINT) is not handler
            await runtime.aclose()
            assert signal.getsignal(signal.SIGINT) is handler
            await runtime.start()
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            await runtime.aclose()
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            await runtime.start()
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            await runtime.aclose()

        asyncio.run(main())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
