"""Looking tools up, by name and by words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mcpd_core.catalog import Catalog
from mcpd_core.spec import ToolSpec


def tool(name: str, description: str = "", **facts: object) -> ToolSpec:
    return ToolSpec(name, description, {"type": "object"}, f"m:{name}", "p", **facts)  # type: ignore[arg-type]


CATALOG = Catalog(
    [
        tool("submit_task", "Put a call into the queue.", category="queue", aliases=("enqueue",)),
        tool("cancel_task", "Stop what was submitted.", category="queue", tags=("abort",)),
        tool("getQueueStats", "Count tasks by state.", title="Statistics", category="queue"),
        tool("greet", "Say hello to a task force.", category=""),
    ]
)


def found(query: str, limit: int = 20) -> list[str]:
    return [spec.name for spec in CATALOG.search(query, limit)]


def test_tools_are_found_by_name_and_alias_and_sorted() -> None:
    assert [spec.name for spec in CATALOG] == [
        "cancel_task",
        "getQueueStats",
        "greet",
        "submit_task",
    ]
    assert CATALOG.get("enqueue") is CATALOG.get("submit_task") is not None
    assert CATALOG.get("nothing") is None
    assert "enqueue" in CATALOG
    assert len(CATALOG) == 4


def test_categories_are_sorted() -> None:
    assert {category: len(specs) for category, specs in CATALOG.categories().items()} == {
        "": 1,
        "queue": 3,
    }
    assert list(CATALOG.categories()) == ["", "queue"]


def test_two_tools_cannot_share_a_name() -> None:
    with pytest.raises(ValueError, match="'a' is claimed by 'a' of 'p' and by 'b' of 'p'"):
        Catalog([tool("a"), tool("b", aliases=("a",))])


def test_a_match_in_the_name_comes_before_one_in_the_description() -> None:
    assert found("task") == ["cancel_task", "submit_task", "greet", "getQueueStats"]


def test_a_match_in_title_tags_or_category_comes_in_between() -> None:
    assert found("abort") == ["cancel_task"]
    assert found("statistics") == ["getQueueStats"]
    assert found("queue") == ["getQueueStats", "cancel_task", "submit_task"]


def test_the_start_of_a_word_is_enough() -> None:
    assert found("subm") == ["submit_task", "cancel_task"]
    assert found("STAT") == ["getQueueStats"]


def test_more_words_found_come_first() -> None:
    assert found("hello task") == ["greet", "cancel_task", "submit_task", "getQueueStats"]
    assert found("task, please: cancel!") == [
        "cancel_task",
        "submit_task",
        "greet",
        "getQueueStats",
    ]


def test_the_exact_name_comes_first() -> None:
    assert found(" enqueue ")[0] == "submit_task"
    assert found("greet") == ["greet"]


def test_nothing_is_found_for_nothing() -> None:
    assert found("") == found("!?") == found("xyzzy") == []


def test_a_search_is_limited() -> None:
    assert found("task", 2) == ["cancel_task", "submit_task"]
    assert found("task", 0) == []


def test_close_matches_know_aliases_and_forgive_case_and_hyphens() -> None:
    assert CATALOG.close_matches("Submit-Taks") == ["submit_task"]
    assert CATALOG.close_matches("enqeue") == ["enqueue"]
    assert CATALOG.close_matches("cancle_task", n=1) == ["cancel_task"]
    assert CATALOG.close_matches("xyzzy") == []


def test_among_hundreds_of_names_the_closest_is_found_once() -> None:
    many = [
        replace(tool(f"{kind}_tools__{verb}_{kind}", ""), aliases=(f"{kind}_tools.{verb}_{kind}",))
        for kind in (f"kind{n}" for n in range(60))
        for verb in ("read", "write", "list", "remove")
    ]
    catalog = Catalog(many)
    assert catalog.close_matches("kind7_tools__raed_kind7", n=1) == ["kind7_tools__read_kind7"]
    # The dotted alias is the same name to whoever misspells it.
    assert catalog.close_matches("kind7_tools.wrte_kind7")[0] == "kind7_tools__write_kind7"
    assert not [name for name in catalog.close_matches("kind7_tools.x") if "." in name]
    assert catalog.close_matches("x") == []


def test_a_tool_that_is_not_listed_is_looked_up_and_never_suggested() -> None:
    old = tool("task_submit", "Put a call into the queue.", category="old", listed=False)
    catalog = Catalog([*CATALOG, old])
    assert catalog.get("task_submit") is old
    assert old not in catalog.search("task_submit queue call", 20)
    assert "old" not in catalog.categories()
    assert "task_submit" not in catalog.close_matches("task_submi")
