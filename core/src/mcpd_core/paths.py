"""Where mcpd keeps things: the data directory, the socket in it, the settings file."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from .errors import SettingsError

#: The name of our folders under the user's data and configuration directories.
APP = "mcpd-core"
SETTINGS_FILE = "mcpd.toml"


def data_dir(flag: str | os.PathLike[str] | None, env: Mapping[str, str] | None = None) -> Path:
    """Return the data directory, absolute; it need not exist.

    :param flag: the value of ``--data-dir``; wins over ``MCPD_DATA_DIR``, which wins over the
        user's data directory.
    :param env: the environment; the process's own by default.
    :raises SettingsError: when the path that was named leads nowhere.
    """
    env = os.environ if env is None else env
    chosen = flag or env.get("MCPD_DATA_DIR")
    if chosen:
        try:
            return Path(os.path.abspath(Path(chosen).expanduser()))
        except (OSError, RuntimeError) as error:
            # The current directory was removed; or "~name" names nobody.
            reason = (error.strerror if isinstance(error, OSError) else None) or error
            raise SettingsError(
                f"The data directory {os.fspath(chosen)!r} cannot be found: {reason}.",
                hint="Name it by a path that begins with /.",
            ) from error
    import platformdirs

    return platformdirs.user_data_path(APP, appauthor=False)


def socket_path(directory: Path) -> Path:
    """Return the path of the Unix socket that the owner of a data directory listens on."""
    return directory / "mcpd.sock"


def read_regular(path: Path) -> bytes:
    """Return the content of a file, without ever waiting for somebody to write it.

    :raises OSError: when it cannot be read, or is a pipe, a device or a directory.
    """
    # Opening a named pipe waits for a writer unless it is told not to.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("it is not a regular file")
        return file.read()


def settings_file(flag: str | os.PathLike[str] | None, env: Mapping[str, str]) -> Path | None:
    """Return the settings file to read, or ``None`` when there is none.

    Looked up in this order: the flag ``--config``, ``MCPD_CONFIG``, ``./mcpd.toml``, the user's
    configuration directory. The first two must exist when they are given.

    :raises SettingsError: when a file that was named does not exist.
    """
    for value, origin in ((flag, "--config"), (env.get("MCPD_CONFIG"), "MCPD_CONFIG")):
        if value:
            path = Path(value).expanduser()
            if not path.is_file():
                raise SettingsError(
                    f"{origin} names the settings file {path}, which does not exist.",
                    hint=f"Create it or leave {origin} out.",
                )
            return path
    local = Path(SETTINGS_FILE)
    if local.is_file():
        return local
    import platformdirs

    user = platformdirs.user_config_path(APP, appauthor=False) / SETTINGS_FILE
    return user if user.is_file() else None
