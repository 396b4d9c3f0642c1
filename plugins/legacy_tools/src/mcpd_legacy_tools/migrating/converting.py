"""Old settings, turned into new ones by the rules, with an account of each."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from .reading import Old
from .rules import SECRETS, Rule, Use, rule_for
from .values import Unfit, shown

#: What becomes of a setting: it is set; it has no counterpart, or its value none; it is a secret,
#: which is only named; nobody knows it; a stronger one says something else.
Outcome = Literal["set", "dropped", "secret", "unknown", "overruled"]

HIDDEN = "(not shown)"

_SECRET = re.compile(r"secret|token|passw|credential|(api|private|access|signing)_?key", re.I)
_PASSWORD_IN_URL = re.compile(r"://[^/@\s]+:[^/@\s]+@")
#: A place for a variable, which the old server did not fill in.
_PLACEHOLDER = re.compile(r"\$\{[^}]*\}")
_USES: dict[Use, str] = {
    "used": "",
    "ignored": "the old server read it and did nothing with it",
    "unread": "the old server never read it",
    "tools": "",
}


@dataclass(frozen=True)
class Change:
    """What one old setting became.

    :ivar name: as in the file; a variable has a ``$`` before it.
    :ivar value: the old value in short; `HIDDEN` for a secret.
    :ivar use: what the old server did with it; ``None`` when that is not known.
    :ivar target: the new setting as ``section.key``; empty when there is none.
    :ivar new: its value.
    :ivar why: sentences without full stop at the end.
    """

    name: str
    value: str
    use: Use | None
    outcome: Outcome
    target: str = ""
    new: Any = None
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it as ``--json`` prints it."""
        return {
            "old": self.name,
            "value": self.value,
            "old_server": self.use,
            "outcome": self.outcome,
            "setting": self.target or None,
            "new": self.new,
            "why": self.why,
        }


def convert(olds: Iterable[Old], tree: Path | None = None) -> list[Change]:
    """Say what each setting becomes; of two that become the same one, the later wins.

    Variables of the shell that were no business of the old server are passed over.

    :param olds: the settings, the weakest first.
    :param tree: the directory of the tools that belong to them, which mcpd has to be told.
    """
    changes: list[Change] = []
    if tree is not None:
        changes.append(
            Change(
                "(tools)",
                str(tree),
                "used",
                "set",
                "legacy_tools.paths",
                [str(tree)],
                "the old server found the tools beside its own code",
            )
        )
    winners: dict[str, int] = {}
    for old in olds:
        change = _change(old)
        if change is None:
            continue
        if change.outcome == "set":
            if (weaker := winners.get(change.target)) is not None:
                changes[weaker] = replace(
                    changes[weaker],
                    outcome="overruled",
                    new=None,
                    why=_joined(changes[weaker].why, f"{change.name} wins"),
                )
            winners[change.target] = len(changes)
        changes.append(change)
    return changes


def _change(old: Old) -> Change | None:
    rule = rule_for(old)
    secret = _is_secret(old, rule)
    if secret and (rule is not None or old.kind != "shell" or old.key in _SHELL_SECRETS):
        return Change(
            old.name,
            HIDDEN,
            rule.use if rule else None,
            "secret",
            why="a secret is not copied; where the tools need it, set it in the environment that "
            "`mcpd serve` runs in",
        )
    if rule is None:
        if old.kind == "shell":
            return None
        value = HIDDEN if secret else shown(old.value)
        why = "neither the old server nor mcpd has such a setting"
        return Change(old.name, value, None, "unknown", why=why)
    why = _joined(_USES[rule.use], rule.why)
    done = Change(old.name, shown(old.value), rule.use, "dropped", why=why)
    if rule.convert is None:
        return done
    if old.value is None or old.value == "":
        return replace(done, why=_joined("it is empty, so mcpd's default holds"))
    try:
        if isinstance(old.value, str) and _PLACEHOLDER.search(old.value):
            raise Unfit("the old server did not fill in variables, and mcpd.toml has none")
        new = rule.convert(old.value)
    except Unfit as error:
        return replace(done, why=_joined(_USES[rule.use], str(error)))
    return replace(done, outcome="set", target=rule.target, new=new)


#: Names that are secrets of the old tools wherever they are found.
_SHELL_SECRETS = frozenset({*SECRETS, "SECRET_KEY", "DISCORD_TOKEN", "GITHUB_TOKEN"})
#: Ends of names that speak of secrets without being one.
_NO_SECRETS = ("_FILE", "_PREFIXES")


def _is_secret(old: Old, rule: Rule | None) -> bool:
    """Whether a value must not be shown.

    A switch is none whatever its name says, and neither is what a rule reads.
    """
    if isinstance(old.value, str) and _PASSWORD_IN_URL.search(old.value):
        return True
    if old.value is None or isinstance(old.value, bool) or (rule and rule.convert):
        return False
    name = old.key.rpartition(".")[2]
    if name.endswith(_NO_SECRETS):
        return False
    return name in _SHELL_SECRETS or bool(_SECRET.search(name))


def _joined(*reasons: str) -> str:
    return "; ".join(reason for reason in reasons if reason)
