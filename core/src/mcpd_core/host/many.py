"""Several calls at once, with their answers in order.

Each call of a batch is a call like any: looked up, authorised, admitted with a permit of its own,
validated, run and observed. The tool that waits for a batch holds no permit meanwhile. So a permit
is only ever held by a call that works, never by one that waits for permits: batches, whatever is
nested in them, cannot block each other, and a client gets no more work done at a time by asking for
it in batches.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal, Protocol

import anyio

from ..errors import Busy, CallCancelled, CallRefused, McpdError, NotStarted
from ..spec import Answer, CallResult, Principal, ToolCall
from .batch import Batch
from .shaping import failure

if TYPE_CHECKING:
    from .calling import CallPath
    from .host import Host
    from .scope import Scope

#: Whether a batch goes on after a failure.
Mode = Literal["collect", "first_error"]

#: Is told of each answer as it comes: the index of the call, and the answer.
OnAnswer = Callable[[int, Answer], None]


class Perform(Protocol):
    """Makes one call of a batch."""

    def __call__(
        self, call: ToolCall, *, deadline: float, on_start: Callable[[], None]
    ) -> Awaitable[CallResult]:
        """Make the call.

        :param deadline: `time.monotonic` time.
        :param on_start: is called when the tool starts.
        """
        ...


async def call_many(
    host: Host,
    calls: Sequence[ToolCall],
    *,
    principal: Principal,
    client: str,
    limit: int | None,
    mode: Mode,
    timeout: float | None,
    admission: Literal["client", "worker"],
    on_answer: OnAnswer | None,
) -> list[Answer]:
    """See `Host.call_many`."""

    def perform(
        call: ToolCall, *, deadline: float, on_start: Callable[[], None]
    ) -> Awaitable[CallResult]:
        return host.call(
            call.tool,
            call.arguments,
            principal=principal,
            client=client,
            timeout=deadline - time.monotonic(),
            admission=admission,
            on_start=on_start,
        )

    batch = _batch(host, calls, limit, mode, admission)
    return await _run(host, batch, perform, timeout=timeout, told=on_answer)


async def call_many_within(
    host: CallPath,
    scope: Scope,
    calls: Sequence[ToolCall],
    *,
    limit: int | None,
    mode: Mode,
    timeout: float | None,
    on_answer: OnAnswer | None,
) -> list[Answer]:
    """See `Context.call_many`; awaited in the library of the tool that asks."""

    def perform(
        call: ToolCall, *, deadline: float, on_start: Callable[[], None]
    ) -> Awaitable[CallResult]:
        return host.call_nested(
            scope,
            call.tool,
            call.arguments,
            until=deadline,
            on_start=on_start,
            own_permit=True,
        )

    batch = _batch(host, calls, limit, mode, scope.call.admission)
    scope.share.wait()
    try:
        return await _run(host, batch, perform, timeout=timeout, told=on_answer)
    finally:
        scope.share.resume()


def _batch(
    host: CallPath,
    calls: Sequence[ToolCall],
    limit: int | None,
    mode: Mode,
    admission: Literal["client", "worker"],
) -> Batch:
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, and is {limit}")
    settings = host.settings.executor
    # More could not run at once, and would only fill the queue.
    most = settings.workers
    if admission == "client":
        most = min(settings.per_client, settings.concurrency)
    return Batch(
        calls,
        limit=most if limit is None else min(limit, most),
        stop_on_error=mode == "first_error",
    )


async def _run(
    host: CallPath,
    batch: Batch,
    perform: Perform,
    *,
    timeout: float | None,
    told: OnAnswer | None,
) -> list[Answer]:
    """Work through a batch; whatever ends it, nothing of it runs on."""
    end = math.inf if timeout is None else time.monotonic() + timeout
    deadlines: dict[int, float] = {}
    broken: list[BaseException] = []

    def deadline_of(call: ToolCall) -> float:
        seconds = call.timeout
        if seconds is None:
            spec = host.catalog.get(call.tool)
            seconds = (spec and spec.timeout) or host.settings.executor.timeout
        return min(end, time.monotonic() + seconds)

    def settle(index: int, answer: Answer) -> None:
        batch.settle(index, answer)
        try:
            if told is not None and not broken:
                told(index, answer)
        except BaseException as error:  # noqa: BLE001 - the boundary: raised below, by itself
            broken.append(error)
            batch.stopped = True
        if batch.stopped:
            group.cancel_scope.cancel()
        start()

    async def one(index: int) -> None:
        call = batch.calls[index]
        too_late = batch.stopped
        if too_late:
            # It was to run, and a tool may do its work before it comes to be cancelled.
            batch.settle(index, _cancelled(call, started=False))
            return
        started = False

        def on_start() -> None:
            nonlocal started
            started = True

        # Its time goes on while it waits because there was no room for it.
        deadline = deadlines.setdefault(index, deadline_of(call))
        try:
            if time.monotonic() >= deadline:
                raise _too_late(call)
            answer: Answer = await perform(call, deadline=deadline, on_start=on_start)
        except Busy as busy:
            # At its deadline it was refused for having waited in vain; before, for want of room.
            if time.monotonic() < deadline and batch.put_back(index):
                return
            answer = busy
        except (CallRefused, CallCancelled) as error:
            answer = error
        except McpdError as error:
            answer = failure(error)
        except BaseException as error:
            batch.settle(index, _cancelled(call, started=started))
            if batch.stopped and _is_cancellation(error):
                # It was cancelled by us, and has cleaned up.
                return
            raise
        settle(index, answer)

    def start() -> None:
        while (index := batch.next()) is not None:
            group.start_soon(partial(one, index), name=batch.calls[index].tool)

    async with anyio.create_task_group() as group:
        start()
    if broken:
        # Taken out: its traceback refers to this frame, which must not refer to it.
        raise broken.pop()
    return batch.answers()


def _is_cancellation(error: BaseException) -> bool:
    """Whether an exception is a cancellation, which trio delivers in a group when other tasks of a
    nursery raised meanwhile."""
    cancelled = anyio.get_cancelled_exc_class()
    # Exception groups are built in from Python 3.11 on, and backported before.
    subgroup = getattr(error, "subgroup", None)
    return isinstance(error, cancelled) or (
        subgroup is not None and subgroup(cancelled) is not None
    )


def _too_late(call: ToolCall) -> NotStarted:
    return NotStarted(
        f"The tool {call.tool!r} was not started before its time, or that of the batch, was over.",
        hint="Ask for fewer calls at a time, or allow more time.",
    )


def _cancelled(call: ToolCall, *, started: bool) -> CallCancelled | NotStarted:
    if started:
        return CallCancelled(
            f"The tool {call.tool!r} was cancelled while it ran, because another call of the batch "
            "failed; it has cleaned up."
        )
    return NotStarted(
        f"The tool {call.tool!r} was not started, because another call of the batch failed."
    )
