"""A client of the SDK 1.30, run by the interpreter of an environment that has it.

    python old_sdk_client.py COMMAND ARGUMENT...

Starts the command as a server on stdio and introduces itself; then reads requests from stdin and
writes answers to stdout, one JSON value a line: first who met whom; for ``null`` the names of the
tools; for ``[tool, arguments]`` what the tool answered.
"""

# mypy: disable-error-code="attr-defined"
# The names are those of the SDK that runs this, not of the one that type checkers see.

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
from typing import Any

import anyio
import anyio.to_thread
import mcp
from mcp.client.stdio import stdio_client


def say(value: Any) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


async def main(command: list[str]) -> None:
    server = mcp.StdioServerParameters(command=command[0], args=command[1:], env=dict(os.environ))
    async with stdio_client(server) as (reading, writing):
        async with mcp.ClientSession(reading, writing) as session:
            met = await session.initialize()
            say(
                {
                    "sdk": importlib.metadata.version("mcp"),
                    "protocol": met.protocolVersion,
                    "server": met.serverInfo.name,
                }
            )
            while line := await anyio.to_thread.run_sync(sys.stdin.readline):
                request = json.loads(line)
                if request is None:
                    listed = await session.list_tools()
                    say([tool.name for tool in listed.tools])
                    continue
                result = await session.call_tool(request[0], request[1])
                say(
                    {
                        "error": result.isError,
                        "text": "".join(getattr(part, "text", "") for part in result.content),
                        "structured": result.structuredContent,
                    }
                )


if __name__ == "__main__":
    anyio.run(main, sys.argv[1:])
