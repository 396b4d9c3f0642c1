"""What the conformance suite of the Model Context Protocol expects a server to offer.

Names, texts and URIs are the suite's own. Only what plugin authors have is used: `mcpd_core`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from typing import Annotated

from pydantic import Field

from mcpd_core import (
    Audio,
    Context,
    EmbeddedResource,
    Image,
    Registrar,
    ToolError,
    hookimpl,
    prompt,
    resource,
    tool,
)

PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
)
SOUND = base64.b64decode("UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA=")


@hookimpl
def mcpd_register_tools(registrar: Registrar) -> None:
    registrar.add_module(__name__)


@tool(read_only=True)
async def test_simple_text() -> str:
    """Answer with text."""
    return "This is a simple text response for testing."


@tool(read_only=True)
async def test_image_content() -> Image:
    """Answer with a picture."""
    return Image(PICTURE, "image/png")


@tool(read_only=True)
async def test_audio_content() -> Audio:
    """Answer with a recording."""
    return Audio(SOUND, "audio/wav")


@tool(read_only=True)
async def test_embedded_resource() -> EmbeddedResource:
    """Answer with a resource."""
    return EmbeddedResource("test://embedded-resource", "This is an embedded resource content.")


@tool(read_only=True)
def test_multiple_content_types() -> list[str | Image | EmbeddedResource]:
    """Answer with text, a picture and a resource."""
    data = json.dumps({"test": "data", "value": 123})
    return [
        "Multiple content types test:",
        Image(PICTURE, "image/png"),
        EmbeddedResource("test://mixed-content-resource", data, "application/json"),
    ]


@tool(read_only=True)
async def test_tool_with_logging(ctx: Context) -> str:
    """Write three lines to the log."""
    for line in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        ctx.log("info", line)
    return "Tool with logging executed successfully"


@tool(read_only=True)
async def test_logging_tool(ctx: Context) -> str:
    """Write one line to the log."""
    ctx.log("info", "A line for those who asked for it")
    return "Logged"


@tool(read_only=True)
async def test_tool_with_progress(ctx: Context) -> str:
    """Report progress three times."""
    for done in (0, 50, 100):
        ctx.progress(done, 100, f"Completed step {done} of 100")
        await asyncio.sleep(0.05)
    return "Done"


@tool(read_only=True)
async def test_error_handling() -> str:
    """Fail."""
    raise ToolError("This tool intentionally returns an error for testing")


@tool(read_only=True)
async def test_headers(
    region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})],
) -> str:
    """Answer the argument that clients send as a header, too."""
    return region


@tool()
async def test_trigger_tool_change() -> str:
    """Have the list of tools change, as its owner would."""
    for change in ("disable", "enable"):
        command = (sys.executable, "-m", "mcpd_core", "plugins", change, "spare")
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
        if process.returncode:
            raise ToolError(said.decode())
    return "The plugin `spare` was disabled and enabled."


@tool()
async def test_trigger_prompt_change() -> str:
    """Have the list of prompts change; the plugin `spare` has one as well."""
    return await test_trigger_tool_change()


@resource("test://static-text", mime_type="text/plain")
def static_text() -> str:
    """A text."""
    return "This is the content of the static text resource."


@resource("test://static-binary", mime_type="image/png")
def static_binary() -> bytes:
    """A picture."""
    return PICTURE


@resource("test://template/{id}/data", mime_type="application/json")
def template(id: str) -> dict[str, str | bool]:
    """A resource for each id."""
    return {"id": id, "templateTest": True, "data": f"Data for ID: {id}"}


@resource("test://watched-resource", mime_type="text/plain")
def watched() -> str:
    """A resource that clients would like to watch."""
    return "Watched resource content"


@prompt
def test_simple_prompt() -> str:
    """A prompt without arguments."""
    return "This is a simple prompt for testing."


def words(prefix: str) -> list[str]:
    return [word for word in ("test", "testing", "tested") if word.startswith(prefix)]


@prompt(complete={"arg1": words})
def test_prompt_with_arguments(
    arg1: Annotated[str, Field(description="First test argument")],
    arg2: Annotated[str, Field(description="Second test argument")],
) -> str:
    """A prompt with arguments."""
    return f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"


@prompt
def test_prompt_with_embedded_resource(
    resourceUri: Annotated[str, Field(description="The URI to embed")],
) -> list[tuple[str, EmbeddedResource | str]]:
    """A prompt that has a resource in it."""
    return [
        ("user", EmbeddedResource(resourceUri, "Embedded resource content for testing.")),
        ("user", "Please process the embedded resource above."),
    ]


@prompt
def test_prompt_with_image() -> list[tuple[str, Image | str]]:
    """A prompt that has a picture in it."""
    return [("user", Image(PICTURE, "image/png")), ("user", "Please analyze the image above.")]
