"""What docstrings say of parameters, in each of the three styles."""

from __future__ import annotations

from textwrap import dedent

from hypothesis import given
from hypothesis import strategies as st

from mcpd_legacy_tools.scan.docstrings import MOST_CHARACTERS, Documented, read

GOOGLE = """
    Load a dataset.

    It can be large.

    Args:
        source (str): Where it comes from,
            a path or a name.
        options (Dict[str, Any], optional): What else
            there is: anything.
        **more: The rest.

    Returns:
        The dataset.

    Raises:
        ValueError: When there is none.
    """
NUMPY = """
    Load a dataset.

    It can be large.

    Parameters
    ----------
    source : str
        Where it comes from,
        a path or a name.
    first, second : int, optional
        Both.

    Returns
    -------
    dict
        The dataset.

    Raises
    ------
    ValueError
        When there is none.
    """
SPHINX = """
    Load a dataset.

    It can be large.

    :param source: Where it comes from,
        a path or a name.
    :type source: str
    :param int first: The first.
    :returns: The dataset.
    :rtype: dict
    :raises ValueError: When there is none.
    """


def test_google_style() -> None:
    doc = read(GOOGLE)
    assert doc.parameters == {
        "source": Documented("str", "Where it comes from, a path or a name."),
        "options": Documented("Dict[str, Any], optional", "What else there is: anything."),
        "more": Documented("", "The rest."),
    }
    assert doc.description == ("Load a dataset.\n\nIt can be large.\n\nReturns:\n    The dataset.")


def test_numpy_style() -> None:
    doc = read(NUMPY)
    assert doc.parameters == {
        "source": Documented("str", "Where it comes from, a path or a name."),
        "first": Documented("int, optional", "Both."),
        "second": Documented("int, optional", "Both."),
    }
    assert doc.description.startswith("Load a dataset.\n\nIt can be large.\n\nReturns\n-------")
    assert "ValueError" not in doc.description


def test_sphinx_style() -> None:
    doc = read(SPHINX)
    assert doc.parameters == {
        "source": Documented("str", "Where it comes from, a path or a name."),
        "first": Documented("int", "The first."),
    }
    assert doc.description == "Load a dataset.\n\nIt can be large.\n\nReturns: The dataset."


def test_what_fits_no_style_stays_in_the_description() -> None:
    text = "Do it.\n\nNote that: this is no section.\n\n:unknown thing: neither is this\n"
    doc = read(text)
    assert doc.parameters == {}
    assert doc.description == text.strip()


def test_a_section_ends_where_the_indentation_does() -> None:
    doc = read("Do it.\n\n    Args:\n        a: One.\n    And more.\n")
    assert doc.parameters == {"a": Documented("", "One.")}
    assert doc.description == "Do it.\n\nAnd more."


def test_a_type_may_have_brackets_within_brackets() -> None:
    doc = read("Do it.\n\nArgs:\n    a (Callable[(int), str]): One.\n")
    assert doc.parameters["a"].type == "Callable[(int), str]"


def test_a_long_description_is_cut() -> None:
    doc = read("word " * 10_000)
    assert len(doc.description) <= MOST_CHARACTERS
    assert doc.description.endswith("...")


@given(st.text())
def test_any_text_can_be_read(text: str) -> None:
    doc = read(text)
    assert len(doc.description) <= MOST_CHARACTERS


PIECES = st.sampled_from(
    [*dedent(GOOGLE).splitlines(), *dedent(NUMPY).splitlines(), *dedent(SPHINX).splitlines(), ""]
)


@given(st.lists(st.tuples(st.integers(0, 8), PIECES), max_size=30))
def test_any_mixture_of_styles_can_be_read(lines: list[tuple[int, str]]) -> None:
    doc = read("\n".join(" " * indent + line for indent, line in lines))
    assert all(name.isidentifier() for name in doc.parameters)
