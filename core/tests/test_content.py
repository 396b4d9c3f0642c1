"""Resources, prompts and completions of plugins, as clients of either era get them."""

from __future__ import annotations

import asyncio
import base64
import itertools
import logging
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio
import pytest
from mcp import Client, MCPError
from mcp_types import (
    BlobResourceContents,
    PromptReference,
    ReadResourceResult,
    ResourceTemplateReference,
    TextContent,
    TextResourceContents,
)

from mcpd_core import (
    Busy,
    ContentFailed,
    HostClosed,
    InvalidArguments,
    NotAuthorised,
    Principal,
    ToolUnavailable,
    UnknownPrompt,
    UnknownResource,
)
from mcpd_core.content.template import LONGEST_URI
from mcpd_core.discovery import scan
from mcpd_core.host import Host
from mcpd_core.inventory import PluginRow
from mcpd_core.selection import select
from mcpd_core.server.content import RESOURCE_NOT_FOUND
from mcpd_core.server.mcp import McpServer
from mcpd_core.server.results import REFUSED
from mcpd_core.server.sdk_streams import ChannelReadStream, ChannelWriteStream
from mcpd_core.server.session import Session
from mcpd_core.server.streams import LineChannel
from mcpd_core.testing import MakeHost, PlantedPlugin, WritePlugin

pytestmark = pytest.mark.anyio

MODERN = "2026-07-28"
ME = Principal("local", str(os.getuid()))

THINGS = """
    import asyncio, enum, threading
    from typing import Annotated
    import anyio
    from pydantic import BaseModel, Field
    from mcpd_core import Context, ResourceNotFound, ToolError, prompt, resource, tool

    NOTES = {"first": "one", "second thing": "two", "a/b": "three"}
    log = []

    class Colour(enum.Enum):
        red = "red"
        blue = "blue"

    class State(BaseModel):
        up: bool
        notes: int

    def names(prefix: str) -> list[str]:
        '''Of all notes.'''
        return [name for name in NOTES if name.startswith(prefix)]

    async def numbers(prefix: str, ctx: Context, name: str = "?") -> list[str]:
        assert ctx.principal.kind == "local"
        await asyncio.sleep(0)
        return [f"{name}{prefix}{n}" for n in range(250)]

    def broken(prefix: str) -> list[str]:
        raise ZeroDivisionError("secret")

    def wrong(prefix: str) -> list[str]:
        return prefix

    @tool
    async def touch() -> str:
        '''Do nothing.'''
        return "touched"

    @resource("state://now", title="The state", mime_type="application/vnd.state+json")
    async def state() -> State:
        '''How things are.'''
        return State(up=True, notes=len(NOTES))

    @resource("state://logo")
    def logo() -> bytes:
        '''A picture.'''
        return b"\\x00\\xff"

    @resource("state://list")
    async def listing() -> list[str]:
        '''What there is.'''
        return sorted(NOTES)

    @resource("notes://{name}", mime_type="text/markdown", complete={"name": names})
    def note(name: str) -> str:
        '''One note.'''
        log.append(threading.current_thread() is threading.main_thread())
        try:
            return NOTES[name]
        except KeyError:
            raise ResourceNotFound(f"There is no note {name!r}.") from None

    @resource("pages://{name}/{number}", complete={"number": numbers})
    async def page(name: str, number: Annotated[int, Field(ge=1)], ctx: Context) -> dict:
        '''One page of a note.'''
        ctx.progress(1, 2)
        touched = await ctx.call("touch")
        return {"name": name, "number": number, "tool": ctx.tool, "touched": touched.text}

    @resource("bad://crash")
    async def crash() -> str:
        '''Crash.'''
        raise ZeroDivisionError("secret")

    @resource("bad://nothing")
    async def nothing() -> None:
        '''Answer nothing.'''

    @resource("bad://huge")
    async def huge() -> str:
        '''Answer too much.'''
        return "x" * 2_000_000

    @resource("bad://opaque")
    async def opaque() -> object:
        '''Answer what is no data.'''
        return threading.Lock()

    @resource("bad://slow", timeout=0.05)
    async def slow() -> str:
        '''Take too long.'''
        log.append("begun")
        try:
            await anyio.sleep(60)
        finally:
            log.append("cleaned")
        return ""

    @resource("bad://slower")
    async def slower() -> str:
        '''Take far too long.'''
        log.append("begun")
        try:
            await anyio.sleep(60)
        finally:
            log.append("cleaned")
        return ""

    @prompt(title="Summarise", complete={"note": names})
    async def summarise(
        note: Annotated[str, Field(description="Which one.")],
        words: Annotated[int, Field(gt=0)] = 100,
        colour: Colour | None = None,
    ) -> str:
        '''Ask for a summary.'''
        return f"Summarise {NOTES[note]!r} in {words} words ({colour})."

    @prompt
    def interview(ctx: Context) -> list[tuple[str, str]]:
        return [("user", f"{ctx.principal.kind}?"), ("assistant", "Yes\\x1b[31m.")]

    @prompt
    async def picture() -> list[dict[str, object]]:
        '''Show a picture.'''
        image = {"type": "image", "data": "AP8=", "mimeType": "image/png"}
        return [{"role": "user", "content": image}, {"role": "user", "content": "What is it?"}]

    @prompt(complete={"x": broken, "y": wrong})
    async def faulty(x: str = "", y: str = "") -> object:
        '''Write what is no prompt.'''
        answers = {"number": 1, "role": [("system", "hi")], "pair": ["hi"], "block": [("user", {})]}
        if x == "refuse":
            raise ToolError("Not today.", hint="Ask tomorrow.")
        return answers[x]
"""
PLAIN = """
    from mcpd_core import tool

    @tool
    async def plain() -> str:
        '''Nothing else is offered.'''
        return ""
"""

