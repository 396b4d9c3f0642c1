"""Subscriptions to resources: who is told of a change, how often, and who is not."""

from __future__ import annotations

import asyncio
import itertools
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

import anyio
import mcp_types
import pytest
from mcp import Client, MCPError
from mcp.server.subscriptions import ResourceUpdated

from mcpd_core import Principal, ToolError
from mcpd_core.host import Host
from mcpd_core.host import updates as host_updates
from mcpd_core.host.updates import Updates
from mcpd_core.server import updates as server_updates
from mcpd_core.server.http.listener import HttpListener
from mcpd_core.server.http.peers import Door
from mcpd_core.server.mcp import McpServer
from mcpd_core.server.sdk_streams import ChannelReadStream, ChannelWriteStream
from mcpd_core.server.session import Session
from mcpd_core.server.streams import LineChannel
from mcpd_core.settings import HttpSettings
from mcpd_core.testing import MakeHost, WritePlugin

pytestmark = [
    pytest.mark.anyio,
    # Clients of the handshake eras have no other way.
    pytest.mark.filterwarnings("ignore:resources/(un)?subscribe is removed"),
]

MODERN = "2026-07-28"
ADA, BOB = Principal("local", "1", "Ada"), Principal("local", "2", "Bob")

PLUGIN = """
    from mcpd_core import Registrar, Service, hookimpl

    @hookimpl
    def mcpd_register_tools(registrar: Registrar) -> None:
        registrar.add_module("{package}.tools")

    @hookimpl
    def mcpd_services() -> list[Service]:
        return [Service("things", "{package}.tools:open_things", runtime="RUNTIME")]
"""
TOOLS = """
    from __future__ import annotations
    import threading
    from contextlib import asynccontextmanager
    from mcpd_core import Context, Health, Principal, resource, tool

    class Things:
        def __init__(self, host):
            self.host = host
            self.thread = threading.get_ident()

        def health(self):
            return Health(True)

        def touch(self, uri, times, mine, elsewhere):
            def report():
                for _ in range(times):
                    self.host.resource_changed(uri, principal=mine)
                seen.append(threading.get_ident())
            seen = []
            if elsewhere:
                thread = threading.Thread(target=report)
                thread.start()
                thread.join()
            else:
                report()
            return self.host.followed

    @asynccontextmanager
    async def open_things(host):
        yield Things(host)

    @resource("things://all")
    async def all_things() -> str:
        "Everything there is."
        return "all"

    @resource("things://one/{name}")
    async def one_thing(name: str) -> str:
        "One thing."
        return name

    @tool
    async def touch(
        uri: str, ctx: Context, times: int = 1, mine: bool = False, elsewhere: bool = False
    ) -> bool:
        "Change a thing; say whether anybody follows anything."
        things = await ctx.service("things")
        who = ctx.principal if mine else None
        answer = things.touch(uri, times, who, elsewhere)
        return await answer if hasattr(answer, "__await__") else answer
"""

