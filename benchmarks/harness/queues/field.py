"""Who takes part: what each needs, and a fresh place for its tasks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.contestants import BENCHMARKS, REPOSITORY

from .contestant import PATIENCE
from .servers import SERVERS, Server, Unavailable

#: Where the queues of others are installed. Ignored by git.
ENVIRONMENTS = REPOSITORY / ".venv-queues"

#: Byte code is written, as it is where things are installed: nobody compiles at each start.
_ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}

SUBMITS = ("submit_1", "submit_64")
DRAINS = ("drain_4", "drain_64")
ALL = (*SUBMITS, *DRAINS, "start", "import", "claim")
#: What everybody is asked who is not excused, and those who are there with other settings already.
AGAIN = (*SUBMITS, *DRAINS, "start")
MOST = (*AGAIN, "import")


@dataclass(frozen=True)
class Kind:
    """One queue with its settings.

    :ivar label: what it is called in tables.
    :ivar module: of ``harness.queues``, with the variant to hand it.
    :ivar requirements: what pip installs for it; nothing means that it runs beside mcpd.
    :ivar server: its key in `SERVERS`, if it needs one.
    :ivar share: the part of the tasks that it is given, for those that need long for each.
    :ivar measures: what of `ALL` is measured.
    """

    label: str
    module: str
    variant: str = "full"
    requirements: tuple[str, ...] = ()
    server: str | None = None
    share: float = 1.0
    measures: Collection[str] = MOST


KINDS: Mapping[str, Kind] = {
    "raw": Kind("raw SQLite, one row like a task", "raw_sqlite", "row", measures=SUBMITS[:1]),
    "raw-rows": Kind("raw SQLite, a task's 3 rows", "raw_sqlite", "rows", measures=SUBMITS[:1]),
    "raw-bare": Kind("raw SQLite, a bare table", "raw_sqlite", "bare", measures=SUBMITS[:1]),
    "mcpd": Kind("mcpd, full", "mcpd_store"),
    "mcpd-normal": Kind("mcpd, normal", "mcpd_store", "normal", measures=(*AGAIN, "claim")),
    "mcpd-host": Kind("mcpd, full, its host, a tool", "mcpd_host", share=0.3, measures=DRAINS),
    "mcpd-http": Kind(
        "mcpd, full, over HTTP, a tool", "mcpd_http", share=0.3, measures=(*SUBMITS, *DRAINS)
    ),
    "huey": Kind("Huey, SQLite, fsync", "huey_sqlite", "full", ("huey",), share=0.5),
    "huey-normal": Kind(
        "Huey, SQLite", "huey_sqlite", "normal", ("huey",), share=0.5, measures=AGAIN
    ),
    "redis": Kind(
        "Redis Streams, AOF everysec", "redis_streams", "", ("redis[hiredis]",), "redis, everysec"
    ),
    "redis-always": Kind(
        "Redis Streams, AOF always",
        "redis_streams",
        "",
        ("redis[hiredis]",),
        "redis, always",
        measures=AGAIN,
    ),
    "taskiq": Kind(
        "Taskiq, Redis Streams, everysec",
        "taskiq_redis",
        "",
        ("taskiq", "taskiq-redis"),
        "redis, everysec",
        share=0.5,
    ),
    "procrastinate": Kind(
        "Procrastinate, PostgreSQL",
        "procrastinate_postgresql",
        "",
        ("procrastinate", "psycopg[binary]"),
        "postgresql",
        share=0.2,
    ),
    "dbos": Kind(
        "DBOS, PostgreSQL", "dbos_workflows", "postgresql", ("dbos",), "postgresql", share=0.2
    ),
    "dbos-sqlite": Kind(
        "DBOS, SQLite", "dbos_workflows", "sqlite", ("dbos",), share=0.05, measures=AGAIN
    ),
}


@dataclass
class Entrant:
    """A queue that can be measured here."""

    key: str
    kind: Kind
    python: str
    server: Server | None
    folder: Path
    places: int = field(default=0)

    def place(self) -> str:
        """Return an empty folder, or an empty part of the server."""
        self.places += 1
        if self.server is not None:
            return self.server.place(self.places)
        folder = self.folder / f"{self.key}-{self.places}"
        folder.mkdir()
        return str(folder)

    def run(self, what: str, where: str, count: int, width: int) -> dict[str, float]:
        """Have it do something in a process of its own.

        :returns: the figures that it printed.
        :raises RuntimeError: when it failed.
        """
        return self._run(self.kind.module, what, where, str(count), str(width), self.kind.variant)

    def imported(self) -> dict[str, float]:
        """Have it imported in a process of its own; returns the milliseconds."""
        return self._run("importing", self.key)

    def _run(self, program: str, *words: str) -> dict[str, float]:
        module = f"harness.queues.{program}"
        done = subprocess.run(
            [self.python, "-m", module, *words],
            cwd=BENCHMARKS,
            env=_ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{self.key} {' '.join(words)} failed:\n{done.stderr[-4_000:]}")
        found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return found


@contextmanager
def entrants(keys: Collection[str]) -> Iterator[list[Entrant]]:
    """Set up what takes part, and the servers it needs, for as long as the block runs.

    What cannot be had is named, with the reason, and goes without.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="mcpd-bench-")))
        servers: dict[str, Server] = {}
        found = []
        for key, kind in KINDS.items():
            if key not in keys:
                continue
            try:
                python = _python(kind.requirements)
                if kind.server is not None and kind.server not in servers:
                    servers[kind.server] = stack.enter_context(SERVERS[kind.server]())
            except Unavailable as reason:
                print(f"NOT MEASURED: {kind.label}: {reason}", flush=True)
                continue
            server = None if kind.server is None else servers[kind.server]
            found.append(Entrant(key, kind, python, server, folder))
        yield found


def _python(requirements: tuple[str, ...]) -> str:
    if not requirements:
        return sys.executable
    folder = ENVIRONMENTS / requirements[0].partition("[")[0]
    maker = str(REPOSITORY / "tools" / "environment.py")
    done = subprocess.run(
        [sys.executable, maker, str(folder), *requirements],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Unavailable(f"pip could not install {' '.join(requirements)} (see above).")
    return done.stdout.strip()
