"""Who gets in over HTTP: addresses, hosts, origins, users; and what supervisors are told."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import httpx2
import pytest

from mcpd_core.errors import DaemonError, NotAuthorised
from mcpd_core.host.policy import authorise, may_call
from mcpd_core.inventory import PluginRow
from mcpd_core.server.http import listener as listener_module
from mcpd_core.server.http import protocol as protocol_module
from mcpd_core.server.http.guard import Guard, guard_for
from mcpd_core.server.http.health import HealthPages
from mcpd_core.server.http.listener import HttpListener, bind
from mcpd_core.server.http.peers import LOOPBACK, NETWORK, Door
from mcpd_core.server.http.sockets import Lookup, ask_kernel, peer_uid, read_tables
from mcpd_core.services import Health
from mcpd_core.settings import HttpSettings, load_settings
from mcpd_core.spec import Principal

from .http_kit import ENVELOPE, ME, MODERN, TOOLS, Served, plant, serving, until, wire

pytestmark = pytest.mark.anyio

linux = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux whose a socket is")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PluginRow:
    return plant(tmp_path, monkeypatch, "tools", TOOLS)


@pytest.fixture
async def served(row: PluginRow) -> AsyncIterator[Served]:
    async with serving(row) as served:
        yield served


# --- whose a connection is ------------------------------------------------------------------------


@contextmanager
def connected(
    family: socket.AddressFamily = socket.AF_INET, to: str = "127.0.0.1", listen: str = "127.0.0.1"
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Yield both ends of a TCP connection: the accepted one, and the client's."""
    kind = socket.AF_INET6 if ":" in listen else socket.AF_INET
    with socket.socket(kind) as listening, socket.socket(family) as theirs:
        listening.bind((listen, 0))
        listening.listen()
        theirs.connect((to, listening.getsockname()[1]))
        ours, _ = listening.accept()
        with ours:
            yield ours, theirs


@pytest.fixture(params=[ask_kernel, read_tables])
def lookup(request: pytest.FixtureRequest) -> Lookup:
    """How the kernel is asked."""
    way: Lookup = request.param
    return way


@linux
def test_the_kernel_tells_whose_the_other_end_is(lookup: Lookup) -> None:
    with connected() as (ours, _):
        assert peer_uid(ours, [lookup]) == os.geteuid()


@linux
def test_an_ipv6_socket_with_an_ipv4_address_is_found(lookup: Lookup) -> None:
    with connected(socket.AF_INET6, "::ffff:127.0.0.1") as (ours, _):
        assert peer_uid(ours, [lookup]) == os.geteuid()


@linux
@pytest.mark.skipif(not socket.has_ipv6, reason="needs IPv6")
def test_ipv6_clients_are_found(lookup: Lookup) -> None:
    with connected(socket.AF_INET6, "::1", "::1") as (ours, _):
        assert peer_uid(ours, [lookup]) == os.geteuid()


@linux
def test_a_client_that_has_closed_its_socket_is_nobody(lookup: Lookup) -> None:
    with connected() as (ours, theirs):
        theirs.sendall(b"POST")
        theirs.close()
        # Older kernels list such a socket as the superuser's.
        assert peer_uid(ours, [lookup]) is None


@linux
def test_a_connection_that_is_gone_identifies_nobody() -> None:
    with connected() as (ours, theirs):
        owner = ask_kernel(ours.getpeername(), ours.getsockname())
        # What was found might be a successor's, for all that can be known.
        assert peer_uid(ours, [lambda *_: owner]) == os.geteuid()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        theirs.close()
        assert peer_uid(ours, [lambda *_: owner]) is None


@linux
def test_a_kernel_that_does_not_answer_has_tables_that_can_be_read() -> None:
    def refuse(theirs: Any, ours: Any) -> None:
        raise PermissionError

    with connected() as (ours, _):
        assert peer_uid(ours, [refuse, read_tables]) == os.geteuid()
        assert peer_uid(ours, [refuse, refuse]) is None


