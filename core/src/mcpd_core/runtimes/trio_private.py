"""All that mcpd uses of trio without trio's promise, and the test of whether it works.

To be driven without a thread, a run has to be steppable, to have a descriptor that can be watched,
and to say by a call, where trio's guest mode writes to a socket, that there is something to do. No
other module uses a private name of trio.
"""

from __future__ import annotations

import contextvars
import logging
import re
import select
import sys
import warnings
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

_log = logging.getLogger(__name__)

#: The first release of trio that the tests ran on, and the first one that they did not.
TESTED = ((0, 27), (0, 36))

#: How many steps a run may take in the self-test until what is expected has happened.
_PATIENCE = 10

Events = Sequence[tuple[int, int]]
#: Sent the I/O that is ready, runs what is due and yields the seconds after which to send again at
#: the latest. To drop it before its end makes trio warn and gives the thread free.
Steps = Generator[float, Any, None]


@dataclass(frozen=True)
class Hosted:
    """A run of trio that goes on only when it is stepped, in the thread that began it.

    :ivar queue: the tasks that the next step will run.
    :ivar poll: returns the I/O that is ready, for the next step, after at most so many seconds.
    :ivar descriptor: the epoll descriptor, which is readable when `poll` has something to return.
    """

    queue: deque[Any]
    poll: Callable[[float], Events]
    descriptor: int


@dataclass(frozen=True)
class Obstacle:
    """Why trio cannot be driven without a thread of its own.

    :ivar by_design: nothing is wrong; this platform has no epoll.
    """

    reason: str
    by_design: bool = False


def begin(main: Callable[[], Awaitable[None]], wake: Callable[[], None]) -> tuple[Hosted, Steps]:
    """Begin a run of trio in this thread.

    :param main: the run's main function.
    :param wake: called in this thread, inside of a step or outside, when there is something to do
        before the time that the last step has yielded. It must not refer to the steps.
    """
    from trio._core import _run

    # The clock, the instruments, and whether Ctrl-C waits for checkpoints, and groups are strict.
    runner = _run.setup_runner(None, [], True, True)
    try:
        # A class of its own is the only place for the function: the instances have slots.
        runner.__class__ = type(
            "HostedRunner",
            (type(runner),),
            {"__slots__": (), "force_guest_tick_asap": lambda _: wake()},
        )
        runner.is_guest = True
        steps = _run.unrolled_run(runner, main, (), host_uses_signal_set_wakeup_fd=True)
        hosted = Hosted(
            runner.runq,
            runner.io_manager.get_events,
            runner.io_manager._epoll.fileno(),  # type: ignore[union-attr, unused-ignore]
        )
        steps.send(None)  # type: ignore[arg-type, unused-ignore]  # the first one takes nothing else
    except BaseException:
        runner.close()
        _run.GLOBAL_RUN_CONTEXT.__dict__.clear()
        raise
    return hosted, steps


def task_seen_from_outside() -> Callable[[], Any]:
    """Return what tells any other thread which task of trio this thread is running.

    `trio.lowlevel.current_task` tells a thread about itself only. Where trio keeps its current task
    elsewhere than this expects, nothing is ever told, and the log says so.

    :returns: a function that returns a `trio.lowlevel.Task`, or ``None`` between two tasks.
    """
    try:
        from trio._core._run import GLOBAL_RUN_CONTEXT

        # A thread-local object; its attributes are this thread's, whoever reads them there.
        return partial(GLOBAL_RUN_CONTEXT.__dict__.get, "task")
    except (ImportError, AttributeError) as error:
        _log.warning(
            "The watchdog cannot tell which tool of trio blocks the loop: this release of trio "
            "does not say which task runs (%s). Blocking tools of asyncio are found as before.",
            error,
        )
        return lambda: None


def obstacle(*, untested: bool = False) -> Obstacle | None:
    """Tell why `begin` cannot be used here, if it cannot; trio must be installed.

    :param untested: whether releases are accepted that nobody has run the tests on.
    """
    if not hasattr(select, "epoll"):
        return Obstacle(f"{sys.platform} has no epoll", by_design=True)
    import trio

    if not untested and not was_tested(trio.__version__):
        first, end = (".".join(map(str, release)) for release in TESTED)
        return Obstacle(f"trio {trio.__version__} was not tested; {first} up to before {end} was")
    return self_test()


def was_tested(version: str) -> bool:
    """Tell whether a release of trio is in the range that the tests ran on."""
    numbers = re.match(r"(\d+)\.(\d+)", version)
    release = (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)
    return TESTED[0] <= release < TESTED[1]


@lru_cache(maxsize=1)
def self_test() -> Obstacle | None:
    """Drive a short run by hand, and tell what does not behave as it must, if anything.

    It takes about as long as starting and ending trio does; its answer is kept. No run of trio may
    be under way in the thread.
    """
    try:
        # In a context of its own: nothing of the caller's goes into the tasks of the run.
        contextvars.Context().run(_drive_a_short_run)
    except Exception as error:  # noqa: BLE001 - whatever another trio raises is the answer
        return Obstacle(
            f"the self-test failed: {str(error) or 'an unexpected'} ({type(error).__name__})"
        )
    return None


def _drive_a_short_run() -> None:
    import trio

    wakes: list[None] = []
    seen: dict[str, Any] = {}
    stop = trio.Event()

    async def main() -> None:
        seen["token"] = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as nursery:
            seen["nursery"] = nursery
            await stop.wait()

    async def sleeper() -> None:
        with trio.CancelScope() as seen["scope"]:
            await trio.sleep(60)
        seen["cancelled"] = True

    hosted, steps = begin(main, lambda: wakes.append(None))
    readable = select.poll()
    readable.register(hosted.descriptor, select.POLLIN)

    def step_until(done: Callable[[], object], what: str) -> float:
        for _ in range(_PATIENCE):
            timeout = steps.send(hosted.poll(0))
            if done() and not hosted.queue:
                return timeout
        raise RuntimeError(what)

    def expect(condition: object, what: str) -> None:
        if not condition:
            raise RuntimeError(what)

    try:
        timeout = step_until(lambda: "nursery" in seen, "the main task was not run")
        expect(timeout > 3600, "an idle run wants to be stepped")
        expect(not readable.poll(0), "an idle run is readable")

        wakes.clear()
        seen["nursery"].start_soon(sleeper)
        expect(wakes and hosted.queue, "a task that was started from outside did not wake the run")
        timeout = step_until(lambda: "scope" in seen, "a task that was started was not run")
        expect(59 < timeout <= 60, "a step did not yield the time until the next deadline")

        wakes.clear()
        seen["scope"].cancel()
        expect(wakes and hosted.queue, "a cancellation from outside did not wake the run")
        step_until(lambda: "cancelled" in seen, "a task that was cancelled was not run")

        seen["token"].run_sync_soon(partial(seen.update, hopped=True))
        expect(readable.poll(0), "a call from another thread does not make the run readable")
        step_until(lambda: "hopped" in seen, "a call from another thread was not run")
    finally:
        stop.set()
        if "nursery" in seen:
            seen["nursery"].cancel_scope.cancel()
        try:
            step_until(lambda: False, "the run did not end")
        except StopIteration:
            pass
        finally:
            with warnings.catch_warnings():
                # Warns when the run has not ended, which is being told already.
                warnings.simplefilter("ignore", RuntimeWarning)
                steps.close()
