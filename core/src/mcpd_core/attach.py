"""`mcpd attach`: a relay between a client's stdio and the daemon's socket.

A desktop client starts this anew for every session, so it imports modules that are part of the
interpreter and nothing else: no argparse, no json, not even `socket` (which alone would double its
start). For the same reason it can be run as a file, ``python -I -S attach.py``, and so must not
import from its own package.
"""

import _socket
import _thread
import fcntl
import os
import select
import sys
import time

USAGE = """\
usage: mcpd attach [--data-dir DIR] [--spawn]

Connect standard input and output to the running daemon.

  --data-dir DIR  the daemon's data directory
  --spawn         start a daemon when none runs
"""

#: Exit status when there is no daemon to relay to (``EX_UNAVAILABLE``).
UNAVAILABLE = 69
#: Exit status when the daemon ended the session although the client did not.
CUT_OFF = 1

_CHUNK = 256 * 1024
#: Seconds that a daemon has to come up.
_PATIENCE = 20.0
#: Bytes of a socket path that every kernel takes.
_MAX_PATH = 103
#: Bytes of a client's first messages that are kept for a second daemon.
_MAX_REPLAY = 64 * 1024
#: Lines of the daemon's log that are shown when it did not come up.
_LOG_LINES = 10
#: Bytes after which the daemon's log begins anew at the next start.
_MAX_LOG = 4 * 1024 * 1024


class Unavailable(Exception):
    """Raised when there is no daemon; the message says what to do next."""


def main(argv: list[str]) -> int:
    """Run the command.

    :param argv: the arguments after ``attach``.
    :returns: the exit status: 0 when the client ended the session, `CUT_OFF`, `UNAVAILABLE`, or 2
        for arguments that are not understood.
    """
    directory, spawn = "", False
    rest = list(argv)
    while rest:
        argument = rest.pop(0)
        name, equals, value = argument.partition("=")
        if argument == "--spawn":
            spawn = True
        elif name == "--data-dir" and (equals or rest):
            directory = value if equals else rest.pop(0)
        elif argument in ("-h", "--help"):
            os.write(1, USAGE.encode())
            return 0
        else:
            _say(f"{argument!r} is not understood.\n{USAGE}")
            return 2
    directory = data_dir(directory)
    # Whoever runs this has no wish about plugins: whatever the daemon offers is right.
    return relay(directory, spawn_command(directory) if spawn else None, compare=False)


def data_dir(flag: str = "") -> str:
    """Find the data directory as `mcpd_core.paths.data_dir` does, which this must agree with.

    :param flag: the value of ``--data-dir``, which wins over ``MCPD_DATA_DIR``.
    """
    chosen = flag or os.environ.get("MCPD_DATA_DIR", "")
    if chosen:
        return os.path.abspath(os.path.expanduser(chosen))
    base = os.environ.get("XDG_DATA_HOME", "")
    if not os.path.isabs(base):
        mac = sys.platform == "darwin"
        base = os.path.expanduser("~/Library/Application Support" if mac else "~/.local/share")
    return os.path.join(base, "mcpd-core")


def spawn_command(directory: str) -> list[str]:
    """Compose the command that ``attach --spawn`` starts a daemon with."""
    command = [sys.executable, "-m", "mcpd_core", "serve", "--transport", "socket"]
    command += ["--data-dir", directory, "--linger"]
    # The daemon runs in its data directory, where relative names would mean other files.
    config = os.environ.get("MCPD_CONFIG") or "mcpd.toml"
    if os.path.isfile(config):
        command += ["--config", os.path.abspath(config)]
    return command


def relay(directory: str, spawn: list[str] | None = None, *, compare: bool = True) -> int:
    """Relay between standard input and output and the daemon until either side ends.

    :param directory: the data directory, absolute.
    :param spawn: the command that starts a daemon when none runs; ``None`` to start none.
    :param compare: whether to say so when the running daemon was started with another
        ``--plugins`` argument than ``spawn`` has.
    :returns: the exit status.
    """
    link = None
    try:
        link, spawned = _reach(directory, spawn)
        if compare and spawn is not None and not spawned:
            _compare_plugins(directory, spawn)
        link, unsent = _open_session(directory, spawn, link)
        ended = [unsent is None]
        _thread.start_new_thread(_pump_requests, (link, unsent, ended))
        if not _pump_answers(link) and not ended[0]:
            _say("the daemon closed the connection; its log may say why.")
            return CUT_OFF
    except Unavailable as exc:
        _say(str(exc))
        return UNAVAILABLE
    except KeyboardInterrupt:
        return 130
    finally:
        if link is not None:
            link.close()
    return 0


