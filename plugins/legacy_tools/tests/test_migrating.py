"""``mcpd config migrate``: what becomes of the settings of an older server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mcpd_core import SettingsError
from mcpd_core.cli import main
from mcpd_core.settings import core_sections, load_settings
from mcpd_legacy_tools.migrating.converting import HIDDEN, Change, convert
from mcpd_legacy_tools.migrating.reading import Old, read_dotenv, read_yaml
from mcpd_legacy_tools.migrating.rules import RULES
from mcpd_legacy_tools.migrating.writing import check, render, write_file

#: As the old server's own `default_config.yaml` has it.
DEFAULT = """
    server:
      verbose: true
      log_level: WARNING
      host: 0.0.0.0
      port: 8000
      reload: true
      tool_timeout: 120
      transport: http
    tools:
      enabled_categories: [dataset, ipfs]
      dataset:
        default_format: ipld
      search:
        - name: semantic_search
          api_key: never-to-be-seen
    ipfs_kit:
      integration: mcp
      mcp_url: http://me:never-to-be-seen@127.0.0.1:8001
    """

#: As its documents describe what it never read.
DESCRIBED = """
    runtimes:
      fastapi: {enabled: true, workers: 4, timeout: 60}
      trio: {enabled: true, enable_on_import: true}
    p2p:
      enabled: true
      auth_mode: shared_token
      mcplusplus: {enabled: true}
      workflow_scheduler: {enabled: true, max_concurrent_workflows: 100}
      task_queue: {enabled: true, queue_path: ~/q.duckdb, max_queue_size: 10000}
      peer_registry: {bootstrap_nodes: [/ip4/10.0.0.1/tcp/4001]}
      connectivity: {listen_port: 4001}
    monitoring: {enabled: true, metrics_port: 9090, tracing_endpoint: "http://localhost:4318"}
    """


#: Ten lines whose aliases come to 6 ** 9 settings.
REPEATED = "a0: &a0 {x: 1}\n" + "".join(
    f"a{i}: &a{i} {{{', '.join(f'{key}: *a{i - 1}' for key in 'bcdefg')}}}\n" for i in range(1, 10)
)


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder to be in, and no variable of the old server or of mcpd."""
    for name in list(os.environ):
        if name.startswith(("MCP", "IPFS_", "GITHUB_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("MCPD_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def planted(home: Path, text: str, name: str = "old.yaml") -> Path:
    file = home / name
    file.write_text(textwrap.dedent(text))
    return file


def changes_of(home: Path, text: str, *variables: Old) -> dict[str, Change]:
    return {c.name: c for c in convert([*read_yaml(planted(home, text)), *variables])}


def variable(name: str, value: str) -> Change:
    (change,) = convert([Old(name, value, "dotenv")])
    return change


# --- each key ------------------------------------------------------------------------------------


def test_every_setting_of_the_old_default_file_is_accounted_for(home: Path) -> None:
    changes = changes_of(home, DEFAULT)
    became = {name: change.target for name, change in changes.items() if change.target}
    assert became == {
        "server.log_level": "serve.log_level",
        "server.port": "http.port",
        "server.tool_timeout": "executor.timeout",
        "server.transport": "serve.transports",
    }
    assert {name for name, change in changes.items() if not change.target} == {
        "server.verbose",
        "server.host",
        "server.reload",
        "tools.enabled_categories",
        "tools.dataset.default_format",
        "tools.search",
        "ipfs_kit.integration",
        "ipfs_kit.mcp_url",
    }
    assert all(change.why for change in changes.values() if not change.target)


def test_every_setting_that_was_only_described_is_accounted_for(home: Path) -> None:
    changes = changes_of(home, DESCRIBED)
    assert {change.use for change in changes.values()} == {"unread"}
    assert {c.target: c.new for c in changes.values() if c.target} == {
        "executor.timeout": 60.0,
        "task_queue.most_tasks": 10_000,
    }
    assert all("the old server never read it" in change.why for change in changes.values())
    assert "peers are not in this version" in changes["p2p.connectivity.listen_port"].why
    assert "workflows are not" in changes["p2p.workflow_scheduler.enabled"].why
    assert "not taken over" in changes["p2p.task_queue.queue_path"].why


@pytest.mark.parametrize(
    ("key", "value", "target", "new"),
    [
        ("server.host", "127.0.0.1", "http.host", "127.0.0.1"),
        ("host", "localhost", "http.host", "localhost"),
        ("server.transport", "stdio", "serve.transports", ["socket"]),
        ("log_level", 30, "serve.log_level", "warning"),
        ("server.log_level", "critical", "serve.log_level", "error"),
        ("tool_timeout", "2.5", "executor.timeout", 2.5),
        ("p2p.task_queue.enabled", False, "plugins.deny", ["task_queue"]),
        ("performance.max_concurrent_requests", 100, "executor.concurrency", 100),
    ],
)
def test_what_has_a_counterpart_is_set(key: str, value: Any, target: str, new: Any) -> None:
    (change,) = convert([Old(key, value, "yaml")])
    assert (change.outcome, change.target, change.new) == ("set", target, new)


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("server.host", "0.0.0.0", "others can reach 0.0.0.0"),
        ("server.host", "example.org", "others can reach example.org"),
        ("server.port", 70_000, "70000 is no whole number from 1 to 65535"),
        ("server.port", True, "true is no number"),
        ("server.port", "${MCP_PORT}", "did not fill in variables"),
        ("server.port", None, "it is empty, so mcpd's default holds"),
        ("server.log_level", "loud", "loud is no log level"),
        ("server.tool_timeout", 0, "0 is no positive number of seconds"),
        ("server.tool_timeout", float("nan"), "is no number"),
        ("server.transport", "pigeon", "pigeon is no transport"),
        ("p2p.task_queue.enabled", "perhaps", "perhaps is neither true nor false"),
        ("p2p.task_queue.enabled", "on", "pip install mcpd-task-queue"),
    ],
)
def test_a_value_that_cannot_be_taken_over_is_reported_with_the_reason(
    key: str, value: Any, why: str
) -> None:
    (change,) = convert([Old(key, value, "yaml")])
    assert (change.outcome, change.target) == ("dropped", "")
    assert why in change.why


