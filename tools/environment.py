"""Create a virtual environment for something that cannot share the developers' one.

    python tools/environment.py .venv-mcp1 'mcp==1.30.*'

Prints the path of its interpreter. An environment that holds what is asked for already is left as
it is. Uses uv when it is there, else venv and pip. Standard library only.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

#: Holds what was asked for, once all of it is installed.
STAMP = ".installed"


def provide(folder: Path, requirements: list[str]) -> Path:
    """Return the interpreter of an environment that holds the requirements.

    :raises subprocess.CalledProcessError: when they cannot be installed.
    """
    python = folder / "bin" / "python"
    stamp = folder / STAMP
    wanted = "\n".join([f"{sys.version_info.major}.{sys.version_info.minor}", *requirements, ""])
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    uv = shutil.which("uv")
    if uv is not None:
        _run(uv, "venv", "--quiet", "--python", sys.executable, str(folder))
        _run(uv, "pip", "install", "--quiet", "--python", str(python), *requirements)
    else:
        _run(sys.executable, "-m", "venv", str(folder))
        quiet = ("--quiet", "--disable-pip-version-check")
        _run(str(python), "-m", "pip", "install", *quiet, *requirements)
    stamp.write_text(wanted)
    return python


def _run(*command: str) -> None:
    # stdout carries the answer, so that what is said meanwhile goes to stderr.
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(f"usage: {sys.argv[0]} FOLDER REQUIREMENT...")
    try:
        print(provide(Path(sys.argv[1]), sys.argv[2:]))
    except subprocess.CalledProcessError as error:
        sys.exit(f"error: {sys.argv[1]} cannot be made: status {error.returncode}, see above.")