#: Connects a client of the SDK to a new server of a host.
Join = Callable[..., AbstractAsyncContextManager[Client]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["lean", "sdk"])
def engine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(params=["legacy", MODERN])
def era(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def planted(tmp_plugin: WritePlugin) -> PlantedPlugin:
    return tmp_plugin(THINGS, name="things")


@pytest.fixture
async def host(
    planted: PlantedPlugin, mcpd_host: MakeHost, anyio_backend: str
) -> AsyncIterator[Host]:
    async with mcpd_host(planted) as made:
        yield made.host


@pytest.fixture
def join(engine: Any, era: str) -> Join:
    numbers = itertools.count(1)

    @asynccontextmanager
    async def transport(sock: socket.socket) -> AsyncIterator[Any]:
        channel = LineChannel()
        await asyncio.get_running_loop().connect_accepted_socket(lambda: channel, sock)
        try:
            yield ChannelReadStream(channel), ChannelWriteStream(channel)
        finally:
            await channel.close()

    @asynccontextmanager
    async def joined(host: Host, *, server: McpServer | None = None, **options: Any) -> Any:
        server = server or McpServer(host, engine=engine, page=options.pop("page", 1000))
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
        channel = LineChannel(eof_grace=0.5)
        await loop.connect_accepted_socket(lambda: channel, ours)
        session = Session(ME, f"test:{next(numbers)}")
        serving = asyncio.ensure_future(server.serve(channel, session))
        try:
            mode: Any = "auto" if era == MODERN else era
            async with Client(transport(theirs), mode=mode, **options) as client:
                assert client.protocol_version == (MODERN if era == MODERN else "2025-11-25")
                yield client
        finally:
            theirs.close()
            await asyncio.wait_for(serving, 20)
            await channel.close()

    return joined


def text_of(result: ReadResourceResult) -> str:
    (content,) = result.contents
    assert isinstance(content, TextResourceContents)
    return content.text


async def refused(awaitable: Any) -> MCPError:
    # Within the client's task group, where pytest.raises would see a group.
    try:
        await awaitable
    except MCPError as error:
        return error
    raise AssertionError("it was not refused")


def log_of(planted: PlantedPlugin) -> list[Any]:
    # The module may be on its way, or not wanted yet.
    log: list[Any] = getattr(sys.modules.get(f"{planted.package}.tools"), "log", [])
    return log


# --- what clients see -----------------------------------------------------------------------------


async def test_what_is_offered_is_listed_with_all_that_is_known_of_it(
    host: Host, join: Join
) -> None:
    async with join(host) as client:
        resources = (await client.list_resources()).resources
        assert [resource.uri for resource in resources] == [
            "bad://crash",
            "bad://huge",
            "bad://nothing",
            "bad://opaque",
            "bad://slow",
            "bad://slower",
            "state://list",
            "state://logo",
            "state://now",
        ]
        state = resources[-1]
        assert (state.name, state.title) == ("state", "The state")
        assert state.description == "How things are."
        assert state.mime_type == "application/vnd.state+json"
        templates = (await client.list_resource_templates()).resource_templates
        assert [(each.uri_template, each.mime_type) for each in templates] == [
            ("notes://{name}", "text/markdown"),
            ("pages://{name}/{number}", None),
        ]
        prompts = {each.name: each for each in (await client.list_prompts()).prompts}
        assert list(prompts) == ["faulty", "interview", "picture", "summarise"]
        assert prompts["summarise"].title == "Summarise"
        assert [
            (argument.name, argument.description, argument.required)
            for argument in prompts["summarise"].arguments or []
        ] == [("note", "Which one.", True), ("words", None, False), ("colour", None, False)]


async def test_lists_are_paged(host: Host, join: Join) -> None:
    async with join(host, page=2) as client:
        first = await client.list_prompts()
        assert [prompt.name for prompt in first.prompts] == ["faulty", "interview"]
        second = await client.list_prompts(cursor=first.next_cursor)
        assert [prompt.name for prompt in second.prompts] == ["picture", "summarise"]
        assert second.next_cursor is None
        uris = []
        cursor = None
        for _ in range(5):
            page = await client.list_resources(cursor=cursor)
            uris += [resource.uri for resource in page.resources]
            cursor = page.next_cursor
        assert len(set(uris)) == 9
        assert cursor is None
        error = await refused(client.list_prompts(cursor="elsewhere"))
        assert error.code == -32602


async def test_lists_may_be_kept_for_a_while_and_what_was_read_may_not(
    host: Host, join: Join, era: str
) -> None:
    async with join(host, cache=None) as client:
        listed = await client.list_resources()
        read = await client.read_resource("state://now")
        if era == MODERN:
            assert (listed.ttl_ms, listed.cache_scope) == (60_000, "private")
            assert (read.ttl_ms, read.cache_scope) == (0, "private")


async def test_only_what_is_there_is_promised(
    host: Host, join: Join, tmp_plugin: WritePlugin, mcpd_host: MakeHost
) -> None:
    async with join(host) as client:
        capabilities = client.server_capabilities
        assert capabilities.resources is not None
        assert capabilities.resources.list_changed
        assert capabilities.resources.subscribe
        assert capabilities.prompts is not None
        assert capabilities.completions is not None
    async with mcpd_host(tmp_plugin(PLAIN, name="plain")) as plain, join(plain.host) as client:
        capabilities = client.server_capabilities
        assert capabilities.tools is not None
        assert capabilities.resources is None
        assert capabilities.prompts is None
        assert capabilities.completions is None
        # Clients that ask nevertheless learn that there is nothing.
        assert (await client.list_resources()).resources == []


async def test_clients_are_told_when_there_is_something_else(
    host: Host, join: Join, engine: Any, era: str
) -> None:
    told: list[str] = []
    everything = asyncio.Event()

    def note(kind: str) -> None:
        told.append(kind)
        if len(told) == 3:
            everything.set()

    async def on_message(message: Any) -> None:
        kind = type(message).__name__.removesuffix("ListChangedNotification")
        if era == "legacy" and kind in ("Tool", "Resource", "Prompt"):
            note(kind)

    async def listen(client: Client) -> None:
        async with client.listen(
            tools_list_changed=True, resources_list_changed=True, prompts_list_changed=True
        ) as events:
            listening.set()
            async for event in events:
                note(type(event).__name__.removesuffix("sListChanged"))

    listening = asyncio.Event()
    server = McpServer(host, engine=engine)
    server.watch()
    async with join(host, server=server, message_handler=on_message) as client:
        task = asyncio.ensure_future(listen(client)) if era == MODERN else None
        if task is not None:
            await asyncio.wait_for(listening.wait(), 10)
        # By then the handshake is over, if there is one.
        assert (await client.list_prompts()).prompts
        host.revise(host.inventory.with_broken("things", "for a reason"))
        await asyncio.wait_for(everything.wait(), 10)
        assert sorted(told) == ["Prompt", "Resource", "Tool"]
        assert (await client.list_prompts()).prompts == []
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        await server.aclose()


# --- reading --------------------------------------------------------------------------------------


async def test_resources_are_read(host: Host, join: Join, planted: PlantedPlugin) -> None:
    async with join(host) as client:
        (state,) = (await client.read_resource("state://now")).contents
        assert state.uri == "state://now"
        assert state.mime_type == "application/vnd.state+json"
        assert isinstance(state, TextResourceContents)
        assert state.text == '{"up":true,"notes":3}'
        (logo,) = (await client.read_resource("state://logo")).contents
        assert isinstance(logo, BlobResourceContents)
        assert base64.b64decode(logo.blob) == b"\x00\xff"
        assert logo.mime_type == "application/octet-stream"
        (listing,) = (await client.read_resource("state://list")).contents
        assert listing.mime_type == "application/json"
        (note,) = (await client.read_resource("notes://second%20thing")).contents
        assert isinstance(note, TextResourceContents)
        assert (note.uri, note.text) == ("notes://second%20thing", "two")
        assert note.mime_type == "text/markdown"
        assert text_of(await client.read_resource("notes://a%2Fb")) == "three"
        # A `def` runs in a thread of its own.
        assert log_of(planted) == [False, False]


async def test_placeholders_become_what_the_parameters_are(host: Host, join: Join) -> None:
    async with join(host) as client:
        page = text_of(await client.read_resource("pages://first/2"))
        assert page == '{"name":"first","number":2,"tool":"page","touched":"touched"}'
        for uri in ("pages://first/two", "pages://first/0"):
            error = await refused(client.read_resource(uri))
            assert error.code == -32602
            assert "resource 'pages://{name}/{number}': number: input should be" in error.message


@pytest.mark.parametrize(
    "uri",
    ["nowhere://", "notes://", "notes://a/b", "notes://unknown", "notes://" + "x" * LONGEST_URI],
)
async def test_what_is_not_there_is_not_found(host: Host, join: Join, era: str, uri: str) -> None:
    async with join(host) as client:
        error = await refused(client.read_resource(uri))
        assert error.code == (-32602 if era == MODERN else RESOURCE_NOT_FOUND)
        assert error.data == {"uri": uri}


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("bad://crash", "The resource 'bad://crash' failed unexpectedly (ZeroDivisionError)."),
        ("bad://nothing", "The resource 'bad://nothing' returned nothing."),
        (
            "bad://huge",
            "The resource 'bad://huge' answered with 2,000,036 bytes; at most 1,048,576",
        ),
        ("bad://opaque", "a value of type lock, which JSON cannot carry"),
        ("bad://slow", "The resource 'bad://slow' was cancelled at its deadline."),
    ],
)
async def test_a_failure_is_an_error_without_internals(
    host: Host, join: Join, uri: str, message: str
) -> None:
    async with join(host) as client:
        error = await refused(client.read_resource(uri))
        assert error.code == -32603
        assert message in error.message
        assert "secret" not in str(error.data)


