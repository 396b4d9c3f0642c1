"""What is said about a module that an import did not find."""

from __future__ import annotations

from pathlib import Path

from mcpd_legacy_tools.running.naming import Home
from mcpd_legacy_tools.running.needs import hint_for


def missing(name: str, directory: Path) -> str:
    return hint_for(f"No module named '{name}'", Home("old.tools.a.b", "old", directory))


def test_what_the_tree_has_elsewhere_is_not_to_be_installed_from_an_index(tmp_path: Path) -> None:
    """Trees change `sys.path` by the working directory; anybody may own the name on an index."""
    package = tmp_path / "scrapers" / "state_scrapers"
    package.mkdir(parents=True)
    assert missing("state_scrapers", tmp_path) == "pip install state_scrapers"
    (package / "__init__.py").touch()
    (tmp_path / "scrapers" / "county_scrapers.py").touch()
    for name, place in (("state_scrapers.iowa", package), ("county_scrapers", None)):
        hint = missing(name, tmp_path)
        assert "pip" not in hint
        assert str(place or tmp_path / "scrapers" / "county_scrapers.py") in hint


def test_what_is_known_is_installed_whatever_the_tree_calls_its_own(tmp_path: Path) -> None:
    (tmp_path / "requests.py").touch()
    assert missing("requests", tmp_path) == "pip install requests"
    assert missing("old.none_such", tmp_path).startswith("Its tree")
