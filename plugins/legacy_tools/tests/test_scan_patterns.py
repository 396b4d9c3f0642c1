"""Which regular expressions of the old code are handed on: those that end in a bearable time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mcpd_legacy_tools.scan.patterns import is_steady

from .scan_kit import tool_of


@pytest.mark.parametrize(
    "pattern",
    [
        r"^[a-z]+$",
        r"^\w+@\w+\.\w+$",
        r"^(\d{1,3}\.){3}\d{1,3}$",
        r"^(\d{3}-)*\d{4}$",
        r"^(asc|desc)$",
        r"^[A-Z]{3,40}$",
    ],
)
def test_ordinary_expressions_are_steady(pattern: str) -> None:
    assert is_steady(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        r"^(a+)+$",
        r"(a*)*b",
        r"^(?:a|a)+$",
        r"^(a?){30}a{30}$",
        r"^(?=(a+)+$)",
        r"^(?:(x)|(a+)+?)$",
        r"^([a-z]+\s?){4,}$",
    ],
)
def test_a_repetition_of_what_matches_in_several_ways_is_not(pattern: str) -> None:
    assert not is_steady(pattern)


def test_a_schema_is_handed_on_without_an_expression_that_may_never_end(tmp_path: Path) -> None:
    source = """
        class SearchTool:
            name = "search"
            description = "Searches."
            input_schema = {
                "type": "object",
                "properties": {
                    "slow": {"type": "string", "pattern": "^(a+)+$"},
                    "quick": {"type": "string", "pattern": "^a+$"},
                },
            }

            async def execute(self, parameters):
                return {"status": "success"}
        """
    properties: dict[str, Any] = tool_of(tmp_path, source).input_schema["properties"]
    assert properties == {
        "slow": {"type": "string"},
        "quick": {"type": "string", "pattern": "^a+$"},
    }
