"""``mcpd top``: the rows it makes, the columns it has room for, what it says without a daemon."""

from __future__ import annotations

import copy
import io
import itertools
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mcpd_core.cli import main
from mcpd_core.cli.top import _follow
from mcpd_core.cli.top_rows import SORTS, WINDOW, History
from mcpd_core.cli.top_view import duration, fitting, uptime, view
from mcpd_core.histogram import Histogram


def offer(name: str, **facts: Any) -> dict[str, Any]:
    """One tool, as the daemon tells of it."""
    durations = facts.pop("durations", [])
    histogram = Histogram()
    for seconds in durations:
        histogram.add(seconds)
    return {
        "kind": "tool",
        "name": name,
        "plugin": "acme",
        "runtime": "asyncio",
        "in_flight": 0,
        "running": 0,
        "calls": len(durations),
        "errors": {},
        "refused": {},
        "durations": {str(bucket): count for bucket, count in histogram.counts.items()},
        "blocked": None,
        **facts,
    }


def overview(*offers: dict[str, Any], **facts: Any) -> dict[str, Any]:
    """What the daemon answers."""
    return {
        "pid": 4711,
        "version": "0.1.0",
        "uptime": 3725.4,
        "loop": "uvloop",
        "tools": 400,
        "in_flight": 3,
        "admission": {
            "client": {"running": 2, "waiting": 1, "limit": 64},
            "worker": {"running": 0, "waiting": 0, "limit": 16},
        },
        "runtimes": [
            {"name": "asyncio", "rung": "loop", "running": 2},
            {"name": "trio", "rung": "fused", "running": 1},
        ],
        "offers": list(offers),
        **facts,
    }


def history(*answers: dict[str, Any], apart: float = 1.0) -> History:
    history = History()
    for number, answer in enumerate(answers):
        history.add(number * apart, answer)
    return history


def drawn(history: History, width: int, height: int | None = None, sort: str = SORTS[0]) -> str:
    """What is seen on a terminal of that size."""
    out = io.StringIO()
    screen = Console(file=out, width=width, color_system=None, highlight=False)
    screen.print(view(history, sort, width=width, height=height))
    lines = out.getvalue().splitlines()
    assert all(len(line) <= width for line in lines)
    return "\n".join(line.rstrip() for line in lines)


# --- rows -----------------------------------------------------------------------------------------


def test_what_is_in_flight_comes_first_and_then_what_is_called_most() -> None:
    before = overview(*(offer(name) for name in ("idle", "busy", "often", "queued")))
    after = overview(
        offer("idle"),
        offer("busy", in_flight=2, running=2),
        offer("often", durations=[0.001] * 9),
        offer("queued", in_flight=3, running=1),
    )
    rows = history(before, after).rows("in-flight")
    assert [row.name for row in rows] == ["queued", "busy", "often", "idle"]
    assert [(row.running, row.waiting) for row in rows[:2]] == [(1, 2), (2, 0)]
    assert rows[2].rate == 9.0


@pytest.mark.parametrize(
    ("sort", "first"),
    [
        ("name", "a"),
        ("calls", "called"),
        ("p50", "slow"),
        ("p99", "slow"),
        ("errors", "wrong"),
        ("blocked", "heavy"),
        ("rate", "called"),
    ],
)
def test_rows_are_sorted_as_it_is_wanted(sort: str, first: str) -> None:
    offers = [
        offer("called", durations=[0.1, 0.1]),
        offer("slow", durations=[9.0]),
        offer("wrong", errors={"tool_failed": 2}, refused={"busy": 1}),
        offer("heavy", blocked={"offences": 3}),
        offer("a"),
    ]
    rows = history(overview(*(offer(o["name"]) for o in offers)), overview(*offers)).rows(sort)
    assert rows[0].name == first


def test_percentiles_and_rates_are_those_of_the_last_minute() -> None:
    old = offer("slow", durations=[5.0] * 100)
    now = copy.deepcopy(old)
    fresh = offer("slow", durations=[5.0] * 100 + [0.01] * 10)
    seen = history(overview(old), overview(now), overview(fresh), apart=10.0)
    (row,) = seen.rows("name")
    assert row.calls == 110
    assert row.rate == 0.5
    assert row.p99 == pytest.approx(0.01, rel=0.1)
    assert seen.rate() == 0.5


