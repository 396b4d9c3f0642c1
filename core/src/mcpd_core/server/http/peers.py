"""Who is at the other end of a TCP connection, and what that makes of them.

TCP carries no credentials, and any user of a machine can connect to its loopback addresses. On
Linux the kernel says which user a socket of this machine belongs to, which identifies a client as
surely as a Unix socket does. The rule:

* a process of the server's own user is the owner: ``local``, as over the Unix socket;
* anybody else on this machine is let in only when the owner has set ``[http] trust_loopback``, as
  ``http:loopback``, which tells in logs and in stored tasks that nobody was identified;
* anybody else anywhere is let in only when the owner has set ``[http] insecure_bind``, as
  ``http:network``;
* everybody else is refused.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import Any

from ...settings import HttpSettings
from ...spec import Principal
from .sockets import is_loopback, peer_uid

log = logging.getLogger(__name__)

#: Clients that the owner lets in without knowing who they are; see `mcpd_core.host.policy`.
LOOPBACK = Principal("http", "loopback", "an unidentified client on this machine")
NETWORK = Principal("http", "network", "an unidentified client")


#: Seconds between two log lines about clients who are nobody.
_QUIET = 5.0


class Door:
    """Decides who a connection is.

    :param settings: what the owner allows.
    :param uid_of: `peer_uid`, or what a test puts in its place.
    """

    def __init__(
        self, settings: HttpSettings, uid_of: Callable[[Any], int | None] = peer_uid
    ) -> None:
        self._settings = settings
        self._uid_of = uid_of
        self._told = -_QUIET

    def principal(self, sock: Any) -> Principal | None:
        """Return who is at the other end, or ``None`` for somebody who is to be refused."""
        uid = self._uid_of(sock)
        if uid is not None and uid == os.geteuid():
            return Principal("local", str(uid))
        if self._settings.trust_loopback and is_loopback(sock):
            return LOOPBACK
        if self._settings.insecure_bind:
            return NETWORK
        who = "an unidentified client" if uid is None else f"user {uid}"
        now = time.monotonic()
        if now - self._told >= _QUIET:
            self._told = now
            log.warning("an HTTP connection of %s may ask for nothing but the health", who)
        return None