async def test_a_client_that_gives_up_cancels_the_reading(
    host: Host, join: Join, planted: PlantedPlugin
) -> None:
    async with join(host) as client:
        reading = asyncio.ensure_future(client.read_resource("bad://slower"))
        await until(lambda: "begun" in log_of(planted))
        assert host.in_flight == 1
        reading.cancel()
        await until(lambda: "cleaned" in log_of(planted))
        await until(lambda: host.in_flight == 0)
        assert text_of(await client.read_resource("notes://first")) == "one"


# --- prompts --------------------------------------------------------------------------------------


async def test_prompts_are_written(host: Host, join: Join) -> None:
    async with join(host) as client:
        prompt = await client.get_prompt("summarise", {"note": "first", "words": "5"})
        assert prompt.description == "Ask for a summary."
        assert [(message.role, message.content) for message in prompt.messages] == [
            ("user", TextContent(text="Summarise 'one' in 5 words (None)."))
        ]
        prompt = await client.get_prompt("interview")
        assert prompt.description is None
        assert [(message.role, message.content) for message in prompt.messages] == [
            ("user", TextContent(text="local?")),
            ("assistant", TextContent(text="Yes[31m.")),
        ]
        image, question = (await client.get_prompt("picture")).messages
        assert image.content.type == "image"
        assert question.content == TextContent(text="What is it?")


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("sumarise", {}, "No prompt is called 'sumarise'. Did you mean 'summarise'?"),
        ("summarise", {}, "prompt 'summarise': note: required, but missing."),
        ("summarise", {"note": "first", "words": "0"}, "words: input should be greater than 0"),
        ("summarise", {"note": "first", "colour": "green"}, "colour: input should be 'red' or"),
        (
            "summarise",
            {"note": "first", "word": "9"},
            "word: unknown argument; did you mean 'words'",
        ),
        ("interview", {"x": "1"}, "x: unknown argument; the prompt takes none"),
    ],
)
async def test_a_prompt_that_cannot_be_written_is_refused(
    host: Host, join: Join, name: str, arguments: dict[str, str], message: str
) -> None:
    async with join(host) as client:
        error = await refused(client.get_prompt(name, arguments))
        assert error.code == -32602
        assert message in error.message


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ("number", "The prompt 'faulty' returned a int, neither text nor a list of messages."),
        ("role", "returned a message of the role 'system'"),
        ("pair", "returned a message without role and content"),
        ("block", "returned a message whose content is no content block"),
        ("refuse", "Not today. Ask tomorrow."),
        ("other", "failed unexpectedly (KeyError)"),
    ],
)
async def test_a_prompt_that_fails_says_so(host: Host, join: Join, x: str, message: str) -> None:
    async with join(host) as client:
        error = await refused(client.get_prompt("faulty", {"x": x}))
        assert error.code == -32603
        assert message in error.message


