"""Which user of this machine owns the other end of a TCP connection.

Linux answers that for each socket of its own, by netlink (``sock_diag(7)``) in some microseconds,
or where that is not to be had in the tables of ``/proc/net``, which takes milliseconds on a busy
machine. Other systems have no such answer that a program without privileges could get.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

Address = tuple[Any, ...]
IP = ipaddress.IPv4Address | ipaddress.IPv6Address

#: TCP states, as the kernel numbers them.
_ESTABLISHED, _CLOSE = 1, 7

_TABLES = Path("/proc/net")

# linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_QUERY = struct.Struct("=BBBxI")  # family, protocol, extensions, states
_ENDS = struct.Struct("!HH16s16s")  # ports and addresses of the socket that is looked for
_REST = struct.Struct("=III")  # interface, cookie (all ones: any)
_ANSWER = struct.Struct("=BBBB48xIIIII")  # family, state, ...; expires, queues, user, inode


class Owner(NamedTuple):
    """What the kernel knows of a socket.

    :ivar state: its TCP state.
    :ivar inode: 0 when its process has closed it.
    """

    state: int
    uid: int
    inode: int


#: Looks up the socket that has the first address and is connected to the second. It raises OSError
#: when it cannot look, and returns ``None`` when there is none.
Lookup = Callable[[Address, Address], "Owner | None"]


def ask_kernel(theirs: Address, ours: Address) -> Owner | None:
    """Look a socket up by netlink (a `Lookup`)."""
    source, target = _ip(theirs), _ip(ours)
    family = socket.AF_INET if source.version == 4 else socket.AF_INET6
    query = (
        _QUERY.pack(family, socket.IPPROTO_TCP, 0, 0xFFFFFFFF)
        + _ENDS.pack(theirs[1], ours[1], source.packed, target.packed)
        + _REST.pack(0, 0xFFFFFFFF, 0xFFFFFFFF)
    )
    head = _HEADER.pack(_HEADER.size + len(query), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as link:
        link.sendto(head + query, (0, 0))
        # The answer is there as soon as the question has been sent.
        answer = link.recv(4096, socket.MSG_DONTWAIT)
    _, kind, _, _, _ = _HEADER.unpack_from(answer)
    if kind != _SOCK_DIAG_BY_FAMILY:
        (code,) = struct.unpack_from("=i", answer, _HEADER.size)
        raise OSError(-code, os.strerror(-code))
    _, state, _, _, _, _, _, uid, inode = _ANSWER.unpack_from(answer, _HEADER.size)
    return Owner(state, uid, inode)


def read_tables(theirs: Address, ours: Address, tables: Path = _TABLES) -> Owner | None:
    """Look a socket up in ``/proc/net/tcp`` or ``tcp6`` (a `Lookup`)."""
    # An IPv6 socket may have an IPv4 address.
    for name in ("tcp", "tcp6") if _ip(theirs).version == 4 else ("tcp6",):
        needle = b" " + _written(theirs, name) + b" " + _written(ours, name) + b" "
        table = (tables / name).read_bytes()
        found = table.find(needle)
        if found >= 0:
            _, _, _, state, _, _, _, uid, _, inode, *_ = table[
                table.rfind(b"\n", 0, found) + 1 : table.find(b"\n", found)
            ].split()
            return Owner(int(state, 16), int(uid), int(inode))
    return None


def peer_uid(sock: Any, lookups: Sequence[Lookup] = (ask_kernel, read_tables)) -> int | None:
    """Say which user of this machine owns the other end of a TCP connection.

    A socket that its process has closed is listed without an inode, and by older kernels as the
    superuser's; it identifies nobody.

    :param sock: our end.
    :param lookups: ways to ask, tried in turn until one can look.
    :returns: ``None`` when the other end is not on this machine, is gone, or cannot be looked up.
    """
    try:
        owner = _first(sock.getpeername(), sock.getsockname(), lookups)
        # While our end lives, no other pair of sockets can have these two addresses. Had it died
        # before we looked, what we found might be its successor.
        if owner is None or _state(sock) == _CLOSE:
            return None
    except (AttributeError, OSError):  # no Linux, or the connection is gone
        return None
    return owner.uid if owner.state == _ESTABLISHED and owner.inode else None


def is_loopback(sock: Any) -> bool:
    """Whether the other end of a connection has a loopback address."""
    try:
        return _ip(sock.getpeername()).is_loopback
    except (OSError, ValueError):
        return False


def _first(theirs: Address, ours: Address, lookups: Sequence[Lookup]) -> Owner | None:
    for lookup in lookups:
        try:
            return lookup(theirs, ours)
        except OSError:
            continue
    return None


def _state(sock: Any) -> int:
    state: int = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    return state


def _ip(address: Address) -> IP:
    ip = ipaddress.ip_address(address[0].partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        return ip.ipv4_mapped
    return ip


def _written(address: Address, table: str) -> bytes:
    """Write an address as a table does: words of the machine's byte order, in hexadecimal."""
    packed = _ip(address).packed
    if table == "tcp6" and len(packed) == 4:
        packed = b"\0" * 10 + b"\xff\xff" + packed
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return ("".join(f"{word:08X}" for word in words) + f":{address[1]:04X}").encode()
