"""Who is enabled, who is not, and whether the reason helps."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest

from mcpd_core.errors import SelectionError
from mcpd_core.inventory import Inventory, PluginRow
from mcpd_core.selection import available_runtimes, select
from mcpd_core.spec import ToolSpec

if TYPE_CHECKING:
    from core.tests.conftest import Environment

ALL = frozenset({"asyncio", "trio", "any"})


def chosen(
    environment: Environment, wanted: Sequence[str] | None = None, denied: Sequence[str] = ()
) -> Inventory:
    return select(environment.scan(), wanted=wanted, denied=denied, runtimes=ALL)


def states(inventory: Inventory) -> dict[str, str]:
    return {row.label: row.state for row in inventory.rows}


def reasons(inventory: Inventory) -> dict[str, str]:
    return {row.label: row.reason for row in inventory.rows}


def refusal(
    environment: Environment, wanted: Sequence[str] | None = None, denied: Sequence[str] = ()
) -> SelectionError:
    with pytest.raises(SelectionError) as caught:
        chosen(environment, wanted, denied)
    return caught.value


@pytest.fixture
def three(environment: Environment) -> Environment:
    environment.plugin("task_queue", distribution="mcpd-task-queue", tools=["submit"])
    environment.plugin("hello", distribution="mcpd-hello", tools=["greet", "wave"])
    environment.plugin("extra", distribution="third-party", tools=["more"], bundles=["p2p", "fun"])
    return environment


# --- without names --------------------------------------------------------------------------------


def test_everything_is_enabled_when_nobody_is_named(three: Environment) -> None:
    inventory = chosen(three)
    assert [row.name for row in inventory.enabled] == ["extra", "hello", "task_queue"]
    assert {spec.name for spec in inventory.specs()} == {"greet", "wave", "more", "submit"}
    assert inventory.notes == ()
    row = inventory.get("hello")
    assert row is not None
    assert row.to_json() == {
        "name": "hello",
        "distribution": "mcpd-hello",
        "version": "1.0",
        "runtime": "asyncio",
        "state": "enabled",
        "tools": 2,
        "bundles": [],
        "reason": "",
        "editable": False,
    }
    assert inventory.get("nobody") is None


def test_a_broken_plugin_is_reported_and_skipped(three: Environment) -> None:
    three.distribution("typo", "[mcpd_core.plugins.trioo]\ntypo = typo.plugin\n")
    inventory = chosen(three)
    assert states(inventory)["typo:typo"] == "broken"
    assert "did you mean trio?" in reasons(inventory)["typo:typo"]
    assert len(inventory.enabled) == 3


def test_a_plugin_without_manifest_is_enabled_and_called_dynamic(environment: Environment) -> None:
    environment.distribution("bare", "[mcpd_core.plugins.any]\nbare = bare.plugin\n")
    environment.package("bare")
    (row,) = chosen(environment, ["bare"]).enabled
    assert row.dynamic
    assert row.reason.startswith("dynamic: ")


def test_a_missing_runtime_says_what_to_install(environment: Environment) -> None:
    environment.plugin("swim", distribution="pool", runtime="trio", tools=["dive"])
    (row,) = select(environment.scan(), wanted=None, runtimes={"asyncio", "any"}).rows
    assert (row.state, row.reason) == (
        "missing-runtime",
        "trio cannot be imported here. Install it: pip install 'mcpd-core[trio]'",
    )


def test_runtimes_are_looked_for_without_importing_them(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def find_spec(name: str) -> object:
        asked.append(name)
        return None

    assert available_runtimes() == ALL
    monkeypatch.setattr("mcpd_core.selection.find_spec", find_spec)
    assert available_runtimes() == {"asyncio", "any"}
    assert asked == ["trio"]
    assert importlib.util.find_spec is not find_spec


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "plugin"),
    [
        ("hello", "hello"),
        (" hello ", "hello"),
        ("mcpd-hello", "hello"),
        ("MCPD_Hello", "hello"),
        ("mcpd-hello:hello", "hello"),
        ("task-queue", "task_queue"),
        ("mcpd_task_queue", "task_queue"),
        ("fun", "extra"),
    ],
)
def test_plugins_distributions_and_bundles_can_be_named(
    three: Environment, name: str, plugin: str
) -> None:
    inventory = chosen(three, [name, ""])
    assert [row.name for row in inventory.enabled] == [plugin]
    others = [row for row in inventory.rows if row.name != plugin]
    assert {row.state for row in others} == {"disabled"}
    assert {row.reason for row in others} == {"It is not among the plugins that were asked for."}


def test_an_empty_choice_enables_nothing(three: Environment) -> None:
    assert chosen(three, []).enabled == ()


def test_a_bundle_enables_its_installed_members_and_names_the_missing_ones(
    three: Environment,
) -> None:
    inventory = chosen(three, ["p2p"])
    assert [row.name for row in inventory.enabled] == ["extra", "task_queue"]
    (note,) = inventory.notes
    assert note == (
        "Bundle p2p: not installed: mcpd-peer-management, mcpd-p2p-workflow, mcpd-libp2p, "
        "mcpd-mcplusplus."
    )


def test_a_bundle_without_installed_members_is_an_error(environment: Environment) -> None:
    error = refusal(environment, ["p2p"])
    assert error.message == ("No member of the bundle 'p2p', which was asked for, is installed.")
    assert error.hint.startswith("Install some: pip install mcpd-task-queue mcpd-peer-management")


def test_a_broken_member_of_a_bundle_is_an_error(three: Environment) -> None:
    three.distribution("mcpd-libp2p", "[mcpd_core.plugins.trio]\nlibp2p = gone.plugin\n")
    error = refusal(three, ["p2p"])
    assert "Plugin mcpd-libp2p:libp2p (asked for as 'p2p') cannot be enabled (broken): " in str(
        error
    )


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("hallo", "Did you mean 'hello'?"),
        ("peer-management", "Install it: pip install mcpd-peer-management"),
        ("mcpd_libp2p", "Install it: pip install mcpd-libp2p"),
        ("p2p_workflo", "Did you mean 'p2p_workflow'? To install: pip install mcpd-p2p-workflow"),
        ("xyzzy", "Installed plugins: extra, hello, task_queue."),
        ("mcpd-hello:other", ""),
    ],
)
def test_an_unknown_name_is_an_error_with_a_hint(three: Environment, name: str, hint: str) -> None:
    error = refusal(three, [name])
    assert error.message == (
        f"No plugin, distribution or bundle {name!r}, which was asked for, is installed."
    )
    assert hint in error.hint
    assert error.data == {"name": name}


def test_nothing_installed_is_said(environment: Environment) -> None:
    assert refusal(environment, ["xyzzy"]).hint == "Installed plugins: none."


def test_a_named_plugin_that_cannot_be_enabled_is_an_error(environment: Environment) -> None:
    environment.plugin("swim", distribution="pool", runtime="trio")
    environment.distribution("typo", "[mcpd_core.plugins.trioo]\ntypo = typo.plugin\n")
    with pytest.raises(SelectionError) as caught:
        select(environment.scan(), wanted=["swim", "typo"], runtimes={"asyncio"})
    assert "Plugin pool:swim cannot be enabled (missing-runtime): trio" in str(caught.value)
    assert "Plugin typo:typo cannot be enabled (broken): mcpd_core.plugins.trioo" in str(
        caught.value
    )
    assert caught.value.data["plugins"] == [
        {"name": "swim", "state": "missing-runtime"},
        {"name": "typo", "state": "broken"},
    ]


def test_a_broken_plugin_that_nobody_named_is_shown_as_broken(three: Environment) -> None:
    three.distribution("typo", "[mcpd_core.plugins.trioo]\ntypo = typo.plugin\n")
    assert states(chosen(three, ["hello"]))["typo:typo"] == "broken"


# --- the deny-list --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hello", "mcpd-hello", "mcpd-hello:hello"])
def test_a_denied_plugin_is_disabled(three: Environment, name: str) -> None:
    inventory = chosen(three, denied=[name])
    assert states(inventory)["mcpd-hello:hello"] == "disabled"
    assert reasons(inventory)["mcpd-hello:hello"] == f"It is denied ({name!r} is in the deny-list)."
    assert len(inventory.enabled) == 2


def test_a_bundle_can_be_denied(three: Environment) -> None:
    assert [row.name for row in chosen(three, denied=["p2p"]).enabled] == ["hello"]


def test_a_denied_plugin_is_disabled_even_when_it_is_broken(environment: Environment) -> None:
    environment.distribution("typo", "[mcpd_core.plugins.trioo]\ntypo = typo.plugin\n")
    assert states(chosen(environment, denied=["typo"])) == {"typo:typo": "disabled"}


def test_a_denied_name_that_matches_nothing_is_an_error(three: Environment) -> None:
    error = refusal(three, denied=["helo"])
    assert error.message == (
        "No plugin, distribution or bundle 'helo', which is in the deny-list, is installed."
    )
    assert error.hint == "Did you mean 'hello'?"


def test_a_family_may_be_denied_before_it_is_installed(three: Environment) -> None:
    assert len(chosen(three, denied=["legacy_tools", "mcpd-libp2p"]).enabled) == 3


def test_asking_for_what_is_denied_is_an_error(three: Environment) -> None:
    error = refusal(three, ["hello"], ["hello"])
    assert error.message == "Plugin 'hello' was asked for and is denied."


def test_denied_members_of_a_bundle_are_left_out_and_noted(three: Environment) -> None:
    inventory = chosen(three, ["p2p"], ["extra"])
    assert [row.name for row in inventory.enabled] == ["task_queue"]
    assert inventory.notes[0] == "Bundle p2p: denied and left out: extra."
    assert "denied" in reasons(inventory)["third-party:extra"]
    error = refusal(three, ["fun"], ["extra"])
    assert error.message == "Every installed member of the bundle 'fun' is denied: extra."


# --- conflicts ------------------------------------------------------------------------------------


def test_two_plugins_of_one_name_are_both_left_out(environment: Environment) -> None:
    environment.plugin("twin", distribution="red", tools=["a"])
    environment.plugin("twin", distribution="blue", runtime="trio", tools=["b"])
    inventory = chosen(environment)
    assert states(inventory) == {"red:twin": "conflict", "blue:twin": "conflict"}
    assert reasons(inventory)["red:twin"] == (
        "blue:twin has the same name. Ask for one of them with --plugins, as blue:twin or red:twin."
    )
    assert inventory.specs() == ()


@pytest.mark.parametrize("name", ["red:twin", "red"])
def test_naming_the_distribution_settles_it(environment: Environment, name: str) -> None:
    environment.plugin("twin", distribution="red", tools=["a"])
    environment.plugin("twin", distribution="blue", tools=["b"])
    inventory = chosen(environment, [name])
    assert states(inventory) == {"red:twin": "enabled", "blue:twin": "disabled"}
    inventory = chosen(environment, ["twin", name])
    assert states(inventory) == {"red:twin": "enabled", "blue:twin": "disabled"}
    assert reasons(inventory)["blue:twin"] == "red:twin was asked for instead."


def test_naming_both_or_neither_does_not(environment: Environment) -> None:
    environment.plugin("twin", distribution="red")
    environment.plugin("twin", distribution="blue")
    for wanted in (["twin"], ["red", "blue"]):
        error = refusal(environment, wanted)
        assert "cannot be enabled (conflict): red:twin has the same name" in str(error)


def test_denying_one_settles_it_too(environment: Environment) -> None:
    environment.plugin("twin", distribution="red")
    environment.plugin("twin", distribution="blue")
    assert states(chosen(environment, denied=["blue:twin"]))["red:twin"] == "enabled"


def test_one_distribution_with_one_name_in_two_groups_is_a_conflict(
    environment: Environment,
) -> None:
    environment.distribution(
        "both",
        "[mcpd_core.plugins.trio]\nx = both.plugin\n[mcpd_core.plugins.asyncio]\nx = both.plugin\n",
    )
    environment.package("both")
    inventory = chosen(environment)
    assert {row.state for row in inventory.rows} == {"conflict"}
    for row, own, other in zip(
        inventory.rows, ("trio", "asyncio"), ("asyncio", "trio"), strict=True
    ):
        assert row.reason == (
            f"Its distribution declares the plugin more than once, as {own} and as {other}. "
            "Report it to its authors."
        )


def test_two_plugins_with_one_tool_name_are_both_left_out(environment: Environment) -> None:
    environment.plugin("one", distribution="red", tools=["same", "own"])
    environment.plugin(
        "two", distribution="blue", tools=[{"name": "b", "entry": "m:b", "aliases": ["same"]}]
    )
    environment.plugin("three", distribution="green", tools=["peaceful"])
    inventory = chosen(environment)
    assert states(inventory) == {
        "red:one": "conflict",
        "green:three": "enabled",
        "blue:two": "conflict",
    }
    assert reasons(inventory)["red:one"] == (
        "blue:two offers 'same' too. Deny one of the plugins, or leave it out of --plugins."
    )
    assert reasons(inventory)["blue:two"].startswith("red:one offers 'same' too.")
    assert {row.name: len(row.tools) for row in inventory.rows} == {"one": 2, "three": 1, "two": 1}
    assert states(chosen(environment, ["one"]))["red:one"] == "enabled"
    assert "red:one cannot be enabled (conflict)" in str(refusal(environment, ["one", "two"]))


def test_many_clashes_are_counted(environment: Environment) -> None:
    environment.plugin("one", distribution="red", tools=list("abcde"))
    environment.plugin("two", distribution="blue", tools=list("abcde"))
    assert "offers 'a', 'b', 'c' and 2 more too" in reasons(chosen(environment))["red:one"]


# --- metadata providers ---------------------------------------------------------------------------


def with_provider(environment: Environment, name: str, code: str) -> None:
    package = environment.plugin(
        name, distribution=f"dist-{name}", tools=["written"], metadata_provider=f"{name}_scanner"
    )
    environment.write(f"{name}_scanner.py", code)
    assert package not in ("", f"{name}_scanner")


def test_a_metadata_provider_adds_tools(importable: Environment) -> None:
    with_provider(
        importable,
        "finds",
        "def tools(plugin):\n    print('noise')\n"
        "    yield {'name': f'{plugin}_it', 'entry': 'm:f', 'tags': ('t',)}\n",
    )
    (row,) = chosen(importable).enabled
    assert [spec.name for spec in row.tools] == ["written", "finds_it"]
    assert row.metadata_provider == "finds_scanner"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise RuntimeError('no luck')", "RuntimeError: no luck"),
        ("raise SystemExit(3)", "it called sys.exit(3)"),
        ("def tools(plugin): raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("def tools(plugin): return 5", "TypeError: 'int' object is not iterable"),
        ("def tools(plugin): return [{}]", "tools[0]: has no name"),
        ("def tools(plugin): return [object()]", "TypeError: object is no JSON type"),
        (
            "def tools(plugin): return [{'name': 'x', 'entry': 'm:f'}] * 2",
            "the name 'x' is taken by tools[0] already",
        ),
        (
            """class D(dict):
    def items(self): raise SystemExit
