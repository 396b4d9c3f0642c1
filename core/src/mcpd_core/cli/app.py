"""The command ``mcpd`` and the list of its subcommands."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click
from click.shell_completion import CompletionItem

from .._version import __version__
from .groups import OpenGroup


class LazyGroup(click.Group):
    """A group whose subcommands are imported when they are run, and not for the help text.

    :param lazy: for each subcommand, ``module:attribute`` below this package and its short help.
    """

    def __init__(self, *args: Any, lazy: Mapping[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lazy = dict(lazy)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.lazy)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self.lazy:
            return None
        module, _, attribute = self.lazy[name][0].partition(":")
        command: click.Command = getattr(import_module(f".{module}", __package__), attribute)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        # The inherited method would import every command to ask whether it is hidden.
        commands = [
            CompletionItem(name, help=text)
            for name, (_, text) in self.lazy.items()
            if name.startswith(incomplete)
        ]
        return commands + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self.lazy.items()])


class RootGroup(OpenGroup, LazyGroup):
    """The group with our own commands and, behind them, those of the enabled plugins."""

    taker = ""

    def list_commands(self, ctx: click.Context) -> list[str]:
        from .plugin_commands import offered

        return [*super().list_commands(ctx), *(spec.name for spec in offered())]


@click.command(
    cls=RootGroup,
    lazy={
        "serve": ("serve:serve", "Run the daemon, or serve one client over stdio."),
        "attach": ("serve:attach", "Connect stdin and stdout to the running daemon."),
        "plugins": ("plugins:plugins", "List and check plugins, write their manifests."),
        "tools": ("tools:tools", "List, show, search and call tools."),
        "top": ("top:top", "Show what the running daemon does."),
        "config": ("config:config", "Show the settings, begin a settings file."),
        "doctor": ("doctor:doctor", "Examine this installation and say what to mend."),
        "completion": ("completion:completion", "Print the shell's completion script."),
    },
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="mcpd", message="%(prog)s %(version)s")
def mcpd() -> None:
    """Offer an AI client exactly the tools that you installed as plugins.

    Settings come from flags, then from variables MCPD_<SECTION>__<KEY>, then from a file: --config,
    MCPD_CONFIG, ./mcpd.toml or mcpd.toml in the user's configuration directory.
    """
