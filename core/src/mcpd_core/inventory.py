"""The plugins of an environment and what became of each: the rows of ``mcpd plugins list``."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import permutations
from pathlib import Path
from typing import Any, Literal

from .content.catalog import ContentCatalog
from .content.contract import offered_by_both
from .faults import DistributionFault
from .spec import CommandSpec, PromptSpec, ResourceSpec, ToolSpec

State = Literal["enabled", "disabled", "broken", "conflict", "missing-runtime"]


@dataclass(frozen=True)
class PluginRow:
    """One plugin and whether it is enabled.

    :ivar runtime: what its entry-point group declares; anything when the row is ``broken``.
    :ivar reason: why it is in its state and what a person can do about it. An enabled plugin has
        one only when there is something to be said.
    :ivar tools: the contracts of its tools as far as they are known without importing it.
    :ivar resources: likewise.
    :ivar prompts: likewise.
    :ivar commands: what it adds to the command line.
    :ivar entry: ``module`` or ``module:attribute`` of its hooks.
    :ivar hooks: the hooks that its manifest names.
    :ivar metadata_provider: the module that listing asks for its tools, if it has one.
    :ivar dynamic: whether it has no manifest, so that its tools are known only when it is served.
    :ivar note: what its metadata provider found worth telling, which is its reason while it is
        enabled.
    :ivar requires_core: what its distribution asks of mcpd-core, such as ``>=0.2``; may be empty.
    """

    name: str
    distribution: str
    version: str
    runtime: str
    state: State
    reason: str = ""
    tools: tuple[ToolSpec, ...] = ()
    bundles: tuple[str, ...] = ()
    entry: str = ""
    hooks: tuple[str, ...] = ()
    metadata_provider: str | None = None
    dynamic: bool = False
    manifest_path: Path | None = None
    requires_core: str = ""
    metadata_paths: tuple[str, ...] = field(default=(), repr=False)
    resources: tuple[ResourceSpec, ...] = ()
    prompts: tuple[PromptSpec, ...] = ()
    commands: tuple[CommandSpec, ...] = ()
    note: str = ""

    @property
    def label(self) -> str:
        """The plugin's full name, ``distribution:plugin``."""
        return f"{self.distribution}:{self.name}"

    @cached_property
    def editable(self) -> bool:
        """Whether the distribution is installed so that its sources can be edited in place."""
        return any(_editable(path) for path in self.metadata_paths)

    @property
    def listed(self) -> int:
        """How many of the tools clients are told of."""
        return sum(spec.listed for spec in self.tools)

    def to_json(self) -> dict[str, Any]:
        """Return the row as ``mcpd plugins list --json`` shows it."""
        return {
            "name": self.name,
            "distribution": self.distribution,
            "version": self.version,
            "runtime": self.runtime,
            "state": self.state,
            "tools": self.listed,
            "bundles": list(self.bundles),
            "reason": self.reason,
            "editable": self.editable,
        }


