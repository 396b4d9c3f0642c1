"""Groups of commands to which the enabled plugins add theirs."""

from __future__ import annotations

from typing import ClassVar

import click
from click.shell_completion import CompletionItem

from ..errors import McpdError


class OpenGroup(click.Group):
    """A group with our own commands and, behind them, those that plugins have below it.

    Plugins are looked for only when the help text, or a command that is not our own, is asked for.
    Which ones are enabled follows from the environment and the settings file that is found, since
    the options of a command are not known before it. Their commands are no part of `list_commands`,
    whose callers import what is listed.
    """

    #: The group's name in front of a plugin's command; ``None`` means its own.
    taker: ClassVar[str | None] = None

    @property
    def _taker(self) -> str:
        return self.name or "" if self.taker is None else self.taker

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if (own := super().get_command(ctx, name)) is not None:
            return own
        from .plugin_commands import load

        try:
            return load(f"{self._taker} {name}".lstrip())
        except McpdError:
            if ctx.resilient_parsing:
                return None  # a shell asks for completions; the command itself says what is wrong
            raise

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from .plugin_commands import offered

        return super().shell_complete(ctx, incomplete) + [
            CompletionItem(spec.word, help=spec.help)
            for spec in offered(self._taker)
            if spec.word.startswith(incomplete)
        ]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from .plugin_commands import offered

        super().format_commands(ctx, formatter)
        if specs := offered(self._taker, notes=True):
            with formatter.section("Commands of plugins"):
                formatter.write_dl([(spec.word, spec.help or f"({spec.plugin})") for spec in specs])