def tools(plugin): return [D(x=1)]""",
            "it cannot be JSON (SystemExit)",
        ),
        ("tool = None", "has no 'tools'"),
        ("def tools(plugin): return {'note': 5}", "must be a string, not 5"),
        ("def tools(plugin): return {'tools': 5}", "'int' object is not iterable"),
        ("def tools(): return []", "takes 0 positional arguments but 1 was given"),
        (
            "def tools(plugin): return [{'name': 'x', 'entry': 'm:f', 'runtime': 'trio'}]",
            "'trio' cannot be served by a plugin of 'asyncio'",
        ),
        (
            "def tools(plugin): return [{'name': 'written', 'entry': 'm:f'}]",
            "offers 'written', which is in its manifest already",
        ),
    ],
)
def test_a_failing_provider_breaks_its_own_plugin_only(
    importable: Environment, code: str, reason: str
) -> None:
    with_provider(importable, "fails", code)
    importable.plugin("healthy", tools=["fine"])
    inventory = chosen(importable)
    assert states(inventory) == {"dist-fails:fails": "broken", "dist-healthy:healthy": "enabled"}
    assert "metadata provider fails_scanner" in reasons(inventory)["dist-fails:fails"]
    assert reason in reasons(inventory)["dist-fails:fails"]


@pytest.mark.parametrize(
    ("parameters", "seen"),
    [
        ("plugin, section", {"paths": ["/srv"]}),
        ("plugin, section=None", {"paths": ["/srv"]}),
        ("*all", {"paths": ["/srv"]}),
        ("plugin", None),
        ("plugin, *, other=None", None),
    ],
)
def test_a_provider_that_wants_it_is_given_the_section_of_its_plugin(
    importable: Environment, parameters: str, seen: object
) -> None:
    told = "locals().get('section', locals().get('all', (0, None))[-1])"
    with_provider(
        importable,
        "reads",
        f"def tools({parameters}):\n"
        f"    return [{{'name': 'x', 'entry': 'm:f', 'description': repr({told})}}]\n",
    )
    sections = {"reads": {"paths": ["/srv"]}}
    inventory = select(importable.scan(), wanted=None, section=sections.__getitem__)
    ((_, found),) = [row.tools for row in inventory.enabled]
    assert found.description == repr(seen)


def test_a_provider_can_say_what_a_person_should_know(importable: Environment) -> None:
    with_provider(
        importable,
        "notes",
        "def tools(plugin, section):\n"
        "    return {'tools': [{'name': 'x', 'entry': 'm:f'}], 'note': 'Two files\\nare left.'}",
    )
    (row,) = chosen(importable).rows
    assert (row.state, row.reason, row.note) == (
        "enabled",
        "Two files are left.",
        "Two files are left.",
    )
    assert [spec.name for spec in row.tools] == ["written", "x"]


def test_tools_of_a_provider_with_a_loader_can_be_for_any_runtime(importable: Environment) -> None:
    with_provider(
        importable,
        "mixed",
        "def tools(plugin):\n"
        "    return [{'name': r, 'entry': 'm:f', 'loader': 'm:load', 'runtime': r}\n"
        "            for r in ('asyncio', 'trio', 'any')]",
    )
    (row,) = chosen(importable).enabled
    assert [spec.runtime for spec in row.tools[1:]] == ["asyncio", "trio", "any"]


def test_a_provider_of_a_disabled_plugin_is_not_run(importable: Environment) -> None:
    with_provider(importable, "idle", "raise SystemExit('bomb')")
    importable.plugin("other", tools=["fine"])
    inventory = chosen(importable, ["other"])
    assert states(inventory)["dist-idle:idle"] == "disabled"
    assert [spec.name for row in inventory.rows for spec in row.tools] == ["written", "fine"]
    assert states(chosen(importable, denied=["idle"]))["dist-idle:idle"] == "disabled"


def test_prints_of_a_provider_stay_off_stdout(
    importable: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    with_provider(importable, "chatty", "def tools(plugin):\n    print('noise')\n    return []\n")
    assert len(chosen(importable).enabled) == 1
    assert capsys.readouterr().out == ""


# --- revising -------------------------------------------------------------------------------------


def spec(name: str, plugin: str) -> ToolSpec:
    return ToolSpec(name, "", {"type": "object"}, f"m:{name}", plugin)


def test_tools_that_turn_up_when_served_can_collide() -> None:
    rows = tuple(
        PluginRow(name, f"dist-{name}", "1", "asyncio", "enabled", tools=(spec(name, name),))
        for name in ("a", "b", "c")
    )
    inventory = Inventory(rows).with_tools("a", [spec("new", "a")])
    assert {item.name for item in inventory.specs()} == {"new", "b", "c"}
    inventory = inventory.with_tools("a", [spec("b", "a")])
    assert states(inventory) == {
        "dist-a:a": "conflict",
        "dist-b:b": "conflict",
        "dist-c:c": "enabled",
    }


def test_a_plugin_can_turn_out_to_be_broken() -> None:
    rows = (
        PluginRow("a", "one", "1", "asyncio", "disabled", "denied"),
        PluginRow("a", "two", "1", "asyncio", "enabled"),
    )
    inventory = Inventory(rows).with_broken("a", "It raised.")
    assert [(row.state, row.reason) for row in inventory.rows] == [
        ("disabled", "denied"),
        ("broken", "It raised."),
    ]
