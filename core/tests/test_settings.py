"""Settings: where they are looked for, what wins, and what the errors say."""

from __future__ import annotations

import sys
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from mcpd_core import SettingsError, paths
from mcpd_core.settings import Settings, core_sections, load_settings


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory and a home without any settings."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    return folder


def written(folder: Path, text: str, name: str = "mcpd.toml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def test_without_anything_the_defaults_hold() -> None:
    settings = load_settings(env={})
    assert settings == Settings()
    assert settings.serve.plugins is None
    assert settings.serve.transports == ("socket", "http")
    assert settings.origin("executor", "queue") == "default"


def test_flags_win_over_the_environment_and_that_over_the_file(nowhere: Path) -> None:
    written(
        nowhere,
        """
        [serve]
        plugins = ["file"]
        log_level = "error"
        [executor]
        queue = 1
        per_tool = 1
        """,
    )
    settings = load_settings(
        env={"MCPD_SERVE__PLUGINS": "env, other", "MCPD_EXECUTOR__QUEUE": "2"},
        overrides={"serve": {"plugins": ("flag",), "log_level": None}},
    )
    assert settings.serve.plugins == ("flag",)
    assert settings.executor.queue == 2
    assert settings.executor.per_tool == 1
    assert settings.serve.log_level == "error"  # a flag that was not given overrides nothing
    assert settings.origin("serve", "plugins") == "--plugins"
    assert settings.origin("executor", "queue") == "MCPD_EXECUTOR__QUEUE"
    assert settings.origin("executor", "per_tool") == "mcpd.toml"


def test_the_file_is_looked_up_in_the_documented_order(nowhere: Path, tmp_path: Path) -> None:
    user = written(tmp_path / "user", "", "mcpd.toml")
    env = {"MCPD_CONFIG": str(written(tmp_path / "env", ""))}
    flag = written(tmp_path / "flag", "")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("platformdirs.user_config_path", lambda *args, **kwargs: user.parent)
        assert load_settings(env={}).file == user
        written(nowhere, "")
        assert load_settings(env={}).file == Path("mcpd.toml")
    assert load_settings(env=env).file == Path(env["MCPD_CONFIG"])
    assert load_settings(flag, env=env).file == flag


@pytest.mark.parametrize("origin", ["--config", "MCPD_CONFIG"])
def test_a_settings_file_that_was_named_must_exist(origin: str, tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.toml")
    flag = missing if origin == "--config" else None
    with pytest.raises(SettingsError, match=f"{origin} names .*missing.toml, which does not exist"):
        load_settings(flag, env={"MCPD_CONFIG": missing})


def test_other_sections_belong_to_plugins(nowhere: Path) -> None:
    written(nowhere, "[task-queue]\nworkers = 3\n[task-queue.retry]\ndelay = 1\n[empty]\n[p.q]\n")
    settings = load_settings(
        env={
            "MCPD_TASK_QUEUE__LEASE": "12",
            "MCPD_TASK_QUEUE__RETRY__STEPS": "[1, 2]",
            "MCPD_TASK_QUEUE__BAD": "[1,",
            "MCPD_OTHER__KEY": "text",
            "MCPD_NOT_A_SETTING": "x",
            "MCPD___": "x",
        }
    )
    assert settings.section("task_queue") == {
        "workers": 3,
        "lease": "12",
        "retry": {"delay": 1, "steps": [1, 2]},
        "bad": "[1,",
    }
    assert settings.section("task-queue") == settings.section("task_queue")
    assert settings.section("other") == {"key": "text"}
    assert settings.section("empty") == {}
    assert settings.section("p") == {"q": {}}
    assert settings.section("never-written") == {}
    assert settings.origin("task-queue", "retry.steps") == "MCPD_TASK_QUEUE__RETRY__STEPS"


def test_an_environment_variable_may_replace_a_value_by_a_table(nowhere: Path) -> None:
    written(nowhere, "[plugin]\nretry = 3\n")
    settings = load_settings(env={"MCPD_PLUGIN__RETRY__DELAY": "1"})
    assert settings.section("plugin") == {"retry": {"delay": "1"}}


def test_an_unknown_key_is_an_error_with_the_close_match(nowhere: Path) -> None:
    written(nowhere, "[executor]\nqeue = 3\n")
    with pytest.raises(SettingsError) as caught:
        load_settings(env={})
    assert caught.value.message == "mcpd.toml: [executor] has no setting 'qeue'."
    assert caught.value.hint == "Did you mean 'queue'?"
    with pytest.raises(SettingsError, match="MCPD_DAEMON__ZZZ.* It has grace, linger"):
        load_settings(env={"MCPD_CONFIG": str(written(nowhere, "")), "MCPD_DAEMON__ZZZ": "1"})


@pytest.mark.parametrize(
    ("variable", "value", "complaint"),
    [
        ("MCPD_EXECUTOR__QUEUE", "many", "executor.queue is 'many', which is not a whole number"),
        ("MCPD_EXECUTOR__QUEUE", "1.5", "not a whole number of at least 0"),
        ("MCPD_EXECUTOR__QUEUE", "-1", "not a whole number of at least 0"),
        ("MCPD_EXECUTOR__QUEUE__X", "1", "executor.queue is .* not a whole number"),
        ("MCPD_EXECUTOR__TIMEOUT", "nan", "not a number of at least 0.001"),
        ("MCPD_EXECUTOR__TIMEOUT", "inf", "not a number of at least 0.001"),
        ("MCPD_SERVE__LOG_LEVEL", "loud", "not one of debug, info, warning, error"),
        ("MCPD_SERVE__TRANSPORTS", "socket,pigeon", "not a list of any of http, stdio, socket"),
        ("MCPD_PLUGINS__DENY", "[1]", "not a list of names"),
        ("MCPD_PLUGINS__DENY", '{"a": 1}', "not a list of names"),
    ],
)
def test_a_value_that_does_not_fit_is_named_with_its_origin(
    variable: str, value: str, complaint: str
) -> None:
    with pytest.raises(SettingsError, match=f"{variable}: .*{complaint}"):
        load_settings(env={variable: value})


@pytest.mark.parametrize("text", ["true", '"x"', "1.5", "-1"])
def test_a_value_in_the_file_must_have_the_right_type(nowhere: Path, text: str) -> None:
    written(nowhere, f"[executor]\nworkers = {text}\n")
    with pytest.raises(SettingsError, match="workers is .* not a whole number of at least 1"):
        load_settings(env={})


def test_values_are_read_as_their_types() -> None:
    settings = load_settings(
        env={
            "MCPD_DAEMON__LINGER": "2",
            "MCPD_SERVE__LOG_LEVEL": "WARNING",
            "MCPD_SERVE__TRANSPORTS": "stdio",
            "MCPD_PLUGINS__DENY": '["a", "b"]',
        }
    )
    assert settings.daemon.linger == 2.0
    assert isinstance(settings.daemon.linger, float)
    assert settings.serve.log_level == "warning"
    assert settings.serve.transports == ("stdio",)
    assert settings.plugins.deny == ("a", "b")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"x = 1", "'x' stands outside of a section"),
        (b"[serve", "is not TOML"),
        (b"[serve]\nplugins = '\xff'", "is not UTF-8"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(nowhere: Path, content: bytes, complaint: str) -> None:
    (nowhere / "mcpd.toml").write_bytes(content)
    with pytest.raises(SettingsError, match=f"mcpd.toml.*{complaint}"):
        load_settings(env={})


def test_a_file_that_cannot_be_read_is_named(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(nowhere, "")

    def refuse(self: Path, *args: object, **kwargs: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(SettingsError, match=r"mcpd\.toml cannot be read: Permission denied"):
        load_settings(env={})


# --- paths ----------------------------------------------------------------------------------------


def test_the_data_directory_is_the_flag_then_the_variable_then_the_users(
    tmp_path: Path,
) -> None:
    env = {"MCPD_DATA_DIR": str(tmp_path / "env")}
    assert paths.data_dir(str(tmp_path / "flag"), env) == tmp_path / "flag"
    assert paths.data_dir(None, env) == tmp_path / "env"
    assert paths.data_dir("relative", {}) == Path.cwd() / "relative"
    assert paths.data_dir("~/data", {}) == tmp_path / "home" / "data"
    if sys.platform == "linux":
        assert paths.data_dir(None, {}) == tmp_path / "home/.local/share/mcpd-core"
    assert paths.socket_path(tmp_path) == tmp_path / "mcpd.sock"


def test_every_section_of_the_settings_is_read() -> None:
    made = {field.name: getattr(Settings(), field.name) for field in fields(Settings)}
    core = {name for name, value in made.items() if is_dataclass(value)}
    assert set(core_sections()) == core


def test_the_driver_of_trio_is_pinned_by_file_and_environment(tmp_path: Path) -> None:
    file = tmp_path / "mcpd.toml"
    file.write_text('[runtimes]\ntrio = "fused"\n')
    assert load_settings(file, env={}).runtimes.trio == "fused"
    assert load_settings(file, env={"MCPD_RUNTIMES__TRIO": "guest"}).runtimes.trio == "guest"
    with pytest.raises(SettingsError, match="not one of auto, fused, guest"):
        load_settings(None, env={"MCPD_RUNTIMES__TRIO": "threads"})
