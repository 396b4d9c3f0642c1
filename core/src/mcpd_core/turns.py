"""Turns: which of the calls that wait for a permit is the next. Knows neither clock nor loop."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from heapq import heappop, heappush, heapreplace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio


@dataclass(frozen=True)
class Limits:
    """How many calls may run and wait.

    :ivar total: running at once.
    :ivar per_client: running at once for one client.
    :ivar per_tool: running at once of one tool.
    :ivar queue: waiting, of all clients together; as many again for clients that have none waiting.
    """

    total: int
    per_client: int
    per_tool: int
    queue: int


#: Clients, and tools, that may be idle before they are looked for and forgotten.
_SPARE = 64


class Permit:
    """The right of one call to run. Hand it back with `Admission.release`.

    :ivar held: whether the call counts as one that runs.
    :ivar since: the `time.monotonic` time at which it was granted, if it is ``held``.
    """

    __slots__ = ("client", "held", "since", "tool")

    def __init__(self, client: Client, tool: Tool) -> None:
        self.client = client
        self.tool = tool
        self.held = True
        self.since: float


class Waiting(Permit):
    """A permit that is waited for.

    :ivar number: its place among all that are waited for, by age.
    :ivar granted: becomes true when the permit is granted, false at the deadline.
    :ivar line: the calls among which it waits; ``None`` when it waits no longer.
    """

    __slots__ = ("granted", "line", "number")

    def __init__(self, line: Line, number: int, granted: asyncio.Future[bool]) -> None:
        self.client = line.client
        self.tool = line.tool
        self.held = False
        self.number = number
        self.granted = granted
        self.line: Line | None = line


class Client:
    """One client that runs or waits, or did.

    :ivar turn: when it had its last turn, or else came to wait.
    :ivar lines: its calls that wait, by tool.
    :ivar aside: of these lines, those that were met in turn when the client was at its limit.
    """

    __slots__ = ("aside", "lines", "name", "running", "turn", "waiting")

    def __init__(self, name: str) -> None:
        self.name = name
        self.running = 0
        self.waiting = 0
        self.turn = 0
        self.lines: dict[str, Line] = {}
        self.aside: list[Line] = []


class Tool:
    """One tool that runs or is waited for, or did.

    :ivar lines: heap of those that wait for it, by turn of the client and age of the call.
    :ivar count: how many lines there are, those that clients have set aside included.
    :ivar key: as which it is among those that are ready, if it is.
    """

    __slots__ = ("count", "key", "lines", "name", "running")

    def __init__(self, name: str) -> None:
        self.name = name
        self.running = 0
        self.count = 0
        self.lines: list[tuple[int, int, Line]] = []
        self.key: tuple[int, int] | None = None


class Line:
    """The calls of one client that wait for one tool, the oldest first.

    :ivar gone: how many of them wait no longer, and are skipped when they are met.
    """

    __slots__ = ("calls", "client", "gone", "tool")

    def __init__(self, client: Client, tool: Tool) -> None:
        self.client = client
        self.tool = tool
        self.gone = 0
        self.calls: deque[Waiting] = deque()

    def forget(self) -> None:
        """Count a call that waits no longer; the line never consists mainly of such."""
        self.gone += 1
        if 2 * self.gone > len(self.calls):
            self.calls = deque(call for call in self.calls if call.line is not None)
            self.gone = 0

    def skip(self) -> None:
        """Have a call that waits at the head, if there is any."""
        while self.calls and self.calls[0].line is None:
            self.calls.popleft()
            self.gone -= 1


class Turns:
    """The calls that run and those that wait, by client and tool.

    Lines of calls are in the heaps of their tools, and the tools in a heap of those that are ready.
    A tool at its limit leaves that heap until one of its calls ends, and a line whose client is at
    its limit leaves its tool's until one of the client's calls ends. So whoever cannot be served is
    met once and not each time, and a turn takes O(log n) steps for n calls that wait. Keys in a
    heap may be out of date, but only ever too small: what comes to the top is put right before it
    counts.

    :ivar running: how many calls run.
    :ivar waiting: how many calls wait.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.running = 0
        self.waiting = 0
        self.clients: dict[str, Client] = {}
        self.tools: dict[str, Tool] = {}
        self._most_clients = self._most_tools = _SPARE
        #: Heap of the tools below their limit that are waited for.
        self.ready: list[tuple[int, int, Tool]] = []
        #: Counts arrivals and turns.
        self._clock = 0

    def has_room(self, client: str) -> bool:
        """Whether a call may wait. A client that waits for nothing yet finds a place even when
        others fill the queue."""
        of_client = self.clients.get(client)
        waits = of_client is not None and of_client.waiting
        return self.waiting < self.limits.queue * (1 if waits else 2)

    # --- calls ------------------------------------------------------------------------------------

    def admit(self, name: str, tool: str) -> Permit | None:
        """Count a call as running, if it fits. It overtakes nobody: one that waits does not fit."""
        limits = self.limits
        if self.running >= limits.total:
            return None
        client = self.clients.get(name)
        if client is None:
            client = self._new_client(name)
        elif client.running >= limits.per_client:
            return None
        of_tool = self.tools.get(tool)
        if of_tool is None:
            of_tool = self._new_tool(tool)
        elif of_tool.running >= limits.per_tool:
            return None
        self.running += 1
        client.running += 1
        of_tool.running += 1
        return Permit(client, of_tool)

    def resume(self, permit: Permit) -> None:
        """Count a call as running again, even above the limits."""
        # Its client and its tool may have been forgotten meanwhile.
        name, tool = permit.client.name, permit.tool.name
        permit.client = client = self.clients.get(name) or self._new_client(name)
        permit.tool = of_tool = self.tools.get(tool) or self._new_tool(tool)
        permit.held = True
        self.running += 1
        client.running += 1
        of_tool.running += 1

    def end(self, permit: Permit) -> None:
        """Count a call that runs no longer."""
        permit.held = False
        self.running -= 1
        client = permit.client
        client.running -= 1
        tool = permit.tool
        tool.running -= 1
        if client.aside and client.running < self.limits.per_client:
            aside, client.aside = client.aside, []
            for line in aside:
                self._put(line)
        if tool.lines and tool.key is None:
            self._offer(tool)

    def wait(self, name: str, tool: str, granted: asyncio.Future[bool]) -> Waiting:
        """Have a call wait that does not fit."""
        client = self.clients.get(name) or self._new_client(name)
        self._clock = number = self._clock + 1
        if not client.waiting:
            client.turn = number
        client.waiting += 1
        self.waiting += 1
        line = client.lines.get(tool)
        if line is not None:
            waiting = Waiting(line, number, granted)
            line.calls.append(waiting)
            return waiting
        of_tool = self.tools.get(tool) or self._new_tool(tool)
        of_tool.count += 1
        line = client.lines[tool] = Line(client, of_tool)
        waiting = Waiting(line, number, granted)
        line.calls.append(waiting)
        self._put(line)
        return waiting

    def forget(self, waiting: Waiting) -> None:
        """Have a call wait no longer; a line that has become empty goes when it is met."""
        line = waiting.line
        if line is not None:
            waiting.line = None
            line.client.waiting -= 1
            self.waiting -= 1
            line.forget()

    def next(self) -> Waiting | None:
        """Count the call whose turn it is as running.

        :returns: ``None`` when none fits.
        """
        while self.running < self.limits.total and (line := self._next()) is not None:
            waiting = line.calls.popleft()
            waiting.line = None
            client = line.client
            client.waiting -= 1
            self.waiting -= 1
            # One that is done belongs to a caller that was cancelled and has yet to run.
            if not waiting.granted.done():
                self._clock = client.turn = self._clock + 1
                self.running += 1
                client.running += 1
                line.tool.running += 1
                waiting.held = True
                return waiting
        return None

    # --- lines ------------------------------------------------------------------------------------

    def _put(self, line: Line) -> None:
        """Have a line wait for its tool, and no longer for its client."""
        line.skip()
        if line.calls:
            heappush(line.tool.lines, (line.client.turn, line.calls[0].number, line))
            self._offer(line.tool)
        else:
            self._drop(line)

    def _offer(self, tool: Tool) -> None:
        """Have a tool that is waited for be considered, unless it is at its limit."""
        turn, number, _ = tool.lines[0]
        key = turn, number
        if tool.running < self.limits.per_tool and (tool.key is None or key < tool.key):
            tool.key = key
            heappush(self.ready, (turn, number, tool))

    def _next(self) -> Line | None:
        """Return the line whose turn it is."""
        ready = self.ready
        while ready:
            turn, number, tool = ready[0]
            if tool.key != (turn, number):
                # It has come to be considered earlier since, and has had its turn.
                heappop(ready)
                continue
            line = self._first(tool)
            if line is None:
                heappop(ready)
                tool.key = None
                continue
            first = tool.lines[0]
            if first[0] == turn and first[1] == number:
                return line
            tool.key = first[:2]
            heapreplace(ready, (first[0], first[1], tool))
        return None

    def _first(self, tool: Tool) -> Line | None:
        """Bring the line whose turn it is to the top of a tool's heap.

        :returns: that line; ``None`` when no call of the tool fits.
        """
        limits, lines = self.limits, tool.lines
        if tool.running >= limits.per_tool:
            return None
        while lines:
            turn, number, line = lines[0]
            client = line.client
            if line.gone:
                line.skip()
            if not line.calls:
                heappop(lines)
                self._drop(line)
            elif client.running >= limits.per_client:
                heappop(lines)
                client.aside.append(line)
            elif client.turn != turn or line.calls[0].number != number:
                heapreplace(lines, (client.turn, line.calls[0].number, line))
            else:
                return line
        return None

    def _drop(self, line: Line) -> None:
        """Forget a line that is empty and in no heap."""
        del line.client.lines[line.tool.name]
        line.tool.count -= 1

    # --- clients and tools ------------------------------------------------------------------------
    # Most that end a call make another soon, so they are kept; from time to time the idle ones go,
    # not before there are as many new ones as were left the last time.

    def _new_client(self, name: str) -> Client:
        if len(self.clients) >= self._most_clients:
            self.clients = {n: c for n, c in self.clients.items() if c.running or c.lines}
            self._most_clients = _SPARE + 2 * len(self.clients)
        client = self.clients[name] = Client(name)
        return client

    def _new_tool(self, name: str) -> Tool:
        if len(self.tools) >= self._most_tools:
            self.tools = {n: t for n, t in self.tools.items() if t.running or t.count}
            self._most_tools = _SPARE + 2 * len(self.tools)
        tool = self.tools[name] = Tool(name)
        return tool
