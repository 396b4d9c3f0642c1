"""The old manager of a tree of tools, and ours: what runs in processes of their own.

The processes print one JSON object each. They are given the checkout, or the tree and a cache file.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from .contestants import REPOSITORY, python_of

#: Where what the old manager needs is installed. Ignored by git.
OLD_ENVIRONMENT = REPOSITORY / ".venv-legacy"
#: What the modules of the old tools import and is light: it needs the SDK's previous generation.
OLD_REQUIREMENTS = (
    "mcp<2",
    "aiohttp",
    "anyio",
    "beautifulsoup4",
    "cachetools",
    "jsonschema",
    "multiformats",
    "numpy",
    "psutil",
    "pydantic",
    "PyYAML",
    "requests",
    "trio",
)
#: The directory of the tools in a checkout.
TREE = Path("ipfs_datasets_py", "mcp_server", "tools")
#: Seconds that one process may take.
PATIENCE = 300.0

#: The old manager finds out how many tools each category has, for which it imports them all.
OLD = """\
import inspect, json, sys, time
sys.path.insert(0, sys.argv[1])
begun, used = time.perf_counter(), time.process_time()
from ipfs_datasets_py.mcp_server.hierarchical_tool_manager import HierarchicalToolManager
imported = time.perf_counter()
found = HierarchicalToolManager().list_categories(include_count=True)
if inspect.isawaitable(found):
    import asyncio
    async def awaited():
        return await found
    found = asyncio.run(awaited())
ended, used = time.perf_counter(), time.process_time() - used
answer = {"tools": sum(category.get("tool_count", 0) for category in found)}
answer |= {"imports": imported - begun, "search": ended - imported}
answer |= {"both": ended - begun, "processor": used}
print("\\n" + json.dumps(answer), flush=True)
"""
#: Ours finds every tool, with its schema.
OURS = """\
import json, sys, time
begun, used = time.perf_counter(), time.process_time()
from mcpd_legacy_tools.options import read
from mcpd_legacy_tools.scan import scan
imported = time.perf_counter()
section = {"paths": [sys.argv[1]], "installed": False, "cache": sys.argv[2]}
found = scan(read(section))
ended, used = time.perf_counter(), time.process_time() - used
answer = {"tools": len(found.tools), "imports": imported - begun, "search": ended - imported}
print(json.dumps(answer | {"both": ended - begun, "processor": used}))
"""


class ProcessFailed(Exception):
    """Raised when one of the processes fails; says what it said."""


def old_python(*, install: bool) -> str | None:
    """Return an interpreter that has what the old manager needs; say why not when there is none.

    :param install: whether to make its environment when it is not there.
    """
    return python_of(OLD_ENVIRONMENT, OLD_REQUIREMENTS, "the old manager", install=install)


def old_environment(env: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Return the environment of the old manager: its installers off, its bytecode kept apart.

    :param folder: where the bytecode goes, so that the checkout stays as it is.
    """
    return {
        **env,
        "IPFS_DATASETS_AUTO_INSTALL": "false",
        "IPFS_DATASETS_PY_LAZY_INSTALL_PROVERS": "0",
        "PYTHONPYCACHEPREFIX": str(folder / "bytecode"),
    }


def measured(command: Sequence[str], env: Mapping[str, str], cwd: Path) -> dict[str, float]:
    """Run a process to its end.

    :returns: what it printed last, and how long it took altogether, as ``process``, in seconds.
    :raises ProcessFailed: when it ended with anything but 0.
    """
    begun = time.perf_counter()
    done = subprocess.run(
        command,
        env=dict(env),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    took = time.perf_counter() - begun
    if done.returncode:
        raise ProcessFailed(
            f"{os.path.basename(command[0])} ended with {done.returncode}:\n{done.stderr[-4000:]}"
        )
    answer: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return {**answer, "process": took}
