"""URI templates: what matches one, and what matches two."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpd_core.content.template import LONGEST_URI, UriTemplate

#: Pieces of which templates and URIs are made here, so that they have a chance to match.
PIECES = ["a", "b", "-", ".", "/", "//", "?q=", "&", "#", "%41", "ab"]

values = st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=8)
literals = st.lists(st.sampled_from(PIECES), max_size=3).map("".join)


@st.composite
def templates(draw: st.DrawFn) -> str:
    """Any template that is accepted."""
    text = "x:" + draw(literals)
    for n in range(draw(st.integers(0, 3))):
        between = draw(literals)
        if n and not between:
            between = "/"
        text += f"{between}{{v{n}}}"
    return text + draw(literals)


uris = st.lists(st.sampled_from([*PIECES, "é", "%2F", "%ff"]), max_size=10).map(
    lambda parts: "x:" + "".join(parts)
)


def oracle(template: str) -> re.Pattern[str]:
    """Match by backtracking, which may take for ever and is easily understood."""
    pattern = "".join(
        r"([^/?#]+?)" if n % 2 else re.escape(part)
        for n, part in enumerate(re.split(r"\{(\w+)\}", template))
    )
    return re.compile(pattern, re.DOTALL)


@given(templates(), uris)
def test_it_matches_what_a_regular_expression_would(text: str, uri: str) -> None:
    template = UriTemplate(text)
    found = oracle(text).fullmatch(uri)
    expected: dict[str, str] | None = None
    if found is not None:
        try:
            decoded = [unquote(value, errors="strict") for value in found.groups()]
            expected = dict(zip(template.names, decoded, strict=True))
        except UnicodeDecodeError:
            expected = None
    assert template.match(uri) == expected


@given(templates(), st.lists(values, min_size=3, max_size=3))
def test_what_was_expanded_matches(text: str, given_values: list[str]) -> None:
    template = UriTemplate(text)
    named = dict(zip(template.names, given_values, strict=False))
    uri = template.expand(named)
    matched = template.match(uri)
    assert matched is not None
    # The way back may read the URI otherwise where values touch text that could be theirs, but it
    # always leads to a URI that means the same.
    assert template.match(template.expand(matched)) == matched


@given(values, values)
def test_values_come_back_when_what_separates_them_cannot_be_theirs(one: str, two: str) -> None:
    template = UriTemplate("x://{one}/{two}?q")
    uri = template.expand({"one": one, "two": two})
    assert uri == f"x://{quote(one, safe='')}/{quote(two, safe='')}?q"
    assert template.match(uri) == {"one": one, "two": two}


@given(templates(), templates(), uris)
def test_templates_overlap_when_a_uri_matches_both(one: str, two: str, uri: str) -> None:
    first, second = UriTemplate(one), UriTemplate(two)
    assert first.overlaps(second) == second.overlaps(first)
    if oracle(one).fullmatch(uri) and oracle(two).fullmatch(uri):
        assert first.overlaps(second)
    assert first.overlaps(first)


@pytest.mark.parametrize(
    ("one", "two", "expected"),
    [
        ("x:a", "x:a", True),
        ("x:a", "x:b", False),
        ("x:a", "x:{v}", True),
        ("x:a/b", "x:{v}", False),
        ("x:{v}/b", "x:a/{v}", True),
        ("x:{v}/b", "x:{v}/c", False),
        ("x:{v}.md", "x:{v}.txt", False),
        ("x:{v}-{w}", "x:a-{v}", True),
        ("x:{v}b", "x:a{v}", True),
        ("x:a{v}c", "x:ac", False),
        ("x:{v}", "y:{v}", False),
    ],
)
def test_examples_of_overlaps(one: str, two: str, expected: bool) -> None:
    assert UriTemplate(one).overlaps(UriTemplate(two)) is expected


@pytest.mark.parametrize(
    ("template", "uri", "expected"),
    [
        ("n://{a}-{b}", "n://2024-05-06", {"a": "2024", "b": "05-06"}),
        ("n://{a}-{b}", "n://--", None),
        ("n://{a}-{b}", "n://---", {"a": "-", "b": "-"}),
        ("n://{a}", "n://", None),
        ("n://{a}", "n://%2E%2E%2Fx", {"a": "../x"}),
        ("n://{a}", "n://a b", {"a": "a b"}),
        ("n://{a}", "n://%ff", None),
        ("n://{a}/x", "n://a/y", None),
        ("n://a", "n://a", {}),
    ],
)
def test_examples_of_matches(template: str, uri: str, expected: dict[str, str] | None) -> None:
    assert UriTemplate(template).match(uri) == expected


def test_matching_takes_no_longer_for_a_hostile_uri() -> None:
    names = "-".join(f"{{v{n}}}" for n in range(30))
    template = UriTemplate(f"x:{names}/end")
    # A regular expression would try more ways than there is time for.
    assert template.match("x:" + "-" * (LONGEST_URI - 10)) is None
    assert template.match("x:" + "a" * LONGEST_URI) is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("notes", "does not begin with a scheme"),
        ("/notes/{name}", "does not begin with a scheme"),
        ("{scheme}://x", "does not begin with a scheme"),
        ("x:{+path}", "{+path} is no placeholder of level 1"),
        ("x:{a,b}", "is no placeholder of level 1"),
        ("x:{}", "is no placeholder of level 1"),
        ("x:{class}", "is no placeholder of level 1"),
        ("x:{a}{b}", "two placeholders follow each other"),
        ("x:{a}/{a}", "a placeholder occurs twice"),
        ("x:{a", "may only hold percent-encoded"),
        ("x:a b", "may only hold percent-encoded"),
        ("x:é", "may only hold percent-encoded"),
        ("x:%4", "may only hold percent-encoded"),
        ("x:" + "a" * LONGEST_URI, "has more than 8192 characters"),
    ],
)
def test_what_is_no_template_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match="is not a URI or a URI template") as error:
        UriTemplate(text)
    assert problem in str(error.value)
