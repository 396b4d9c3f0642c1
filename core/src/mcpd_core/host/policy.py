"""Who may call what."""

from __future__ import annotations

from ..errors import NotAuthorised
from ..spec import Principal, ToolSpec


def may_call(principal: Principal, spec: ToolSpec) -> bool:
    """Whether a principal may see and call a tool.

    A local principal is the user who owns the daemon, authenticated by the operating system, and
    may call everything. Nobody else may call anything.
    """
    return principal.kind == "local"


def authorise(principal: Principal, spec: ToolSpec) -> None:
    """Check that a principal may call a tool.

    :raises NotAuthorised: when it may not.
    """
    if not may_call(principal, spec):
        raise NotAuthorised(
            f"{principal} may not call the tool {spec.name!r}.",
            hint="Only the owner of the server may call tools.",
        )
