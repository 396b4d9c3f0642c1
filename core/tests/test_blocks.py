"""Pictures, sound and resources in the answers of tools and in prompts."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from mcp_types import (
    AudioContent,
    BlobResourceContents,
    ImageContent,
    TextContent,
    TextResourceContents,
)
from mcp_types import (
    EmbeddedResource as SdkResource,
)
from mcp_types import (
    ResourceLink as SdkLink,
)

from mcpd_core import Audio, EmbeddedResource, Image, ResourceLink
from mcpd_core.blocks import as_block, in_words, is_made_of_blocks, promises_blocks
from mcpd_core.cli import main
from mcpd_core.testing import Connect, MakeHost, WritePlugin

pytestmark = pytest.mark.anyio

#: All bytes there are, so that any decoding of them would show.
DATA = bytes(range(256))
TOOLS = """
    from __future__ import annotations
    import os
    from typing import Any
    from mcpd_core import (
        Audio, CallResult, Context, EmbeddedResource, Image, ResourceLink, prompt, tool
    )
    DATA = bytes(range(256))

    @tool
    async def picture() -> Image:
        return Image(DATA, "image/webp")

    @tool
    def everything() -> list[str | Image | Audio | EmbeddedResource | ResourceLink]:
        return [
            "all \\x1b[31mof it",
            Image(DATA),
            Audio(DATA),
            EmbeddedResource("x://text", "a \\x1b[31mnote"),
            EmbeddedResource("x://data", DATA, "application/zip"),
            ResourceLink("x://link", "link", description="Some\\x07where."),
        ]

    @tool(placement="process")
    def apart() -> Any:
        return ["made by", Image(DATA), str(os.getpid())]

    @tool
    async def nothing() -> Image | None:
        return None

    @tool
    async def texts() -> list[str | Image]:
        return ["a", "b"]

    @tool
    async def own(structured: bool) -> CallResult:
        return CallResult("", {"n": 1} if structured else None, content=("Look:", Image(DATA)))

    @tool
    async def forwarded(ctx: Context) -> CallResult:
        return await ctx.call("own", {"structured": False})

    @tool
    async def wrong(which: int) -> Any:
        return [CallResult("", content=({"type": "video"},)), [Image(DATA), 1]][which]

    @tool
    async def large() -> Image:
        return Image(bytes(900))

    @prompt
    def look() -> list[tuple[str, Any]]:
        return [("user", Image(DATA)), ("user", "What is it?")]
