"""Whether the loop of another thread turns, for as long as somebody waits for that thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Standstill:
    """Asks the loop of a thread for a sign of life, again and again. Used on the host's loop.

    :param tell: has a function called in the thread's loop.
    :param patience: seconds for which that loop may stand still.
    :param give_up: called once, when it has stood still for longer.
    """

    def __init__(
        self,
        tell: Callable[[Callable[[], object]], object],
        patience: float,
        give_up: Callable[[], None],
    ) -> None:
        self._tell = tell
        self._patience = patience
        self._give_up = give_up
        self._begin()

    def _begin(self) -> None:
        self._turned = False
        self._tell(self._turn)
        self._timer = asyncio.get_running_loop().call_later(self._patience, self._look)

    def _turn(self) -> None:
        self._turned = True

    def _look(self) -> None:
        if self._turned:
            self._begin()
        else:
            self._give_up()

    def close(self) -> None:
        """Ask no more."""
        self._timer.cancel()
