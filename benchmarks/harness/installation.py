"""Environments with a given number of distributions, to look for plugins in."""

from __future__ import annotations

import importlib.util
import os
import sysconfig
import venv
from pathlib import Path

from .toolset import FAMILY, install_metadata, install_plugin

#: Plugins in every environment, and their tools.
PLUGINS = 10
TOOLS = PLUGINS * FAMILY
#: The share of distributions that have an ``entry_points.txt``.
SHARE = 0.4


def install(folder: Path, distributions: int) -> str:
    """Make a virtual environment that holds exactly so many distributions.

    The packages of the present environment can be imported in it, because their files are linked
    to; their metadata is left out, so that it does not count.

    :param distributions: at least `PLUGINS`.
    :returns: the path of its interpreter.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    (site,) = folder.glob("lib/python*/site-packages")
    _link_packages(site)
    for number in range(PLUGINS):
        install_plugin(site, FAMILY, plugin=f"family{number}", first=number * FAMILY)
    others = max(0, round(distributions * SHARE) - PLUGINS)
    for number in range(distributions - PLUGINS):
        # Somebody else's command or plugin, in as many lines as such files tend to have.
        lines = "".join(f"command-{number}-{line} = other{number}.cli:main\n" for line in range(5))
        entry_points = f"[console_scripts]\n{lines}\n[pytest11]\nother{number} = other{number}\n"
        install_metadata(site, f"other-{number}", entry_points if number < others else None)
    return str(python)


def _link_packages(site: Path) -> None:
    present = Path(sysconfig.get_path("purelib"))
    for child in present.iterdir():
        left_out = (".dist-info", ".egg-info", ".pth", ".egg-link")
        if not child.name.endswith(left_out) and child.name != "__pycache__":
            os.symlink(child, site / child.name)
    # An editable installation is not in site-packages.
    core = importlib.util.find_spec("mcpd_core")
    assert core is not None
    assert core.submodule_search_locations is not None
    if not (site / "mcpd_core").exists():
        os.symlink(next(iter(core.submodule_search_locations)), site / "mcpd_core")