"""
ENCODED = base64.b64encode(DATA).decode()
PICTURE = {"type": "image", "data": ENCODED, "mimeType": "image/png"}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.parametrize("mode", ["legacy", "auto"], ids=["handshake", "2026-07-28"])
async def test_clients_get_what_tools_and_prompts_show(
    mcpd_client: Connect, tmp_plugin: WritePlugin, mode: Any
) -> None:
    async with mcpd_client(tmp_plugin(TOOLS), mode=mode) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert tools["picture"].output_schema is None
        assert tools["everything"].output_schema is None
        (picture,) = (await client.call_tool("picture")).content
        assert isinstance(picture, ImageContent)
        assert (base64.b64decode(picture.data), picture.mime_type) == (DATA, "image/webp")

        answer = await client.call_tool("everything")
        assert answer.structured_content is None
        text, image, audio, note, archive, link = answer.content
        assert isinstance(text, TextContent)
        assert text.text == "all [31mof it"
        assert isinstance(image, ImageContent)
        assert isinstance(audio, AudioContent)
        assert audio.mime_type == "audio/wav"
        assert isinstance(note, SdkResource)
        assert isinstance(note.resource, TextResourceContents)
        assert (note.resource.text, note.resource.mime_type) == ("a [31mnote", "text/plain")
        assert isinstance(archive, SdkResource)
        assert isinstance(archive.resource, BlobResourceContents)
        assert base64.b64decode(archive.resource.blob) == DATA
        assert isinstance(link, SdkLink)
        assert (str(link.uri), link.description) == ("x://link", "Somewhere.")

        messages = (await client.get_prompt("look")).messages
        assert isinstance(messages[0].content, ImageContent)
        assert isinstance(messages[1].content, TextContent)


async def test_an_answer_is_told_in_words_as_well(
    mcpd_host: MakeHost, tmp_plugin: WritePlugin
) -> None:
    async with mcpd_host(tmp_plugin(TOOLS)) as host:
        assert (await host.call("picture")).text == "[image, image/webp, 256 bytes]"
        assert (await host.call("everything")).text.splitlines() == [
            "all [31mof it",
            "[image, image/png, 256 bytes]",
            "[audio, audio/wav, 256 bytes]",
            "a [31mnote",
            "[resource, x://data, application/zip, 256 bytes]",
            "[resource link, x://link]",
        ]
        texts = await host.call("texts")
        assert (texts.text, len(texts.content)) == ("a\nb", 2)
        nothing = await host.call("nothing")
        assert (nothing.text, nothing.content) == ("", ())


async def test_blocks_come_out_of_a_process_of_its_own(
    mcpd_host: MakeHost, tmp_plugin: WritePlugin
) -> None:
    async with mcpd_host(tmp_plugin(TOOLS)) as host:
        by, picture, pid = (await host.call("apart")).content
    assert by == {"type": "text", "text": "made by"}
    assert picture == PICTURE
    assert pid["text"].isdigit()


async def test_a_tool_that_shapes_its_answer_may_give_blocks(
    mcpd_host: MakeHost, tmp_plugin: WritePlugin
) -> None:
    content = ({"type": "text", "text": "Look:"}, PICTURE)
    async with mcpd_host(tmp_plugin(TOOLS)) as host:
        own = await host.call("own", {"structured": False})
        assert (own.content, own.structured) == (content, None)
        assert own.text == "Look:\n[image, image/png, 256 bytes]"
        assert await host.call("forwarded") == own
        both = await host.call("own", {"structured": True})
        assert (both.content, both.structured, both.text) == (content, {"n": 1}, '{"n":1}')


async def test_what_is_no_block_or_too_large_is_an_invalid_answer(
    mcpd_host: MakeHost, tmp_plugin: WritePlugin
) -> None:
    settings = {"executor": {"max_result_bytes": 1100}}
    async with mcpd_host(tmp_plugin(TOOLS), settings=settings) as host:
        for which in (0, 1):
            error = (await host.call("wrong", {"which": which})).error
            assert error is not None
            assert error["code"] == "invalid_output"
            assert "is no content block" in error["message"]
        # 900 bytes are 1,200 as base64.
        error = (await host.call("large")).error
        assert error is not None
        assert error["code"] == "invalid_output"
        assert "answered with 1,251 bytes; at most 1,100 are allowed" in error["message"]
        assert (await host.call("picture")).error is None


def test_annotations_say_whether_an_answer_has_blocks() -> None:
    for hint in (Image, Audio | None, list[str | Image], tuple[EmbeddedResource, ...]):
        assert promises_blocks(hint), hint
    for other in (str, None, list[str], list[int | Image], dict[str, Image], Any):
        assert not promises_blocks(other), other
    assert is_made_of_blocks(ResourceLink("x://y", "y"))
    assert is_made_of_blocks(["a", Image(b"")])
    assert not is_made_of_blocks(["a", "b"])


def test_blocks_of_the_protocol_are_taken_as_they_are() -> None:
    assert as_block(PICTURE) == PICTURE
    assert as_block("text") == {"type": "text", "text": "text"}
    assert as_block(ResourceLink("x://y", "y", "Y", mime_type="text/plain")) == {
        "type": "resource_link",
        "uri": "x://y",
        "name": "y",
        "title": "Y",
        "mimeType": "text/plain",
    }
    for value in (b"bytes", {"type": "video"}, {}, None):
        with pytest.raises(ValueError, match="is no content block"):
            as_block(value)
    assert in_words([PICTURE, {"type": "resource", "resource": None}]) == (
        "[image, image/png, 256 bytes]\n[resource]"
    )


def test_a_picture_is_printed_in_words_and_whole_as_json(
    tmp_plugin: WritePlugin, capsys: pytest.CaptureFixture[str]
) -> None:
    tmp_plugin(TOOLS)
    command = ("tools", "call", "own", "structured=false", "--local", "--plugins", "planted")
    assert main(command) == 0
    assert capsys.readouterr().out == "Look:\n[image, image/png, 256 bytes]\n"
    assert main((*command, "--json")) == 0
    assert json.loads(capsys.readouterr().out)["content"][1] == PICTURE