def test_without_a_call_in_the_last_minute_percentiles_are_those_of_all_calls() -> None:
    old = offer("slow", durations=[5.0])
    (row,) = history(overview(old), overview(copy.deepcopy(old))).rows("name")
    assert row.rate == 0.0
    assert row.p50 == pytest.approx(5.0, rel=0.1)


def test_one_answer_has_no_rates() -> None:
    seen = history(overview(offer("slow", durations=[5.0])))
    (row,) = seen.rows("name")
    assert row.rate is None
    assert seen.rate() is None


def test_answers_that_are_older_than_a_minute_are_forgotten() -> None:
    answers = [overview(offer("often", durations=[0.01] * n)) for n in range(200)]
    (row,) = history(*answers).rows("name")
    assert row.rate == pytest.approx(1.0)
    seen = history(*answers)
    assert len(seen._answers) == WINDOW + 1


def test_a_tool_that_counts_anew_has_no_negative_rate() -> None:
    (row,) = history(
        overview(offer("slow", durations=[0.1] * 9)), overview(offer("slow", durations=[0.2]))
    ).rows("name")
    assert row.rate == 1.0
    assert row.p50 == pytest.approx(0.2, rel=0.1)


# --- what is seen ---------------------------------------------------------------------------------


def test_a_wide_terminal_shows_everything() -> None:
    tool = offer(
        "fetch_page",
        in_flight=3,
        running=2,
        durations=[0.02] * 7,
        errors={"tool_failed": 1},
        refused={"busy": 2},
        blocked={"offences": 4},
    )
    titles = (
        "tool        plugin  runtime  run  wait  calls/s  calls      p50      p99"
        "  errors  refused  blocked"
    )
    values = (
        "fetch_page  acme    asyncio    2     1      7.0      7  19.5 ms  19.5 ms"
        "       1        2        4"
    )
    assert drawn(history(overview(offer("fetch_page")), overview(tool)), 150).splitlines() == [
        "mcpd 0.1.0, process 4711   up 1:02:05   3 in flight   7.0 calls/s   400 tools",
        "clients: 2 of 64 run, 1 wait   workers: 0 of 16 run, 0 wait",
        "asyncio (uvloop): 2   trio (fused): 1",
        "",
        titles,
        values,
    ]


def test_a_narrow_terminal_keeps_the_most_telling_columns_whole() -> None:
    tool = offer("a_tool_with_a_name_that_is_too_long_here", durations=[0.0123], in_flight=1)
    lines = drawn(history(overview(tool)), 50).splitlines()
    assert lines[4].split() == ["tool", "run", "wait", "p99", "errors"]
    assert lines[5].startswith("a_tool_with_a")
    assert "12.3 ms" in lines[5] or "12.8 ms" in lines[5]


def test_no_column_that_says_where_is_left_in_a_tiny_terminal() -> None:
    rows = history(overview(offer("a_tool", durations=[0.01]))).rows("name")
    assert [column.title for column, _ in fitting(rows, 10)] == ["tool", "run"]
    assert [column.title for column, _ in fitting(rows, 1000)][:3] == ["tool", "plugin", "runtime"]


def test_what_has_no_room_is_counted() -> None:
    seen = history(overview(*(offer(f"tool_{n:03}", durations=[0.01]) for n in range(400))))
    lines = drawn(seen, 80, height=24).splitlines()
    assert len(lines) == 24
    assert lines[-1] == "... and 382 more"
    assert len(drawn(seen, 80).splitlines()) == 405
    assert len(drawn(seen, 80, height=3).splitlines()) == 7


def test_names_cannot_steer_the_terminal() -> None:
    seen = history(overview(offer("evil\x1b[31m[red]\nname", durations=[0.01])))
    text = drawn(seen, 120)
    assert "\x1b" not in text
    assert "[red]" in text


