"""What `mcpd doctor` finds: its own checks and those of plugins say it in one form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Level: TypeAlias = Literal["ok", "note", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    :ivar check: what was looked at: ``interpreter``, ``sqlite``, ``plugin``... A plugin's own
        checks have its name.
    :ivar level: an ``error`` keeps mcpd from working, or from keeping what it promises; a
        ``warning`` keeps a part of it; a ``note`` is worth knowing.
    :ivar message: what was found, in a sentence.
    :ivar fix: what a person can do about it; empty when there is nothing to be done.
    """

    check: str
    level: Level
    message: str
    fix: str = ""

    def to_json(self) -> dict[str, str]:
        """Return it as ``--json`` prints it."""
        return {
            "check": self.check,
            "level": self.level,
            "message": self.message,
            "fix": self.fix,
        }
