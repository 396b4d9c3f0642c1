"""``mcpd legacy``: what the trees of tools hold. No daemon is needed, and nothing is imported."""

from __future__ import annotations

import click

from .auditing import audit
from .listing import list_


@click.group()
def legacy() -> None:
    """See what trees of existing tools hold, without running any of it."""


legacy.add_command(list_)
legacy.add_command(audit)