# --- completions ----------------------------------------------------------------------------------


async def test_arguments_are_completed(host: Host, join: Join) -> None:
    note = ResourceTemplateReference(uri="notes://{name}")
    page = ResourceTemplateReference(uri="pages://{name}/{number}")
    async with join(host) as client:
        found = (await client.complete(note, {"name": "name", "value": "s"})).completion
        assert (found.values, found.total, found.has_more) == (["second thing"], 1, False)
        prompt = PromptReference(name="summarise")
        found = (await client.complete(prompt, {"name": "note", "value": ""})).completion
        assert found.values == ["first", "second thing", "a/b"]
        # No more than the protocol allows; and told what is known of the other placeholders.
        found = (
            await client.complete(
                page, {"name": "number", "value": "7"}, context_arguments={"name": "x"}
            )
        ).completion
        assert (len(found.values), found.total, found.has_more) == (100, 250, True)
        assert found.values[:2] == ["x70", "x71"]
        found = (await client.complete(page, {"name": "number", "value": ""})).completion
        assert found.values[0] == "?0"
        # Nobody suggests values for that one.
        found = (await client.complete(page, {"name": "name", "value": ""})).completion
        assert (found.values, found.total, found.has_more) == ([], 0, False)


async def test_what_cannot_be_completed_is_refused(host: Host, join: Join) -> None:
    async with join(host) as client:
        for ref, argument in (
            (ResourceTemplateReference(uri="notes://{other}"), "name"),
            (ResourceTemplateReference(uri="notes://{name}"), "other"),
            (PromptReference(name="unknown"), "note"),
            (PromptReference(name="summarise"), "other"),
        ):
            error = await refused(client.complete(ref, {"name": argument, "value": ""}))
            assert error.code == -32602
        for argument, message in (
            ("x", "The completion of 'x' for the prompt 'faulty' failed unexpectedly"),
            ("y", "The completion of 'y' returned something else than a list of text."),
        ):
            asked = client.complete(PromptReference(name="faulty"), {"name": argument, "value": ""})
            error = await refused(asked)
            assert error.code == -32603
            assert message in error.message
            assert "secret" not in str(error.data)


