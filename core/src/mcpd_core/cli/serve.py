"""``mcpd serve`` and ``mcpd attach``."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import paths
from ..heap import young_heap
from ..settings import HTTP_STREAMS, LOG_FORMATS, LOG_LEVELS, TRANSPORTS, Settings
from .options import (
    config_option,
    data_dir_option,
    inventory_of,
    plugins_option,
    settings_from,
)

if TYPE_CHECKING:
    from ..host import Host
    from ..inventory import Inventory

_log = logging.getLogger("mcpd_core.serve")


@click.command()
@plugins_option
@click.option(
    "--transport",
    "transports",
    type=click.Choice(TRANSPORTS),
    multiple=True,
    help="How clients arrive: socket and http (default), or this process's stdio. The socket is"
    " always there.",
)
@click.option("--host", metavar="ADDRESS", help="Where to serve HTTP. Default: 127.0.0.1.")
@click.option(
    "--port", type=click.IntRange(0, 65535), help="Its port; 0 for any free one. Default: 8765."
)
@click.option("--path", metavar="PATH", help="Its path. Default: /mcp.")
@click.option(
    "--http-stream",
    type=click.Choice(HTTP_STREAMS),
    help="Answer as JSON where that loses nothing (default), or always as a stream of events.",
)
@click.option(
    "--insecure-bind",
    is_flag=True,
    help="Let anybody who reaches the port call every tool, so that --host may be any address.",
)
@click.option(
    "--standalone",
    is_flag=True,
    help="Serve stdio inside this process, for containers and tests, instead of through a daemon.",
)
@data_dir_option
@config_option
@click.option("--log-level", type=click.Choice(LOG_LEVELS), help="Default: info.")
@click.option("--log-format", type=click.Choice(LOG_FORMATS), help="Default: text.")
@click.option(
    "--linger",
    is_flag=True,
    help="Leave [daemon] linger seconds after the last client did, unless work is pending.",
)
def serve(
    wanted: tuple[str, ...] | None,
    transports: tuple[str, ...],
    host: str | None,
    port: int | None,
    path: str | None,
    http_stream: str | None,
    insecure_bind: bool,
    standalone: bool,
    data_dir: str | None,
    config: str | None,
    log_level: str | None,
    log_format: str | None,
    linger: bool,
) -> int:
    """Offer the tools of the enabled plugins to MCP clients.

    Without flags it is a daemon that listens on a Unix socket in the data directory and on
    http://127.0.0.1:8765/mcp, until it is interrupted. With --transport stdio it connects this
    process's stdin and stdout to that daemon, and starts one first if none runs.
    """
    from . import logs

    flags = {
        "transports": tuple(dict.fromkeys(transports)) or None,
        "log_level": log_level,
        "log_format": log_format,
    }
    web = {
        "host": host,
        "port": port,
        "path": path,
        "stream": http_stream,
        "insecure_bind": insecure_bind or None,
    }
    settings = settings_from(config, wanted, {"serve": flags, "http": web})
    chosen = _transports(settings, standalone, given=bool(transports))
    logs.configure(settings.serve.log_level, settings.serve.log_format)
    directory = paths.data_dir(data_dir)
    if "stdio" in chosen and not standalone:
        return _relay(settings, directory)
    # Before anything is claimed: a plugin that was named and cannot be enabled is an error.
    with young_heap():
        inventory = inventory_of(settings, directory)
        from ..server import daemon

    hosts: list[Host] = []

    def make_host() -> Host:
        from ..host import Host

        hosts.append(Host(inventory, settings, data_dir=directory))
        return hosts[-1]

    def ready(places: list[str]) -> None:
        # The host's view: by now plugins without manifest have registered their tools.
        _announce(hosts[-1].inventory, places)

    options: dict[str, Any] = {
        "data_dir": directory,
        "ready": ready,
        "plugins": ",".join(settings.serve.plugins or ()),
        "argv": [sys.argv[0], *sys.argv[1:]],
        "grace": settings.daemon.grace,
    }
    if standalone:
        return daemon.run_standalone(make_host, **options)
    patience = settings.daemon.linger if linger else None
    return daemon.run_daemon(make_host, linger=patience, http="http" in chosen, **options)


@click.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
@click.pass_context
def attach(ctx: click.Context) -> int:
    """Connect stdin and stdout to the running daemon."""
    # Only reached as `mcpd attach` behind a global option: `__main__` has dispatched it before.
    from ..attach import main

    return main(ctx.args)


def _transports(settings: Settings, standalone: bool, *, given: bool) -> tuple[str, ...]:
    chosen = settings.serve.transports
    if standalone:
        if given and chosen != ("stdio",):
            raise click.UsageError("--standalone serves stdio and nothing else.")
        return ("stdio",)
    if "stdio" in chosen and "http" in chosen:
        raise click.UsageError(
            "A client over stdio is connected to a daemon that others share. Run `mcpd serve` for"
            " HTTP, and let the client use --transport stdio alone."
        )
    return chosen or ("socket",)


def _relay(settings: Settings, directory: Path) -> int:
    """Be what ``mcpd attach --spawn`` is, with a daemon of these settings.

    The daemon has the socket in any case, so asking for both transports is the same.
    """
    from .. import attach

    return attach.relay(str(directory), spawn=_daemon_argv(settings, directory))


def _daemon_argv(settings: Settings, directory: Path) -> list[str]:
    argv = [sys.executable, "-m", "mcpd_core", "serve", "--transport", "socket"]
    argv += ["--data-dir", str(directory), "--linger"]
    argv += ["--log-level", settings.serve.log_level, "--log-format", settings.serve.log_format]
    if settings.serve.plugins is not None:
        argv += ["--plugins", ",".join(settings.serve.plugins)]
    if settings.file is not None:
        # The daemon runs in a folder of its own, where ./mcpd.toml would be another file.
        argv += ["--config", str(settings.file.absolute())]
    return argv


def _announce(inventory: Inventory, places: Sequence[str]) -> None:
    """Say in the log what is enabled, what is not and why, and where clients find it."""
    for row in inventory.rows:
        label = f"{row.name} ({row.distribution} {row.version}, {row.runtime})"
        if row.state == "enabled":
            listed = [spec for spec in row.tools if spec.listed]
            _log.info("enabled: %s: %s", label, _count(listed, "tool"))
        elif row.state == "disabled":
            _log.debug("disabled: %s: %s", label, row.reason)
        else:
            _log.warning("%s: %s: %s", row.state, label, row.reason)
    for fault in inventory.faults:
        _log.warning("damaged distribution: %s", fault)
    for text in inventory.notes:
        _log.info("%s", text)
    _log.info("offering %s", _count([s for s in inventory.specs() if s.listed], "tool"))
    for place in places:
        _log.info("listening on %s", place)


def _count(things: Sequence[object], noun: str) -> str:
    return f"{len(things)} {noun}" + ("" if len(things) == 1 else "s")
