"""mcpd: one MCP daemon that offers exactly the tools you installed as plugins.

This package is what plugin authors import from; everything here is public and everything else is
not. Names are looked up when they are first used, so ``import mcpd_core`` costs next to nothing.
"""

# Type checkers take this name for true. Importing it from `typing` would cost more than everything
# else here, at each start of `mcpd attach`.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from ._version import __version__ as __version__
    from .context import Context as Context
    from .errors import Busy as Busy
    from .errors import CallCancelled as CallCancelled
    from .errors import CallRefused as CallRefused
    from .errors import DaemonError as DaemonError
    from .errors import DeadlineExceeded as DeadlineExceeded
    from .errors import DependencyBroken as DependencyBroken
    from .errors import DirectoryOwned as DirectoryOwned
    from .errors import HostClosed as HostClosed
    from .errors import Interrupted as Interrupted
    from .errors import InvalidArguments as InvalidArguments
    from .errors import InvalidOutput as InvalidOutput
    from .errors import ManifestError as ManifestError
    from .errors import McpdError as McpdError
    from .errors import NoDaemon as NoDaemon
    from .errors import NotAuthorised as NotAuthorised
    from .errors import PluginError as PluginError
    from .errors import PluginLoadError as PluginLoadError
    from .errors import SelectionError as SelectionError
    from .errors import ServiceUnavailable as ServiceUnavailable
    from .errors import SettingsError as SettingsError
    from .errors import ToolCrashed as ToolCrashed
    from .errors import ToolError as ToolError
    from .errors import ToolUnavailable as ToolUnavailable
    from .errors import UnknownTool as UnknownTool
    from .hookspecs import CallObserver as CallObserver
    from .hookspecs import Outcome as Outcome
    from .hookspecs import hookimpl as hookimpl
    from .marks import tool as tool
    from .services import Health as Health
    from .services import Registrar as Registrar
    from .services import Service as Service
    from .services import ServiceHost as ServiceHost
    from .spec import Annotations as Annotations
    from .spec import Call as Call
    from .spec import CallResult as CallResult
    from .spec import Principal as Principal
    from .spec import Progress as Progress
    from .spec import ToolSpec as ToolSpec

# Public name -> the module that defines it.
_HOMES = {
    "__version__": "_version",
    "Annotations": "spec",
    "Busy": "errors",
    "Call": "spec",
    "CallObserver": "hookspecs",
    "CallCancelled": "errors",
    "CallRefused": "errors",
    "CallResult": "spec",
    "Context": "context",
    "DaemonError": "errors",
    "DeadlineExceeded": "errors",
    "DependencyBroken": "errors",
    "DirectoryOwned": "errors",
    "Health": "services",
    "HostClosed": "errors",
    "Interrupted": "errors",
    "InvalidArguments": "errors",
    "InvalidOutput": "errors",
    "ManifestError": "errors",
    "McpdError": "errors",
    "NoDaemon": "errors",
    "NotAuthorised": "errors",
    "Outcome": "hookspecs",
    "PluginError": "errors",
    "PluginLoadError": "errors",
    "Principal": "spec",
    "Progress": "spec",
    "Registrar": "services",
    "SelectionError": "errors",
    "Service": "services",
    "ServiceHost": "services",
    "ServiceUnavailable": "errors",
    "SettingsError": "errors",
    "ToolCrashed": "errors",
    "ToolError": "errors",
    "ToolSpec": "spec",
    "ToolUnavailable": "errors",
    "UnknownTool": "errors",
    "hookimpl": "hookspecs",
    "tool": "marks",
}

__all__ = [
    "Annotations",
    "Busy",
    "Call",
    "CallCancelled",
    "CallObserver",
    "CallRefused",
    "CallResult",
    "Context",
    "DaemonError",
    "DeadlineExceeded",
    "DependencyBroken",
    "DirectoryOwned",
    "Health",
    "HostClosed",
    "Interrupted",
    "InvalidArguments",
    "InvalidOutput",
    "ManifestError",
    "McpdError",
    "NoDaemon",
    "NotAuthorised",
    "Outcome",
    "PluginError",
    "PluginLoadError",
    "Principal",
    "Progress",
    "Registrar",
    "SelectionError",
    "Service",
    "ServiceHost",
    "ServiceUnavailable",
    "SettingsError",
    "ToolCrashed",
    "ToolError",
    "ToolSpec",
    "ToolUnavailable",
    "UnknownTool",
    "__version__",
    "hookimpl",
    "tool",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
