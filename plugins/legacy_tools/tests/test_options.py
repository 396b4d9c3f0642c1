"""The section of the settings: what it means, and what is wrong with it in words."""

from __future__ import annotations

from typing import Any

import pytest

from mcpd_legacy_tools.options import Confinement, Options, OptionsError, TreeOptions, read


def test_an_empty_section_mounts_what_is_installed() -> None:
    assert read({}) == Options(installed=True, selection="all", auto_install=False)


def test_paths_and_tables_name_trees_in_order() -> None:
    section = {"paths": ["/a"], "trees": [{"path": "/b", "name": "second", "memory_mb": 512}]}
    assert read(section).trees == (
        TreeOptions("/a"),
        TreeOptions("/b", "second", Confinement(memory_mb=512)),
    )


def test_a_category_confines_more_closely_than_its_tree_and_that_than_the_section() -> None:
    options = read(
        {
            "timeout": 10,
            "isolation": "process",
            "trees": [{"path": "/a", "timeout": 20, "cpu_seconds": 5}],
            "categories": {"slow": {"timeout": 30}, "near": {"isolation": "none"}},
        }
    )
    (tree,) = options.trees
    assert options.confined(tree, "slow") == Confinement("process", None, 5, 30)
    assert options.confined(tree, "other") == Confinement("process", None, 5, 20)
    assert options.confined(tree, "near").isolation == "none"
    assert options.confined(None, "other") == Confinement("process", None, None, 10)


def test_code_runs_in_the_server_unless_the_settings_say_otherwise() -> None:
    assert read({}).confined(None, "any").isolation == "none"


@pytest.mark.parametrize(
    ("section", "key", "problem"),
    [
        ({"path": ["/a"]}, "path", "did you mean 'paths'?"),
        ({"paths": "/a"}, "paths", "must be a list, not '/a'"),
        ({"paths": [1]}, "paths[0]", "must be a string, not 1"),
        ({"paths": [" "]}, "paths[0]", "must be the path of a directory, not ' '"),
        ({"trees": [{}]}, "trees[0]", "needs a `path`"),
        ({"trees": ["/a"]}, "trees[0]", "must be a table"),
        ({"trees": [{"path": "/a", "name": "a b"}]}, "trees[0].name", "letters, digits"),
        ({"installed": 1}, "installed", "must be true or false, not 1"),
        ({"selection": "some"}, "selection", 'must be "all" or "strict", not \'some\''),
        ({"isolation": "thread"}, "isolation", 'must be "none" or "process"'),
        ({"memory_mb": 1}, "memory_mb", "must be a whole number of at least 128, not 1"),
        ({"cpu_seconds": True}, "cpu_seconds", "must be a whole number"),
        ({"timeout": 0}, "timeout", "must be a number of seconds, above 0"),
        ({"timeout": float("nan")}, "timeout", "must be a number of seconds"),
        ({"categories": []}, "categories", "must be a table, not []"),
        ({"categories": {"a": {"size": 1}}}, "categories.a.size", "there is no such setting"),
        ({"cache": "a\0b"}, "cache", "must be the path of a file"),
    ],
)
def test_an_error_names_the_key(section: dict[str, Any], key: str, problem: str) -> None:
    with pytest.raises(OptionsError) as caught:
        read(section)
    assert caught.value.key == key
    assert problem in str(caught.value)
    assert str(caught.value).startswith(f"[legacy_tools] {key}: ")


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(OptionsError) as caught:
        read({"selection": "x" * 1_000})
    assert len(str(caught.value)) < 150
