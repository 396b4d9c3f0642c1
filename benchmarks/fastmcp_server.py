"""The same tools with FastMCP, written as its documentation shows it."""

from __future__ import annotations

import argparse
from typing import Annotated

from fastmcp import FastMCP  # type: ignore[import-not-found]  # in an environment of its own
from pydantic import Field

from harness.toolset import definition, echo


def main(count: int, port: int | None) -> None:
    """Serve a number of tools, over HTTP if a port is given, until the client leaves."""
    server = FastMCP("fastmcp")

    async def tool(
        message: Annotated[str, Field(description="Text to echo.")],
        repeat: Annotated[int, Field(description="How often.", ge=1, le=10)] = 1,
        upper: bool = False,
    ) -> str:
        return echo(message, repeat, upper)

    for index in range(count):
        shown = definition(index)
        server.tool(
            tool,
            name=shown["name"],
            title=shown["title"],
            description=shown["description"],
            annotations=shown["annotations"],
        )
    if port is None:
        server.run(show_banner=False)
    else:
        # As for the others: a server that is busy would close connections that are in use.
        patient = {"timeout_keep_alive": 75, "log_level": "warning", "access_log": False}
        server.run("http", host="127.0.0.1", port=port, show_banner=False, uvicorn_config=patient)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tools", type=int, default=1)
    parser.add_argument("--port", type=int)
    options = parser.parse_args()
    main(options.tools, options.port)
