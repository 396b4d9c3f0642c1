"""The command line's MCP client against servers that behave badly; it meets the real one in the
tests of the whole."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from mcpd_core import CallRefused, Image, InvalidArguments, NoDaemon
from mcpd_core.cli import daemon_client
from mcpd_core.cli.calling import Request, call_daemon
from mcpd_core.cli.daemon_client import ConnectionLost, DaemonClient, RemoteError

Message = dict[str, Any]
#: Answers one message with any number of messages, or with bytes as they are.
Script = Callable[[Message], list[Message | bytes]]


@contextmanager
def serving(path: Path, script: Script) -> Iterator[list[Message]]:
    """Serve one connection by a script; yields what was received."""
    received: list[Message] = []
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(1)
    listener.settimeout(10)

    def serve() -> None:
        connection, _ = listener.accept()
        connection.settimeout(10)
        # The client may leave in the middle of an answer.
        with suppress(BrokenPipeError), connection, connection.makefile("rb") as lines:
            for line in lines:
                message = json.loads(line)
                received.append(message)
                for answer in script(message):
                    raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                    if not raw:
                        return
                    connection.sendall(raw + b"\n")

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield received
    finally:
        thread.join(10)
        listener.close()


def result(message: Message, **values: Any) -> Message:
    return {"jsonrpc": "2.0", "id": message["id"], "result": values}


def script(**answers: Callable[[Message], list[Message | bytes]]) -> Script:
    """Answer by method (``/`` written ``_``); the handshake succeeds by itself."""

    def answer(message: Message) -> list[Message | bytes]:
        method = message.get("method", "").replace("/", "_")
        if method in answers:
            return answers[method](message)
        return [result(message)] if method == "initialize" else []

    return answer


def test_nobody_listens(tmp_path: Path) -> None:
    for path in (tmp_path / "mcpd.sock", tmp_path / "missing" / "mcpd.sock"):
        with pytest.raises(NoDaemon, match="No daemon listens on .* `mcpd serve`"):
            DaemonClient(path).__enter__()


def test_a_socket_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "mcpd.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        with pytest.raises(NoDaemon, match="cannot be used"):
            DaemonClient(path).__enter__()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux names a folder by its descriptor")
def test_a_path_that_is_too_long_for_the_kernel(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 40)
    folder.mkdir()
    descriptor = os.open(folder, os.O_PATH)
    with serving(Path(f"/proc/self/fd/{descriptor}/mcpd.sock"), script()) as received:
        with DaemonClient(folder / "mcpd.sock"):
            pass
    os.close(descriptor)
    assert received[0]["method"] == "initialize"


def test_every_page_of_tools_is_read(tmp_path: Path) -> None:
    def page(message: Message) -> list[Message | bytes]:
        if "cursor" in message["params"]:
            return [result(message, tools=[{"name": "b"}])]
        return [result(message, tools=[{"name": "a"}], nextCursor="more")]

    path = tmp_path / "s"
    with serving(path, script(tools_list=page)), DaemonClient(path) as client:
        assert client.tools() == [{"name": "a"}, {"name": "b"}]


def test_notifications_pings_and_strange_messages_do_not_disturb(tmp_path: Path) -> None:
    def call(message: Message) -> list[Message | bytes]:
        return [
            {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progress": 1}},
            {"jsonrpc": "2.0", "method": "notifications/message"},
            {"jsonrpc": "2.0", "id": "p", "method": "ping"},
            {"jsonrpc": "2.0", "id": "q", "method": "sampling/createMessage"},
            {"jsonrpc": "2.0", "id": 999, "result": {}},
            result(message, content=[]),
        ]

    path = tmp_path / "s"
    seen: list[tuple[str, Any]] = []
    with serving(path, script(tools_call=call)) as received, DaemonClient(path) as client:
        assert client.call("t", {}, notified=lambda *message: seen.append(message)) == {
            "content": []
        }
        client.call("t", {})
    assert seen == [("notifications/progress", {"progress": 1}), ("notifications/message", {})]
    replies = {message["id"]: message for message in received if "method" not in message}
    assert replies["p"]["result"] == {}
    assert replies["q"]["error"]["code"] == -32601


def test_an_error_of_the_daemon_keeps_its_details(tmp_path: Path) -> None:
    def refuse(message: Message) -> list[Message | bytes]:
        error = {"code": -32000, "message": "busy", "data": {"code": "busy", "retry_after": 1}}
        return [{"jsonrpc": "2.0", "id": message["id"], "error": error}]

    path = tmp_path / "s"
    with serving(path, script(tools_call=refuse)):
        with DaemonClient(path) as client, pytest.raises(RemoteError) as caught:
            client.call("t", {})
    assert caught.value.data == {"code": "busy", "retry_after": 1, "jsonrpc_code": -32000}
    path.unlink()
    with serving(path, script(tools_call=refuse)), pytest.raises(CallRefused, match="busy"):
        call_daemon(Request("t"), path)


@pytest.mark.parametrize("answer", [b"", b"not json", b"[]"])
def test_an_answer_that_never_comes_is_an_error(tmp_path: Path, answer: bytes) -> None:
    path = tmp_path / "s"
    with serving(path, script(tools_call=lambda _: [answer])):
        with DaemonClient(path) as client, pytest.raises(ConnectionLost):
            client.call("t", {})


def test_a_silent_server_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with serving(path, script(initialize=lambda _: [])):
        with pytest.raises(ConnectionLost, match=r"has not answered within 0\.05 s"):
            DaemonClient(path, patience=0.05).__enter__()


def test_a_server_that_drips_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "s"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(1)
    dripped = 0

    def drip() -> None:
        nonlocal dripped
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            while True:
                connection.sendall(b" ")
                dripped += 1
                time.sleep(0.01)

    thread = threading.Thread(target=drip)
    thread.start()
    with pytest.raises(ConnectionLost, match=r"has not answered within 0\.2 s"):
        DaemonClient(path, patience=0.2).__enter__()
    thread.join(10)
    listener.close()
    assert dripped > 1


def test_a_server_that_only_notifies_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "s"
    note: Message = {"jsonrpc": "2.0", "method": "notifications/message", "params": {}}
    heard: list[str] = []

    def slow(method: str, params: Any) -> None:
        heard.append(method)
        time.sleep(0.1)

    with serving(path, script(tools_list=lambda _: [note] * 20)):
        with DaemonClient(path, patience=0.2) as client:
            with pytest.raises(ConnectionLost, match="has not answered within"):
                client.request("tools/list", notified=slow)
    assert len(heard) >= 1


@pytest.mark.parametrize(
    "answer",
    [
        b"[" * 200_000,
        b'{"jsonrpc":"2.0","id":1,"result":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001,
        b'{"jsonrpc":"2.0","id":1}',
        b'{"jsonrpc":"2.0","id":1,"result":[]}',
        b'{"jsonrpc":"2.0","id":1,"error":"no"}',
        b"\xff\xfe",
    ],
    ids=["deep", "deep result", "nothing", "list", "odd error", "no text"],
)
def test_what_is_no_answer_is_said_to_be_none(tmp_path: Path, answer: bytes) -> None:
    path = tmp_path / "s"
    with serving(path, script(initialize=lambda _: [answer])):
        with pytest.raises(ConnectionLost, match="does not speak MCP"):
            DaemonClient(path).__enter__()


def test_an_answer_without_end_is_not_read_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon_client, "LONGEST_MESSAGE", 1_000_000)
    path = tmp_path / "s"
    with serving(path, script(initialize=lambda _: [b" " * 2_000_000])):
        with pytest.raises(ConnectionLost, match="does not speak MCP"):
            DaemonClient(path).__enter__()


def test_an_interrupt_cancels_the_call(tmp_path: Path) -> None:
    progress: Message = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {}}

    def interrupt(method: str, params: Any) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "s"
    with serving(path, script(tools_call=lambda _: [progress])) as received:
        with DaemonClient(path) as client, pytest.raises(KeyboardInterrupt):
            client.call("t", {}, notified=interrupt)
    call = next(message for message in received if message.get("method") == "tools/call")
    assert received[-1]["method"] == "notifications/cancelled"
    assert received[-1]["params"]["requestId"] == call["id"]


def test_an_interrupt_after_the_daemon_left_is_an_interrupt(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with serving(path, script(tools_call=lambda _: [b""])), DaemonClient(path) as client:
        client._socket.shutdown(socket.SHUT_RDWR)
        client._cancel(1)


def test_a_failure_without_details_is_a_failure_all_the_same(tmp_path: Path) -> None:
    def fail(message: Message) -> list[Message | bytes]:
        block = {"type": "text", "text": "no"}
        return [result(message, isError=True, content=[block, {"type": "image"}])]

    path = tmp_path / "s"
    with serving(path, script(tools_call=fail)):
        answer = call_daemon(Request("t"), path)
    assert answer.to_json() == {"error": {"code": "tool_failed", "message": "no\n[image]"}}


def test_what_is_no_text_is_told_in_words_and_whole_in_json(tmp_path: Path) -> None:
    blocks = [{"type": "text", "text": "Look:"}, Image(b"PNG").to_block()]
    path = tmp_path / "s"
    with serving(path, script(tools_call=lambda message: [result(message, content=blocks)])):
        answer = call_daemon(Request("t"), path)
    assert answer.text == "Look:\n[image, image/png, 3 bytes]"
    assert answer.to_json() == {"text": answer.text, "content": blocks}


def test_arguments_that_do_not_fit_are_a_refusal(tmp_path: Path) -> None:
    def misfit(message: Message) -> list[Message | bytes]:
        details = {"code": "invalid_arguments", "message": "a: missing"}
        return [result(message, isError=True, content=[], _meta={"mcpd/error": details})]

    path = tmp_path / "s"
    with serving(path, script(tools_call=misfit)), pytest.raises(InvalidArguments, match="missing"):
        call_daemon(Request("t"), path)
