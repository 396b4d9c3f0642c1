"""The tools of the plugin ``hello``."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Annotated

import anyio
from pydantic import Field
from typing_extensions import TypedDict

from mcpd_core import Context, ToolError, tool


class Digest(TypedDict):
    """What `hello_digest` answers; it becomes the tool's output schema."""

    path: str
    sha256: str
    bytes: int


@tool(category="hello", read_only=True, idempotent=True, open_world=False)
async def hello_greet(
    name: Annotated[str, Field(description="Whom to greet.", min_length=1)],
    greeting: Annotated[str, Field(description="The word to greet with.")] = "Hello",
) -> str:
    """Greet somebody."""
    # Code of an asyncio plugin may use all of asyncio.
    await asyncio.sleep(0)
    return f"{greeting}, {name}!"


@tool(category="hello", read_only=True, idempotent=True, open_world=False)
def hello_digest(
    path: Annotated[Path, Field(description="A file on the machine that mcpd runs on.")],
    ctx: Context,
) -> Digest:
    """Compute the SHA-256 digest of a file."""
    # A `def` tool may block: it runs in a thread of its own. Nothing can interrupt it, so it asks
    # now and then whether anybody still waits.
    digest = hashlib.sha256()
    size = 0
    try:
        total = path.stat().st_size
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
                size += len(block)
                ctx.progress(size, total)
                ctx.check_cancelled()
    except OSError as error:
        raise ToolError(
            f"{path} cannot be read: {error.strerror}.",
            hint="Name a file that exists and that the server's user may read.",
            retryable=False,
        ) from error
    return {"path": str(path), "sha256": digest.hexdigest(), "bytes": size}


@tool(category="hello", runtime="any", read_only=True, idempotent=True, open_world=False)
async def hello_wait(
    seconds: Annotated[float, Field(description="How long to wait.", ge=0, le=3600)],
    ctx: Context,
) -> str:
    """Wait, reporting progress about every tenth of the time."""
    # Neutral code runs in its caller's runtime, whichever that is.
    for step in range(10):
        ctx.progress(step, 10)
        await anyio.sleep(seconds / 10)
    return f"waited {seconds:g} s"
