"""The order of a batch: which call is started next, and how the batch ends. It runs nothing."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from ..errors import NotStarted
from ..spec import Answer, CallResult, ToolCall


class Batch:
    """The calls of one batch, from the first that is started to the last that is answered.

    A call is waiting, under way or settled. `next` takes one from waiting to under way, `settle`
    and `put_back` take it on from there; whoever uses it does so for each call that `next` gave.

    :param calls: in the order in which they are started, and their answers returned.
    :param limit: how many may be under way at once, at least 1.
    :param stop_on_error: whether nothing more is started after the first failure.
    :ivar stopped: whether nothing more is started, and what is under way is to be cancelled.
    """

    def __init__(self, calls: Sequence[ToolCall], *, limit: int, stop_on_error: bool) -> None:
        self.calls = tuple(calls)
        self._limit = limit
        self._stop_on_error = stop_on_error
        self._waiting = list(range(len(self.calls)))
        self._under_way = 0
        self._answers: dict[int, Answer] = {}
        self._failed: int | None = None
        self.stopped = False

    def next(self) -> int | None:
        """Return the index of a call to start now; ``None`` when none may be started."""
        if self.stopped or not self._waiting or self._under_way >= self._limit:
            return None
        self._under_way += 1
        return heapq.heappop(self._waiting)

    def settle(self, index: int, answer: Answer) -> None:
        """Note the answer of a call that was under way."""
        self._under_way -= 1
        self._answers[index] = answer
        failed = not isinstance(answer, CallResult) or answer.is_error
        if failed and self._stop_on_error and not self.stopped:
            self._failed = index
            self.stopped = True

    def put_back(self, index: int) -> bool:
        """Let a call for which the server had no room wait until another of the batch has ended.

        The batch goes on with fewer calls at a time, so that each is put back a bounded number of
        times.

        :returns: false when no other is under way; the call is to be settled then.
        """
        if self._under_way == 1 or self.stopped:
            return False
        self._under_way -= 1
        self._limit = self._under_way
        heapq.heappush(self._waiting, index)
        return True

    def answers(self) -> list[Answer]:
        """Return the answers in the order of the calls; what was not started says so."""
        return [
            self._answers[index] if index in self._answers else self._not_started(index)
            for index in range(len(self.calls))
        ]

    def _not_started(self, index: int) -> NotStarted:
        assert self._failed is not None
        return NotStarted(
            f"The tool {self.calls[index].tool!r} was not started, because the call of "
            f"{self.calls[self._failed].tool!r} failed.",
            data={"because_of": self._failed},
        )
