"""Plugin code that raises, exits or hangs while it is imported."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import pytest

from mcpd_core.errors import PluginLoadError
from mcpd_core.importer import Importer

if TYPE_CHECKING:
    from core.tests.conftest import Environment

#: Long enough that only a defect makes a test wait for it.
LONG = 30.0


def failure(future: Future[Any]) -> PluginLoadError:
    error = future.exception(LONG)
    assert isinstance(error, PluginLoadError)
    return error


class Gate:
    """Blocks an import until it is opened; planted modules find it in their own namespace."""

    def __init__(self, environment: Environment, module: str, last: str = "done = True") -> None:
        self.entered = threading.Event()
        self.open = threading.Event()
        self.module = module
        GATES[module] = self
        environment.write(
            f"{module}.py",
            f"import sys\ngate = sys.modules['importer_gates'].GATES[{module!r}]\n"
            f"gate.entered.set()\ngate.open.wait({LONG})\n{last}\n",
        )


GATES: dict[str, Gate] = {}


@pytest.fixture(autouse=True)
def _gates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "importer_gates", sys.modules[__name__])


def test_a_module_and_an_object_in_it_are_loaded_on_a_daemon_thread_of_their_own(
    importable: Environment,
) -> None:
    importable.write(
        "where_am_i.py",
        "import threading\nclass A:\n    me = threading.current_thread()\n",
    )
    importer = Importer()
    module = importer.load("where_am_i").result(LONG)
    assert module is sys.modules["where_am_i"]
    thread = importer.load("where_am_i:A.me").result(LONG)
    assert thread is module.A.me
    assert thread is not threading.current_thread()
    assert thread.daemon
    assert thread.name == "mcpd-import-where_am_i"


def test_a_module_is_loaded_once_however_many_ask(importable: Environment) -> None:
    importable.write("counted.py", "import itertools\nobject_ = object()\n")
    importer = Importer()
    first = importer.load("counted:object_")
    assert importer.load("counted:object_") is first
    assert first.result(LONG) is importer.load("counted:object_").result(LONG)


def test_no_waiter_can_take_the_import_from_the_others(importable: Environment) -> None:
    gate = Gate(importable, "shared_gate")
    future = Importer().load("shared_gate:done")
    assert not future.cancel()
    gate.open.set()
    assert future.result(LONG) is True


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("raise ValueError('no good')", "ValueError: no good ("),
        ("raise ValueError", "cannot be loaded: ValueError ("),
        ("import sys; sys.exit(7)", "it called sys.exit(7) ("),
        ("raise KeyboardInterrupt", "KeyboardInterrupt ("),
        ("raise GeneratorExit", "GeneratorExit ("),
        (
            "class E(Exception):\n    def __str__(self): raise RuntimeError\nraise E",
            "cannot be loaded: E, whose str() fails (",
        ),
        (
            "class C:\n    def __repr__(self): raise RuntimeError\nimport sys; sys.exit(C())",
            "it called sys.exit(<C, whose repr() fails>) (",
        ),
        (
            "class C:\n    def __repr__(self): exit()\nraise ModuleNotFoundError(name=C())",
            "cannot be loaded: ModuleNotFoundError.",
        ),
        (
            """from mcpd_core import PluginLoadError
class E(PluginLoadError):
    def __init__(self): pass
