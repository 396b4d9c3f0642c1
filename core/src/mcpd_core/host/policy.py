"""Who may call what."""

from __future__ import annotations

from ..errors import NotAuthorised
from ..settings import HttpSettings
from ..spec import Offer, Principal


def may_call(principal: Principal, spec: Offer, http: HttpSettings) -> bool:
    """Whether a principal may see and call a tool.

    A local principal is the user who owns the daemon, authenticated by the operating system, and
    may call everything. A client over HTTP that nobody could identify may too, for as long as the
    owner says so. Nobody else may call anything.

    :param http: what the owner says now, whatever it was when the principal was met: a task may be
        older.
    """
    if principal.kind == "local":
        return True
    if principal.kind != "http":
        return False
    if principal.id == "loopback":
        return http.trust_loopback or http.insecure_bind
    return principal.id == "network" and http.insecure_bind


def authorise(principal: Principal, spec: Offer, http: HttpSettings) -> None:
    """Check that a principal may call a tool.

    :raises NotAuthorised: when it may not.
    """
    if not may_call(principal, spec, http):
        raise NotAuthorised(
            f"{principal} may not call the {spec.label}.",
            hint="Only the owner of the server may call tools.",
        )
