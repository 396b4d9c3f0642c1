"""Every command in the documentation is run, on a terminal, and its output compared.

In a page, a fence with ``title="path"`` is a file to write; a ``console`` fence holds commands
behind ``$ `` with the output that a person sees, where ``...`` stands for anything and white space
does not count; a line ``[exit status 2]`` is the status of the command above it.
``<!-- starts: COMMAND -->`` starts a command and waits until it listens; ``<!-- in a copy of: DIR
-->`` makes the reader's folder a copy of one of ours. The port 8765 stands for one that is free.

A ``sh`` fence holds what cannot be run so: what installs from a package index, runs these tests
themselves, or takes half an hour. `ELSEWHERE` says what runs each of its commands.
"""

from __future__ import annotations

import doctest
import fcntl
import os
import pty
import re
import shutil
import signal
import site
import socket
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    "README.md",
    "core/README.md",
    "examples/hello_plugin/README.md",
    "plugins/task_queue/README.md",
    "docs/tutorial/first-steps.md",
    "docs/tutorial/first-plugin.md",
    "docs/how-to/configure.md",
    "docs/how-to/find-blocking-tools.md",
    "docs/how-to/migrate-from-ipfs-datasets.md",
    "docs/how-to/operate-the-task-queue.md",
    "docs/how-to/manage-tasks.md",
    "docs/how-to/place-tools.md",
    "docs/how-to/publish-a-plugin.md",
    "docs/how-to/run-legacy-tools.md",
    "docs/how-to/run-several-tools.md",
    "docs/how-to/run-tools-in-processes.md",
    "docs/how-to/serve-foreign-code.md",
    "docs/how-to/serve-over-http.md",
    "docs/how-to/switch-plugins.md",
    "docs/how-to/test-a-plugin.md",
    "docs/how-to/watch-a-daemon.md",
]

#: Of each command in a `sh` fence: the file that has it run, and how that file says so.
ELSEWHERE = {
    "make setup": ("Makefile", "$(stamp)"),
    "make test": (".ci/run", "make test"),
    "make serve": ("docs/tutorial/first-steps.md", "starts: mcpd serve"),
    "mcpd serve": ("docs/tutorial/first-steps.md", "starts: mcpd serve"),
    "nox --list": (".github/workflows/mcp-server-tests.yml", "nox --session"),
    "nox -s tests-3.12 -- core/tests": (".github/workflows/mcp-server-tests.yml", "nox --session"),
    "nox --error-on-missing-interpreters": (
        ".github/workflows/mcp-server-tests.yml",
        "--error-on-missing-interpreters",
    ),
    "python3 -m venv .venv": ("tests/test_packaging.py", "venv.create"),
    ". .venv/bin/activate": ("tests/test_packaging.py", "env/bin/python"),
    "pip install ./core ./plugins/legacy_tools ./plugins/task_queue ./examples/hello_plugin": (
        "tests/test_packaging.py",
        "test_the_wheels_work_in_a_clean_environment",
    ),
    "pip install mcpd-core mcpd-task-queue": (
        "tests/test_packaging.py",
        "test_the_wheels_work_in_a_clean_environment",
    ),
    "pip install mcpd-core mcpd-legacy-tools": (
        "tests/test_packaging.py",
        "test_the_wheels_work_in_a_clean_environment",
    ),
    "pip install 'mcpd-core[testing]'": ("tests/test_packaging.py", '"install", "--quiet"'),
    "python -m venv /tmp/try && /tmp/try/bin/pip install dist/*.whl": (
        "tests/test_packaging.py",
        "test_a_new_plugin_is_built_installed_beside_ours_served_and_called",
    ),
    "/tmp/try/bin/mcpd plugins list": ("tests/test_packaging.py", '"plugins", "list"'),
    "/tmp/try/bin/mcpd tools list --plugins tides": ("tests/test_packaging.py", '"tools", "list"'),
    'eval "$(mcpd completion bash)"': ("tests/test_completion.py", "mcpd completion bash"),
    "mcpd completion fish > ~/.config/fish/completions/mcpd.fish": (
        "core/tests/test_cli_config.py",
        "fish",
    ),
    ".venv/bin/python benchmarks/serving.py": ("tests/test_benchmarks.py", '"serving.py"'),
    ".venv/bin/python benchmarks/serving_http.py": (
        "tests/test_benchmarks.py",
        '"serving_http.py"',
    ),
    ".venv/bin/python benchmarks/discovery.py": ("tests/test_benchmarks.py", '"discovery.py"'),
    ".venv/bin/python benchmarks/runtimes.py": ("tests/test_benchmarks.py", '"runtimes.py"'),
    ".venv/bin/python benchmarks/queues.py": ("tests/test_benchmarks.py", '"queues.py"'),
    ".venv/bin/python benchmarks/legacy.py": ("tests/test_benchmarks.py", '"legacy.py"'),
}

