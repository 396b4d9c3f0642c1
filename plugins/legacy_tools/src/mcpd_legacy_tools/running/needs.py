"""What a tool needs and does not find, with the command that installs it.

It is told at three moments: before the import, where the files say for certain that it would fail;
when the import fails all the same; and when a function imports something as it is called, or only
reports that it could not.
"""

from __future__ import annotations

import importlib
import os
import re
import signal
import sys
import traceback
from pathlib import Path

from mcpd_core import PluginLoadError

from ..requirements import install_line, is_known, missing_for
from .naming import Home
from .packages import PLUGIN

#: What Python says of a handler that is set outside of the main thread.
_OF_SIGNALS = "signal only works in main thread"
#: Frames of these files say nothing about where an import failed.
_OWN = frozenset({importlib.__file__, signal.__file__})
#: How Python says it, in an exception or in what a tool reports.
_COMPLAINT = re.compile(r"No module named '([\w.]+)'")


def refuse_without(home: Home, source: Path) -> None:
    """Refuse a file of which it is certain that it cannot be imported.

    :raises PluginLoadError: naming what is missing, and what to do about it.
    """
    if home.module in sys.modules:
        return
    missing = missing_for(str(source), home.package, str(home.directory))
    if missing.hopeless:
        raise PluginLoadError(PLUGIN, missing.reason, hint=missing.hint)


def refusal(home: Home, error: Exception) -> PluginLoadError | None:
    """Return what an import that has failed is refused with, if there is more to say of it."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return PluginLoadError(PLUGIN, f"{error}{_at(error)}.", hint=hint_for(str(error), home))
    if isinstance(error, ValueError) and _OF_SIGNALS in str(error):
        return PluginLoadError(
            PLUGIN,
            f"It handles signals{_at(error)}, which are the server's affair: {error}.",
            hint="Have the module do that only when it runs as a program.",
        )
    return None


def _at(error: BaseException) -> str:
    """Say in which file and line an exception came up."""
    frames = traceback.extract_tb(error.__traceback__)
    files = [f for f in frames if not f.filename.startswith("<frozen") and f.filename not in _OWN]
    return f" ({files[-1].filename}:{files[-1].lineno})" if files else ""


def hint_for(text: str, home: Home) -> str:
    """Return what to do about a module that a text says is missing; empty when it says nothing.

    :param text: of an exception, or of what a tool reports.
    :param home: of the tool.
    """
    found = _COMPLAINT.search(text)
    if found is None:
        return ""
    name = found[1]
    if name.partition(".")[0] == home.package.partition(".")[0]:
        return f"Its tree, at {home.directory}, has no such module: complete it."
    # Whoever published something under the name of a module of the tree should not be installed.
    if not is_known(name) and (place := _in_tree(name.partition(".")[0], home)):
        return f"It lies at {place}, where Python does not look: import it from there."
    return install_line([name])


def _in_tree(name: str, home: Home) -> str:
    """Return where a tree has a module or a package of a name; empty when it has none."""
    for folder, folders, files in os.walk(home.directory):
        if f"{name}.py" in files:
            return os.path.join(folder, f"{name}.py")
        if name in folders and os.path.exists(os.path.join(folder, name, "__init__.py")):
            return os.path.join(folder, name)
        folders[:] = [each for each in folders if not each.startswith((".", "__"))]
    return ""
