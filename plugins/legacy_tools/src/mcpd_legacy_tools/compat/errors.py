"""The exceptions of the old server."""

from __future__ import annotations

from typing import Any


class MCPServerError(Exception):
    """Base of all of them.

    :ivar details: what else is known, for programs; it follows the message in brackets.
    """

    def __init__(self, message: str, details: dict[str, Any] | None = None) -> None:
        self.message = message
        self.details = details or {}
        super().__init__(message)

    def __str__(self) -> str:
        if not self.details:
            return self.message
        return f"{self.message} ({', '.join(f'{k}={v}' for k, v in self.details.items())})"


class ToolError(MCPServerError):
    """Something about a tool."""


class ToolNotFoundError(ToolError):
    """There is no tool of that name."""

    def __init__(self, tool_name: str, category: str | None = None) -> None:
        self.tool_name = tool_name
        self.category = category
        full = f"{category}.{tool_name}" if category else tool_name
        details = {"tool_name": tool_name, "category": category}
        super().__init__(f"Tool not found: {full}", details)


class ToolExecutionError(ToolError):
    """A tool raised; what it raised is the cause."""

    def __init__(self, tool_name: str, original_error: Exception) -> None:
        self.tool_name = tool_name
        self.original_error = original_error
        super().__init__(
            f"Tool execution failed: {tool_name} - {original_error}",
            {"tool_name": tool_name, "error_type": type(original_error).__name__},
        )
        self.__cause__ = original_error


class ToolRegistrationError(ToolError):
    """A tool could not be registered."""


class ValidationError(MCPServerError):
    """A value does not fit."""

    def __init__(self, field: str, message: str) -> None:
        self.field = field
        super().__init__(f"Validation error for '{field}': {message}", {"field": field})


class RuntimeRoutingError(MCPServerError):
    """A call could not be brought to its runtime."""


class RuntimeNotFoundError(RuntimeRoutingError):
    """The runtime is not installed."""

    def __init__(self, runtime: str) -> None:
        self.runtime = runtime
        super().__init__(f"Runtime not found: {runtime}", {"runtime": runtime})


class RuntimeExecutionError(RuntimeRoutingError):
    """Code failed in its runtime."""


class P2PServiceError(MCPServerError):
    """Something about the service for peers."""


class P2PConnectionError(P2PServiceError):
    """A peer could not be reached."""


class P2PAuthenticationError(P2PServiceError):
    """A peer was not believed."""


class ConfigurationError(MCPServerError):
    """A setting is missing or cannot be."""


class ServerStartupError(MCPServerError):
    """The server did not start."""


class ServerShutdownError(MCPServerError):
    """The server did not end as it should."""


class HealthCheckError(MCPServerError):
    """A check of health failed."""

    def __init__(self, check_name: str, message: str) -> None:
        self.check_name = check_name
        super().__init__(
            f"Health check failed: {check_name} - {message}", {"check_name": check_name}
        )


class MonitoringError(MCPServerError):
    """Something about the monitoring."""


class MetricsCollectionError(MonitoringError):
    """Metrics could not be collected."""