#: Pages whose `sh` fences show what these tests run with other words.
WHOLLY_ELSEWHERE = {
    "docs/reference/clients.md": ("tests/test_inspector_cli.py", "tests/test_conformance.py"),
}

FENCE = re.compile(r"^ *(`{3,})(?P<kind>[^\n]*)\n(?P<content>.*?)^ *\1$", re.MULTILINE | re.DOTALL)
PART = re.compile(
    r'^```\w+ title="(?P<title>[^"]+)"\n(?P<content>.*?)^```$'
    r"|^```console\n(?P<console>.*?)^```$"
    r"|^<!-- starts: (?P<starts>.+?) -->$"
    r"|^<!-- in a copy of: (?P<copied>.+?) -->$",
    re.MULTILINE | re.DOTALL,
)
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
MARK = "@@status:"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Reader:
    """A person with a terminal, a folder and an environment, who follows a page."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # Somebody may be using the usual one.
        self.port = free_port()
        self.environment = {
            **{
                key: value
                for key, value in os.environ.items()
                # The terminal's size is its own. (Some module sets these two where there is none.)
                # Code of an older server reads the others; a test may have set them for some.
                if not key.startswith(("MCPD_", "PYTHON", "COVERAGE_", "GITHUB_", "IPFS_"))
                and key not in ("COLUMNS", "LINES")
            },
            "MCPD_DATA_DIR": str(folder / "data"),
            "MCPD_HTTP__PORT": str(self.port),
            "PATH": f"{folder / 'env' / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            # Nothing is fetched: what builds and what is needed is there. (pip reads "0" as "no".)
            "PIP_NO_BUILD_ISOLATION": "0",
            "PIP_NO_DEPS": "1",
            "TERM": "xterm",
            "NO_COLOR": "1",
        }
        self.background: list[subprocess.Popen[bytes]] = []

    def install(self) -> None:
        """Make an environment that sees what this one has, and can be installed into."""
        env = self.folder / "env"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", env], check=True)
        packages = next((env / "lib").glob("python*/site-packages"))
        seen = [path for path in site.getsitepackages() if Path(path).is_dir()]
        lines = [f"import site; site.addsitedir({path!r})" for path in seen]
        (packages / "_seen.pth").write_text("\n".join(lines) + "\n")
        for name, module in (("mcpd", "mcpd_core"), ("pip", "pip")):
            script = env / "bin" / name
            script.write_text(f'#!/bin/sh\nexec "{env}/bin/python" -m {module} "$@"\n')
            script.chmod(0o755)

    def run(self, block: str) -> Iterator[tuple[str, str, str]]:
        """Yield each command of a block with the output that is wanted and the output it gave."""
        commands = re.findall(r"^\$ (.+(?:(?<=\\)\n.+)*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
        assert commands, f"a console block without commands: {block!r}"
        lines = [f"{command}\nstatus=$?; echo; echo {MARK}$status" for command, _ in commands]
        output = self._on_terminal("\n".join(lines))
        parts = re.split(rf"\n?{MARK}(\d+)\n", output)
        for index, (command, wanted) in enumerate(commands):
            given, status = parts[2 * index], parts[2 * index + 1]
            if status != "0":
                given = f"{given.rstrip()}\n[exit status {status}]\n"
            yield command, wanted, given

    def _on_terminal(self, script: str) -> str:
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 120, 0, 0))
        process = subprocess.Popen(
            ["bash", "-c", script],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        output = b""
        try:
            while data := os.read(master, 65536):
                output += data
        except OSError:
            pass  # Linux reports the end of a terminal so
        os.close(master)
        process.wait()
        return ESCAPE.sub("", output.decode().replace("\r\n", "\n"))

    def start(self, command: str) -> None:
        """Start a command and wait until it says that it listens."""
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self.background.append(process)
        assert process.stderr is not None
        heard = b""
        for line in process.stderr:
            heard += line
            if b"listening on" in line:
                return
        raise AssertionError(f"{command} ended: {heard.decode()}")

    def stop(self) -> None:
        for process in self.background:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
            assert process.stderr is not None
            process.stderr.close()
        lock = self.folder / "data" / "daemon.lock"
        if lock.exists() and (self.folder / "data" / "mcpd.sock").exists():
            # One that a client of the page has started.
            os.kill(int(lock.read_text().split()[0]), signal.SIGTERM)


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    reader = Reader(tmp_path)
    reader.install()
    yield reader
    reader.stop()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_shows_is_what_happens(page: str, reader: Reader) -> None:
    checker = doctest.OutputChecker()
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    shown = 0
    text = (ROOT / page).read_text().replace("8765", str(reader.port))
    for part in PART.finditer(text):
        if part["title"]:
            path = reader.folder / part["title"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(part["content"])
            if path.suffix == ".py" and path.parent.name != reader.folder.name:
                (path.parent / "__init__.py").touch()
        elif part["starts"]:
            reader.start(part["starts"])
        elif part["copied"]:
            shutil.copytree(ROOT / part["copied"], reader.folder, dirs_exist_ok=True)
        else:
            for command, wanted, given in reader.run(part["console"]):
                shown += 1
                assert checker.check_output(wanted, given, flags), (
                    f"{page}: $ {command}\n--- shown\n{wanted}--- given\n{given}"
                )
    assert shown, f"{page} shows no command"


def pages() -> list[Path]:
    """Return every page that a person may read."""
    folders = [ROOT, ROOT / "core", ROOT / "benchmarks", *(ROOT / "plugins").iterdir()]
    folders += (ROOT / "examples").iterdir()
    found = [path for folder in folders for path in folder.glob("*.md")]
    return sorted([*found, *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("page", [str(path.relative_to(ROOT)) for path in pages()])
def test_no_command_escapes(page: str) -> None:
    """Each command is in a `console` fence that is run above, or is known to be run elsewhere."""
    for fence in FENCE.finditer((ROOT / page).read_text()):
        kind, content = fence["kind"].split(" ")[0], fence["content"]
        if kind == "console":
            assert page in PAGES, f"nobody runs the commands of {page}"
        elif page in WHOLLY_ELSEWHERE and kind == "sh":
            assert all((ROOT / test).is_file() for test in WHOLLY_ELSEWHERE[page])
        elif kind in ("", "sh", "bash", "shell"):
            for line in filter(None, map(str.strip, content.splitlines())):
                command = re.sub(r"\s+#.*", "", line)
                assert command in ELSEWHERE, f"{page}: {command!r} is run by no test"
        else:
            assert not re.search(r"^\s*\$ ", content, re.MULTILINE), f"{page}: {content}"


@pytest.mark.parametrize("command", ELSEWHERE)
def test_what_is_run_elsewhere_is(command: str) -> None:
    path, words = ELSEWHERE[command]
    assert words in (ROOT / path).read_text()
    assert any(command in page.read_text() for page in pages()), "no page shows it any more"
