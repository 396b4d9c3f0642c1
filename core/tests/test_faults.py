"""An import that dies of somebody else's damaged metadata is explained by naming the culprit."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from mcpd_core.errors import DependencyBroken
from mcpd_core.faults import DistributionFault, explain_import_failure

if TYPE_CHECKING:
    from core.tests.conftest import Environment

#: What libraries with plugins of their own do when they are imported.
LIBRARY = "from importlib.metadata import entry_points\nentry_points(group='library.plugins')\n"


def failure_of(module: str) -> BaseException:
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - any exception is of interest
        importlib.import_module(module)
    return caught.value


def explained(exc: BaseException, faults: tuple[DistributionFault, ...] = ()) -> DependencyBroken:
    explanation = explain_import_failure(exc, faults)
    assert explanation is not None
    return explanation


@pytest.mark.parametrize(
    ("entry_points", "problem"),
    [
        (b"[a]\nb = c\n# \xff\n", "line 3 of its entry_points.txt is not valid UTF-8"),
        (b"[a]\nno equals\n", "line 2 of its entry_points.txt has no '=': 'no equals'"),
    ],
)
def test_the_damaged_distribution_is_named(
    importable: Environment, entry_points: bytes, problem: str
) -> None:
    info = importable.distribution("culprit", entry_points)
    importable.distribution("bystander", "[a]\nanother\n", version="2")
    importable.write("library_a/__init__.py", LIBRARY)
    explanation = explained(failure_of("library_a"), importable.scan().faults)
    assert (
        explanation.message
        == (
            f"library_a cannot be imported because the installed distribution culprit is damaged: "
            f"{problem} ({info})."
        )
        or "bystander" in explanation.message
    )  # which of two comes first is the file system's choice
    assert "pip install --force-reinstall" in explanation.hint


def test_the_culprit_is_found_without_a_scan(importable: Environment) -> None:
    importable.distribution("culprit", b"[a]\nb = c\n# \xff\n")
    importable.write("library_b/__init__.py", LIBRARY)
    explanation = explained(failure_of("library_b"))
    assert "culprit is damaged: line 3 of its entry_points.txt is not valid UTF-8" in str(
        explanation
    )
    assert explanation.data == {"distributions": ["culprit"]}


def test_damage_that_is_not_understood_is_still_located(importable: Environment) -> None:
    """Mended, or differently damaged, between the failure and the closer look."""
    info = importable.distribution("culprit", "[a]\nno equals\n")
    importable.write("library_h/__init__.py", LIBRARY)
    failure = failure_of("library_h")
    (info / "entry_points.txt").unlink()
    assert "culprit is damaged: its metadata cannot be read (TypeError: " in str(explained(failure))
    (info / "entry_points.txt").mkdir()
    assert "culprit is damaged: its metadata cannot be read (TypeError: " in str(explained(failure))


def test_a_failure_that_was_wrapped_is_explained_too(importable: Environment) -> None:
    importable.distribution("culprit", "[a]\nno equals\n")
    importable.write("library_c/__init__.py", LIBRARY)
    importable.write(
        "library_d/__init__.py",
        "try:\n    import library_c\n"
        "except Exception as exc:\n    raise ImportError('no') from exc\n",
    )
    explanation = explained(failure_of("library_d"), importable.scan().faults)
    assert explanation.message.startswith("library_c cannot be imported because the installed")


def test_damage_without_a_path_makes_all_that_is_known_suspect(importable: Environment) -> None:
    """A metadata directory without a name fails where names are compared."""
    importable.write(".dist-info/INSTALLER", "")
    importable.distribution("other", metadata=False)
    importable.write("library_e/__init__.py", LIBRARY)
    failure = failure_of("library_e")
    explanation = explained(failure, importable.scan().faults)
    assert ".dist-info" in explanation.message
    assert "library_e cannot be imported because" in explanation.message


def test_several_suspects_are_all_named() -> None:
    with pytest.raises((TypeError, AttributeError)) as caught:
        importlib.metadata.Prepared(3)  # type: ignore[attr-defined]
    failure = caught.value
    faults = tuple(
        DistributionFault(name, f"/{name}", "it is damaged", "Mend it.") for name in "ab"
    )
    harmless = DistributionFault("c", "/c", "it is there twice", "Remove one.", fatal=False)
    assert explained(failure, (*faults, harmless)).data == {"distributions": ["a", "b"]}
    assert explain_import_failure(failure, (harmless,)) is None
    explanation = explained(failure, faults)
    assert str(explanation).endswith(
        " cannot be imported because one of these installed distributions is damaged: "
        "a, b (/a, /b). Mend it."
    )
    assert explain_import_failure(failure) is None


def test_an_explanation_that_fails_explains_nothing() -> None:
    class Evasive(Exception):
        @property
        def __cause__(self) -> BaseException:  # type: ignore[override]
            raise RuntimeError("not telling")

    assert explain_import_failure(Evasive()) is None


@pytest.mark.parametrize(
    "code",
    [
        "raise ValueError('its own')",
        "import no_such_module_anywhere",
        "from importlib.metadata import version; version('not-installed-at-all')",
        "from importlib.metadata import EntryPoint; EntryPoint('x', 'json:nothing', 'g').load()",
    ],
)
def test_other_failures_are_left_alone(importable: Environment, code: str) -> None:
    importable.distribution("culprit", "[a]\nno equals\n")
    importable.write("library_f/__init__.py", f"{code}\n")
    if "EntryPoint" in code:
        importable.write("library_g/__init__.py", "raise TypeError('the entry point is at fault')")
        importable.write("library_f/__init__.py", code.replace("json:nothing", "library_g"))
    assert explain_import_failure(failure_of("library_f"), importable.scan().faults) is None


def test_a_real_library_that_walks_entry_points(environment: Environment) -> None:
    """pydantic looks for its plugins when the first model is defined."""
    info = environment.distribution("culprit", "[a]\nno equals\n")
    script = f"""
        import json, sys
        sys.path.append({str(environment.root)!r})
        from mcpd_core.discovery import explain_import_failure, scan
        import pydantic
        try:
            class Model(pydantic.BaseModel): pass
        except Exception as exc:
            print(json.dumps(str(explain_import_failure(exc, scan().faults))))
    """
    answer = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True
    )
    assert json.loads(answer.stdout) == (
        "pydantic cannot be imported because the installed distribution culprit is damaged: "
        f"line 2 of its entry_points.txt has no '=': 'no equals' ({info}). "
        "Reinstall it: pip install --force-reinstall culprit"
    )
