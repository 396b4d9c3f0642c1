"""What became of each setting of the older server.

What that server did with a setting was looked up in its code, not in its documents: most of what a
YAML file could say was never acted upon, and the sections ``p2p``, ``runtimes``, ``performance``
and ``monitoring`` were described and never read.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from .reading import Old
from .values import (
    Convert,
    address,
    hosts,
    level,
    origins,
    seconds,
    switched_off,
    transports,
    whole,
)

#: What the old server did with a setting: it acted upon it; it read it and did nothing; it never
#: looked. ``tools``: not the server, but code of the tools reads it, and goes on doing so.
Use = Literal["used", "ignored", "unread", "tools"]


@dataclass(frozen=True)
class Rule:
    """What became of the settings that match.

    :ivar keys: patterns of keys; those of variables have a ``$`` before them.
    :ivar target: the new setting as ``section.key``; empty when there is none.
    :ivar why: why there is none, or what is different.
    :ivar general: whether the variable's name is so general that it is only believed in a file
        that was written for the old server.
    """

    keys: tuple[str, ...]
    use: Use
    target: str = ""
    convert: Convert | None = None
    why: str = ""
    general: bool = False


_PEERS = "peers are not in this version of mcpd"
_WORKFLOWS = "workflows are not in this version of mcpd"
_PROFILES = "the profiles of MCP++ are not in this version of mcpd"
_STORE = (
    "tasks are kept in mcpd's data directory (MCPD_DATA_DIR); those in the old DuckDB file are "
    "not taken over"
)
_OWN_VARIABLES = "the tools read it themselves: set it in the environment that `mcpd serve` runs in"
_NO_CALL = "mcpd ends a call that takes longer, unless its tool says otherwise"
_RUNTIMES = (
    "mcpd starts trio for the first tool that needs it, and a tool says which runtime it has"
)
_PROCESS = "one process serves every client; see [executor] for what may run at a time"
_PRINCIPAL = "mcpd knows its callers from the socket, and a task keeps the one that submitted it"

RULES: tuple[Rule, ...] = (
    # --- the file: what `Configs` has -----------------------------------------------------------
    Rule(
        ("server.host", "host"),
        "ignored",
        "http.host",
        address,
        "the defaults of the flag --host always won",
    ),
    Rule(
        ("server.port", "port"),
        "ignored",
        "http.port",
        whole(1, 65_535),
        "the defaults of the flag --port always won",
    ),
    Rule(("server.log_level", "log_level"), "ignored", "serve.log_level", level),
    Rule(
        ("server.tool_timeout", "tool_timeout"),
        "ignored",
        "executor.timeout",
        seconds,
        _NO_CALL,
    ),
    Rule(("server.transport", "transport"), "ignored", "serve.transports", transports),
    Rule(("server.verbose", "verbose"), "ignored", why="serve.log_level says how much is logged"),
    Rule(
        ("server.reload", "reload"),
        "ignored",
        why="`mcpd serve` runs a changed tool after it was started again",
    ),
    Rule(
        ("tools.enabled_categories", "enabled_tool_categories"),
        "ignored",
        why="every category was offered whatever it said, and still is; to offer fewer, list "
        'patterns such as "dataset_tools/*" in legacy_tools.include',
    ),
    Rule(
        ("ipfs_kit.mcp_url", "ipfs_kit_mcp_url"),
        "used",
        why="mcpd does not hand on the tools of another server: connect clients to it as well. The "
        "tool ipfs_tools.get_from_ipfs reads the variable IPFS_KIT_MCP_URL",
    ),
    Rule(
        ("ipfs_kit.integration", "ipfs_kit_integration"),
        "ignored",
        why="the tool ipfs_tools.get_from_ipfs reads the variable IPFS_KIT_INTEGRATION",
    ),
    Rule(
        ("tools.*", "tool_configs", "tool_configs.*"),
        "ignored",
        why="no tool ever received it; pass it as an argument of the tool's calls",
    ),
    # --- the file: what was only described ------------------------------------------------------
    Rule(
        ("p2p.enabled", "p2p_enabled"),
        "unread",
        why=f"the task queue is the plugin mcpd-task-queue; {_PEERS}",
    ),
    Rule(
        ("p2p.task_queue.enabled",),
        "unread",
        "plugins.deny",
        switched_off("task_queue"),
    ),
    Rule(
        ("p2p.task_queue.max_queue_size",),
        "unread",
        "task_queue.most_tasks",
        whole(1),
    ),
    Rule(
        ("p2p.queue_path", "p2p_queue_path", "p2p.task_queue.queue_path"),
        "unread",
        why=_STORE,
    ),
    Rule(("p2p.auth_mode", "p2p_auth_mode"), "unread", why=_PRINCIPAL),
    Rule(("p2p.*workflow*",), "unread", why=_WORKFLOWS),
    Rule(("p2p.*", "p2p_*", "mcplusplus.*"), "unread", why=_PEERS),
    Rule(
        ("runtimes.fastapi.timeout", "performance.request_timeout"),
        "unread",
        "executor.timeout",
        seconds,
        _NO_CALL,
    ),
    Rule(
        ("performance.max_concurrent_requests",),
        "unread",
        "executor.concurrency",
        whole(1),
    ),
    Rule(("runtimes.fastapi.workers", "performance.*"), "unread", why=_PROCESS),
    Rule(("runtimes.*", "runtime.*"), "unread", why=_RUNTIMES),
    Rule(
        ("monitoring.enabled", "monitoring.metrics_port"),
        "unread",
        why="what is counted is served at /metrics/... of the one HTTP port",
    ),
    Rule(("monitoring.*",), "unread", why="mcpd sends no traces in this version"),
    # --- variables that the server acted upon ---------------------------------------------------
    Rule(("$MCP_CORS_ORIGINS",), "used", "http.allowed_origins", origins),
    Rule(("$MCP_ALLOWED_HOSTS",), "used", "http.allowed_hosts", hosts),
    Rule(("$MCPPP_MAX_BODY_BYTES",), "used", "http.max_body", whole(1024)),
    Rule(("$MCPPP_EXEC_TIMEOUT_S",), "used", "executor.timeout", seconds),
    Rule(("$MCP_WORKERS",), "used", why=_PROCESS),
    Rule(
        ("$MCPPP_MAX_SSE_CONNECTIONS",),
        "used",
        why="http.max_sessions limits sessions, which is something else",
    ),
    Rule(
        ("$MCPPP_*", "$MCP_DELEGATION_STORE_PATH", "$IPFS_POLICY_STORE_PATH"), "used", why=_PROFILES
    ),
    Rule(("$IPFS_DATASETS_DID_KEY_FILE", "$IPFS_DATASETS_PROFILE_G_DB"), "used", why=_PROFILES),
    Rule(
        ("$IPFS_DATASETS_SECRETS_VAULT_FILE",),
        "used",
        why="mcpd keeps no secrets: set the variables of the vault where `mcpd serve` runs",
    ),
    # --- variables that were described, or that only the start scripts and containers set -------
    Rule(("$MCP_HOST", "$MCP_SERVER_HOST"), "unread", "http.host", address),
    Rule(
        ("$MCP_PORT", "$MCP_SERVER_PORT", "$MCP_FASTAPI_PORT"),
        "unread",
        "http.port",
        whole(1, 65_535),
    ),
    Rule(("$MCP_ENABLE_TRIO", "$MCP_TRIO_PORT"), "unread", why=_RUNTIMES),
    Rule(("$ENABLE_MCPLUSPLUS", "$P2P_LISTEN_PORT"), "unread", why=_PEERS),
    Rule(
        ("$TASK_QUEUE_PATH", "$IPFS_*_PY_TASK_QUEUE_PATH"),
        "unread",
        why=f"the old server set it for itself; {_STORE}",
    ),
    Rule(("$IPFS_*_PY_TASK_P2P_AUTH_MODE",), "unread", why=_PRINCIPAL),
    Rule(
        ("$IPFS_*_PY_TASK_P2P_*", "$IPFS_*_PY_MCP_P2P_SERVICE"),
        "unread",
        why=f"the old server set it for itself; {_PEERS}",
    ),
    Rule(("$IPFS_DATASETS_CONFIG",), "unread", why="name the file with --from"),
    # --- variables of the tools -----------------------------------------------------------------
    Rule(
        (
            "$IPFS_DATASETS_AUTO_INSTALL",
            "$IPFS_DATASETS_PY_LAZY_INSTALL_PROVERS",
            "$IPFS_DATASETS_PY_MCP_ALLOW_PROVIDER_INSTALLS",
        ),
        "tools",
        why="code that is imported installs nothing here unless legacy_tools.auto_install is true",
    ),
    Rule(
        (
            "$IPFS_KIT_*",
            "$IPFS_DATASETS_*",
            "$IPFS_ACCELERATE_*",
            "$WALLET_PROCESSOR_MCP_*",
            "$COMMON_CRAWL_*",
            "$IPFS_PATH",
            "$GITHUB_REPO_OWNER",
            "$GITHUB_REPO_NAME",
            "$EMAIL_USER",
        ),
        "tools",
        why=_OWN_VARIABLES,
    ),
    # --- variables of the REST service, whose names could be anybody's --------------------------
    Rule(("$HOST",), "used", "http.host", address, general=True),
    Rule(("$PORT",), "used", "http.port", whole(1, 65_535), general=True),
    Rule(("$LOG_LEVEL",), "used", "serve.log_level", level, general=True),
    Rule(("$ALLOWED_ORIGINS",), "used", "http.allowed_origins", origins, general=True),
    Rule(
        ("$DEBUG", "$ENVIRONMENT", "$RELOAD"),
        "used",
        why="mcpd has no modes; serve.log_level says how much is logged",
        general=True,
    ),
)

#: Secrets that the old code is known to read from variables with names that do not tell.
SECRETS = ("EMAIL_PASS", "DATABASE_URL", "REDIS_URL")


def rule_for(old: Old) -> Rule | None:
    """Return what is known about a setting; ``None`` when nothing is."""
    key = old.key if old.kind == "yaml" else f"${old.key}"
    for rule in RULES:
        if any(fnmatchcase(key, pattern) for pattern in rule.keys):
            return None if rule.general and old.kind == "shell" else rule
    return None