# --- relaying -------------------------------------------------------------------------------------


def _open_session(
    directory: str, spawn: list[str] | None, link: _socket.socket
) -> tuple[_socket.socket, bytes | None]:
    """Relay until the daemon has answered something, replacing a daemon that leaves before that.

    A daemon that is about to leave may accept a connection and close it unread. What the client
    has said by then is said again to its successor, provided that it cannot have run a tool.

    :returns: the connection, and what is still to be sent over it; ``None`` once the client has
        said everything.
    """
    said = b""
    ended = replaced = False
    while True:
        socket = link.fileno()
        readable, _, _ = select.select([socket] if ended else [0, socket], [], [])
        if socket in readable:
            if replaced or (ended and not said) or _has_answer(link):
                return link, None if ended else b""
            replaced = True
            link.close()
            link, _ = _reach(directory, spawn)
            # The socket's buffer is empty and larger than what was said.
            _send_all(link, said)
            if ended:
                _end_requests(link)
        elif 0 in readable:
            chunk = os.read(0, _CHUNK)
            if not chunk:
                ended = True
                _end_requests(link)
                continue
            said += chunk
            sent = _send_some(link, chunk)
            may_run = b"call" in said or b"\\u" in said  # the latter may spell the former
            if sent < len(chunk) or may_run or len(said) > _MAX_REPLAY:
                return link, chunk[sent:]


def _pump_requests(link: _socket.socket, unsent: bytes | None, ended: list[bool]) -> None:
    """Relay what the client says; its end becomes a half close, so that answers still come."""
    # Two threads that block, because one that blocks would deadlock as soon as both directions
    # are full. Each holds one chunk at a time, which is what makes back-pressure work.
    try:
        if unsent is not None:
            _send_all(link, unsent)
            while chunk := os.read(0, _CHUNK):
                _send_all(link, chunk)
        ended[0] = True
    except OSError:
        pass  # the daemon has gone, which the other thread reports
    _end_requests(link)


def _pump_answers(link: _socket.socket) -> bool:
    """Relay what the daemon says.

    :returns: whether the client was the one to leave.
    """
    while True:
        try:
            chunk = link.recv(_CHUNK)
        except OSError:
            return False
        if not chunk:
            return False
        try:
            while chunk:
                chunk = chunk[os.write(1, chunk) :]
        except OSError:
            return True


def _has_answer(link: _socket.socket) -> bool:
    """Whether a readable connection has something to read, and not just its end."""
    try:
        return bool(link.recv(1, _socket.MSG_PEEK))
    except OSError:
        return False


def _send_some(link: _socket.socket, data: bytes) -> int:
    """Send what can be sent without waiting; how much that was."""
    try:
        return link.send(data, _socket.MSG_DONTWAIT)
    except BlockingIOError:
        return 0
    except OSError:
        return len(data)  # the connection is lost, which the next look at it finds


def _send_all(link: _socket.socket, data: bytes) -> None:
    while data:
        data = data[link.send(data) :]


def _end_requests(link: _socket.socket) -> None:
    try:
        link.shutdown(_socket.SHUT_WR)
    except OSError:
        pass  # the connection is lost already


# --- finding or starting the daemon ---------------------------------------------------------------


def connect(directory: str) -> _socket.socket:
    """Connect to the daemon of a data directory.

    :raises OSError: when no daemon listens there.
    """
    path = directory + "/mcpd.sock"
    link = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    folder = -1
    try:
        if len(os.fsencode(path)) > _MAX_PATH and sys.platform == "linux":
            # Too long for the kernel, which does however know the directory by its descriptor.
            folder = os.open(directory, os.O_PATH | os.O_DIRECTORY)
            path = f"/proc/self/fd/{folder}/mcpd.sock"
        link.connect(path)
    except BaseException:
        link.close()
        raise
    finally:
        if folder >= 0:
            os.close(folder)
    return link


