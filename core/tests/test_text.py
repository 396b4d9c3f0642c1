"""What is left of a text that somebody else wrote."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpd_core.text import clean, error_text, one_line, shown


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("plain", "plain"),
        ("Grüße 你好 🎉", "Grüße 你好 🎉"),
        ("a\x1b[31mred\x07\x00\x7f", "a[31mred"),
        ("c1\x80\x9b2J\x9f", "c12J"),
        ("lines\nand\ttabs\r\n", "lines\nand\ttabs\r\n"),
        ("over\u202eride\u2066x\u2069\u061c\u200e", "overridex"),
        ("zero\u200b\u200c\u200d\u2060\ufeffwidth", "zerowidth"),
        ("tags\U000e0001\U000e0041\U000e007f", "tags"),
        ("half\udcffof", "half\ufffdof"),
        ("no-break\u00a0space", "no-break\u00a0space"),
    ],
)
def test_what_nobody_can_see_is_left_out(text: str, left: str) -> None:
    assert clean(text) == left


def test_which_controls_may_stay_is_for_the_caller_to_say() -> None:
    assert clean("a\nb\tc\x1b", keep="") == "abc"
    assert clean("a\nb\tc\x1b", keep="\n\x1b") == "a\nbc\x1b"


def test_a_line_stays_one_line() -> None:
    assert one_line("forged\nrow\r\n  next\x1b[2K\u2028end") == "forged row next[2K end"
    assert one_line("two  spaces") == "two  spaces"


@given(st.text())
def test_what_is_clean_can_be_encoded_and_stays_as_it_is(text: str) -> None:
    for once in (clean(text), one_line(text)):
        once.encode()
        assert clean(once) == once
    assert one_line(one_line(text)) == one_line(text)
    assert len(one_line(text).splitlines()) <= 1


class Evil(Exception):
    def __str__(self) -> str:
        raise SystemExit

    __repr__ = __str__


def test_describing_an_object_or_an_exception_never_raises() -> None:
    assert error_text(ValueError("no\x1b good")) == "ValueError: no good"
    assert error_text(ValueError()) == "ValueError"
    assert error_text(Evil()) == "Evil, whose str() fails"
    assert shown(Evil()) == "<Evil, whose repr() fails>"
    assert shown(["x"]) == "['x']"


def test_a_description_is_cut_at_some_length() -> None:
    assert len(shown("x" * 100_000)) == 2000
    assert error_text(ValueError("x" * 100_000)).endswith("xxx...")
