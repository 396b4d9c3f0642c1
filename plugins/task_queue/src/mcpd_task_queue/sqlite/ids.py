"""The ids of tasks."""

from __future__ import annotations

import secrets

#: How many are made of what is asked of the system at a time: asking costs as much as a statement.
_AT_ONCE = 64
_RANDOM_BYTES = 14


class Ids:
    """Makes ids that nobody can guess. Used on the writer's thread only."""

    def __init__(self) -> None:
        self._random: list[str] = []

    def new(self, now: float) -> str:
        """Return 32 hexadecimal digits.

        What is made together begins alike, and so is together in the index of ids: a commit of many
        tasks writes few of its pages. The rest is random.

        :param now: seconds since the epoch.
        """
        if not self._random:
            size = 2 * _RANDOM_BYTES
            digits = secrets.token_hex(_RANDOM_BYTES * _AT_ONCE)
            self._random = [digits[at : at + size] for at in range(0, len(digits), size)]
        return f"{int(now * 64) & 0xFFFF:04x}{self._random.pop()}"
