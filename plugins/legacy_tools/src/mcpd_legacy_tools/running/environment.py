"""The environment that the code of a tree runs in.

Some trees install what they miss when they are imported or first used: Python packages, theorem
provers, system packages. Each of these habits has a switch, a variable of the environment, and it
is on unless somebody turns it off. The names are those that `ipfs_datasets_py` reads.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping

#: What turns each installer off. An empty value would not do: some of the code that reads these
#: variables takes it for an unset one.
INSTALLERS_OFF: Mapping[str, str] = {
    # Python packages: while the package is imported, and when something is missing.
    "IPFS_DATASETS_AUTO_INSTALL": "false",
    "IPFS_AUTO_INSTALL": "false",
    "IPFS_DATASETS_INSTALL_ON_IMPORT": "false",
    "IPFS_DATASETS_ENSURE_INSTALLER": "false",
    "IPFS_DATASETS_INSTALL_SYMAI_ROUTER": "false",
    # Its sister package, and the daemons that this one downloads.
    "IPFS_DATASETS_AUTO_INSTALL_IPFS_KIT": "false",
    "IPFS_KIT_AUTO_INSTALL_DEPS": "0",
    "IPFS_KIT_AUTO_INSTALL_LOTUS_DEPS": "0",
    # Packages of the system, by apt, brew or the like.
    "IPFS_INSTALL_SYSTEM_DEPS": "false",
    # Theorem provers and solvers.
    "IPFS_DATASETS_PY_LAZY_INSTALL_PROVERS": "0",
    "IPFS_DATASETS_PY_AUTO_INSTALL_PROVERS": "0",
    "IPFS_DATASETS_PY_AUTO_INSTALL_ALL_PROVERS": "0",
    "IPFS_DATASETS_PY_AUTO_INSTALL_PROVER_PORTFOLIOS": "0",
    "IPFS_DATASETS_PY_MCP_ALLOW_PROVIDER_INSTALLS": "0",
}


def turn_installers_off(environ: MutableMapping[str, str] | None = None) -> tuple[str, ...]:
    """Turn off every installer about which the operator has said nothing.

    :param environ: the environment, by default that of this process and of those it starts.
    :returns: the variables that were set. One that is set already is the operator's decision.
    """
    environ = os.environ if environ is None else environ
    silent = tuple(name for name in INSTALLERS_OFF if name not in environ)
    environ.update({name: INSTALLERS_OFF[name] for name in silent})
    return silent
