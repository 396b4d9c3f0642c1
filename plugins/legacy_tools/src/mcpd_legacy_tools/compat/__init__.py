"""The public classes of the old server, for code that was written against them.

Replace ``ipfs_datasets_py.mcp_server`` in its imports by this package; the names are the same, and
are all here whichever module they were in::

    from mcpd_legacy_tools.compat import tool_metadata, create_router

The tools of a tree need none of it: they import from the package that they are in.

Names are looked up when they are first used, as in `mcpd_core`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .adapter import HIERARCHICAL_META_TOOL_NAMES as HIERARCHICAL_META_TOOL_NAMES
    from .adapter import P2PMCPRegistryAdapter as P2PMCPRegistryAdapter
    from .answers import mcp_error_response as mcp_error_response
    from .answers import mcp_text_response as mcp_text_response
    from .answers import parse_json_object as parse_json_object
    from .answers import return_text_content as return_text_content
    from .answers import return_tool_call_results as return_tool_call_results
    from .category import ToolCategory as ToolCategory
    from .errors import ConfigurationError as ConfigurationError
    from .errors import HealthCheckError as HealthCheckError
    from .errors import MCPServerError as MCPServerError
    from .errors import MetricsCollectionError as MetricsCollectionError
    from .errors import MonitoringError as MonitoringError
    from .errors import P2PAuthenticationError as P2PAuthenticationError
    from .errors import P2PConnectionError as P2PConnectionError
    from .errors import P2PServiceError as P2PServiceError
    from .errors import RuntimeExecutionError as RuntimeExecutionError
    from .errors import RuntimeNotFoundError as RuntimeNotFoundError
    from .errors import RuntimeRoutingError as RuntimeRoutingError
    from .errors import ServerShutdownError as ServerShutdownError
    from .errors import ServerStartupError as ServerStartupError
    from .errors import ToolError as ToolError
    from .errors import ToolExecutionError as ToolExecutionError
    from .errors import ToolNotFoundError as ToolNotFoundError
    from .errors import ToolRegistrationError as ToolRegistrationError
    from .errors import ValidationError as ValidationError
    from .executor import ExecutionResult as ExecutionResult
    from .executor import ExecutorMetrics as ExecutorMetrics
    from .executor import StructuredConcurrencyExecutor as StructuredConcurrencyExecutor
    from .executor import execute_batch_tool as execute_batch_tool
    from .executor import execute_parallel_tools as execute_parallel_tools
    from .manager import HierarchicalToolManager as HierarchicalToolManager
    from .manager import get_tool_manager as get_tool_manager
    from .manager import tools_dispatch as tools_dispatch
    from .manager import tools_get_schema as tools_get_schema
    from .manager import tools_list_categories as tools_list_categories
    from .manager import tools_list_tools as tools_list_tools
    from .metadata import RUNTIME_AUTO as RUNTIME_AUTO
    from .metadata import RUNTIME_FASTAPI as RUNTIME_FASTAPI
    from .metadata import RUNTIME_TRIO as RUNTIME_TRIO
    from .metadata import ToolMetadata as ToolMetadata
    from .metadata import ToolMetadataRegistry as ToolMetadataRegistry
    from .metadata import get_registry as get_registry
    from .metadata import get_tool_metadata as get_tool_metadata
    from .metadata import tool_metadata as tool_metadata
    from .router import RUNTIME_UNKNOWN as RUNTIME_UNKNOWN
    from .router import RuntimeMetrics as RuntimeMetrics
    from .router import RuntimeRouter as RuntimeRouter
    from .router import create_router as create_router
    from .trio_thread import run_in_trio as run_in_trio

_HOMES = {
    "adapter": "HIERARCHICAL_META_TOOL_NAMES P2PMCPRegistryAdapter",
    "answers": (
        "mcp_error_response mcp_text_response parse_json_object return_text_content "
        "return_tool_call_results"
    ),
    "category": "ToolCategory",
    "errors": (
        "ConfigurationError HealthCheckError MCPServerError MetricsCollectionError "
        "MonitoringError P2PAuthenticationError P2PConnectionError P2PServiceError "
        "RuntimeExecutionError RuntimeNotFoundError RuntimeRoutingError ServerShutdownError "
        "ServerStartupError ToolError ToolExecutionError ToolNotFoundError "
        "ToolRegistrationError ValidationError"
    ),
    "executor": (
        "ExecutionResult ExecutorMetrics StructuredConcurrencyExecutor execute_batch_tool "
        "execute_parallel_tools"
    ),
    "manager": (
        "HierarchicalToolManager get_tool_manager tools_dispatch tools_get_schema "
        "tools_list_categories tools_list_tools"
    ),
    "metadata": (
        "RUNTIME_AUTO RUNTIME_FASTAPI RUNTIME_TRIO ToolMetadata ToolMetadataRegistry "
        "get_registry get_tool_metadata tool_metadata"
    ),
    "router": "RUNTIME_UNKNOWN RuntimeMetrics RuntimeRouter create_router",
    "trio_thread": "run_in_trio",
}
_HOME = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value