def test_what_nobody_knows_is_said_to_be_unknown(home: Path) -> None:
    change = changes_of(home, "server:\n  colour: red\n")["server.colour"]
    assert (change.outcome, change.use) == ("unknown", None)


# --- variables -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "target", "new"),
    [
        ("MCP_PORT", "9000", "http.port", 9000),
        ("MCP_HOST", "::1", "http.host", "::1"),
        ("MCP_CORS_ORIGINS", "https://a.org, https://b.org", "http.allowed_origins", 2),
        ("MCP_ALLOWED_HOSTS", "localhost,tools.example", "http.allowed_hosts", 1),
        ("MCPPP_MAX_BODY_BYTES", "1048576", "http.max_body", 1_048_576),
        ("MCPPP_EXEC_TIMEOUT_S", "30", "executor.timeout", 30.0),
        ("LOG_LEVEL", "DEBUG", "serve.log_level", "debug"),
    ],
)
def test_a_variable_with_a_counterpart_is_set(
    name: str, value: str, target: str, new: object
) -> None:
    change = variable(name, value)
    assert change.target == target
    assert new == (len(change.new) if isinstance(change.new, list) else change.new)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("IPFS_DATASETS_PY_TASK_QUEUE_PATH", "not taken over"),
        ("IPFS_ACCELERATE_PY_TASK_P2P_AUTH_MODE", "a task keeps the one that submitted it"),
        ("IPFS_ACCELERATE_PY_TASK_P2P_ENABLE_TOOLS", "peers are not in this version"),
        ("IPFS_DATASETS_PY_MCP_P2P_SERVICE", "peers are not in this version"),
        ("IPFS_DATASETS_AUTO_INSTALL", "unless legacy_tools.auto_install is true"),
        ("IPFS_DATASETS_KG_CATALOG", "in the environment that `mcpd serve` runs in"),
        ("MCPPP_EPOCH_SIZE", "MCP++ are not in this version"),
        ("ENABLE_MCPLUSPLUS", "peers are not"),
    ],
)
def test_a_variable_without_a_counterpart_is_reported_with_the_reason(name: str, why: str) -> None:
    change = variable(name, "1")
    assert change.outcome == "dropped"
    assert why in change.why


@pytest.mark.parametrize(
    ("name", "value"), [("MCP_CORS_ORIGINS", "*"), ("MCP_ALLOWED_HOSTS", "localhost,127.0.0.1")]
)
def test_a_door_is_not_opened_wider_than_mcpd_would(name: str, value: str) -> None:
    assert variable(name, value).outcome == "dropped"


def test_a_general_name_is_believed_in_a_file_for_the_old_server_and_nowhere_else() -> None:
    assert convert([Old("PORT", "9000", "shell"), Old("PATH", "/bin", "shell")]) == []
    assert variable("PORT", "9000").target == "http.port"
    assert variable("COLOUR", "red").outcome == "unknown"