def test_nothing_is_said_to_be_nothing() -> None:
    assert "Nothing has been called yet." in drawn(history(overview()), 80)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0.0000031, "3.10 us"),
        (0.0004, "400 us"),
        (0.00123, "1.23 ms"),
        (0.0999, "99.9 ms"),
        (0.9991, "999 ms"),
        (12.34, "12.3 s"),
        (3600.0, "3600 s"),
    ],
)
def test_durations_have_three_digits(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_a_long_time_is_written_in_days() -> None:
    assert uptime(59) == "0:00:59"
    assert uptime(2 * 86400 + 3600 + 61) == "2d 1:01:01"


# --- the command ----------------------------------------------------------------------------------


@contextmanager
def daemon(path: Path, answer: Callable[[dict[str, Any]], dict[str, Any] | None]) -> Iterator[None]:
    """Something that shakes hands and answers as it is told; ``None`` hangs up."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def serve() -> None:
            connection, _ = listening.accept()
            with connection, connection.makefile("rw") as stream:
                for line in stream:
                    request = json.loads(line)
                    if "id" not in request:
                        continue
                    result = {} if request["method"] == "initialize" else answer(request)
                    if result is None:
                        return
                    reply = {"jsonrpc": "2.0", "id": request["id"], "result": result}
                    stream.write(json.dumps(reply) + "\n")
                    stream.flush()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            thread.join(30)


def test_it_prints_the_table_once_where_there_is_no_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(request: dict[str, Any]) -> dict[str, Any]:
        assert request["method"] == "mcpd/overview"
        return overview(offer("fetch_page", durations=[0.02]))

    with daemon(tmp_path / "mcpd.sock", answer):
        assert main(["top", "--data-dir", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert "fetch_page" in out
    assert "\x1b" not in out
    assert err == ""


class Terminal:
    """`mcpd top`, started on a terminal."""

    def __init__(self, data_dir: Path, kind: str) -> None:
        self.screen = b""
        self._main, terminal = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mcpd_core", "top", "--interval=0.1", f"--data-dir={data_dir}"],
            env={**os.environ, "TERM": kind},
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
        )
        os.close(terminal)

    def read_until(self, text: bytes) -> None:
        while text not in self.screen:
            self.screen += os.read(self._main, 1 << 16)

    def end(self) -> int:
        """Read what is left, and return the exit status."""
        try:
            while received := os.read(self._main, 1 << 16):
                self.screen += received
        except OSError:
            pass  # How Linux says that nobody has the terminal open any more.
        os.close(self._main)
        return self.process.wait(30)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_it_follows_the_daemon_until_told_to_end_and_leaves_the_terminal_as_it_was(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    asked = itertools.count(1)

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        return overview(offer(f"fetch_{next(asked)}", durations=[0.02]))

    with daemon(tmp_path / "mcpd.sock", answer):
        top = Terminal(tmp_path, "xterm")
        top.read_until(b"fetch_3")
        assert b"\x1b[?1049h" in top.screen
        top.process.send_signal(number)
        assert top.end() == status
    assert b"\x1b[?1049l" in top.screen
    assert b"Traceback" not in top.screen


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_is_swallowed_where_it_arrives_ends_it_all_the_same(number: int) -> None:
    class Busy:
        asked = 0

        def request(self, method: str) -> dict[str, Any]:
            self.asked += 1
            # As the interpreter does when it arrives in a finaliser.
            with suppress(KeyboardInterrupt):
                signal.raise_signal(number)
            return overview()

    busy = Busy()
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) if number == signal.SIGTERM else nullcontext():
        _follow(busy, "calls", 0.0)
    assert busy.asked == 1
    assert signal.getsignal(number) is before


def test_on_a_terminal_that_cannot_go_back_it_prints_the_table_once(tmp_path: Path) -> None:
    told = overview(offer("fetch_page", durations=[0.02]))
    with daemon(tmp_path / "mcpd.sock", lambda request: told):
        top = Terminal(tmp_path, "dumb")
        assert top.end() == 0
    assert top.screen.count(b"fetch_page") == 1
    assert b"\x1b" not in top.screen


def test_it_prints_everything_for_programs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = overview(offer("fetch_page", durations=[0.02]))
    with daemon(tmp_path / "mcpd.sock", lambda request: told):
        assert main(["top", "--json", "--data-dir", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out) == told


def test_without_a_daemon_it_says_how_to_start_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["top", "--data-dir", str(tmp_path)]) == 1
    err = capsys.readouterr().err
    assert f"No daemon listens on {tmp_path}/mcpd.sock, so there is nothing to show." in err
    assert "mcpd serve" in err
    assert "--local" not in err


def test_a_socket_that_cannot_be_used_is_told_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mcpd.sock").symlink_to("mcpd.sock")
    assert main(["top", "--data-dir", str(tmp_path)]) == 1
    assert "cannot be used" in capsys.readouterr().err


def test_a_daemon_that_goes_away_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with daemon(tmp_path / "mcpd.sock", lambda request: None):
        assert main(["top", "--data-dir", str(tmp_path)]) == 1
    assert "has ended, or does not answer any more" in capsys.readouterr().err


def test_rich_is_imported_only_for_what_is_drawn() -> None:
    code = "import sys, mcpd_core.cli.top; sys.exit('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
