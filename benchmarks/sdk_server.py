"""A bare server: the SDK's low-level ``Server`` over the SDK's own stdio transport.

Written as the SDK's documentation shows it; what everything else is compared with.
"""

from __future__ import annotations

import argparse
from typing import Any

import anyio
import mcp_types
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

from harness.toolset import definition, echo


async def main(count: int) -> None:
    """Serve a number of tools until the client leaves."""
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

    server = Server("bare", version="1", on_list_tools=list_tools, on_call_tool=call_tool)
    async with stdio_server() as (reading, writing):
        await server.run(reading, writing, server.create_initialization_options())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tools", type=int, default=1)
    anyio.run(main, parser.parse_args().tools)
