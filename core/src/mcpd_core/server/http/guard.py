"""What protects a local server from web pages: the checks of ``Host`` and ``Origin``.

A page from anywhere can make a browser send requests to a loopback address, and a domain whose
name is made to point there ("DNS rebinding") makes them look like requests to that domain. The
first carry the page's ``Origin``, the second the domain as their ``Host``.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import Collection, Iterable

from ...settings import HttpSettings

log = logging.getLogger(__name__)

_LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")
#: Pairs of headers that were allowed and are not looked at again.
_KEPT = 256


class Guard:
    """Checks the two headers of a request against what is allowed.

    :param hosts: values of ``Host``; ``name:*`` stands for the name with any port.
    :param origins: values of ``Origin``, likewise.
    :param any_address: whether a ``Host`` that is an IP address is allowed, whatever the address,
        and an ``Origin`` that is the same as the ``Host``. No rebinding can make a browser send
        an address that the user did not ask for.
    """

    def __init__(
        self, hosts: Iterable[str], origins: Iterable[str], *, any_address: bool = False
    ) -> None:
        self._hosts = frozenset(map(str.lower, hosts))
        self._origins = frozenset(map(str.lower, origins))
        self._any_address = any_address
        self._allowed: set[tuple[bytes | None, bytes | None]] = set()

    def refusal(self, host: bytes | None, origin: bytes | None) -> tuple[int, str] | None:
        """Check a request's headers.

        :returns: the status and the text to refuse it with, or ``None`` when it may pass.
        """
        if (host, origin) in self._allowed:
            return None
        name = (host or b"").decode("latin-1").lower()
        if not (_matches(name, self._hosts) or (self._any_address and _is_address(name))):
            log.warning("refused a request for the host %r", name)
            return 421, "Invalid Host header. Further hosts are allowed by [http] allowed_hosts."
        source = (origin or b"").decode("latin-1").lower()
        same = self._any_address and source in (f"http://{name}", f"https://{name}")
        if source and not same and not _matches(source, self._origins):
            log.warning("refused a request of the origin %r", source)
            return 403, "Invalid Origin header. Origins are allowed by [http] allowed_origins."
        if len(self._allowed) < _KEPT:
            self._allowed.add((host, origin))
        return None


def guard_for(settings: HttpSettings, address: str) -> Guard:
    """Derive what is allowed from where the server listens.

    :param address: the address that was bound.
    """
    hosts = [*settings.allowed_hosts]
    ip = ipaddress.ip_address(address.partition("%")[0])
    names = [*_LOOPBACK_NAMES]
    if not ip.is_loopback:
        names += [_bracketed(address), settings.host, socket.gethostname()]
    for name in names:
        hosts += [name, f"{name}:*"]
    origins = [*settings.allowed_origins]
    for name in _LOOPBACK_NAMES:
        origins += [f"http://{name}", f"http://{name}:*"]
    return Guard(hosts, origins, any_address=not ip.is_loopback)


def _matches(value: str, allowed: Collection[str]) -> bool:
    if value in allowed:
        return True
    name, colon, port = value.rpartition(":")
    return bool(colon) and port.isdigit() and f"{name}:*" in allowed


def _is_address(host: str) -> bool:
    name, colon, port = host.rpartition(":")
    if not colon or not port.isdigit():
        name = host
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