raise E""",
            "cannot be loaded: E, whose str() fails.",
        ),
        ("syntax error", "SyntaxError: invalid syntax"),
        ("import no_such_dependency", "ModuleNotFoundError: No module named 'no_such_dependency'"),
        (
            "from mcpd_core import ToolError; raise ToolError('It is closed.', hint='Open it.')",
            "cannot be loaded: It is closed.",
        ),
    ],
)
def test_what_raises_is_reported_with_file_and_line(
    importable: Environment, code: str, text: str
) -> None:
    path = importable.write("raises_it.py", f"\n{code}\n")
    error = failure(Importer().load("raises_it:x", plugin="culprit"))
    assert error.plugin == "culprit"
    assert error.message.startswith("raises_it:x of plugin 'culprit' cannot be loaded: ")
    assert text in error.message
    assert isinstance(error.__cause__, BaseException)
    if text.endswith("("):
        assert f"{text}{path}:{code.count(chr(10)) + 2})." in error.message
    if "dependency" in code:
        assert error.hint.startswith("The module 'no_such_dependency' is missing")


def test_a_module_that_does_not_exist_is_reported() -> None:
    error = failure(Importer().load("no_such_package.module:f"))
    assert error.plugin == "no_such_package"
    assert error.message == (
        "no_such_package.module:f of plugin 'no_such_package' cannot be loaded: "
        "ModuleNotFoundError: No module named 'no_such_package'."
    )


def test_a_missing_attribute_is_reported(importable: Environment) -> None:
    importable.write("has_little.py", "a = 1\n")
    error = failure(Importer().load("has_little:b", plugin="p"))
    assert error.message == "has_little of plugin 'p' has no 'b'."
    assert "mcpd plugins manifest" in error.hint


def test_damaged_metadata_explains_a_failure(importable: Environment) -> None:
    importable.distribution("culprit", "[a]\nno equals\n")
    importable.write(
        "walks_about.py", "from importlib.metadata import entry_points\nentry_points(group='x')\n"
    )
    error = failure(Importer(faults=importable.scan().faults).load("walks_about", plugin="p"))
    assert "the installed distribution culprit is damaged" in error.message
    assert error.hint == "Reinstall it: pip install --force-reinstall culprit"


def test_what_failed_is_tried_again(importable: Environment) -> None:
    importable.write("heals.py", "raise ValueError('not yet')\n")
    importer = Importer()
    failure(importer.load("heals:x"))
    importable.write("heals.py", "x = 'at last, and longer than before'\n")
    assert importer.load("heals:x").result(LONG).startswith("at last")


def test_a_hung_import_is_given_up_and_not_tried_again(importable: Environment) -> None:
    gate = Gate(importable, "hangs_a")
    importer = Importer(0.05)
    error = failure(importer.load("hangs_a", plugin="p"))
    assert gate.entered.wait(LONG)
    assert "Importing hangs_a of plugin 'p' had not finished after 0.05 s" in error.message
    gate.entered.clear()
    again = importer.load("hangs_a:done", plugin="p")
    assert again.done()
    assert failure(again).message == error.message
    assert not gate.entered.is_set()
    gate.open.set()


def test_a_hung_import_does_not_block_the_next_one(importable: Environment) -> None:
    gate = Gate(importable, "hangs_b")
    importable.write("comes_after.py", "x = 1\n")
    importer = Importer(LONG, patience=0.01)
    hung = importer.load("hangs_b")
    assert gate.entered.wait(LONG)
    assert importer.load("comes_after:x").result(LONG) == 1
    assert not hung.done()
    gate.open.set()
    assert hung.result(LONG).done is True


def test_imports_wait_for_each_other_when_nothing_hangs(importable: Environment) -> None:
    first, second = Gate(importable, "one_of_two"), Gate(importable, "two_of_two")
    importer = Importer(LONG, patience=LONG)
    one, two = importer.load("one_of_two"), importer.load("two_of_two")
    assert first.entered.wait(LONG)
    assert not second.entered.is_set()
    second.open.set()
    first.open.set()
    one.result(LONG)
    two.result(LONG)
    assert second.entered.is_set()


def test_others_that_wait_for_a_module_that_hangs_are_refused_with_it(
    importable: Environment,
) -> None:
    gate = Gate(importable, "hangs_c")
    importer = Importer(0.05)
    one, two = importer.load("hangs_c:done"), importer.load("hangs_c:other")
    assert "had not finished" in failure(one).message
    assert "had not finished" in failure(two).message
    gate.open.set()


@pytest.mark.parametrize("last", ["done = True", "raise ValueError('late')"])
def test_an_import_that_ends_late_after_all_can_be_asked_for(
    importable: Environment, last: str
) -> None:
    """It is the same import that has ended: nothing is tried a second time that hangs."""
    gate = Gate(importable, "only_slow", last)
    importer = Importer(0.05)
    failure(importer.load("only_slow"))
    (thread,) = (t for t in threading.enumerate() if t.name == "mcpd-import-only_slow")
    gate.open.set()
    thread.join(LONG)
    if last == "done = True":
        assert importer.load("only_slow:done").result(LONG) is True
    else:
        assert "ValueError: late" in failure(importer.load("only_slow")).message


def test_more_can_be_done_on_the_import_thread(importable: Environment) -> None:
    importable.write("base_value.py", "x = 20\n")
    importer = Importer()
    assert importer.load("base_value:x", then=lambda x: x + 1).result(LONG) == 21
    assert importer.load("base_value:x", then=lambda x: x + 2).result(LONG) == 22
    with pytest.raises(PluginLoadError, match="ZeroDivisionError"):
        importer.load("base_value:x", then=lambda x: x / 0).result(LONG)
    with pytest.raises(PluginLoadError, match="^as it is$"):
        importer.load("base_value:x", then=_raise).result(LONG)


def _raise(value: object) -> None:
    raise PluginLoadError("p", "as it is")