@linux
def test_another_machine_is_nobody_of_this_one() -> None:
    far, near = ("192.0.2.1", 4711), ("127.0.0.1", 8765)
    with pytest.raises(FileNotFoundError):
        ask_kernel(far, near)
    assert read_tables(far, near) is None
    sock = SimpleNamespace(getpeername=lambda: far, getsockname=lambda: near)
    assert peer_uid(sock) is None


@linux
@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_another_user_is_told_from_ourselves() -> None:
    os.seteuid(65534)
    try:
        theirs = socket.socket()
    finally:
        os.seteuid(0)
    with theirs, socket.create_server(("127.0.0.1", 0)) as listening:
        theirs.connect(listening.getsockname())
        ours, _ = listening.accept()
        with ours:
            assert peer_uid(ours) == 65534
            assert Door(HttpSettings()).principal(ours) is None


def test_a_system_that_does_not_know_identifies_nobody() -> None:
    assert peer_uid(SimpleNamespace()) is None


@pytest.mark.parametrize(
    ("uid", "allowed", "expected"),
    [
        (os.geteuid(), {}, Principal("local", str(os.geteuid()))),
        (os.geteuid() + 1, {}, None),
        (None, {}, None),
        (os.geteuid() + 1, {"trust_loopback": True}, LOOPBACK),
        (None, {"insecure_bind": True}, NETWORK),
        (os.geteuid(), {"insecure_bind": True}, Principal("local", str(os.geteuid()))),
    ],
)
def test_the_owner_is_local_and_others_are_what_the_owner_lets_them_be(
    uid: int | None, allowed: dict[str, Any], expected: Principal | None
) -> None:
    door = Door(HttpSettings(**allowed), uid_of=lambda sock: uid)
    with connected() as (ours, _):
        assert door.principal(ours) == expected


def test_trusting_this_machine_is_trusting_nobody_else() -> None:
    far = SimpleNamespace(getpeername=lambda: ("192.0.2.1", 5))
    near = SimpleNamespace(getpeername=lambda: ("::ffff:127.0.0.1", 5, 0, 0))
    door = Door(HttpSettings(trust_loopback=True), uid_of=lambda sock: None)
    assert door.principal(far) is None
    assert door.principal(near) == LOOPBACK
    with socket.socket() as gone:
        assert door.principal(gone) is None


def test_what_unidentified_clients_may_is_asked_again_for_each_call(row: PluginRow) -> None:
    spec = row.tools[0]
    assert may_call(LOOPBACK, spec, HttpSettings(trust_loopback=True))
    assert may_call(NETWORK, spec, HttpSettings(insecure_bind=True))
    assert not may_call(NETWORK, spec, HttpSettings(trust_loopback=True))
    assert not may_call(Principal("peer", "x"), spec, HttpSettings(insecure_bind=True))
    # A task that was stored while they were trusted, for example.
    with pytest.raises(NotAuthorised, match="http:loopback may not call"):
        authorise(LOOPBACK, spec, HttpSettings())


async def test_a_client_that_cannot_be_identified_is_refused_and_told_why(row: PluginRow) -> None:
    def stranger(settings: HttpSettings) -> Door:
        return Door(settings, uid_of=lambda sock: os.geteuid() + 1)

    async with serving(row, stranger) as served, httpx2.AsyncClient() as client:
        refused = await client.post(served.url, json={})
        assert refused.status_code == 403
        assert "trust_loopback" in refused.json()["error"]["message"]
        assert (await client.get(f"{served.root}/health/live")).status_code == 200
    async with serving(row, stranger, trust_loopback=True) as served:
        async with wire(served.url, modern=True) as modern:
            answer = (await modern.call("whoami")).json()["result"]
            assert answer["structuredContent"]["principal"] == "http:loopback"


async def test_a_session_belongs_to_the_principal_who_opened_it(row: PluginRow) -> None:
    uids = iter([os.geteuid(), None])

    def changing(settings: HttpSettings) -> Door:
        return Door(settings, uid_of=lambda sock: next(uids))

    async with serving(row, changing, trust_loopback=True) as served:
        async with wire(served.url, modern=False) as owner:
            assert ME in (await owner.call("whoami")).text
            async with httpx2.AsyncClient() as thief:
                owner.client = thief
                assert (await owner.call("whoami")).status_code == 404