Join = Callable[..., AbstractAsyncContextManager[Client]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["legacy", MODERN])
def era(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(params=["asyncio", "trio"])
def runtime(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
async def host(
    tmp_plugin: WritePlugin, mcpd_host: MakeHost, runtime: Any, anyio_backend: str
) -> AsyncIterator[Host]:
    hooks = PLUGIN.replace("RUNTIME", runtime)
    async with mcpd_host(tmp_plugin(TOOLS, runtime=runtime, plugin=hooks)) as made:
        yield made.host


def joiner(host: Host, era: str, engine: Any = "lean") -> Join:
    """Return what connects a client over a socket, on behalf of somebody."""
    numbers = itertools.count(1)
    server = McpServer(host, engine=engine)

    @asynccontextmanager
    async def transport(sock: socket.socket) -> AsyncIterator[Any]:
        channel = LineChannel()
        await asyncio.get_running_loop().connect_accepted_socket(lambda: channel, sock)
        try:
            yield ChannelReadStream(channel), ChannelWriteStream(channel)
        finally:
            await channel.close()

    @asynccontextmanager
    async def join(principal: Principal = ADA, **options: Any) -> AsyncIterator[Client]:
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
        channel = LineChannel(eof_grace=0.5)
        await asyncio.get_running_loop().connect_accepted_socket(lambda: channel, ours)
        session = Session(principal, f"test:{next(numbers)}")
        serving = asyncio.ensure_future(server.serve(channel, session))
        try:
            mode: Any = "auto" if era == MODERN else era
            async with Client(transport(theirs), mode=mode, **options) as client:
                yield client
        finally:
            theirs.close()
            await asyncio.wait_for(serving, 20)
            await channel.close()

    return join


@pytest.fixture(params=["lean", "sdk"])
def join(host: Host, era: str, request: pytest.FixtureRequest) -> Join:
    return joiner(host, era, request.param)


class Heard:
    """What a client was told of, in either era."""

    def __init__(self) -> None:
        self.uris: list[str] = []
        self._more = asyncio.Event()

    def note(self, uri: str) -> None:
        self.uris.append(uri)
        self._more.set()

    async def on_message(self, message: Any) -> None:
        if isinstance(message, mcp_types.ResourceUpdatedNotification):
            self.note(str(message.params.uri))

    async def until(self, *uris: str) -> None:
        """Wait until each of these has been told of since the last time."""
        with anyio.fail_after(20):
            while not set(uris) <= set(self.uris):
                self._more.clear()
                await self._more.wait()
        self.uris.clear()


@asynccontextmanager
async def following(join: Join, era: str, *uris: str, **options: Any) -> AsyncIterator[Any]:
    """Connect a client that follows resources; yields it and what it hears."""
    heard = Heard()
    if era != MODERN:
        # In the later era what is listened to comes here as well.
        options["message_handler"] = heard.on_message
    async with join(**options) as client:
        if era != MODERN:
            for uri in uris:
                await client.subscribe_resource(uri)
            yield client, heard
            return

        async def listen(*, task_status: Any) -> None:
            async with client.listen(resource_subscriptions=list(uris)) as events:
                task_status.started()
                async for event in events:
                    assert isinstance(event, ResourceUpdated)
                    heard.note(event.uri)

        async with anyio.create_task_group() as group:
            await group.start(listen)
            yield client, heard
            group.cancel_scope.cancel()


async def touch(client: Client, uri: str, **how: Any) -> bool:
    answer = await client.call_tool("touch", {"uri": uri, **how})
    assert not answer.is_error, answer.content
    assert answer.structured_content is not None
    followed: bool = answer.structured_content["result"]
    return followed


# --- who is told ----------------------------------------------------------------------------------


async def test_that_resources_can_be_followed_is_declared(join: Join) -> None:
    async with join() as client:
        assert client.server_capabilities.resources is not None
        assert client.server_capabilities.resources.subscribe is True


@pytest.mark.parametrize("elsewhere", [False, True], ids=["own thread", "other thread"])
async def test_a_change_is_told_to_those_who_follow_the_resource(
    join: Join, era: str, elsewhere: bool
) -> None:
    async with following(join, era, "things://all", "things://one/a") as (client, heard):
        assert await touch(client, "things://one/a", elsewhere=elsewhere)
        await heard.until("things://one/a")
        await touch(client, "things://one/b", elsewhere=elsewhere)
        await touch(client, "things://all", elsewhere=elsewhere)
        await heard.until("things://all")
        assert heard.uris == []


async def test_a_resource_is_the_same_however_its_uri_is_spelt(join: Join, era: str) -> None:
    async with following(join, era, "things://one/a:b") as (client, heard):
        await touch(client, "things://one/a%3Ab")
        await heard.until("things://one/a:b")


async def test_what_concerns_one_principal_is_told_to_no_other(join: Join, era: str) -> None:
    async with (
        following(join, era, "things://all", principal=ADA) as (ada, ada_heard),
        following(join, era, "things://all", principal=BOB) as (bob, bob_heard),
    ):
        await touch(ada, "things://all", mine=True)
        await ada_heard.until("things://all")
        # Had Bob been told, that would have been before this.
        await touch(bob, "things://all", mine=True)
        with anyio.fail_after(20):
            while not bob_heard.uris:
                await asyncio.sleep(0.001)
        assert [ada_heard.uris, bob_heard.uris] == [[], ["things://all"]]


async def test_a_client_that_leaves_is_forgotten(join: Join, era: str, host: Host) -> None:
    async with following(join, era, "things://all", "things://one/a") as (client, _):
        assert await touch(client, "things://all")
    assert not host.updates.followed
    async with join() as client:
        assert not await touch(client, "things://all")


async def test_over_http_it_is_the_same(host: Host, era: str) -> None:
    settings = HttpSettings(port=0)
    server = McpServer(host)
    web = HttpListener(server, host, settings, door=Door(settings))
    await web.start()

    def join(**options: Any) -> Client:
        return Client(web.url, mode="auto" if era == MODERN else "legacy", **options)

    try:
        async with following(join, era, "things://one/a") as (client, heard):
            await touch(client, "things://one/a", mine=True)
            await heard.until("things://one/a")
            assert host.updates.followed
    finally:
        await server.aclose()
        await web.close(5)
    assert not host.updates.followed


class DoorFor(Door):
    """Takes everybody who connects for one principal."""

    def __init__(self, settings: HttpSettings, who: Principal) -> None:
        super().__init__(settings)
        self._who = who

    def principal(self, sock: Any) -> Principal | None:
        return self._who


@pytest.mark.parametrize("runtime", ["asyncio"])
@pytest.mark.parametrize("of_bob", ["http legacy", f"http {MODERN}", "socket legacy"])
async def test_over_http_as_well_no_other_principal_is_told(
    host: Host, era: str, of_bob: str
) -> None:
    settings = HttpSettings(port=0)
    server = McpServer(host)
    webs = {
        who: HttpListener(server, host, settings, door=DoorFor(settings, who)) for who in (ADA, BOB)
    }
    for web in webs.values():
        await web.start()

    def over_http(principal: Principal, era: str) -> Join:
        mode: Any = "auto" if era == MODERN else "legacy"

        def join(**options: Any) -> Client:
            return Client(webs[principal].url, mode=mode, **options)

        return join

    way, _, era_of_bob = of_bob.partition(" ")
    join_bob: Any = over_http(BOB, era_of_bob)
    if way == "socket":
        join_bob = partial(joiner(host, era_of_bob), BOB)
    uris = ("things://all", "things://one/a")
    try:
        async with (
            following(over_http(ADA, era), era, *uris) as (ada, ada_heard),
            following(join_bob, era_of_bob, *uris) as (bob, bob_heard),
        ):
            for uri in uris:
                await touch(ada, uri, mine=True)
            await ada_heard.until(*uris)
            # Had Bob been told of Ada's, that would have been before this.
            await touch(bob, uris[0], mine=True)
            with anyio.fail_after(20):
                while not bob_heard.uris:
                    await asyncio.sleep(0.001)
            assert bob_heard.uris == [uris[0]]
            assert ada_heard.uris == []
            await touch(bob, uris[1])
            await ada_heard.until(uris[1])
            await bob_heard.until(*uris)
    finally:
        await server.aclose()
        for web in webs.values():
            await web.close(5)
    assert not host.updates.followed


async def test_one_that_may_not_read_any_more_is_not_told(host: Host, era: str) -> None:
    async with following(joiner(host, era), era, "things://all") as (client, heard):
        rows = host.inventory
        host.revise(rows.with_tools("planted", rows.specs(), resources=()))
        await touch(client, "things://all")
        host.revise(rows)
        await touch(client, "things://one/b")
        await asyncio.sleep(host_updates.INTERVAL * 2)
        assert heard.uris == []
        await touch(client, "things://all")
        await heard.until("things://all")


# --- how often ------------------------------------------------------------------------------------


async def test_many_changes_are_told_of_a_few_times(host: Host, era: str) -> None:
    async with following(joiner(host, era), era, "things://all") as (client, heard):
        started = asyncio.get_running_loop().time()
        for _ in range(10):
            await touch(client, "things://all", times=1000, elsewhere=True)
        rounds = 2 + (asyncio.get_running_loop().time() - started) / host_updates.INTERVAL
        await heard.until("things://all")
        await touch(client, "things://one/x")
        await asyncio.sleep(host_updates.INTERVAL * 2)
        assert len(heard.uris) <= rounds


async def test_the_last_change_is_never_lost(host: Host, era: str) -> None:
    async with following(joiner(host, era), era, "things://all") as (client, heard):
        for _ in range(4):
            await touch(client, "things://all")
            await heard.until("things://all")


async def test_what_nobody_follows_leaves_no_trace(host: Host, era: str) -> None:
    async with following(joiner(host, era), era, "things://one/a") as (client, _):
        await touch(client, "things://all", times=10_000)
        await touch(client, "things://one/b", mine=True)
        assert host.updates._changed == {}
        assert not host.updates._armed


def test_followers_come_and_go_while_other_threads_report(anyio_backend: str) -> None:
    # Not one change may raise on the thread that reports it.
    failures: list[BaseException] = []
    done = threading.Event()

    async def main() -> None:
        updates = Updates(lambda principal, uri: uri)
        told: list[None] = []

        def tell() -> None:
            told.append(None)

        def report() -> None:
            try:
                while not done.is_set():
                    for n in range(8):
                        updates.changed(f"x://{n}", ADA if n % 2 else None)
            except BaseException as error:  # noqa: BLE001 - the boundary of the thread
                failures.append(error)

        threads = [threading.Thread(target=report) for _ in range(3)]
        for thread in threads:
            thread.start()
        for n in range(300):
            stops = [updates.follow(f"x://{i}", ADA, tell) for i in range(n % 8)]
            await asyncio.sleep(0)
            for stop in stops:
                stop()
                stop()
        assert not updates.followed
        stop = updates.follow("x://1", ADA, tell)
        told.clear()
        with anyio.fail_after(20):
            while not told:
                await asyncio.sleep(0.001)
        stop()
        updates.close()
        done.set()
        for thread in threads:
            thread.join()

    asyncio.run(main())
    assert failures == []


# --- requests -------------------------------------------------------------------------------------


async def test_one_that_unsubscribes_is_not_told(host: Host) -> None:
    uris = ("things://all", "things://one/a")
    async with following(joiner(host, "legacy"), "legacy", *uris) as (client, heard):
        # Twice is once.
        await client.subscribe_resource("things://all")
        await client.unsubscribe_resource("things://all")
        await touch(client, "things://all")
        await touch(client, "things://one/a")
        await heard.until("things://one/a")
        assert heard.uris == []
        # What was not subscribed to can be given up as well.
        await client.unsubscribe_resource("things://one/never")


async def test_what_is_not_there_cannot_be_followed(host: Host) -> None:
    async with joiner(host, "legacy")() as client:
        with pytest.raises(MCPError, match="No resource is at 'nothing://here'") as caught:
            await client.subscribe_resource("nothing://here")
        assert caught.value.code == -32002


async def test_one_who_may_not_read_may_not_follow(host: Host, runtime: str) -> None:
    peer = Principal("peer", "x", "somebody")
    async with joiner(host, "legacy")(peer) as client:
        with pytest.raises(MCPError, match="No resource is at 'things://all'"):
            await client.subscribe_resource("things://all")
    assert not host.updates.followed


async def test_a_client_follows_so_many_resources_and_no_more(
    host: Host, era: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_updates, "MAX_RESOURCES", 2)
    monkeypatch.setattr("mcpd_core.server.changes.MAX_RESOURCES", 2)
    uris = [f"things://one/{n}" for n in range(3)]
    async with joiner(host, era)() as client:
        if era == MODERN:
            with pytest.raises(MCPError, match="to 2 resources at most"):
                async with client.listen(resource_subscriptions=uris):
                    raise ToolError("It was accepted.")
            return
        for uri in uris[:2]:
            await client.subscribe_resource(uri)
        with pytest.raises(MCPError, match="has subscribed to 2 resources, which is the most"):
            await client.subscribe_resource(uris[2])
        await client.unsubscribe_resource(uris[0])
        await client.subscribe_resource(uris[2])
