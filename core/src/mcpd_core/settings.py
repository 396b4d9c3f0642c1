"""Settings: a file, the environment and the command line, laid over each other.

Flags win over ``MCPD_<SECTION>__<KEY>``, which win over ``mcpd.toml``. The sections of the core are
the classes below; any other section belongs to the plugin of that name, which validates it with a
model of its own. Nothing but the standard library is imported here, so that listing stays fast.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, cast

from . import paths, readers
from .errors import SettingsError


def _setting(default: Any, read: readers.Reader) -> Any:
    return field(default=default, metadata={"read": read})


# --- the sections of the core ---------------------------------------------------------------------

TRANSPORTS = ("http", "stdio", "socket")
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("text", "json")
HTTP_STREAMS = ("json", "sse")
TRIO_DRIVERS = ("auto", "fused", "guest")
WATCHDOG_POLICIES = ("report", "move", "ignore")


@dataclass(frozen=True)
class ServeSettings:
    """``[serve]``: what ``mcpd serve`` offers and how it logs.

    :ivar plugins: the plugins, distributions and bundles to enable; when it is not set, whatever is
        installed.
    :ivar transports: how clients arrive: ``socket``, ``stdio``, ``http``.
    :ivar log_level: the least severe level that is logged.
    :ivar log_format: ``text`` for people, ``json`` for one object per line.
    """

    plugins: tuple[str, ...] | None = _setting(None, readers.names())
    transports: tuple[str, ...] = _setting(("socket", "http"), readers.names(*TRANSPORTS))
    log_level: str = _setting("info", readers.choice(*LOG_LEVELS))
    log_format: str = _setting("text", readers.choice(*LOG_FORMATS))


@dataclass(frozen=True)
class PluginsSettings:
    """``[plugins]``: which installed plugins are left out.

    :ivar deny: plugins, distributions and bundles that are not enabled unless asked for by name.
    """

    deny: tuple[str, ...] = _setting((), readers.names())


@dataclass(frozen=True)
class ExecutorSettings:
    """``[executor]``: how much runs at once, and for how long.

    :ivar concurrency: calls of clients that run at the same time.
    :ivar per_client: of these, for one client.
    :ivar per_tool: of these, of one tool; what a tool calls with `ctx.call` runs under its permit.
    :ivar queue: calls that may wait for a permit; beyond that the answer is ``busy``.
    :ivar workers: calls of deferred work that run at the same time.
    :ivar timeout: seconds that a call may take when its tool says nothing about it.
    :ivar cancel_grace: seconds that a cancelled call may take to clean up before it is reported.
    :ivar import_timeout: seconds that importing a plugin's module may take.
    :ivar max_result_bytes: the size above which a result is an error.
    """

    concurrency: int = _setting(64, readers.number(int, 1))
    per_client: int = _setting(16, readers.number(int, 1))
    per_tool: int = _setting(32, readers.number(int, 1))
    queue: int = _setting(1024, readers.number(int, 0))
    workers: int = _setting(16, readers.number(int, 1))
    timeout: float = _setting(60.0, readers.number(float, 0.001))
    cancel_grace: float = _setting(5.0, readers.number(float, 0))
    import_timeout: float = _setting(30.0, readers.number(float, 0.001))
    max_result_bytes: int = _setting(1_048_576, readers.number(int, 1024))


@dataclass(frozen=True)
class DaemonSettings:
    """``[daemon]``: how the daemon ends.

    :ivar linger: seconds for which a daemon that was started for a client outlives the last one.
    :ivar grace: seconds that running calls are given to finish when the daemon is told to stop.
    """

    linger: float = _setting(30.0, readers.number(float, 0))
    grace: float = _setting(10.0, readers.number(float, 0))


@dataclass(frozen=True)
class HttpSettings:
    """``[http]``: where HTTP is served, for whom, and within which bounds.

    :ivar host: the address to listen on. One that others can reach is refused unless
        ``insecure_bind`` says so, because this version has no authentication.
    :ivar port: 0 takes any free one.
    :ivar path: where MCP is; ``/health/...`` is beside it.
    :ivar stream: ``json`` answers as JSON except where a request asks for more than its answer;
        ``sse`` answers every request as an event stream.
    :ivar allowed_hosts: further values of the ``Host`` header; ``name:*`` stands for any port.
    :ivar allowed_origins: further values of the ``Origin`` header, likewise.
    :ivar trust_loopback: whether a client on this machine that cannot be identified as a process of
        the server's own user may call tools.
    :ivar insecure_bind: whether anybody who reaches the port may call tools.
    :ivar max_body: bytes of the largest request.
    :ivar max_sessions: sessions of the handshake era that may be open at a time.
    :ivar idle_timeout: seconds without a request after which such a session is closed.
    """

    host: str = _setting("127.0.0.1", readers.text_of("an address or a host name", r"[^\s/]+"))
    port: int = _setting(8765, readers.port)
    path: str = _setting(
        "/mcp",
        readers.text_of("a path such as /mcp, outside of /health", r"(?!/health(/|$))/[\w./~-]*"),
    )
    stream: str = _setting("json", readers.choice(*HTTP_STREAMS))
    allowed_hosts: tuple[str, ...] = _setting((), readers.names())
    allowed_origins: tuple[str, ...] = _setting((), readers.names())
    trust_loopback: bool = _setting(False, readers.switch)
    insecure_bind: bool = _setting(False, readers.switch)
    max_body: int = _setting(4 * 1024 * 1024, readers.number(int, 1024))
    max_sessions: int = _setting(1000, readers.number(int, 1))
    idle_timeout: float = _setting(1800.0, readers.number(float, 1))


@dataclass(frozen=True)
class ProcessesSettings:
    """``[processes]``: the worker processes of tools with ``placement="process"``.

    :ivar workers: processes at a time; further calls wait for one.
    :ivar memory_mb: MiB of address space that a process may have, the interpreter's own included,
        when its tool says nothing about it; 0 sets no limit.
    :ivar cpu_seconds: seconds of CPU time that one call may use; 0 sets no limit besides the
        call's deadline.
    :ivar calls: calls after which a process is replaced.
    :ivar idle_timeout: seconds without a call after which a process ends.
    """

    workers: int = _setting(4, readers.number(int, 1))
    memory_mb: int = _setting(1024, readers.memory)
    cpu_seconds: int = _setting(0, readers.number(int, 0))
    calls: int = _setting(100, readers.number(int, 1))
    idle_timeout: float = _setting(300.0, readers.number(float, 0))


@dataclass(frozen=True)
class WatchdogSettings:
    """``[watchdog]``: what becomes of tools that block the loop, so that nothing else runs.

    :ivar threshold: seconds for which a call may keep the loop to itself.
    :ivar policy: ``report`` names the tool in the log; ``move`` also runs its later calls in a
        thread of its own, unless it uses a service; ``ignore`` does not look.
    :ivar offences: how often a tool has to block the loop before it is moved.
    :ivar report: tools that are only reported, whatever the policy is.
    :ivar move: tools that are moved, whatever the policy is.
    :ivar ignore: tools that are not looked at, whatever the policy is.
    """

    threshold: float = _setting(0.05, readers.number(float, 0.005))
    policy: str = _setting("report", readers.choice(*WATCHDOG_POLICIES))
    offences: int = _setting(3, readers.number(int, 1))
    report: tuple[str, ...] = _setting((), readers.names())
    move: tuple[str, ...] = _setting((), readers.names())
    ignore: tuple[str, ...] = _setting((), readers.names())


@dataclass(frozen=True)
class RuntimesSettings:
    """``[runtimes]``: how the libraries that tools are written for are driven.

    :ivar trio: ``fused`` drives trio in the server's thread without another one, which needs Linux
        and a trio that passes a test at the start; ``guest`` lets trio's guest mode do it, which
        works everywhere and is slower; ``auto`` takes the first of them that can be had.
    """

    trio: Literal["auto", "fused", "guest"] = _setting("auto", readers.choice(*TRIO_DRIVERS))


_SECTIONS: dict[str, type[Any]] = {
    "serve": ServeSettings,
    "plugins": PluginsSettings,
    "executor": ExecutorSettings,
    "daemon": DaemonSettings,
    "http": HttpSettings,
    "processes": ProcessesSettings,
    "runtimes": RuntimesSettings,
    "watchdog": WatchdogSettings,
}


@dataclass(frozen=True)
class Settings:
    """Everything that was set, and where.

    :ivar file: the settings file that was read, or ``None``.
    :ivar extra: the sections that belong to plugins, as they were written.
    :ivar origins: for each ``section.key`` that was set, where: the file, the environment variable
        or the flag.
    """

    serve: ServeSettings = field(default_factory=ServeSettings)
    plugins: PluginsSettings = field(default_factory=PluginsSettings)
    executor: ExecutorSettings = field(default_factory=ExecutorSettings)
    daemon: DaemonSettings = field(default_factory=DaemonSettings)
    http: HttpSettings = field(default_factory=HttpSettings)
    processes: ProcessesSettings = field(default_factory=ProcessesSettings)
    runtimes: RuntimesSettings = field(default_factory=RuntimesSettings)
    watchdog: WatchdogSettings = field(default_factory=WatchdogSettings)
    file: Path | None = None
    extra: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)

    def section(self, name: str) -> dict[str, Any]:
        """Return a plugin's section as it was written; empty when there is none.

        Values from the environment are text, or JSON where they look like a list or an object; the
        plugin's model converts them. ``-`` and ``_`` in the name are the same.
        """
        return dict(self.extra.get(_normal(name), {}))

    def origin(self, section: str, key: str) -> str:
        """Return where a setting was made, for messages; ``default`` when nobody set it."""
        return self.origins.get(f"{_normal(section)}.{key}", "default")


def core_sections() -> Mapping[str, type[Any]]:
    """Return the sections that belong to the core and their classes; the rest belongs to plugins.

    Each field of a class has a default and, in its metadata, the reader of its values.
    """
    return dict(_SECTIONS)


def setting_schema(setting: Field[Any]) -> dict[str, Any]:
    """Return what a core setting takes from a file, as JSON Schema."""
    read = setting.metadata["read"]
    if isinstance(read, readers.Described):
        return dict(read.schema)
    return {"type": readers.JSON_TYPES[str(setting.type)]}


def load_settings(
    config: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
) -> Settings:
    """Read the settings file and the environment and lay the command line's flags over them.

    :param config: the value of ``--config``; see `paths.settings_file` for what is read without.
    :param env: the environment; the process's own by default.
    :param overrides: what flags say, by section and key; a value of ``None`` means that the flag
        was not given.
    :raises SettingsError: when a file cannot be read, or a core section has an unknown key or a
        value that does not fit; it names the file, the variable or the flag.
    """
    env = os.environ if env is None else env
    file = paths.settings_file(config, env)
    values: dict[str, dict[str, Any]] = {}
    origins: dict[str, str] = {}
    if file is not None:
        for section, table in _read_toml(file).items():
            _put(values, origins, (section,), table, str(file))
    for variable in sorted(env):
        path = _variable_path(variable)
        if path:
            _put(values, origins, path, _text(env[variable]), variable)
    for section, flags in (overrides or {}).items():
        for key, value in flags.items():
            if value is not None:
                _put(values, origins, (section, key), value, "--" + key.replace("_", "-"))
    core = {
        name: _section(name, model, values.pop(name, {}), origins)
        for name, model in _SECTIONS.items()
    }
    return Settings(**core, file=file, extra=values, origins=origins)


def _normal(section: str) -> str:
    return section.replace("-", "_")


def _read_toml(file: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    try:
        content: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{file} is not UTF-8: {error.reason} at {error.start}.") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{file} is not TOML: {error}.") from error
    for name, table in content.items():
        if not isinstance(table, dict):
            raise SettingsError(
                f"{file}: {name!r} stands outside of a section.",
                hint=f"Sections of the core are {_bracketed(_SECTIONS)}; others belong to plugins.",
            )
    return content


def _bracketed(names: Mapping[str, Any]) -> str:
    return ", ".join(f"[{name}]" for name in names)


def _variable_path(variable: str) -> tuple[str, ...]:
    """Return ``("executor", "queue")`` for ``MCPD_EXECUTOR__QUEUE``, and nothing for others."""
    if not variable.startswith("MCPD_") or "__" not in variable:
        return ()
    parts = tuple(variable[len("MCPD_") :].lower().split("__"))
    return parts if all(parts) else ()


def _text(value: str) -> Any:
    if value[:1] in ("[", "{"):
        import json

        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _put(
    values: dict[str, dict[str, Any]],
    origins: dict[str, str],
    path: tuple[str, ...],
    value: Any,
    origin: str,
) -> None:
    """Set the value at a path, keeping what other origins set beside it."""
    section, *keys = path
    section = _normal(section)
    if isinstance(value, dict) and (not keys or section not in _SECTIONS):
        values.setdefault(section, {})
        for key, inner in value.items():
            _put(values, origins, (section, *keys, key), inner, origin)
        if value or not keys:
            return
    table = values.setdefault(section, {})
    for key in keys[:-1]:
        inner = table.get(key)
        if not isinstance(inner, dict):
            inner = table[key] = {}
        table = inner
    table[keys[-1]] = value
    origins[".".join((section, *keys))] = origin


def _section(
    name: str, model: type[Any], values: Mapping[str, Any], origins: Mapping[str, str]
) -> Any:
    known = {item.name: cast(readers.Reader, item.metadata["read"]) for item in fields(model)}
    read: dict[str, Any] = {}
    for key, value in values.items():
        # A variable such as MCPD_EXECUTOR__QUEUE__X sets something below the key.
        origin = next(o for path, o in origins.items() if f"{path}.".startswith(f"{name}.{key}."))
        if key not in known:
            raise _unknown_key(name, key, list(known), origin)
        try:
            read[key] = known[key](value)
        except ValueError as error:
            raise SettingsError(
                f"{origin}: {name}.{key} is {value!r}, which is not {error}."
            ) from error
    return model(**read)


def _unknown_key(section: str, key: str, known: list[str], origin: str) -> SettingsError:
    from difflib import get_close_matches

    close = get_close_matches(key, known, n=1)
    return SettingsError(
        f"{origin}: [{section}] has no setting {key!r}.",
        hint=f"Did you mean {close[0]!r}?" if close else f"It has {', '.join(sorted(known))}.",
    )
