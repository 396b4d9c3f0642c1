"""`mcpd config` and `mcpd completion`."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mcpd_core.cli import main
from mcpd_core.cli.config.effective import HIDDEN
from mcpd_core.cli.config.sections import sections, template
from mcpd_core.settings import Settings, core_sections, load_settings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# It comes with the MCP SDK and brings no type information.
jsonschema: Any = importlib.import_module("jsonschema")


@pytest.fixture(autouse=True)
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder without settings, in an environment without settings."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("MCPD_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    return tmp_path


def shown(capsys: pytest.CaptureFixture[str], *flags: str) -> dict[str, tuple[Any, str]]:
    assert main(["config", "show", "--json", *flags]) == 0
    answer = json.loads(capsys.readouterr().out)
    return {
        ".".join(filter(None, (item["section"], item["key"]))): (item["value"], item["from"])
        for item in answer["settings"]
    }


# --- show -----------------------------------------------------------------------------------------


def test_every_setting_is_shown_with_where_it_comes_from(
    at: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (at / "mcpd.toml").write_text(
        "[executor]\nqueue = 3\nworkers = 5\n[weather.unit]\nheat = 'C'\n"
    )
    monkeypatch.setenv("MCPD_EXECUTOR__WORKERS", "7")
    monkeypatch.setenv("MCPD_DATA_DIR", str(at / "data"))
    values = shown(capsys, "--plugins", "hello")
    assert values["executor.queue"] == (3, "mcpd.toml")
    assert values["executor.workers"] == (7, "MCPD_EXECUTOR__WORKERS")
    assert values["executor.timeout"] == (60.0, "default")
    assert values["serve.plugins"] == (["hello"], "--plugins")
    assert values["weather.unit.heat"] == (HIDDEN, "mcpd.toml")
    assert shown(capsys, "--reveal")["weather.unit.heat"] == ("C", "mcpd.toml")
    assert values["data_dir"] == (str(at / "data"), "MCPD_DATA_DIR")
    assert shown(capsys, "--data-dir", "x")["data_dir"] == (str(at / "x"), "--data-dir")
    monkeypatch.delenv("MCPD_DATA_DIR")
    assert shown(capsys)["data_dir"][1] == "default"
    known = {f"{name}.{key}" for name, model in core_sections().items() for key in vars(model())}
    assert known <= set(values)


def test_a_person_gets_a_table_and_the_name_of_the_file(
    at: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["config", "show"]) == 0
    out, err = capsys.readouterr()
    assert "serve.plugins\t(not set)\tdefault\n" in out
    assert 'serve.transports\t["socket", "http"]\tdefault\n' in out
    assert err == "settings file: none\n"


def test_secrets_are_not_shown(at: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (at / "mcpd.toml").write_text(
        """
        [weather]
        api_key = "s3cret"
        token = ""
        tokens = ["s3cret", "s3cret"]
        url = "postgres://ada:s3cret@host/base"
        hosts = [{name = "a", password = "s3cret"}]
        verify_token = true
        city = "Bern"
        empty = {}
        [weather.credentials]
        user = "ada"
        """
    )
    assert main(["config", "show", "--json"]) == 0
    out = capsys.readouterr().out
    assert "s3cret" not in out
    values = shown(capsys)
    assert values["weather.api_key"][0] == HIDDEN
    assert values["weather.tokens"][0] == [HIDDEN, HIDDEN] or values["weather.tokens"][0] == HIDDEN
    assert values["weather.url"][0] == HIDDEN
    assert values["weather.hosts"][0] == [{"name": HIDDEN, "password": HIDDEN}]
    assert values["weather.verify_token"][0] is True
    assert values["weather.city"][0] == HIDDEN
    assert values["weather.empty"][0] == {}
    assert values["weather.credentials.user"][0] == HIDDEN


SECRETS_UNDER_INNOCENT_NAMES = """
[http]
allowed_origins = ["https://ada:pa55@example.org"]
[weather]
auth = "s3cret"
pins = [{pin = 1, code = "s3cret", more = ["s3cret", {deep = "s3cret"}]}]
tokens = [{value = 4711}]
ports = [1, 2.5]
rate = 3
strict = false
since = 2024-05-06
[weather.hooks.slack]
webhook = "https://hooks.example.org/s3cret"
"""


def test_no_text_of_a_plugin_is_shown_whatever_its_name_unless_it_is_asked_for(
    at: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (at / "mcpd.toml").write_text(SECRETS_UNDER_INNOCENT_NAMES)
    monkeypatch.setenv("MCPD_RADIO__HEADER", "s3cret")
    monkeypatch.setenv("MCPD_RADIO__HEADERS", '{"x": ["s3cret"]}')
    for flags in ((), ("--json",)):
        assert main(["config", "show", *flags]) == 0
        out = capsys.readouterr().out
        assert "s3cret" not in out
        assert "4711" not in out
        assert "pa55" not in out
        assert main(["config", "show", "--reveal", *flags]) == 0
        out = capsys.readouterr().out
        assert out.count("s3cret") == 7
        assert "4711" in out
        assert "pa55" in out


def test_numbers_and_switches_of_a_plugin_and_everything_of_the_core_are_shown(
    at: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (at / "mcpd.toml").write_text(SECRETS_UNDER_INNOCENT_NAMES)
    values = {key: value for key, (value, _) in shown(capsys).items()}
    assert values["weather.ports"] == [1, 2.5]
    assert values["weather.rate"] == 3
    assert values["weather.strict"] is False
    assert values["weather.pins"] == [
        {"pin": 1, "code": HIDDEN, "more": [HIDDEN, {"deep": HIDDEN}]}
    ]
    assert values["http.allowed_origins"] == ["https://...@example.org"]
    assert values["http.host"] == "127.0.0.1"
    assert values["serve.log_level"] == "info"
    revealed = {key: value for key, (value, _) in shown(capsys, "--reveal").items()}
    assert revealed["weather.since"] == "2024-05-06"


# --- init -----------------------------------------------------------------------------------------


def test_a_new_file_changes_nothing_and_explains_everything(at: Path) -> None:
    assert main(["config", "init"]) == 0
    text = (at / "mcpd.toml").read_text()
    assert load_settings(env={}) == Settings(file=Path("mcpd.toml"))
    for section in sections():
        assert section.text.endswith("."), section.name
        for setting in section.settings:
            assert setting.text.endswith("."), setting.key
            assert f"\n#{setting.key} = " in text


def test_the_defaults_in_a_new_file_are_the_defaults(at: Path) -> None:
    lines = [line.removeprefix("#") for line in template().splitlines() if line[:2] != "# "]
    # What has no default is shown with a placeholder.
    file = at / "all.toml"
    file.write_text("\n".join(line for line in lines if not line.endswith('"..."]')))
    settings = load_settings(file, env={})
    for section in core_sections():
        assert getattr(settings, section) == getattr(Settings(), section)


def test_a_file_that_is_there_is_kept(at: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (at / "mine.toml").write_text("[serve]\n")
    assert main(["config", "init", "mine.toml"]) == 2
    assert "exists already; --force overwrites it" in capsys.readouterr().err
    assert (at / "mine.toml").read_text() == "[serve]\n"
    assert main(["config", "init", "mine.toml", "--force"]) == 0
    assert (at / "mine.toml").read_text() == template()
    assert main(["config", "init", "no/such/folder.toml"]) == 2
    assert "cannot be written: No such file" in capsys.readouterr().err


def test_a_file_can_be_printed_instead(at: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "init", "--stdout"]) == 0
    assert capsys.readouterr().out.rstrip("\n") == template().rstrip("\n")
    assert not list(at.iterdir())


# --- schema ---------------------------------------------------------------------------------------


def schema(capsys: pytest.CaptureFixture[str], *flags: str, status: int = 0) -> tuple[Any, str]:
    assert main(["config", "schema", *flags]) == status
    out, err = capsys.readouterr()
    document = json.loads(out)
    jsonschema.Draft202012Validator.check_schema(document)
    return document, err


def test_the_schema_takes_what_is_valid_and_refuses_the_rest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    document, err = schema(capsys, "--plugins", "hello")
    assert not err, "a plugin without settings is not imported"
    check = jsonschema.Draft202012Validator(document).is_valid
    whole = {
        name: {key: list(v) if isinstance(v, tuple) else v for key, v in vars(model()).items()}
        for name, model in core_sections().items()
    }
    del whole["serve"]["plugins"]
    assert check(whole)
    assert check(tomllib.loads(template()))
    assert check({"serve": {"plugins": ["a"]}, "some_plugin": {"x": 1}})
    wrongs: list[dict[str, object]] = [
        {"serve": {"plugin": []}},
        {"serve": {"plugins": "a"}},
        {"serve": {"log_level": "loud"}},
        {"serve": {"transports": ["pigeon"]}},
        {"executor": {"queue": -1}},
        {"executor": {"queue": 1.5}},
        {"http": {"insecure_bind": "yes"}},
        {"some_plugin": 1},
    ]
    for wrong in wrongs:
        assert not check(wrong), wrong


def test_the_schema_has_the_sections_of_plugins_which_are_imported_for_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    document, err = schema(capsys, "--plugins", "task_queue")
    assert "note: task_queue was imported" in err
    check = jsonschema.Draft202012Validator(document).is_valid
    assert check({"task_queue": {}})
    assert not check({"task_queue": {"no_such_setting": 1}})


def test_a_plugin_that_cannot_be_asked_is_named(
    tmp_plugin: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin = """
        from mcpd_core import hookimpl

        @hookimpl
        def mcpd_settings():
            {body}
    """
    broken = tmp_plugin(name="broken", plugin=plugin.replace("{body}", "return 'x'"))
    raising = tmp_plugin(name="raising", plugin=plugin.replace("{body}", "raise OSError('no')"))
    gone = tmp_plugin(name="gone", plugin=plugin.replace("{body}", "return None"))
    (gone.path / gone.package / "plugin.py").unlink()
    document, err = schema(capsys, "--plugins", "broken,raising,gone,hello", status=1)
    for plugin in (broken, raising, gone):
        assert plugin.name in err
    assert "task_queue" not in document["properties"]
    assert set(document["properties"]) == set(core_sections())


# --- completion -----------------------------------------------------------------------------------


def completed(*words: str, last: str = "") -> list[str]:
    """Ask as bash does; return what it is offered."""
    done = subprocess.run(
        [sys.executable, "-m", "mcpd_core"],
        env={
            **os.environ,
            "_MCPD_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(["mcpd", *words, last]),
            "COMP_CWORD": str(len(words) + 1),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert not done.stderr
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


def test_commands_tools_and_plugins_are_completed() -> None:
    assert "serve" in completed()
    assert completed(last="doc") == ["doctor"]
    assert "--json" in completed("config", "show", last="--")
    assert completed("tools", "call", last="hello_g") == ["hello_greet", "hello_greet_all"]
    assert completed("tools", "show", "--plugins", "hello", last="hello_race") == ["hello_race"]
    assert set(completed("plugins", "check")) >= {"hello", "hello-trio", "task_queue", "p2p"}
    assert completed("serve", "--plugins", last="hello,task") == ["hello,task_queue"]
    assert "hello,hello" not in completed("serve", "--plugins", last="hello,")
    assert completed("serve", "--log-level", last="w") == ["warning"]


def test_completing_is_quiet_when_the_settings_are_wrong(at: Path) -> None:
    (at / "mcpd.toml").write_text("[serve]\nplugins = ['no-such-plugin']\n")
    assert completed("tools", "call", last="hello") == []
    (at / "mcpd.toml").write_text("nonsense")
    assert completed("plugins", "check") == []
    (at / "other.toml").touch()
    assert completed("tools", "show", "--config", "other.toml", last="hello_d") == ["hello_digest"]


def test_completing_imports_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "mcpd_core"],
        env={
            **os.environ,
            "_MCPD_COMPLETE": "bash_complete",
            "COMP_WORDS": "mcpd tools call hello",
            "COMP_CWORD": "3",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert "hello_greet" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    heavy = {"mcp", "trio", "anyio", "pydantic", "pluggy", "rich", "asyncio", "importlib.metadata"}
    assert not imported & {*heavy, "mcpd_hello_plugin", "mcpd_task_queue"}
    assert "mcpd_core.cli.serve" not in imported


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_asks_this_program(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert f"_MCPD_COMPLETE={shell}_complete" in script
    assert main(["completion", "tcsh"]) == 2


def test_bash_takes_the_script(capsys: pytest.CaptureFixture[str]) -> None:
    main(["completion", "bash"])
    script = capsys.readouterr().out
    done = subprocess.run(
        ["bash", "-c", script + "\ncomplete -p mcpd"], capture_output=True, text=True, check=True
    )
    assert "-F _mcpd_completion mcpd" in done.stdout