# --- the host -------------------------------------------------------------------------------------


def loaded(planted: PlantedPlugin) -> bool:
    return f"{planted.package}.tools" in sys.modules


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(10):
        while not condition():
            await asyncio.sleep(0.001)


async def test_nothing_is_imported_before_something_is_used(
    host: Host, planted: PlantedPlugin, join: Join
) -> None:
    async with join(host) as client:
        await client.list_resources()
        await client.list_resource_templates()
        await client.list_prompts()
        await refused(client.read_resource("nowhere://"))
        await refused(client.get_prompt("unknown"))
        ref = ResourceTemplateReference(uri="pages://{name}/{number}")
        await client.complete(ref, {"name": "name", "value": ""})
        assert not loaded(planted)
        await client.read_resource("state://logo")
        assert loaded(planted)


async def test_a_plugin_without_manifest_offers_the_same(
    tmp_plugin: WritePlugin, mcpd_host: MakeHost, join: Join
) -> None:
    planted = tmp_plugin(THINGS, name="things", manifest=False)
    row = PluginRow("things", "d", "1", "asyncio", "enabled", entry=planted.entry, dynamic=True)
    async with mcpd_host(row) as made, join(made.host) as client:
        assert len((await client.list_resources()).resources) == 9
        assert text_of(await client.read_resource("notes://first")) == "one"