def test_a_variable_wins_over_the_file_and_the_report_says_so(home: Path) -> None:
    changes = changes_of(home, "server: {port: 8000}", Old("MCP_PORT", "9000", "shell"))
    assert (changes["server.port"].outcome, changes["server.port"].new) == ("overruled", None)
    assert "$MCP_PORT wins" in changes["server.port"].why
    assert "port = 9000  # $MCP_PORT" in render(changes.values(), "here")


# --- secrets -------------------------------------------------------------------------------------


def test_secrets_are_named_and_nowhere_repeated(home: Path) -> None:
    file = planted(home, DEFAULT + "\n    tools_extra:\n      api_key: never-to-be-seen\n")
    env = planted(home, "SECRET_KEY=never-to-be-seen\nEMAIL_PASS='never-to-be-seen'\n", "old.env")
    changes = convert([*read_yaml(file), *read_dotenv(env)])
    assert "never-to-be-seen" not in render(changes, "x") + str([c.to_json() for c in changes])
    hidden = {c.name: c.outcome for c in changes if c.value == HIDDEN}
    assert hidden == {
        "ipfs_kit.mcp_url": "secret",
        "tools_extra.api_key": "secret",
        "$SECRET_KEY": "secret",
        "$EMAIL_PASS": "secret",
    }


def test_a_secret_of_something_else_in_the_shell_is_passed_over() -> None:
    assert convert([Old("CLOUD_TOKEN", "x", "shell")]) == []
    (change,) = convert([Old("DISCORD_TOKEN", "x", "shell")])
    assert change.outcome == "secret"


# --- the rules themselves ------------------------------------------------------------------------


def test_every_target_is_a_setting_that_there_is() -> None:
    sections = core_sections()
    for rule in RULES:
        section, _, key = rule.target.partition(".")
        assert bool(rule.target) == (rule.convert is not None)
        if section in sections:
            assert key in sections[section].__dataclass_fields__
        else:
            assert rule.target in ("", "task_queue.most_tasks")


