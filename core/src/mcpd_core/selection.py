"""Which of the installed plugins are enabled, and why the others are not.

A person may name plugins, distributions and bundles, and ``distribution:plugin`` where a name is
ambiguous. Whoever is named must be enabled, or the reason is an error; whoever is not named is
enabled when nothing speaks against it. Nobody wins silently: two plugins that claim one name are
both left out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any, cast

from . import families
from .choices import chosen, disabled_reason
from .commands import report
from .discovery import Candidate, Scan, same_name
from .errors import SelectionError
from .installed import normalise
from .inventory import Inventory, PluginRow, State, mark_conflicts
from .providers import provided_tools
from .spec import RuntimeName

__all__ = ["Inventory", "PluginRow", "State", "available_runtimes", "select"]


@dataclass
class _Draft:
    """A row in the making.

    :ivar denied: whether the deny-list names it.
    :ivar named: the name through which it was asked for, as the person wrote it.
    :ivar preferred: whether that name says which distribution is meant.
    """

    candidate: Candidate
    bundles: tuple[str, ...]
    state: State = "enabled"
    reason: str = ""
    denied: bool = False
    named: str = ""
    preferred: bool = False

    def leave_out(self, state: State, reason: str) -> None:
        self.state, self.reason = state, reason

    @property
    def label(self) -> str:
        return f"{self.candidate.distribution}:{self.candidate.name}"


def available_runtimes() -> frozenset[str]:
    """Return the runtimes that can be served here, found without importing any."""
    found = {"asyncio", "any"}
    if find_spec("trio") is not None:
        found.add("trio")
    return frozenset(found)


def select(
    scan: Scan,
    *,
    wanted: Sequence[str] | None,
    denied: Sequence[str] = (),
    runtimes: Collection[str] | None = None,
    choices: Mapping[str, bool] | None = None,
    section: Callable[[str], Mapping[str, Any]] | None = None,
) -> Inventory:
    """Decide which plugins are enabled.

    No plugin code is imported, apart from the metadata providers of plugins that are to be enabled.

    :param wanted: names of plugins, distributions (all their plugins) and bundles (their installed
        members), and ``distribution:plugin``. ``None`` enables everything that is not denied.
    :param denied: likewise; these are never enabled.
    :param runtimes: the runtimes that can be served; ``None`` stands for `available_runtimes`.
    :param choices: what was enabled and disabled by hand (see `mcpd_core.choices`); it counts more
        than ``denied`` and nothing where ``wanted`` says which plugins are meant.
    :param section: returns a section of the settings by its name, as `Settings.section` does;
        without it, metadata providers are told of none.
    :raises SelectionError: when a wanted plugin cannot be enabled, or a name matches nothing.
    """
    drafts = [_Draft(candidate, _bundles(candidate)) for candidate in scan.candidates]
    notes: list[str] = []
    _deny(drafts, denied)
    if wanted is not None:
        notes += _want(drafts, [name for name in (name.strip() for name in wanted) if name])
    elif choices:
        _choose(drafts, choices)
    for draft in drafts:
        _mark_broken(draft)
    _mark_name_conflicts(drafts)
    _mark_missing_runtimes(drafts, available_runtimes() if runtimes is None else runtimes)
    rows = mark_conflicts([_row(draft, section or _no_section) for draft in drafts])
    _demand(drafts, rows)
    return Inventory(report(rows), scan.faults, tuple(notes))


# --- names --------------------------------------------------------------------------------------


def _bundles(candidate: Candidate) -> tuple[str, ...]:
    declared = candidate.manifest.bundles if candidate.manifest else ()
    return tuple(dict.fromkeys((*declared, *families.bundles_of(candidate.name))))


def _named(drafts: Iterable[_Draft], name: str) -> list[_Draft]:
    """Return the drafts that a plugin or distribution name stands for."""
    distribution, colon, plugin = name.partition(":")
    if colon:
        return [
            draft
            for draft in drafts
            if same_name(draft.candidate.distribution, distribution)
            and same_name(draft.candidate.name, plugin)
        ]
    by_plugin = [draft for draft in drafts if same_name(draft.candidate.name, name)]
    return by_plugin or [d for d in drafts if same_name(d.candidate.distribution, name)]


def _members(drafts: Iterable[_Draft], bundle: str) -> list[_Draft]:
    return [draft for draft in drafts if any(same_name(bundle, name) for name in draft.bundles)]


def _family(name: str) -> str | None:
    """Return the family of ours that a plugin or distribution name stands for."""
    for family, distribution in families.FAMILIES.items():
        if same_name(name, family) or same_name(name, distribution):
            return family
    return None


def _bundle(name: str) -> str | None:
    return next((bundle for bundle in families.BUNDLES if same_name(name, bundle)), None)


def _unknown(name: str, drafts: Sequence[_Draft], what: str) -> SelectionError:
    """Return the error about a name that matches nothing that is installed."""
    import difflib  # only needed for this message

    family, bundle = _family(name), _bundle(name)
    known = {draft.candidate.name for draft in drafts}
    known |= {draft.candidate.distribution for draft in drafts}
    known |= {bundle for draft in drafts for bundle in draft.bundles}
    hints = []
    if family:
        hints.append(f"Install it: pip install {families.FAMILIES[family]}")
    elif bundle:
        hints.append(f"Install some: {_pip_install(families.BUNDLES[bundle])}")
    else:
        close = difflib.get_close_matches(name, sorted(known | set(families.FAMILIES)), n=3)
        if close:
            hints.append(f"Did you mean {' or '.join(repr(match) for match in close)}?")
        for match in close:
            missing = _family(match)
            if missing and not _named(drafts, match):
                hints.append(f"To install: pip install {families.FAMILIES[missing]}")
        if not close:
            shown = ", ".join(sorted(draft.candidate.name for draft in drafts)) or "none"
            hints.append(f"Installed plugins: {shown}.")
    if bundle:
        message = f"No member of the bundle {name!r}, which {what}, is installed."
    else:
        message = f"No plugin, distribution or bundle {name!r}, which {what}, is installed."
    return SelectionError(message, hint=" ".join(hints), data={"name": name})


def _pip_install(members: Iterable[str]) -> str:
    return "pip install " + " ".join(families.FAMILIES[member] for member in members)


# --- what is asked for --------------------------------------------------------------------------


def _deny(drafts: Sequence[_Draft], denied: Sequence[str]) -> None:
    for name in denied:
        matches = _named(drafts, name) or _members(drafts, name)
        for draft in matches:
            draft.denied = True
            draft.leave_out("disabled", f"It is denied ({name!r} is in the deny-list).")
        # A family of ours that is not installed is denied for the day that it is.
        if not matches and _family(name) is None and _bundle(name) is None:
            raise _unknown(name, drafts, "is in the deny-list")


def _want(drafts: Sequence[_Draft], wanted: Sequence[str]) -> list[str]:
    """Mark what was asked for by name, disable the rest, and return notes about bundles."""
    notes = []
    for name in wanted:
        matches = _named(drafts, name)
        if matches:
            _want_named(matches, name)
        elif matches := _members(drafts, name):
            notes += _want_bundle(drafts, matches, name)
        else:
            raise _unknown(name, drafts, "was asked for")
    for draft in drafts:
        if not draft.named and not draft.denied:
            draft.leave_out("disabled", "It is not among the plugins that were asked for.")
    return notes


def _want_named(matches: Sequence[_Draft], name: str) -> None:
    allowed = [draft for draft in matches if not draft.denied]
    if not allowed:
        raise SelectionError(
            f"Plugin {name!r} was asked for and is denied.",
            hint="Take it out of the deny-list ([plugins] deny) or out of --plugins.",
            data={"name": name},
        )
    by_distribution = not any(same_name(draft.candidate.name, name) for draft in matches)
    for draft in allowed:
        draft.named = name
        draft.preferred = draft.preferred or by_distribution


def _want_bundle(drafts: Sequence[_Draft], matches: Sequence[_Draft], name: str) -> list[str]:
    notes = []
    for draft in matches:
        if not draft.denied:
            draft.named = draft.named or name
    skipped = [draft.candidate.name for draft in matches if draft.denied]
    if len(skipped) == len(matches):
        raise SelectionError(
            f"Every installed member of the bundle {name!r} is denied: {', '.join(skipped)}.",
            hint="Take one out of the deny-list ([plugins] deny).",
            data={"name": name},
        )
    if skipped:
        notes.append(f"Bundle {name}: denied and left out: {', '.join(skipped)}.")
    bundle = _bundle(name)
    missing = [
        member
        for member in (families.BUNDLES[bundle] if bundle else ())
        if not any(same_name(draft.candidate.name, member) for draft in drafts)
    ]
    if missing:
        distributions = ", ".join(families.FAMILIES[member] for member in missing)
        notes.append(f"Bundle {name}: not installed: {distributions}.")
    return notes


def _choose(drafts: Sequence[_Draft], choices: Mapping[str, bool]) -> None:
    for draft in drafts:
        enabled = chosen(choices, draft.label)
        if enabled is None:
            continue
        draft.denied = not enabled
        if enabled:
            draft.state, draft.reason = "enabled", ""
        else:
            draft.leave_out("disabled", disabled_reason(draft.candidate.name))


# --- what speaks against it ---------------------------------------------------------------------


def _mark_broken(draft: _Draft) -> None:
    """A broken plugin says so even when nobody asked for it, unless it is denied."""
    if draft.candidate.problem and not draft.denied:
        draft.leave_out("broken", draft.candidate.problem)


def _mark_name_conflicts(drafts: Sequence[_Draft]) -> None:
    by_name: dict[str, list[_Draft]] = {}
    for draft in drafts:
        if draft.state == "enabled":
            by_name.setdefault(normalise(draft.candidate.name), []).append(draft)
    for claimants in by_name.values():
        preferred = [draft for draft in claimants if draft.preferred]
        if len(preferred) == 1:
            for draft in claimants:
                if draft is not preferred[0]:
                    reason = f"{preferred[0].label} was asked for instead."
                    draft.leave_out("disabled", reason)
        elif len(claimants) > 1:
            for draft in claimants:
                _leave_out_as_rival(draft, [other for other in claimants if other is not draft])


def _leave_out_as_rival(draft: _Draft, others: Sequence[_Draft]) -> None:
    own = draft.candidate
    if any(same_name(other.candidate.distribution, own.distribution) for other in others):
        draft.leave_out(
            "conflict",
            f"Its distribution declares the plugin more than once, as {own.runtime} and as "
            f"{', '.join(sorted(other.candidate.runtime for other in others))}. "
            "Report it to its authors.",
        )
        return
    labels = sorted(other.label for other in others)
    draft.leave_out(
        "conflict",
        f"{', '.join(labels)} has the same name. Ask for one of them with --plugins, as "
        f"{' or '.join(sorted([draft.label, *labels]))}.",
    )


def _mark_missing_runtimes(drafts: Sequence[_Draft], runtimes: Collection[str]) -> None:
    for draft in drafts:
        runtime = draft.candidate.runtime
        if draft.state == "enabled" and runtime not in runtimes:
            draft.leave_out(
                "missing-runtime", f"{runtime} cannot be imported here. {families.INSTALL_TRIO}"
            )


def _no_section(name: str) -> Mapping[str, Any]:
    return {}


def _row(draft: _Draft, section: Callable[[str], Mapping[str, Any]]) -> PluginRow:
    candidate, described = draft.candidate, draft.candidate.manifest
    row = PluginRow(
        name=candidate.name,
        distribution=candidate.distribution,
        version=candidate.version,
        runtime=candidate.runtime,
        state=draft.state,
        reason=draft.reason,
        tools=described.tools if described else (),
        bundles=draft.bundles,
        entry=candidate.entry,
        hooks=described.hooks if described else (),
        metadata_provider=described.metadata_provider if described else None,
        dynamic=described is None and not candidate.problem,
        manifest_path=candidate.manifest_path,
        requires_core=candidate.requires_core,
        metadata_paths=candidate.metadata_paths,
        resources=described.resources if described else (),
        prompts=described.prompts if described else (),
        commands=described.commands if described else (),
    )
    if row.state != "enabled":
        return row
    if described is None:
        return replace(
            row, reason="dynamic: it has no manifest, so its tools are known when it is served."
        )
    if described.metadata_provider is not None:
        runtime = cast(RuntimeName, candidate.runtime)
        provided = provided_tools(described, runtime, section(described.name))
        if provided.problem:
            return replace(row, state="broken", reason=provided.problem)
        return replace(row, tools=provided.tools, reason=provided.note, note=provided.note)
    return row


def _demand(drafts: Sequence[_Draft], rows: Sequence[PluginRow]) -> None:
    """Raise when something that was asked for by name could not be enabled."""
    failed = [
        (draft.named, row)
        for draft, row in zip(drafts, rows, strict=True)
        # The loser of a name that was settled by naming its rival is disabled: that was asked for.
        if draft.named and row.state not in ("enabled", "disabled")
    ]
    if not failed:
        return
    sentences = []
    for name, row in failed:
        asked = "" if same_name(name, row.name) else f" (asked for as {name!r})"
        sentences.append(f"Plugin {row.label}{asked} cannot be enabled ({row.state}): {row.reason}")
    raise SelectionError(
        " ".join(sentences),
        data={"plugins": [{"name": row.name, "state": row.state} for _, row in failed]},
    )