async def test_only_who_may_use_it_is_told_of_it(host: Host) -> None:
    stranger = Principal("http", "nobody")
    content = host.content_for(stranger)
    assert (content.resources, content.templates, content.prompts) == ((), (), ())
    assert host.content_for(ME) is host.content
    with pytest.raises(NotAuthorised, match="may not call the resource 'state://now'"):
        await host.read_resource("state://now", principal=stranger, client="x")
    with pytest.raises(NotAuthorised):
        await host.get_prompt("interview", {}, principal=stranger, client="x")
    prompt = host.declared_prompt("summarise")
    with pytest.raises(NotAuthorised):
        await host.complete(prompt, "note", "", {}, principal=stranger, client="x")


async def test_the_host_reads_and_writes_for_anybody_within_the_process(host: Host) -> None:
    content = await host.read_resource("notes://first", principal=ME, client="x")
    assert (content.mime_type, content.text, content.blob) == ("text/markdown", "one", None)
    spec, messages = await host.get_prompt("interview", {}, principal=ME, client="x")
    assert spec.name == "interview"
    assert messages[0] == {"role": "user", "content": {"type": "text", "text": "local?"}}
    with pytest.raises(UnknownResource, match="No resource is at 'x'"):
        await host.read_resource("x", principal=ME, client="x")
    with pytest.raises(UnknownPrompt):
        await host.get_prompt("x", {}, principal=ME, client="x")
    with pytest.raises(ContentFailed) as failed:
        await host.read_resource("notes://x", principal=ME, client="x")
    assert failed.value.kind == "resource_not_found"
    with pytest.raises(InvalidArguments):
        await host.complete(spec, "x", "", {}, principal=ME, client="x")


async def test_progress_is_reported(host: Host) -> None:
    reports: list[float] = []
    await host.read_resource(
        "pages://first/1",
        principal=ME,
        client="x",
        on_progress=lambda report: reports.append(report.done),
    )
    assert reports == [1]


async def test_a_host_that_closes_reads_nothing_more(host: Host) -> None:
    host.stop_accepting()
    with pytest.raises(HostClosed):
        await host.read_resource("state://now", principal=ME, client="x")


async def test_clients_are_told_why_nothing_is_read(host: Host, join: Join) -> None:
    async with join(host) as client:
        host.stop_accepting()
        for asked in (client.read_resource("state://now"), client.get_prompt("interview")):
            error = await refused(asked)
            assert error.code == REFUSED
            assert error.data["code"] == "host_closed"


