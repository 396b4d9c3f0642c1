"""Function calls on their way into another thread, announced once however many there are."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable


class Mailbox:
    """Collects calls of functions from any thread and makes them, in order, in that of a loop.

    Waking a loop is what costs (a system call, and a change of threads); so nobody wakes one that
    has been woken and has not come round yet.

    :param wake: makes the loop call a function soon; any thread may call it. It raises RuntimeError
        when the loop has ended.
    """

    def __init__(self, wake: Callable[[Callable[[], None]], object]) -> None:
        self._wake = wake
        self._calls: deque[Callable[[], object]] = deque()
        self._woken = False

    def post(self, call: Callable[[], object]) -> None:
        """Have a function called; it must not raise.

        :raises RuntimeError: when the loop has ended. One that ends at this very moment may also
            just not call it.
        """
        self._calls.append(call)
        # After the append: whoever finds the loop woken knows that it has yet to look at the calls.
        if not self._woken:
            self._woken = True
            try:
                self._wake(self._deliver)
            except RuntimeError:
                # Or the next one would believe that somebody is about to look.
                self._woken = False
                raise

    def _deliver(self) -> None:
        # Before the calls are looked at: whoever posts from here on wakes the loop again.
        self._woken = False
        for _ in range(len(self._calls)):
            self._calls.popleft()()
