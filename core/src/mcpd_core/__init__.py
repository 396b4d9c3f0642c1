"""mcpd: one MCP daemon that offers exactly the tools you installed as plugins.

This package is what plugin authors import from; everything here is public and everything else is
not. Names are looked up when they are first used, so ``import mcpd_core`` costs next to nothing.
"""

# Type checkers take this name for true. Importing it from `typing` would cost more than everything
# else here, at each start of `mcpd attach`.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from ._version import __version__ as __version__
    from .blocks import Audio as Audio
    from .blocks import EmbeddedResource as EmbeddedResource
    from .blocks import Image as Image
    from .blocks import ResourceLink as ResourceLink
    from .content.marks import PromptMessage as PromptMessage
    from .content.marks import prompt as prompt
    from .content.marks import resource as resource
    from .context import Context as Context
    from .errors import Busy as Busy
    from .errors import CallCancelled as CallCancelled
    from .errors import CallRefused as CallRefused
    from .errors import ContentFailed as ContentFailed
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
    from .errors import NotStarted as NotStarted
    from .errors import OutOfCpuTime as OutOfCpuTime
    from .errors import OutOfMemory as OutOfMemory
    from .errors import PluginError as PluginError
    from .errors import PluginLoadError as PluginLoadError
    from .errors import ProcessDied as ProcessDied
    from .errors import ResourceNotFound as ResourceNotFound
    from .errors import SelectionError as SelectionError
    from .errors import ServiceUnavailable as ServiceUnavailable
    from .errors import SettingsError as SettingsError
    from .errors import ToolCrashed as ToolCrashed
    from .errors import ToolError as ToolError
    from .errors import ToolUnavailable as ToolUnavailable
    from .errors import UnknownPrompt as UnknownPrompt
    from .errors import UnknownResource as UnknownResource
    from .errors import UnknownTool as UnknownTool
    from .errors import WrongLibrary as WrongLibrary
    from .file_systems import FileSystem as FileSystem
    from .file_systems import file_system_of as file_system_of
    from .findings import Finding as Finding
    from .hookspecs import Ask as Ask
    from .hookspecs import CallObserver as CallObserver
    from .hookspecs import HttpRoute as HttpRoute
    from .hookspecs import Outcome as Outcome
    from .hookspecs import ReadinessCheck as ReadinessCheck
    from .hookspecs import ReadSection as ReadSection
    from .hookspecs import RpcHandler as RpcHandler
    from .hookspecs import Transport as Transport
    from .hookspecs import hookimpl as hookimpl
    from .marks import tool as tool
    from .services import Health as Health
    from .services import Registrar as Registrar
    from .services import Service as Service
    from .services import ServiceFinder as ServiceFinder
    from .services import ServiceHost as ServiceHost
    from .spec import Annotations as Annotations
    from .spec import Answer as Answer
    from .spec import Call as Call
    from .spec import CallResult as CallResult
    from .spec import LoadedTool as LoadedTool
    from .spec import Offer as Offer
    from .spec import Principal as Principal
    from .spec import Progress as Progress
    from .spec import PromptArgument as PromptArgument
    from .spec import PromptSpec as PromptSpec
    from .spec import ResourceSpec as ResourceSpec
    from .spec import ToolCall as ToolCall
    from .spec import ToolSpec as ToolSpec

# Public name -> the module that defines it.
_HOMES = {
    "__version__": "_version",
    "Annotations": "spec",
    "Answer": "spec",
    "Ask": "hookspecs",
    "Audio": "blocks",
    "Busy": "errors",
    "Call": "spec",
    "CallObserver": "hookspecs",
    "CallCancelled": "errors",
    "CallRefused": "errors",
    "CallResult": "spec",
    "ContentFailed": "errors",
    "Context": "context",
    "DaemonError": "errors",
    "DeadlineExceeded": "errors",
    "DependencyBroken": "errors",
    "DirectoryOwned": "errors",
    "EmbeddedResource": "blocks",
    "FileSystem": "file_systems",
    "Finding": "findings",
    "Health": "services",
    "HostClosed": "errors",
    "HttpRoute": "hookspecs",
    "Image": "blocks",
    "Interrupted": "errors",
    "LoadedTool": "spec",
    "InvalidArguments": "errors",
    "InvalidOutput": "errors",
    "ManifestError": "errors",
    "McpdError": "errors",
    "NoDaemon": "errors",
    "NotAuthorised": "errors",
    "NotStarted": "errors",
    "OutOfCpuTime": "errors",
    "OutOfMemory": "errors",
    "Offer": "spec",
    "Outcome": "hookspecs",
    "PluginError": "errors",
    "PluginLoadError": "errors",
    "Principal": "spec",
    "ProcessDied": "errors",
    "Progress": "spec",
    "PromptArgument": "spec",
    "PromptMessage": "content.marks",
    "PromptSpec": "spec",
    "ReadSection": "hookspecs",
    "ReadinessCheck": "hookspecs",
    "Registrar": "services",
    "RpcHandler": "hookspecs",
    "ResourceLink": "blocks",
    "ResourceNotFound": "errors",
    "ResourceSpec": "spec",
    "SelectionError": "errors",
    "Service": "services",
    "ServiceFinder": "services",
    "ServiceHost": "services",
    "ServiceUnavailable": "errors",
    "SettingsError": "errors",
    "ToolCall": "spec",
    "ToolCrashed": "errors",
    "ToolError": "errors",
    "ToolSpec": "spec",
    "ToolUnavailable": "errors",
    "Transport": "hookspecs",
    "UnknownPrompt": "errors",
    "UnknownResource": "errors",
    "UnknownTool": "errors",
    "WrongLibrary": "errors",
    "file_system_of": "file_systems",
    "hookimpl": "hookspecs",
    "prompt": "content.marks",
    "resource": "content.marks",
    "tool": "marks",
}

__all__ = [
    "Annotations",
    "Answer",
    "Ask",
    "Audio",
    "Busy",
    "Call",
    "CallCancelled",
    "CallObserver",
    "CallRefused",
    "CallResult",
    "ContentFailed",
    "Context",
    "DaemonError",
    "DeadlineExceeded",
    "DependencyBroken",
    "DirectoryOwned",
    "EmbeddedResource",
    "FileSystem",
    "Finding",
    "Health",
    "HostClosed",
    "HttpRoute",
    "Image",
    "Interrupted",
    "InvalidArguments",
    "InvalidOutput",
    "LoadedTool",
    "ManifestError",
    "McpdError",
    "NoDaemon",
    "NotAuthorised",
    "NotStarted",
    "Offer",
    "OutOfCpuTime",
    "OutOfMemory",
    "Outcome",
    "PluginError",
    "PluginLoadError",
    "Principal",
    "ProcessDied",
    "Progress",
    "PromptArgument",
    "PromptMessage",
    "PromptSpec",
    "ReadSection",
    "ReadinessCheck",
    "Registrar",
    "ResourceLink",
    "ResourceNotFound",
    "ResourceSpec",
    "RpcHandler",
    "SelectionError",
    "Service",
    "ServiceFinder",
    "ServiceHost",
    "ServiceUnavailable",
    "SettingsError",
    "ToolCall",
    "ToolCrashed",
    "ToolError",
    "ToolSpec",
    "ToolUnavailable",
    "Transport",
    "UnknownPrompt",
    "UnknownResource",
    "UnknownTool",
    "WrongLibrary",
    "__version__",
    "file_system_of",
    "hookimpl",
    "prompt",
    "resource",
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
