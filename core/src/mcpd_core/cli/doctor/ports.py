"""The HTTP port: free, ours, or somebody else's."""

from __future__ import annotations

import errno
import http.client
import ipaddress
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Literal, TypeAlias

from ...findings import Finding
from ...settings import Settings

#: Seconds for connecting to whoever listens, and as many again for the answer as a whole.
PATIENCE = 2.0

Use: TypeAlias = Literal["free", "mcpd", "other", "refused", "unknown"]


def examine(settings: Settings, *, running: bool) -> Iterator[Finding]:
    """Look at the address that HTTP is to be served on.

    :param running: whether the data directory's daemon runs.
    """
    wanted = "http" in settings.serve.transports
    host, port = settings.http.host, settings.http.port
    if not wanted:
        yield Finding("http", "ok", "HTTP is not asked for ([serve] transports).")
        return
    yield from check_exposure(host, _address(host), insecure=settings.http.insecure_bind)
    use, problem = look(host, port)
    yield check_port(host, port, use, running=running, problem=problem)


def check_exposure(host: str, address: str, *, insecure: bool) -> Iterator[Finding]:
    """Tell whether others than this machine could call tools.

    :param address: what the host's name stands for; empty when that is not known.
    :param insecure: whether the owner of this machine has said that they may.
    """
    if not address or ipaddress.ip_address(address).is_loopback:
        return
    if insecure:
        yield Finding(
            "http",
            "warning",
            f"Anybody who reaches {host} may call every tool ([http] insecure_bind).",
            "Serve 127.0.0.1, and let a proxy that knows its users stand in front of it.",
        )
    else:
        yield Finding(
            "http",
            "error",
            f"`mcpd serve` refuses to listen on {host}, where others than this machine reach it.",
            "Set [http] host to 127.0.0.1.",
        )


def _address(host: str) -> str:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ""  # told of when the port is looked at
    return str(found[0][4][0]).partition("%")[0]


def check_port(host: str, port: int, use: Use, *, running: bool, problem: str = "") -> Finding:
    """Tell whether HTTP can be served, or is.

    :param use: who has the port; ``refused`` when this user may not have it, ``unknown`` when there
        is no such address.
    :param problem: what the system said.
    """
    address = f"{host}:{port}"
    elsewhere = "Choose another with --port, MCPD_HTTP__PORT or [http] port."
    if use == "free":
        if running and port:
            return Finding(
                "http", "note", f"Nobody serves HTTP on {address}; the daemon does without."
            )
        return Finding("http", "ok", f"{address} is free." if port else "Any free port is taken.")
    if use == "mcpd":
        if running:
            return Finding("http", "ok", f"An mcpd answers on {address}.")
        return Finding(
            "http",
            "warning",
            f"An mcpd with another data directory answers on {address}; `mcpd serve` cannot have "
            "it as well.",
            elsewhere,
        )
    if use == "other":
        return Finding(
            "http",
            "warning" if running else "error",
            f"{address} is taken by another program; `mcpd serve` cannot listen on it.",
            elsewhere,
        )
    if use == "refused":
        return Finding(
            "http", "error", f"This user may not listen on {address}: {problem}.", elsewhere
        )
    return Finding(
        "http",
        "error",
        f"{host} is no address of this machine: {problem}.",
        "Correct [http] host; 127.0.0.1 is for this machine alone.",
    )


def look(host: str, port: int) -> tuple[Use, str]:
    """Find out who has an address, by binding it for a moment.

    :returns: the answer, and what the system said.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            # As the server does: connections of an earlier one that still linger do not count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except UnicodeError:
        return "unknown", "a label of the name is empty or too long"
    except OSError as error:
        said = error.strerror or str(error)
        if error.errno == errno.EADDRINUSE:
            return ("mcpd" if _is_mcpd(host, port) else "other"), said
        return ("refused" if error.errno in (errno.EACCES, errno.EPERM) else "unknown"), said
    return "free", ""


def _is_mcpd(host: str, port: int) -> bool:
    """Whether what listens has our health page."""
    connection = http.client.HTTPConnection(host, port, timeout=PATIENCE)
    deadline = threading.Timer(PATIENCE, lambda: None)
    try:
        connection.connect()
        # The time limit of a socket is one for each read: what sends a byte at a time keeps it.
        deadline = threading.Timer(PATIENCE, _hang_up, (connection.sock,))
        deadline.daemon = True
        deadline.start()
        connection.request("GET", "/health/live")
        answer = json.loads(connection.getresponse().read(4096))
    except (OSError, ValueError, RecursionError, http.client.HTTPException):
        return False
    finally:
        deadline.cancel()
        connection.close()
    return isinstance(answer, dict) and answer.get("status") == "ok"


def _hang_up(connection: socket.socket) -> None:
    """End a connection, so that whoever reads from it finds its end."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