async def test_a_drain_cancels_what_is_being_read(host: Host, planted: PlantedPlugin) -> None:
    reading = asyncio.ensure_future(host.read_resource("bad://slower", principal=ME, client="x"))
    await until(lambda: "begun" in log_of(planted))
    host.stop_accepting()
    await host.drain(0.0)
    with pytest.raises(ContentFailed, match="shut down while the resource 'bad://slower' ran") as e:
        await reading
    assert e.value.kind == "interrupted"
    assert log_of(planted) == ["begun", "cleaned"]


async def test_readings_need_permits_like_calls(
    planted: PlantedPlugin, mcpd_host: MakeHost, anyio_backend: str
) -> None:
    settings = {"executor": {"concurrency": 1, "queue": 1}}
    async with mcpd_host(planted, settings=settings) as made:
        host = made.host

        def read(client: str) -> asyncio.Future[Any]:
            return asyncio.ensure_future(
                host.read_resource("bad://slower", principal=ME, client=client)
            )

        first = read("one")
        await until(lambda: "begun" in log_of(planted))
        waiting = [read("one"), read("two")]
        await asyncio.sleep(0)
        with pytest.raises(Busy):
            await host.get_prompt("interview", {}, principal=ME, client="one")
        for reading in (first, *waiting):
            reading.cancel()
        await asyncio.wait([first, *waiting])


OBSERVING = """
    from mcpd_core import hookimpl

    seen = []

    class Observer:
        def before(self, call):
            seen.append(("before", call.spec.label, dict(call.arguments)))

        def after(self, call, outcome):
            seen.append(("after", call.spec.label, outcome.result.error is None))

    @hookimpl
    def mcpd_register_tools(registrar):
        registrar.add_module("{package}.tools")

    @hookimpl
    def mcpd_call_observers():
        return [Observer()]
"""


async def test_observers_are_told_of_readings_and_prompts_and_not_of_completions(
    tmp_plugin: WritePlugin, mcpd_host: MakeHost
) -> None:
    planted = tmp_plugin(THINGS, name="things", plugin=OBSERVING)
    async with mcpd_host(planted) as made:
        host = made.host
        await host.read_resource("notes://first", principal=ME, client="x")
        with pytest.raises(ContentFailed):
            await host.get_prompt("faulty", {"x": "refuse"}, principal=ME, client="x")
        prompt = host.declared_prompt("summarise")
        await host.complete(prompt, "note", "", {}, principal=ME, client="x")
        assert sys.modules[planted.entry].seen == [
            ("before", "resource 'notes://{name}'", {"name": "first"}),
            ("after", "resource 'notes://{name}'", True),
            ("before", "prompt 'faulty'", {"x": "refuse"}),
            ("after", "prompt 'faulty'", False),
        ]


TRIO = """
    import trio
    from mcpd_core import prompt, resource

    async def where(prefix: str) -> list[str]:
        await trio.sleep(0)
        return [trio.lowlevel.current_task().name, "here"]

    @resource("trio://{name}", complete={"name": where})
    async def read(name: str) -> str:
        '''Read in trio.'''
        await trio.sleep(0)
        return name

    @prompt(runtime="any")
    async def neutral() -> str:
        '''Written wherever it is asked for.'''
        import sniffio
        return sniffio.current_async_library()
"""


