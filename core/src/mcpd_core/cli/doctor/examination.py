"""The round that the doctor makes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from ...discovery import scan
from ...errors import SettingsError
from ...findings import Finding
from ...settings import Settings, load_settings
from . import checks, configuration, daemon, interpreter, libraries, plugins, ports, storage

_log = logging.getLogger(__name__)


def examine(
    *, config: str | None, wanted: tuple[str, ...] | None, directory: Path
) -> list[Finding]:
    """Look at everything.

    :param config: the value of ``--config``.
    :param wanted: the plugins that ``--plugins`` names.
    :param directory: the data directory.
    """
    findings: list[Finding] = []

    def look(check: str, examination: Callable[[], Iterable[Finding]]) -> None:
        try:
            findings.extend(examination())
        except Exception as error:  # noqa: BLE001 - the boundary: a doctor must finish the round
            _log.debug("the check %s failed", check, exc_info=error)
            findings.append(
                Finding(
                    check,
                    "error",
                    f"This could not be examined ({type(error).__name__}: {error}).",
                    "Report it to the authors of mcpd.",
                )
            )

    look("interpreter", interpreter.examine)
    settings, problem = _load(config, wanted)
    look("library", lambda: libraries.examine(settings.runtimes.trio))
    scanned = scan()
    inventory, selection = plugins.select_all(scanned, settings, directory)
    look("settings", lambda: configuration.examine(settings, problem, inventory))
    look("distribution", lambda: plugins.examine_distributions(scanned.faults))
    look("plugin", lambda: [*selection, *plugins.examine(inventory)])
    look("data directory", lambda: storage.examine(directory))
    running: list[bool] = []

    def look_at_the_daemon() -> Iterable[Finding]:
        found, runs = daemon.examine(directory)
        running.append(runs)
        return found

    look("daemon", look_at_the_daemon)
    look(
        "checks",
        lambda: checks.examine(inventory, directory, running=any(running), settings=settings),
    )
    look("http", lambda: ports.examine(settings, running=any(running)))
    return findings


def _load(
    config: str | None, wanted: tuple[str, ...] | None
) -> tuple[Settings, SettingsError | None]:
    """Return the settings, or the defaults and what is wrong with the settings."""
    try:
        return load_settings(config, overrides={"serve": {"plugins": wanted}}), None
    except SettingsError as error:
        return Settings(), error
