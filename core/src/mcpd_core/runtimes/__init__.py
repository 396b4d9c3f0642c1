"""The runtimes that tools run in, behind one interface.

The host's own loop is asyncio. trio is driven beside it in the same thread; blocking code goes to
worker threads, and what is CPU-bound or not trusted to processes. `Runtime.run` enters a runtime
from the host's loop; `TrioRuntime.run_in_host` leads back. The same promises hold for every pair of
caller and callee:

- a deadline and a cancellation cross the border, and the waiting side returns only after the other
  side has cleaned up;
- ``trio.Cancelled`` never reaches asyncio code, nor ``asyncio.CancelledError`` trio code;
- context variables go in and do not come out;
- what the other side raises arrives with its traceback, and nothing is ever run a second time.

`processes` is not imported here, because most servers never need it.
"""

from __future__ import annotations

from .asyncio_loop import AsyncioRuntime, capture
from .base import Expired, Gate, Outcome, Runtime
from .bridge import ThreadBridge
from .threads import ThreadRuntime
from .trio_runtime import TrioRuntime

__all__ = [
    "AsyncioRuntime",
    "Expired",
    "Gate",
    "Outcome",
    "Runtime",
    "ThreadBridge",
    "ThreadRuntime",
    "TrioRuntime",
    "capture",
]
