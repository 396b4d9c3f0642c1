"""Every error that mcpd raises, in one hierarchy.

Two questions sort them. *Whose failure is it?* A `ToolError` is the tool's answer and reaches the
client as a result with ``isError``; everything else is the host's and becomes a JSON-RPC error.
*Did the tool start?* A `CallRefused` says that it did not, so the call may be made again without
any risk of doing the work twice.

Each error names the thing it is about, the cause, and (in ``hint``) the next step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class McpdError(Exception):
    """Base of every error that mcpd raises on purpose.

    :param message: what failed and why, in one sentence; safe to show to a client.
    :param hint: what a person or a model can do about it; empty when there is nothing.
    :param data: JSON-compatible details for programs.
    """

    #: Stable, machine-readable name of the kind of failure.
    code: str = "error"

    def __init__(
        self, message: str, *, hint: str = "", data: Mapping[str, Any] | None = None
    ) -> None:
        # A tool may well write ToolError(error) with an exception as its message.
        self.message = str(message)
        self.hint = str(hint)
        super().__init__(self.message)
        self.data: dict[str, Any] = dict(data or {})

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message


# --- what a tool raises -------------------------------------------------------------------------


class ToolError(McpdError):
    """Raised by a tool to report that it failed; the client receives it as an ``isError`` result.

    :param message: what failed; it is shown to the client as it stands.
    :param hint: what the caller can do next.
    :param retryable: whether the same call may succeed later; a durable task that fails with
        ``retryable=False`` is not tried again.
    :param data: JSON-compatible details for programs.
    """

    code = "tool_failed"

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        retryable: bool = True,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message, hint=hint, data=data)
        self.retryable = retryable


class ResourceNotFound(ToolError):
    """Raised by the function of a resource template when nothing is at the URI that was read."""

    code = "resource_not_found"


class InvalidOutput(ToolError):
    """Raised when what a tool returned does not fit the output it declared, or cannot be sent."""

    code = "invalid_output"


class DeadlineExceeded(ToolError):
    """Raised when a tool was still running at its deadline; it was cancelled, and has cleaned up
    unless the log names it as one that does not stop."""

    code = "deadline_exceeded"


class Interrupted(ToolError):
    """Raised in place of a tool's answer when the server shut down while it ran; the tool was
    cancelled, and has cleaned up unless the log names it as one that does not stop."""

    code = "interrupted"


class ToolCrashed(ToolError):
    """Raised in place of an unexpected exception of a tool; the cause is logged, not sent."""

    code = "tool_crashed"


class WrongLibrary(ToolError):
    """Raised in place of what a tool raised because it used asyncio in trio or trio in asyncio."""

    code = "wrong_library"


class OutOfMemory(ToolError):
    """Raised in place of the answer of a tool whose process reached its memory limit."""

    code = "out_of_memory"


class OutOfCpuTime(ToolError):
    """Raised in place of the answer of a tool whose call has used up its CPU time."""

    code = "out_of_cpu_time"


class ProcessDied(ToolError):
    """Raised in place of the answer of a tool whose process ended before it answered."""

    code = "process_died"


# --- the call was refused: the tool did not start -------------------------------------------------


class CallRefused(McpdError):
    """Base of the errors that mean: the tool did not start."""

    code = "refused"


class UnknownTool(CallRefused):
    """Raised when no enabled plugin offers the tool that was called."""

    code = "unknown_tool"


class UnknownResource(CallRefused):
    """Raised when no enabled plugin offers a resource at the URI that was read."""

    code = "unknown_resource"


class UnknownPrompt(CallRefused):
    """Raised when no enabled plugin offers the prompt that was asked for."""

    code = "unknown_prompt"


class InvalidArguments(CallRefused):
    """Raised when the arguments do not fit the tool's input schema."""

    code = "invalid_arguments"


class NotAuthorised(CallRefused):
    """Raised when the principal may not call the tool."""

    code = "not_authorised"


class Busy(CallRefused):
    """Raised when the queue of waiting calls is full.

    :param message: which limit was reached.
    :param retry_after: seconds after which another try is sensible.
    """

    code = "busy"

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(
            message,
            hint=f"Try again in {retry_after:g} s.",
            data={"retry_after": retry_after},
        )
        self.retry_after = retry_after


class ToolUnavailable(CallRefused):
    """Raised when a known tool cannot be run: its code or its runtime cannot be loaded."""

    code = "tool_unavailable"


class ServiceUnavailable(CallRefused):
    """Raised when a service that a tool needs is not installed or could not be started."""

    code = "service_unavailable"


class NotStarted(CallRefused):
    """Given in place of the answer of a call in a batch that ended before the call's turn."""

    code = "not_started"


class HostClosed(CallRefused):
    """Raised when the host is shutting down and accepts no further calls."""

    code = "host_closed"


# --- the call ended without an answer -------------------------------------------------------------


class CallCancelled(McpdError):
    """Raised in a ``def`` tool by `Context.check_cancelled` when its call was cancelled, and in a
    caller whose bridged call was cancelled from elsewhere. Let it pass through."""

    code = "cancelled"


class ContentFailed(McpdError):
    """Raised when the function of a resource, a prompt or a completion failed.

    :ivar kind: the code of the failure, for example ``deadline_exceeded``.
    """

    code = "content_failed"

    def __init__(self, message: str, *, kind: str, data: Mapping[str, Any]) -> None:
        super().__init__(message, data=data)
        self.kind = kind


# --- plugins and configuration --------------------------------------------------------------------


class PluginError(McpdError):
    """Base of the errors about one plugin.

    :param plugin: the name of the plugin the error is about.
    """

    code = "plugin"

    def __init__(
        self,
        plugin: str,
        message: str,
        *,
        hint: str = "",
        data: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message, hint=hint, data=data)
        self.plugin = plugin


class ManifestError(PluginError):
    """Raised when a plugin's static manifest is missing, malformed or made for another mcpd."""

    code = "manifest"


class PluginLoadError(PluginError):
    """Raised when a plugin's code cannot be imported or one of its hooks raised."""

    code = "plugin_load"


class SelectionError(McpdError):
    """Raised when a plugin that was asked for by name cannot be enabled."""

    code = "selection"


class SettingsError(McpdError):
    """Raised when a setting is unknown or has a value that does not fit."""

    code = "settings"


class DependencyBroken(McpdError):
    """Raised when a library cannot be imported because an installed distribution is damaged."""

    code = "dependency_broken"


# --- the daemon -----------------------------------------------------------------------------------


class DaemonError(McpdError):
    """Base of the errors about the daemon and its data directory."""

    code = "daemon"


class DirectoryOwned(DaemonError):
    """Raised when another daemon owns the data directory."""

    code = "directory_owned"


class NoDaemon(DaemonError):
    """Raised when no daemon listens in the data directory."""

    code = "no_daemon"