@dataclass(frozen=True)
class Inventory:
    """All plugins of an environment, sorted by name and distribution.

    :ivar faults: damaged distributions, whether or not they have to do with us.
    :ivar notes: what else a person should be told, such as the missing members of a bundle.
    """

    rows: tuple[PluginRow, ...] = ()
    faults: tuple[DistributionFault, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def enabled(self) -> tuple[PluginRow, ...]:
        """The rows whose plugins are enabled."""
        return tuple(row for row in self.rows if row.state == "enabled")

    def specs(self) -> tuple[ToolSpec, ...]:
        """Return the tools of the enabled plugins."""
        return tuple(spec for row in self.enabled for spec in row.tools)

    def content(self) -> ContentCatalog:
        """Return the resources and the prompts of the enabled plugins."""
        return ContentCatalog(
            (spec for row in self.enabled for spec in row.resources),
            (spec for row in self.enabled for spec in row.prompts),
        )

    def get(self, plugin: str) -> PluginRow | None:
        """Return the enabled plugin of that name, or ``None``."""
        return next((row for row in self.enabled if row.name == plugin), None)

    def disabled_tool(self, name: str) -> tuple[ToolSpec, PluginRow] | tuple[None, None]:
        """Return the tool of that name or alias of a disabled plugin, and the plugin."""
        for row in self.rows:
            for spec in row.tools if row.state == "disabled" else ():
                if name in (spec.name, *spec.aliases):
                    return spec, row
        return None, None

    def with_broken(self, plugin: str, reason: str) -> Inventory:
        """Return an inventory in which an enabled plugin is ``broken``.

        :param reason: what failed and what to do about it.
        """
        return replace(
            self,
            rows=tuple(
                replace(row, state="broken", reason=reason)
                if row.name == plugin and row.state == "enabled"
                else row
                for row in self.rows
            ),
        )

    def with_tools(
        self,
        plugin: str,
        tools: Iterable[ToolSpec],
        *,
        resources: Iterable[ResourceSpec] | None = None,
        prompts: Iterable[PromptSpec] | None = None,
    ) -> Inventory:
        """Return an inventory in which an enabled plugin offers the tools given.

        This is how the tools of a plugin without manifest become known when it is served. Plugins
        that now collide say ``conflict``.

        :param resources: what it offers of these from now on; ``None`` for what it did before.
        :param prompts: likewise.
        """
        rows = tuple(
            replace(
                row,
                tools=tuple(tools),
                resources=row.resources if resources is None else tuple(resources),
                prompts=row.prompts if prompts is None else tuple(prompts),
            )
            if row.name == plugin and row.state == "enabled"
            else row
            for row in self.rows
        )
        return replace(self, rows=mark_conflicts(rows))


def mark_conflicts(rows: Sequence[PluginRow]) -> tuple[PluginRow, ...]:
    """Mark the enabled plugins that claim the same tool name or alias, prompt or URI.

    Neither wins: both rows name the other and what it is about.
    """
    claims: dict[str, list[PluginRow]] = {}
    for row in rows:
        if row.state == "enabled":
            for name in {name for spec in row.tools for name in (spec.name, *spec.aliases)}:
                claims.setdefault(name, []).append(row)
    rivals: dict[str, dict[str, set[str]]] = {}
    for name, claimants in claims.items():
        for row in claimants:
            for other in claimants:
                if other is not row:
                    shared = rivals.setdefault(row.label, {}).setdefault(other.label, set())
                    shared.add(repr(name))
    contentful = [row for row in rows if row.state == "enabled" and (row.resources or row.prompts)]
    for row, other in permutations(contentful, 2):
        for label in offered_by_both(row, other):
            shared = rivals.setdefault(row.label, {}).setdefault(other.label, set())
            shared.add(f"the {label}")
    return tuple(
        replace(row, state="conflict", reason=_conflict(rivals[row.label]))
        if row.state == "enabled" and row.label in rivals
        else row
        for row in rows
    )


def _conflict(rivals: dict[str, set[str]]) -> str:
    clashes = []
    for label in sorted(rivals):
        names = sorted(rivals[label])
        shown = ", ".join(names[:3])
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        clashes.append(f"{label} offers {shown}{more} too")
    return f"{'; '.join(clashes)}. Deny one of the plugins, or leave it out of --plugins."


def _editable(metadata_path: str) -> bool:
    """Read what the installer recorded (PEP 610).

    The record is a small file; asking the importlib_metadata backport for its ``origin`` reads the
    same file after an import that takes longer than the whole discovery.
    """
    try:
        with open(os.path.join(metadata_path, "direct_url.json"), "rb") as file:
            record = json.load(file)
    except (OSError, ValueError):
        return False
    info = record.get("dir_info") if isinstance(record, dict) else None
    return isinstance(info, dict) and info.get("editable") is True