# --- hosts and origins ----------------------------------------------------------------------------


async def test_requests_that_name_another_host_are_refused(served: Served) -> None:
    async with wire(served.url, modern=True) as client:
        for host in ("evil.example", "evil.example:8765", "localhost.evil.example"):
            refused = await client.post("tools/list", {}, host=host)
            assert refused.status_code == 421, host
        for host in ("localhost", "LOCALHOST:1234", "127.0.0.1:1", "[::1]:8765"):
            assert (await client.post("tools/list", {}, host=host)).status_code == 200, host


async def test_pages_of_other_origins_are_refused(served: Served) -> None:
    async with wire(served.url, modern=True) as client:
        for origin in ("https://evil.example", "null", "http://localhost.evil.example:80"):
            refused = await client.post("tools/list", {}, origin=origin)
            assert refused.status_code == 403, origin
        allowed = await client.post("tools/list", {}, origin="http://localhost:6274")
        assert allowed.status_code == 200
        headers = {**client.headers("tools/list", {}), "content-type": "text/plain"}
        simple = await client.client.post(served.url, content=b"{}", headers=headers)
        assert simple.status_code == 415


async def test_the_owner_can_allow_more(row: PluginRow) -> None:
    more: dict[str, Any] = {
        "allowed_hosts": ("tools.example:*",),
        "allowed_origins": ("https://app.example",),
    }
    async with serving(row, **more) as served, wire(served.url, modern=True) as client:
        headers = {"host": "tools.example:443", "origin": "https://app.example"}
        assert (await client.post("tools/list", {}, **headers)).status_code == 200


def test_on_other_addresses_a_host_may_be_any_address_but_no_foreign_name() -> None:
    guard = guard_for(HttpSettings(host="0.0.0.0"), "0.0.0.0")
    for host in (b"192.168.1.5:8765", b"[fe80::1]:8765", socket.gethostname().encode()):
        assert guard.refusal(host, None) is None, host
        assert guard.refusal(host, b"http://" + host) is None, host
    assert guard.refusal(b"evil.example:8765", None) is not None
    assert guard.refusal(b"192.168.1.5:8765", b"http://192.168.1.6:8765") is not None
    assert guard.refusal(None, None) is not None
    assert guard_for(HttpSettings(), "::1").refusal(b"192.168.1.5", None) is not None


def test_what_was_allowed_is_not_remembered_without_bounds() -> None:
    guard = Guard(["a:*"], [])
    for port in range(1000):
        assert guard.refusal(b"a:%d" % port, None) is None
    assert len(guard._allowed) <= 256


# --- where it listens -----------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_an_address_that_others_reach_is_refused(host: str) -> None:
    with pytest.raises(DaemonError, match="others can reach it") as caught:
        bind(HttpSettings(host=host, port=0))
    assert "--insecure-bind" in caught.value.hint


def test_the_owner_can_insist_and_is_warned(caplog: pytest.LogCaptureFixture) -> None:
    bind(HttpSettings(host="0.0.0.0", port=0, insecure_bind=True)).close()
    assert "INSECURE: everybody who reaches 0.0.0.0" in caplog.text
    bind(HttpSettings(port=0, trust_loopback=True)).close()
    assert "every user of this machine" in caplog.text


def test_a_system_that_cannot_identify_clients_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listener_module, "sys", SimpleNamespace(platform="darwin"))
    bind(HttpSettings(port=0)).close()
    assert "[http] trust_loopback = true" in caplog.text


def test_a_port_that_is_taken_is_named_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(DaemonError, match=f"Port {port} of 127.0.0.1 is taken") as caught:
            bind(HttpSettings(port=port))
    assert "--port" in caught.value.hint
    assert "--transport socket" in caught.value.hint