def _reach(directory: str, spawn: list[str] | None) -> tuple[_socket.socket, bool]:
    """Connect to the daemon, starting one when none runs and a command is given.

    :returns: the connection, and whether the daemon was started.
    """
    try:
        return connect(directory), False
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        if spawn is None:
            raise Unavailable(
                f"no daemon runs in {directory}; start one with `mcpd serve`, or add --spawn."
            ) from None
        return _spawn(directory, spawn)
    except OSError as exc:
        raise Unavailable(f"cannot connect to the daemon in {directory}: {exc}.") from None


def _spawn(directory: str, argv: list[str]) -> tuple[_socket.socket, bool]:
    """Start a daemon, unless another process is just doing so, and wait until it listens."""
    try:
        os.makedirs(directory, 0o700, exist_ok=True)
        lock = os.open(directory + "/spawn.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as exc:
        raise Unavailable(f"cannot start a daemon in {directory}: {exc}.") from None
    try:
        # Whoever holds the lock gives up after the patience below.
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            return connect(directory), False
        except OSError:
            pass  # still none: it is ours to start
        log = directory + "/daemon.log"
        begin = _log_size(log)
        process = _start(argv, log)
        deadline = time.monotonic() + _PATIENCE
        pause = 0.001
        while True:
            # Looked at first: a daemon that found another one in its place has left a good socket.
            ended, status = os.waitpid(process, os.WNOHANG)
            try:
                return connect(directory), True
            except OSError:
                pass  # not yet
            if ended:
                code = os.waitstatus_to_exitcode(status)
                raise Unavailable(f"the daemon ended with status {code}.{_tail(log, begin)}")
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"the daemon did not listen within {_PATIENCE:g} s.{_tail(log, begin)}"
                )
            time.sleep(pause)
            pause = min(pause * 1.5, 0.02)
    finally:
        os.close(lock)


def _start(argv: list[str], log: str) -> int:
    """Start the daemon in a session of its own, so that no terminal's signal reaches it.

    :returns: its process id.
    """
    if _log_size(log) > _MAX_LOG:
        os.replace(log, log + ".old")
    # A daemon must not hold on to the folder of whoever happened to need it first.
    os.chdir(os.path.dirname(log))
    null = os.open(os.devnull, os.O_RDWR)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return os.posix_spawn(
            argv[0],
            argv,
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, null, 0),
                (os.POSIX_SPAWN_DUP2, out, 1),
                (os.POSIX_SPAWN_DUP2, out, 2),
            ],
            setsid=True,
        )
    except OSError as exc:
        raise Unavailable(f"cannot run {argv[0]}: {exc}.") from None
    finally:
        os.close(null)
        os.close(out)


def _log_size(log: str) -> int:
    try:
        return os.stat(log).st_size
    except OSError:
        return 0


def _tail(log: str, begin: int) -> str:
    """Return what the daemon wrote since it was started, at most its last lines."""
    try:
        descriptor = os.open(log, os.O_RDONLY)
    except OSError:
        return ""
    try:
        size = os.fstat(descriptor).st_size
        begin = max(begin if begin <= size else 0, size - 8192)
        lines = os.pread(descriptor, size - begin, begin).decode(errors="replace").splitlines()
    finally:
        os.close(descriptor)
    return f" From {log}:\n" + "\n".join(lines[-_LOG_LINES:]) if lines else f" See {log}."


def _compare_plugins(directory: str, spawn: list[str]) -> None:
    """Say so when the running daemon was started with other plugins than are asked for."""
    try:
        descriptor = os.open(directory + "/daemon.plugins", os.O_RDONLY)
    except OSError:
        return  # an older daemon, or one that is just coming or going
    running = os.read(descriptor, 65536).decode(errors="replace").strip()
    os.close(descriptor)
    wanted = spawn[spawn.index("--plugins") + 1] if "--plugins" in spawn else ""
    if running != wanted:
        _say(
            f"the running daemon was started with {_named(running)}, not with {_named(wanted)}; "
            f"stop it to change that."
        )


def _named(plugins: str) -> str:
    return f"--plugins {plugins}" if plugins else "all plugins"


def _say(text: str) -> None:
    try:
        os.write(2, f"mcpd: {text.rstrip()}\n".encode(errors="replace"))
    except OSError:
        pass  # nobody listens on standard error


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))
