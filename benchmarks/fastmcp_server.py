"""The same tools with FastMCP, written as its documentation shows it."""

from __future__ import annotations

import argparse
from typing import Annotated

from fastmcp import FastMCP  # type: ignore[import-not-found]  # in an environment of its own
from pydantic import Field

from harness.toolset import definition, echo


def main(count: int) -> None:
    """Serve a number of tools until the client leaves."""
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
    server.run(show_banner=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tools", type=int, default=1)
    main(parser.parse_args().tools)