def test_other_failures_to_listen_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DaemonError, match=r"The address 'no\.such\.host\.invalid' is not known"):
        bind(HttpSettings(host="no.such.host.invalid"))

    def refuse(self: socket.socket, address: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(DaemonError, match="Port 80 .* cannot be listened on: Permission denied"):
        bind(HttpSettings(port=80))


async def test_without_the_fast_libraries_it_is_served_more_slowly(
    row: PluginRow, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "httptools", None)
    caplog.set_level(logging.INFO)
    async with serving(row) as served, wire(served.url, modern=False) as client:
        uvicorn: Any = served.web._uvicorn
        (protocol,) = uvicorn.server_state.connections
        assert "H11Protocol" in [kind.__name__ for kind in type(protocol).__mro__]
        assert ME in (await client.call("whoami")).text
    assert caplog.text.count("mcpd-core[fast] installs it") == 1


async def test_an_sdk_of_another_shape_is_not_served_over_http(
    row: PluginRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener_module, "unsupported", lambda: "serve of the SDK takes no tea")
    with pytest.raises(DaemonError, match="takes no tea"):
        HttpListener(None, None, HttpSettings())  # type: ignore[arg-type]


async def test_ipv6_is_announced_in_brackets(row: PluginRow) -> None:
    async with serving(row, host="::1") as served, wire(served.url, modern=True) as client:
        assert served.url.startswith("http://[::1]:")
        assert ME in (await client.call("whoami")).text


# --- health ---------------------------------------------------------------------------------------


class Patient:
    """A host with services."""

    def __init__(self) -> None:
        self.closing = False
        self.services: dict[str, Health] = {}

    def health(self) -> dict[str, Health]:
        return self.services


def test_readiness_counts_reasons_and_names_nothing() -> None:
    host = Patient()
    pages = HealthPages(host)
    assert pages.reasons() == ["starting"]
    pages.start()
    assert pages.reasons() == []
    host.services = {"secret": Health(False, "the key of /home/ada"), "other": Health(True)}
    assert pages.reasons() == ["1 of 2 services not working"]
    host.closing = True
    assert pages.reasons() == ["stopping", "1 of 2 services not working"]


async def test_supervisors_need_nobodys_leave(served: Served) -> None:
    async with httpx2.AsyncClient() as client:
        foreign = {"host": "10.0.0.7:8765"}
        live = await client.get(f"{served.root}/health/live", headers=foreign)
        assert (live.status_code, live.json()) == (200, {"status": "ok"})
        ready = await client.get(f"{served.root}/health/ready", headers=foreign)
        assert ready.status_code == 503
        assert ready.json() == {"status": "unavailable", "reasons": ["starting"]}
        served.web.health.start()
        assert (await client.head(f"{served.root}/health/ready")).status_code == 200
        assert (await client.post(f"{served.root}/health/ready")).status_code == 405
        assert (await client.get(f"{served.root}/health/secrets")).status_code == 404


async def test_a_connection_that_asks_nothing_is_closed(
    row: PluginRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener_module, "KEEP_ALIVE", 0.05)
    async with serving(row) as served:
        port = int(served.root.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
        await writer.wait_closed()


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("PORT", "65536"),
        ("PORT", "http"),
        ("PATH", "mcp"),
        ("PATH", "/health/live"),
        ("STREAM", "websocket"),
        ("TRUST_LOOPBACK", "maybe"),
        ("MAX_BODY", "1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(key: str, value: str) -> None:
    from mcpd_core.errors import SettingsError

    with pytest.raises(SettingsError, match=f"MCPD_HTTP__{key}"):
        load_settings(env={f"MCPD_HTTP__{key}": value})


def test_settings_are_read_from_text() -> None:
    env = {"MCPD_HTTP__TRUST_LOOPBACK": "yes", "MCPD_HTTP__PORT": "0", "MCPD_HTTP__PATH": "/"}
    http = load_settings(env=env).http
    assert (http.trust_loopback, http.port, http.path) == (True, 0, "/")


# --- what one client can take ---------------------------------------------------------------------


@pytest.fixture(params=["httptools", "h11"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which library reads requests."""
    if request.param == "h11":
        monkeypatch.setitem(sys.modules, "httptools", None)


async def dial(served: Served) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", int(served.root.rpartition(":")[2]))


async def rest(reader: asyncio.StreamReader) -> bytes:
    """Read until the server has closed, however it does."""
    try:
        return await asyncio.wait_for(reader.read(), 10)
    except ConnectionError:
        return b""


CHUNKED = b"POST /mcp HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n0\r\n"


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize(
    ("start", "more"),
    [
        (b"GET /", b"x" * 1024),
        (b"GET / HTTP/1.1\r\nx: ", b"x" * 1024),
        (b"GET / HTTP/1.1\r\n", b"x: " + b"x" * 1019 + b"\r\n"),
        (CHUNKED + b"x: ", b"x" * 1024),
    ],
    ids=["request line", "one header", "many headers", "trailers"],
)
async def test_a_head_without_end_is_cut_off(served: Served, start: bytes, more: bytes) -> None:
    reader, writer = await dial(served)
    sent = 0
    try:
        writer.write(start)
        while sent < 4 * 1024 and not reader.at_eof():
            writer.write(more * 8)
            await writer.drain()
            sent += 8
            await asyncio.sleep(0)
    except ConnectionError:
        pass
    await until(lambda: not served.web._connections)
    await rest(reader)
    writer.close()
    async with wire(served.url, modern=True) as client:
        assert ME in (await client.call("whoami")).text


async def test_a_head_of_less_than_64_kibibytes_is_read(row: PluginRow) -> None:
    async with serving(row) as served, wire(served.url, modern=True) as client:
        answer = await client.post("tools/list", {}, x_long="x" * 60 * 1024)
        assert answer.status_code == 200
        assert "content" in (await client.call("say", text="x" * 300 * 1024)).text


@pytest.mark.usefixtures("parser")
async def test_connections_beyond_the_bound_are_closed_at_once(
    row: PluginRow, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listener_module, "MAX_CONNECTIONS", 2)
    async with serving(row) as served:
        first = [await dial(served) for _ in range(2)]
        for _ in range(3):
            reader, writer = await dial(served)
            assert await rest(reader) == b""
            writer.close()
        assert caplog.text.count("HTTP connections at once") == 1
        for _, writer in first:
            writer.close()
        await until(lambda: not served.web._connections)
        async with wire(served.url, modern=True) as client:
            assert ME in (await client.call("whoami")).text


async def test_strangers_take_no_connections_from_the_owner(
    row: PluginRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener_module, "MAX_STRANGERS", 1)
    uids: list[int | None] = [None, None, os.geteuid()]

    def changing(settings: HttpSettings) -> Door:
        return Door(settings, uid_of=lambda sock: uids.pop(0))

    async with serving(row, changing) as served:
        _, writer = await dial(served)
        reader, refused = await dial(served)
        assert await rest(reader) == b""
        async with wire(served.url, modern=True) as client:
            assert ME in (await client.call("whoami")).text
        writer.close()
        refused.close()


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize(
    "start",
    [
        b"P",
        b"POST /mcp HTTP/1.1\r\nhost: localhost\r\n",
        b"POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n%b"
        % b"content-length: 9\r\n\r\n{",
    ],
    ids=["one byte", "half a head", "half a body"],
)
async def test_a_request_that_does_not_end_is_given_up(
    row: PluginRow, monkeypatch: pytest.MonkeyPatch, start: bytes
) -> None:
    monkeypatch.setattr(protocol_module, "REQUEST_TIMEOUT", 0.05)
    async with serving(row) as served:
        reader, writer = await dial(served)
        writer.write(start)
        await rest(reader)
        assert reader.at_eof() or reader.exception() is not None
        writer.close()


@pytest.mark.usefixtures("parser")
async def test_a_call_may_take_longer_than_its_request_may(
    row: PluginRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol_module, "REQUEST_TIMEOUT", 0.05)
    async with serving(row) as served, wire(served.url, modern=True) as client:
        call = asyncio.ensure_future(client.call("wait"))
        await until(lambda: served.tools.log == ["waiting"])
        await asyncio.sleep(0.2)
        served.tools.gate.set()
        assert "waited" in (await call).text


@pytest.mark.parametrize("name", ["host", "origin", "mcp-protocol-version", "mcp-session-id"])
async def test_a_header_that_decides_may_appear_once(served: Served, name: str) -> None:
    for path in ("/mcp", "/health/live"):
        lines = f"POST {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: 0\r\n"
        if name != "host":
            lines += "host: localhost\r\n"
        reader, writer = await dial(served)
        writer.write(f"{lines}{name}: localhost\r\n{name}: evil.example\r\n\r\n".encode())
        answer = await rest(reader)
        writer.close()
        # Health pages look at none of them.
        assert answer.startswith(b"HTTP/1.1 400" if path == "/mcp" else b"HTTP/1.1 405")


async def test_who_a_client_is_is_asked_before_it_can_begin_to_close(served: Served) -> None:
    reader, writer = await dial(served)
    await until(lambda: bool(served.web._connections))
    writer.write(b"DELETE /mcp HTTP/1.1\r\nhost: localhost\r\n\r\n")
    writer.write_eof()
    assert b" 403 " not in await rest(reader)
    writer.close()


# --- stopping -------------------------------------------------------------------------------------


async def test_nothing_that_lasts_begins_while_the_server_stops(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        wire(served.url, modern=True) as modern,
        wire(served.url, modern=False) as client,
        httpx2.AsyncClient() as other,
    ):
        assert (await modern.call("whoami")).status_code == 200
        headers = {**client.headers("", {}), "accept": "text/event-stream"}
        await other.get(f"{served.root}/health/live")
        served.web.stop()
        refused = await modern.post("subscriptions/listen", {"notifications": {}})
        assert (refused.status_code, refused.headers["connection"]) == (503, "close")
        assert (await client.client.get(served.url, headers=headers)).status_code == 503
        message = client.message("initialize", {"protocolVersion": "2025-11-25"})
        accept = {"accept": "application/json"}
        refused = await other.post(served.url, json=message, headers=accept)
        assert refused.status_code == 503


@pytest.mark.usefixtures("parser")
async def test_a_request_that_stalls_does_not_keep_a_server_that_stops(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    head = b"POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    writers = []
    for start in (b"P", head, head + b"content-length: 9\r\n\r\n{"):
        _, writer = await dial(served)
        writer.write(start)
        writers.append(writer)
    await asyncio.sleep(0.1)
    with anyio.fail_after(3):
        await served.drain(grace=1)
    assert "Traceback" not in caplog.text
    assert "Exception in ASGI" not in caplog.text
    for writer in writers:
        writer.close()


@pytest.mark.usefixtures("parser")
async def test_a_client_that_does_not_read_its_answers_is_cut_off_when_the_server_stops(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    body = {"name": "say", "arguments": {"text": "x" * 1000, "times": 900}, "_meta": ENVELOPE}
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": body}
    content = json.dumps(call).encode()
    head = (
        "POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"accept: application/json\r\nmcp-protocol-version: {MODERN}\r\n"
        "mcp-method: tools/call\r\nmcp-name: say\r\n"
        f"content-length: {len(content)}\r\n\r\n"
    )
    reader, writer = await dial(served)
    # More than all buffers between the two can hold.
    writer.write((head.encode() + content) * 30)
    assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
    with anyio.fail_after(4):
        await served.web.close(1)
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await reader.readexactly(30 * 900_000)
    assert caplog.text == ""
    writer.close()


async def test_a_call_that_is_cut_off_when_the_server_stops_is_no_failure_of_it(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    async with wire(served.url, modern=True) as client:
        call = asyncio.ensure_future(client.call("wait"))
        await until(lambda: served.tools.log == ["waiting"])
        with anyio.fail_after(4):
            await served.web.close(1)
        with pytest.raises(httpx2.TransportError):
            await call
    assert "Exception in ASGI" not in caplog.text
