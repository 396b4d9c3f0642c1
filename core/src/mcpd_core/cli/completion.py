"""``mcpd completion``: what a shell needs to complete our commands.

The scripts are click's. What they run is this program, at every press of the key.
"""

from __future__ import annotations

import os

import click
from click.shell_completion import get_completion_class, shell_complete

from . import COMPLETION
from .output import write

SHELLS = ("bash", "zsh", "fish")

_INSTALLED = {
    "bash": 'eval "$(mcpd completion bash)"   in ~/.bashrc',
    "zsh": 'eval "$(mcpd completion zsh)"   in ~/.zshrc, below compinit',
    "fish": "mcpd completion fish > ~/.config/fish/completions/mcpd.fish",
}


@click.command(
    help="Print the script that makes a shell complete mcpd's commands, and names of plugins and"
    " tools.\n\n\b\n" + "\n".join(_INSTALLED.values())
)
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the completion script of a shell."""
    from .app import mcpd

    script = get_completion_class(shell)
    assert script is not None, "click knows the shells that we offer"
    # It would start the shell to warn of versions that are older than ten years.
    write(script.source_template % script(mcpd, {}, "mcpd", COMPLETION).source_vars())


def answer(command: click.Command) -> int:
    """Answer a shell's question for completions; return the exit status."""
    return shell_complete(command, {}, "mcpd", COMPLETION, os.environ[COMPLETION])