# --- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: [", "is no YAML"),
        ("- a\n- b\n", "holds no settings: its content is a list"),
        ("a: !!python/object/apply:os.system [id]\n", "is no YAML"),
        ("a" * 1_100_000, "is larger than"),
        ("{a: " * 20 + "1" + "}" * 20, "is nested too deeply"),
        (REPEATED, "holds more than 10000 settings"),
    ],
)
def test_a_file_that_holds_no_settings_is_refused(home: Path, text: str, problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        read_yaml(planted(home, text))


def test_a_file_that_cannot_be_read_is_refused(home: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        read_yaml(home / "gone.yaml")
    (home / "latin.yaml").write_bytes(b"a: \xe9\n")
    with pytest.raises(SettingsError, match="not UTF-8"):
        read_yaml(home / "latin.yaml")


def test_no_more_is_read_than_a_settings_file_can_hold(home: Path) -> None:
    endless = home / "pipe.yaml"
    os.mkfifo(endless)
    held = os.open(endless, os.O_RDWR)  # its end never comes
    try:
        with ThreadPoolExecutor(1) as threads:
            reading = threads.submit(read_yaml, endless)
            left = b"a" * 1_100_000
            while left and not reading.done():
                left = left[os.write(held, left[:4096]) :]
            with pytest.raises(SettingsError, match="is larger than"):
                reading.result(10)
    finally:
        os.close(held)


def test_an_empty_file_says_nothing(home: Path) -> None:
    assert read_yaml(planted(home, "# nothing\n")) == []


def test_variables_are_read_as_a_shell_reads_them(home: Path) -> None:
    file = planted(
        home,
        """
        # a comment
        export MCP_PORT=9000   # another
        MCP_HOST="127.0.0.1"
        MCP_PORT=9001
        """,
        "old.env",
    )
    assert {old.key: old.value for old in read_dotenv(file)} == {
        "MCP_PORT": "9001",
        "MCP_HOST": "127.0.0.1",
    }
    with pytest.raises(SettingsError, match="line 1, is no assignment"):
        read_dotenv(planted(home, "source other.env\n", "old.env"))


def test_text_survives_the_writing(home: Path) -> None:
    awkward = 'a"b\\c\x7f\u2028 \N{SNOWMAN}'
    change = Change("x\ny", "", "used", "set", "legacy_tools.paths", [awkward])
    (home / "mcpd.toml").write_text(render([change], "so\nurce"))
    assert load_settings(home / "mcpd.toml", {}).section("legacy_tools")["paths"] == [awkward]


def test_what_mcpd_does_not_take_is_not_written() -> None:
    change = Change("x", "", "used", "set", "executor.queue", -1)
    with pytest.raises(SettingsError, match="mcpd does not take what the old settings became"):
        check(render([change], "here"))
    change = Change("x", "", "used", "set", "legacy_tools.paths", "no list")
    with pytest.raises(SettingsError, match=r"\[legacy_tools\] paths: must be a list"):
        check(render([change], "here"))


def test_a_file_is_only_written_where_one_can_be(home: Path) -> None:
    with pytest.raises(SettingsError, match="gone"):
        write_file("", home / "gone" / "mcpd.toml", force=False)


# --- the command ---------------------------------------------------------------------------------


def test_the_command_writes_the_file_that_mcpd_reads_and_reports(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MCPPP_MAX_BODY_BYTES", "2048")
    planted(home, DEFAULT)
    assert main(["config", "migrate", "--from", "old.yaml"]) == 0
    told = capsys.readouterr()
    assert "server.port\t8000\thttp.port\t" in told.out
    assert "server.host\t0.0.0.0\t(nothing)\t" in told.out
    assert "ipfs_kit.mcp_url\t(not shown)\t(a secret)\t" in told.out
    assert "written: mcpd.toml" in told.err
    settings = load_settings(None, {})
    assert settings.file == Path("mcpd.toml")
    assert (settings.http.port, settings.executor.timeout) == (8000, 120.0)
    assert (settings.serve.log_level, settings.http.max_body) == ("warning", 2048)
    first = (home / "mcpd.toml").read_text().splitlines()[0]
    assert first == "# Written by `mcpd config migrate` from old.yaml and the environment."


def test_a_file_that_exists_is_left_alone(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planted(home, "server: {port: 9000}")
    (home / "mcpd.toml").write_text("# mine\n")
    assert main(["config", "migrate", "--from", "old.yaml"]) == 2
    assert "mcpd.toml exists, and is left as it is." in capsys.readouterr().err
    assert (home / "mcpd.toml").read_text() == "# mine\n"
    assert main(["config", "migrate", "--from", "old.yaml", "--force"]) == 0
    assert "port = 9000  # server.port" in (home / "mcpd.toml").read_text()
    assert not list(home.glob(".mcpd-*"))


def test_a_dry_run_prints_the_file_alone_and_writes_nothing(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planted(home, "server: {port: 9000, reload: true}")
    assert main(["config", "migrate", "--from", "old.yaml", "--dry-run"]) == 0
    told = capsys.readouterr()
    assert "[http]\nport = 9000  # server.port\n" in told.out
    assert "server.reload" not in told.out
    assert "server.reload  true  (nothing)" in told.err
    assert not (home / "mcpd.toml").exists()


def test_programs_get_the_report_as_json(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planted(home, "server: {port: 9000}")
    assert main(["config", "migrate", "--from", "old.yaml", "--dry-run", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["output"] is None
    assert report["settings"][0]["setting"] == "http.port"
    assert report["settings"][0]["old_server"] == "ignored"


def test_the_tools_beside_the_old_settings_are_mounted(home: Path) -> None:
    (home / "mcp_server" / "tools" / "sums").mkdir(parents=True)
    (home / "mcp_server" / "tools" / "sums" / "add.py").touch()
    (home / "mcp_server" / "config").mkdir()
    planted(home / "mcp_server" / "config", "server: {port: 9000}", "default_config.yaml")
    config = home / "mcp_server" / "config" / "default_config.yaml"
    assert main(["config", "migrate", "--from", str(config)]) == 0
    paths = load_settings(None, {}).section("legacy_tools")["paths"]
    assert paths == [str(home / "mcp_server" / "tools")]


def test_with_nothing_to_migrate_it_says_what_to_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "migrate"]) == 2
    told = capsys.readouterr().err
    assert "There is nothing to migrate" in told
    assert "--from" in told


def test_with_nothing_in_the_file_it_says_so(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["config", "migrate", "--from", str(planted(home, "# nothing\n"))]) == 2
    told = capsys.readouterr().err
    assert "there is no setting in" in told
    assert "no file is named" not in told


def test_yaml_is_imported_to_read_a_file_and_for_nothing_else(home: Path) -> None:
    probe = (
        "import sys; from mcpd_core.cli import main\n"
        "main(['config', 'migrate', '--help'])\n"
        "sys.exit('yaml' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", probe], stdout=subprocess.DEVNULL).returncode == 0