async def test_it_runs_in_the_runtime_of_its_plugin(
    tmp_plugin: WritePlugin, mcpd_host: MakeHost
) -> None:
    async with mcpd_host(tmp_plugin(TRIO, name="three", runtime="trio")) as made:
        host = made.host
        before = host.lanes.trio.running
        content = await host.read_resource("trio://x", principal=ME, client="x")
        assert content.text == "x"
        assert (before, host.lanes.trio.running) == (False, True)
        found = await host.complete(
            host.declared_resource("trio://{name}"), "name", "", {}, principal=ME, client="x"
        )
        assert found.values[1] == "here"
        _, messages = await host.get_prompt("neutral", {}, principal=ME, client="x")
        assert messages[0]["content"]["text"] == "asyncio"


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        ("async def page(name", "async def other(name", "has no 'page'"),
        (
            '@resource("pages://',
            '@resource("sheets://',
            "is the resource 'sheets://{name}/{number}'",
        ),
        ('@resource("pages://', '#("pages://', "is not a resource"),
    ],
)
async def test_code_that_is_no_longer_what_the_manifest_says_is_not_run(
    planted: PlantedPlugin, mcpd_host: MakeHost, before: str, after: str, problem: str
) -> None:
    tools = planted.path / planted.package / "tools.py"
    tools.write_text(tools.read_text().replace(before, after))
    async with mcpd_host(planted) as made:
        with pytest.raises(ToolUnavailable, match="of the plugin 'things' cannot be loaded") as e:
            await made.host.read_resource("pages://a/1", principal=ME, client="x")
        assert problem in e.value.message


async def test_a_stale_manifest_is_reported_once_and_served(
    planted: PlantedPlugin, mcpd_host: MakeHost, caplog: pytest.LogCaptureFixture
) -> None:
    tools = planted.path / planted.package / "tools.py"
    tools.write_text(
        tools.read_text()
        .replace("'''One note.'''", "'''Any note.'''")
        .replace("def interview(ctx: Context)", "def interview(ctx: Context, more: str = '')")
        .replace('complete={"note": names}', "")
    )
    async with mcpd_host(planted) as made:
        host = made.host
        with caplog.at_level(logging.WARNING):
            for _ in range(2):
                await host.read_resource("notes://first", principal=ME, client="x")
                await host.get_prompt("interview", {}, principal=ME, client="x")
        assert [record.getMessage() for record in caplog.records] == [
            f"The manifest of the plugin things is stale: the {label} has changed since. "
            "Run `mcpd plugins manifest` on the plugin's folder."
            for label in ("resource 'notes://{name}'", "prompt 'interview'")
        ]
        prompt = host.declared_prompt("summarise")
        with pytest.raises(ToolUnavailable, match="has no completion of 'note'"):
            await host.complete(prompt, "note", "", {}, principal=ME, client="x")


# --- two plugins ----------------------------------------------------------------------------------


async def test_plugins_that_claim_the_same_name_each_other(
    tmp_plugin: WritePlugin, mcpd_host: MakeHost
) -> None:
    def offering(uri: str, prompt: str) -> str:
        return f"""
            from mcpd_core import prompt, resource

            @resource({uri!r})
            async def thing({"x: str" if "{" in uri else ""}) -> str:
                '''A thing.'''
                return ""

            @prompt(name={prompt!r})
            async def ask() -> str:
                '''Ask.'''
                return ""
        """

    one = tmp_plugin(offering("a://{x}/b", "ask"), name="one")
    two = tmp_plugin(offering("a://c/{x}", "ask_too"), name="two")
    three = tmp_plugin(offering("b://", "ask_too"), name="three")
    four = tmp_plugin(offering("b://{x}", "ask_on"), name="four")
    async with mcpd_host(four) as made:
        rows = made.host.inventory
        assert [row.state for row in rows.rows] == ["enabled"]
    # `mcpd_host` refuses what is in conflict; the rows tell why.
    found = select(scan([str(each.path) for each in (one, two, three, four)]), wanted=None)
    states = {row.name: (row.state, row.reason) for row in found.rows}
    assert {name: state for name, (state, _) in states.items()} == {
        "one": "conflict",
        "two": "conflict",
        "three": "conflict",
        "four": "enabled",
    }
    (label,) = (row.label for row in found.rows if row.name == "two")
    assert states["one"][1] == (
        f"{label} offers the resource 'a://c/{{x}}' too. "
        "Deny one of the plugins, or leave it out of --plugins."
    )
    assert "offers the prompt 'ask_too' too" in states["three"][1]
    assert "'a://{x}/b'" in states["two"][1]
    assert "'ask_too'" in states["two"][1]
    assert found.content().prompt("ask_on") is not None
    assert found.content().prompt("ask") is None
