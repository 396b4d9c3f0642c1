"""What a host is doing at this moment, as JSON data: what ``mcpd top`` shows."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .._version import __version__
from ..executor import Admission
from ..spec import Offer, ToolSpec
from .binding import Apart, Binder, Bound

if TYPE_CHECKING:
    from .host import Host

#: What runs nowhere in particular runs on the host's loop, unless a tool of trio calls it.
_NEUTRAL = "any"


def overview(host: Host, binder: Binder, admission: Mapping[str, Admission]) -> dict[str, Any]:
    """Return what the host does, and what became of its calls since it was started.

    Everything that was called is listed, and nothing else; times are in seconds.

    :param binder: knows where each tool runs.
    :param admission: the two sets of permits.
    """
    offers, running = [], Counter[str]()
    for counted in host.statistics:
        place = runs_in(binder, counted.spec)
        running["asyncio" if place == _NEUTRAL else place] += counted.running
        record = host.watchdog.record(counted.spec)
        offers.append(
            {
                **counted.to_json(),
                "runtime": place,
                "blocked": record.to_json() if record is not None and record.offences else None,
            }
        )
    return {
        "pid": os.getpid(),
        "version": __version__,
        "uptime": round(host.statistics.uptime, 3),
        "loop": host.lanes.loop_name,
        "tools": len(host.catalog.specs),
        "in_flight": host.in_flight,
        "admission": {
            name: {**permits.stats(), "limit": permits.limits.total}
            for name, permits in admission.items()
        },
        "runtimes": [
            {"name": name, "rung": rung, "running": running[name]}
            for name, rung in host.lanes.started()
            # The pool is there from the beginning; its threads are not.
            if name != "thread" or any(offer["runtime"] == name for offer in offers)
        ],
        "offers": offers,
    }


def runs_in(binder: Binder, spec: Offer) -> str:
    """Return where the code of a tool, resource or prompt runs.

    :returns: ``asyncio`` and ``trio`` in the host's thread, ``any`` in that of the caller,
        ``asyncio thread`` and ``trio thread`` in the thread of its plugin, ``thread`` in a worker
        thread, ``process`` in a worker process.
    """
    bound = binder.get(spec)
    if isinstance(bound, Apart):
        return "process"
    if isinstance(bound, Bound) and bound.own_thread:
        return f"{'trio' if bound.target == 'trio' else 'asyncio'} thread"
    if bound is not None:
        return bound.target
    # Nothing has run yet.
    declared = getattr(spec, "runtime", "asyncio")
    apart = isinstance(spec, ToolSpec) and spec.placement != "loop"
    return spec.placement if isinstance(spec, ToolSpec) and apart else str(declared)
