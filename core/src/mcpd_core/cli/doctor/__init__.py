"""``mcpd doctor``: examine an installation and say what to mend.

Each module here checks one part. A check is a function of what was found out, so that it can be
tested with anything. The MCP SDK is not imported, and of plugins only those that bring checks.
"""

from __future__ import annotations

import shutil
import sys
import textwrap

import click

from ... import paths
from ...findings import Finding
from .. import FAILED, OK
from ..options import config_option, data_dir_option, json_option, plugins_option
from ..output import clean, note, table, write, write_json


@click.command()
@plugins_option
@data_dir_option
@config_option
@json_option
def doctor(
    wanted: tuple[str, ...] | None, data_dir: str | None, config: str | None, as_json: bool
) -> int:
    """Examine this installation and say what to mend, and how.

    Looked at are the interpreter, SQLite, the libraries, the plugins and their manifests, the
    settings, the data directory, the daemon's socket, what plugins have checks for, and the HTTP
    port. Nothing is changed, and only plugins with checks are imported. The exit status is 1 when
    an error is found.
    """
    from .examination import examine

    findings = examine(config=config, wanted=wanted, directory=paths.data_dir(data_dir))
    if as_json:
        write_json([finding.to_json() for finding in findings])
    elif sys.stdout.isatty():
        for finding in findings:
            write(_paragraph(finding, shutil.get_terminal_size().columns))
    else:
        columns = ("level", "part", "finding", "what to do")
        table(columns, [(f.level, f.check, f.message, f.fix) for f in findings])
    counts = {
        level: sum(finding.level == level for finding in findings) for level in ("error", "warning")
    }
    note(
        ", ".join(f"{count} {level}{'' if count == 1 else 's'}" for level, count in counts.items())
    )
    return FAILED if counts["error"] else OK


def _paragraph(finding: Finding, width: int) -> str:
    """Return a finding for a terminal of some width, with what to do on lines of its own."""
    head = f"{finding.level:<8} {finding.check:<15} "
    lines = []
    for first, text in ((head, finding.message), (" " * len(head) + "=> ", finding.fix)):
        lines += textwrap.wrap(
            clean(text),
            max(width, 60),
            initial_indent=first,
            subsequent_indent=" " * len(head),
            break_on_hyphens=False,
            break_long_words=False,
        )
    return "\n".join(lines)
