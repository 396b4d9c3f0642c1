"""Bare servers over Streamable HTTP, each as its documentation shows it.

``sdk`` is the SDK's low-level server behind its own application with that application's defaults,
``sdk-best`` the same with every setting of the SDK that makes it faster, ``mcpserver`` the SDK's
high-level server.
"""

from __future__ import annotations

import argparse
from typing import Annotated, Any

import mcp_types
import uvicorn
from mcp.server import MCPServer
from mcp.server.lowlevel import Server
from pydantic import Field

from harness.toolset import definition, echo


def low_level(count: int, **options: Any) -> Server[Any]:
    """Return a low-level server with a number of tools."""
    tools = [mcp_types.Tool.model_validate(definition(index)) for index in range(count)]
    listing = mcp_types.ListToolsResult(tools=tools)
    names = {tool.name for tool in tools}

    async def list_tools(ctx: Any, params: Any) -> mcp_types.ListToolsResult:
        return listing

    async def call_tool(ctx: Any, params: Any) -> mcp_types.CallToolResult:
        if params.name not in names:
            raise ValueError(f"no tool {params.name!r}")
        text = echo(**(params.arguments or {}))
        return mcp_types.CallToolResult(content=[mcp_types.TextContent(type="text", text=text)])

    return Server("bare", version="1", on_list_tools=list_tools, on_call_tool=call_tool, **options)


def high_level(count: int) -> MCPServer:
    """Return a high-level server with a number of tools."""
    server = MCPServer("bare")

    async def tool(
        message: Annotated[str, Field(description="Text to echo.")],
        repeat: Annotated[int, Field(description="How often.", ge=1, le=10)] = 1,
        upper: bool = False,
    ) -> str:
        return echo(message, repeat, upper)

    for index in range(count):
        shown = definition(index)
        server.add_tool(
            tool, name=shown["name"], title=shown["title"], description=shown["description"]
        )
    return server


def main(kind: str, count: int, port: int, *, plain: bool) -> None:
    """Serve a number of tools until a signal.

    :param plain: whether to do without uvloop and httptools, as after ``pip install mcp``.
    """
    app: Any
    if kind == "sdk":
        app = low_level(count).streamable_http_app()
    elif kind == "sdk-best":
        schemas = {definition(i)["name"]: definition(i)["inputSchema"] for i in range(count)}
        server = low_level(count, get_tool_input_schema=schemas.get)
        app = server.streamable_http_app(json_response=True)
    else:
        app = high_level(count).streamable_http_app()
    options: dict[str, Any] = {"loop": "asyncio", "http": "h11"} if plain else {}
    # As long as ours: a server that is busy for longer would close connections that are in use.
    options |= {"timeout_keep_alive": 75, "log_level": "warning", "access_log": False}
    uvicorn.run(app, host="127.0.0.1", port=port, **options)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=["sdk", "sdk-best", "mcpserver"])
    parser.add_argument("--tools", type=int, default=1)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--plain", action="store_true")
    options = parser.parse_args()
    main(options.kind, options.tools, options.port, plain=options.plain)
