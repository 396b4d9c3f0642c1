"""Tools that say by themselves whether they succeeded, each with docstrings in another style."""

from __future__ import annotations

from .templates import File, Shape, Told

SUCCESS = File(
    "status_reports.py",
    '''"""Reports, with the envelope ``success`` and docstrings in Google's style."""
from __future__ import annotations

# @BOMB@
from typing import Any, Dict


async def report_status(subject: str, verbose: bool = False) -> Dict[str, Any]:
    """Report how a subject is doing.

    The report is made anew each time.

    Args:
        subject (str): What the report is about.
        verbose: Whether it goes into details,
            over several lines.

    Returns:
        Dict with the report.
    """
    return {"success": True, "subject": subject, "verbose": verbose}


async def reject_subject(subject: str) -> Dict[str, Any]:
    """Refuse to report.

    Args:
        subject: What nobody reports about.
    """
    return {"success": False, "error": f"no report about {subject}", "subject": subject}
''',
    tools=(
        Told(
            "report_status",
            {"subject": "tide", "verbose": True},
            {"success": True, "subject": "tide", "verbose": True},
            is_async=True,
            required=("subject",),
            optional=("verbose",),
            described={"subject": "What the report is about."},
            summary="Report how a subject is doing.",
        ),
        Told(
            "reject_subject",
            {"subject": "moon"},
            {"success": False, "error": "no report about moon", "subject": "moon"},
            is_async=True,
            fails=True,
            says="no report about moon",
            required=("subject",),
            described={"subject": "What nobody reports about."},
            summary="Refuse to report.",
        ),
    ),
)

STATUS = File(
    "word_counts.py",
    '''"""Counts, with the envelope ``status`` and docstrings in NumPy's style."""
# @BOMB@
from typing import Any, Dict, List, Optional


def count_words(text: str, ignore: Optional[List[str]] = None, at_least: int = 1) -> Dict[str, Any]:
    """Count the words of a text.

    Parameters
    ----------
    text : str
        The text whose words are counted.
    ignore : list of str, optional
        Words that do not count.
    at_least : int
        The length from which on they count.

    Returns
    -------
    dict
        The count.
    """
    words = [w for w in text.split() if w not in (ignore or []) and len(w) >= at_least]
    return {"status": "success", "count": len(words)}


def count_nothing(text: str = "") -> Dict[str, Any]:
    """Fail to count.

    Parameters
    ----------
    text : str
        A text.
    """
    return {"status": "error", "message": "there is nothing to count"}
''',
    tools=(
        Told(
            "count_words",
            {"text": "one two three", "ignore": ["two"]},
            {"status": "success", "count": 2},
            required=("text",),
            optional=("ignore", "at_least"),
            described={"text": "The text whose words are counted.", "ignore": "do not count"},
            summary="Count the words of a text.",
        ),
        Told(
            "count_nothing",
            {},
            {"status": "error", "message": "there is nothing to count"},
            fails=True,
            says="there is nothing to count",
            optional=("text",),
            summary="Fail to count.",
        ),
    ),
)

OK = File(
    "key_store.py",
    '''"""A store, with the envelope ``ok`` and docstrings in Sphinx's style."""
# @BOMB@
from typing import Any, Dict, Union

_STORE = {"answer": 42}


def store_get(key: str, default: Union[int, str, None] = None) -> Dict[str, Any]:
    """Look a key up.

    :param key: the key to look up
    :type key: str
    :param default: what stands for a key that is not there
    :returns: the value
    :rtype: dict
    """
    if key in _STORE or default is not None:
        return {"ok": True, "key": key, "value": _STORE.get(key, default)}
    return {"ok": False, "error": "key_not_found", "key": key}


def store_miss(key: str) -> Dict[str, Any]:
    """Look up a key that is not there.

    :param str key: the key to look up
    """
    return store_get(key)
''',
    tools=(
        Told(
            "store_get",
            {"key": "answer"},
            {"ok": True, "key": "answer", "value": 42},
            required=("key",),
            optional=("default",),
            described={"key": "the key to look up"},
            summary="Look a key up.",
        ),
        Told(
            "store_miss",
            {"key": "question"},
            {"ok": False, "error": "key_not_found", "key": "question"},
            fails=True,
            says="key_not_found",
            required=("key",),
            described={"key": "the key to look up"},
            summary="Look up a key",
        ),
    ),
)

_LOADED = '{"status": "success", "name": "sea"}'
_REFUSED = '{"status": "error", "error": "no set is called nowhere"}'
CONTENT = File(
    "set_loader.py",
    '''"""Loading, with the envelope ``content``, whose text is JSON."""
# @BOMB@
import json


async def load_set(name: str, limit: int = 10) -> dict:
    """Load a set.

    Args:
        name: What the set is called.
        limit: How much of it is loaded.
    """
    found = {"status": "success", "name": name}
    return {"content": [{"type": "text", "text": json.dumps(found)}]}


async def load_nothing(name: str) -> dict:
    """Load a set that is not there.

    Args:
        name: What the set is called.
    """
    refused = {"status": "error", "error": f"no set is called {name}"}
    return {"content": [{"type": "text", "text": json.dumps(refused)}]}
''',
    tools=(
        Told(
            "load_set",
            {"name": "sea"},
            {"content": [{"type": "text", "text": _LOADED}]},
            is_async=True,
            required=("name",),
            optional=("limit",),
            described={"limit": "How much of it is loaded."},
            summary="Load a set.",
        ),
        Told(
            "load_nothing",
            {"name": "nowhere"},
            {"content": [{"type": "text", "text": _REFUSED}]},
            is_async=True,
            fails=True,
            says="no set is called nowhere",
            required=("name",),
            summary="Load a set that is not there.",
        ),
    ),
)

SHAPES = (
    Shape("success envelope, Google docstrings, async", (SUCCESS,)),
    Shape("status envelope, NumPy docstrings", (STATUS,)),
    Shape("ok envelope, Sphinx docstrings", (OK,)),
    Shape("content envelope", (CONTENT,)),
)
