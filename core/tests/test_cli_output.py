"""What reaches a terminal, a pipe and the log."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
import warnings
from collections.abc import Iterator

import pytest

from mcpd_core.cli import logs, output
from mcpd_core.cli.calling import ProgressLine


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    encoding = "ascii"

    def isatty(self) -> bool:
        return True


# --- output ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("plain\ttext\n", "plain\ttext\n"),
        ("\x1b[31mred\x1b[0m", "[31mred[0m"),
        ("a\r\nb\rc", "a\nbc"),
        ("bell\x07 csi\x9b del\x7f", "bell csi del"),
        ("right\u202eleft", "rightleft"),
        ("Grüße 🎉", "Grüße 🎉"),
    ],
)
def test_text_of_others_cannot_steer_the_terminal(text: str, cleaned: str) -> None:
    assert output.clean(text) == cleaned


def test_json_is_one_line_for_a_pipe_and_indented_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output.write_json({"a": "ü"})
    assert capsys.readouterr().out == '{"a": "ü"}\n'
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    output.write_json({"a": "ü"})
    assert terminal.getvalue() == '{\n  "a": "\\u00fc"\n}\n'  # its encoding has no ü


def test_a_cell_of_a_table_cannot_break_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("a", "b"), [("1\n2\t3", "[bold]x")])
    assert capsys.readouterr().out == "1 2 3\t[bold]x\n"


def test_a_table_on_a_terminal_takes_text_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    output.table(("name", "text"), [("x", "[bold]not markup[/bold]")])
    assert "[bold]not markup[/bold]" in terminal.getvalue()


def test_the_first_line_of_a_description() -> None:
    assert output.first_line("\n  First.\nSecond.") == "First."
    assert output.first_line("") == ""


def test_progress_is_a_line_per_report_unless_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ProgressLine()
    line.show(1, 4, "one\nmore")
    line.show(2.5, None, "")
    line.close()
    assert capsys.readouterr().err == "1/4 one more\n2.5\n"
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    line.show(1, 4, "one\x1b[2J")
    line.show(2, 4, "two")
    line.close()
    assert terminal.getvalue() == "\r\x1b[K1/4 one[2J\r\x1b[K2/4 two\r\x1b[K"


# --- logs -----------------------------------------------------------------------------------------


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Restores the process's logging afterwards."""
    loggers = [logging.getLogger(name) for name in (None, "mcpd", "mcpd_core")]
    levels = [logger.level for logger in loggers]
    root = loggers[0]
    handlers = root.handlers[:]
    yield io.StringIO()
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def test_text_lines_are_for_people(stream: io.StringIO) -> None:
    logs.configure("info", "text", stream)
    logging.getLogger("mcpd_core.x").info("hello %s", "you\x1b[2J")
    logging.getLogger("mcpd_core.x").debug("not shown")
    logging.getLogger("some.library").info("not shown")
    assert re.fullmatch(r"\d\d:\d\d:\d\d info    mcpd_core\.x: hello you\[2J\n", stream.getvalue())


def test_json_lines_are_for_programs(stream: io.StringIO) -> None:
    logs.configure("debug", "json", stream)
    try:
        raise ValueError("wrong")
    except ValueError:
        logging.getLogger("some.library").debug(
            "two\nlines", exc_info=True, extra={"call": "1", "thing": object}
        )
    entry = json.loads(stream.getvalue())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", entry.pop("time"))
    assert entry.pop("exception").endswith("ValueError: wrong")
    assert entry == {
        "level": "debug",
        "logger": "some.library",
        "message": "two\nlines",
        "call": "1",
        "thing": "<class 'object'>",
    }


def test_a_traceback_is_part_of_the_text(stream: io.StringIO) -> None:
    logs.configure("info", "text", stream)
    try:
        raise ValueError("wrong")
    except ValueError:
        logging.getLogger("mcpd_core").exception("it failed")
    assert "ValueError: wrong" in stream.getvalue()


def test_warnings_go_to_the_log(stream: io.StringIO) -> None:
    logs.configure("info", "json", stream)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning("old", DeprecationWarning, "file.py", 1)
    assert json.loads(stream.getvalue())["logger"] == "py.warnings"
