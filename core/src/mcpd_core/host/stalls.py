"""How long one call has kept the loop to itself, judged from looks at the host's thread.

A look tells whose code runs at that moment. Between two looks the thread may have done anything,
so what lies between counts as a stall only as far as there is evidence:

* The same call was found both times. Such an interval counts for no longer than it was meant to be:
  a process that is suspended, or a machine too busy to run it, stretches the intervals, and no tool
  is to be blamed for that. What the host's thread has computed meanwhile counts in full.
  Nothing counts when the loop has turned in between: it is asked to advance a counter, the beat.
* The second look came late because the interpreter's lock was not to be had, and of all threads it
  was the host's that was computing. Then one piece of C code held the lock, since Python code gives
  it away every few milliseconds; and what runs when the look happens at last is what called it.
  That counts from the moment at which the loop was to show that it turns, and did not: one that
  turns often gives the lock away and takes it back before whoever waits for it has woken up, so
  that a look can come very late although nothing has blocked.

Garbage collection counts for nobody. Nothing here reads a clock or looks at a thread, see
`mcpd_core.host.looking` for that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

S = TypeVar("S")

#: An interval is stretched by the scheduler when it is this much longer than planned.
_STRETCHED = 1.5
#: The share of what a process computes that one thread does when it keeps the lock.
_NEARLY_ALL = 0.8
#: Looks within the time that is tolerated, when a call is suspected.
_CLOSELY = 5
#: Seconds after which a stall is told of although it lasts.
LASTING = 1.0
#: Seconds after which a thread that does nothing is looked at less often, and how often then.
_QUIET = 5.0
_SELDOM = 0.25
#: Seconds of CPU time between two looks that are no sign of life.
_NOTHING = 0.001


@dataclass(frozen=True)
class Look(Generic[S]):
    """What was seen of the host's thread at one moment.

    :ivar at: monotonic time, in seconds.
    :ivar cpu: seconds of CPU time that the thread has used; ``None`` where that is not known.
    :ivar process: the same of the whole process.
    :ivar kept: seconds for which whoever looks has waited for the interpreter's lock.
    :ivar collecting: seconds that the thread has spent collecting garbage.
    :ivar beats: how often the loop has shown that it turns.
    :ivar due: monotonic time, in seconds, at which the loop is or was to tick next; ``None`` when
        it does not tick.
    :ivar suspect: whose code runs; ``None`` when that is nobody's in particular.
    :ivar place: where the code is.
    """

    at: float
    cpu: float | None
    process: float
    kept: float
    collecting: float
    beats: int
    due: float | None
    suspect: S | None
    place: Hashable = None


@dataclass(frozen=True)
class Stall(Generic[S]):
    """One call that kept the loop to itself.

    :ivar seconds: for how long, at least.
    :ivar place: where its code was found most often.
    :ivar lasts: whether it goes on; then it is told of again at its end.
    :ivar told: whether it was told of before.
    """

    suspect: S
    seconds: float
    place: Hashable
    lasts: bool
    told: bool


@dataclass
class _Case(Generic[S]):
    """What speaks against one call."""

    suspect: S
    beats: int
    seconds: float = 0.0
    told: bool = False
    places: Counter[Hashable] = field(default_factory=Counter)


class Stalls(Generic[S]):
    """Finds stalls in a row of looks.

    :param tolerated: seconds that a call may keep the loop to itself.
    """

    def __init__(self, tolerated: float) -> None:
        self._tolerated = tolerated
        self._case: _Case[S] | None = None
        self._last: Look[S] | None = None
        self._quiet = 0.0
        self._planned = self.interval

    @property
    def suspicious(self) -> bool:
        """Whether a call is suspected, so that the loop should be asked for a beat."""
        return self._case is not None

    @property
    def calm(self) -> bool:
        """Whether the thread has done nothing for so long that it is looked at less often."""
        return self._quiet > _QUIET

    @property
    def interval(self) -> float:
        """Seconds until the next look should be taken."""
        if self.calm:
            return max(_SELDOM, self._tolerated)
        return self._tolerated / (2 if self._case is None else _CLOSELY)

    def see(self, look: Look[S]) -> Stall[S] | None:
        """Judge a look.

        :returns: a stall that has ended, or that is told of while it lasts.
        """
        last, planned = self._last, self._planned
        case, told = self._case, None
        if case is not None and look.suspect is case.suspect and look.beats == case.beats:
            assert last is not None
            case.seconds += _same(last, look, planned)
            case.places[look.place] += 1
            if case.seconds > LASTING and not case.told:
                told = self._tell(case, lasts=True)
                case.told = True
        else:
            told = self.end()
            if look.suspect is not None:
                self._case = case = _Case(look.suspect, look.beats)
                case.places[look.place] += 1
                if last is not None:
                    case.seconds = _locked_out(last, look)
        idle = look.suspect is None and last is not None and _idle(last, look)
        self._quiet = self._quiet + self._planned if idle else 0.0
        self._last = look
        self._planned = self.interval
        return told

    def end(self) -> Stall[S] | None:
        """Drop what is suspected, as nothing more is to be seen of it.

        :returns: the stall that has ended, if it was one.
        """
        case, self._case = self._case, None
        if case is None or case.seconds <= self._tolerated:
            return None
        return self._tell(case, lasts=False)

    def _tell(self, case: _Case[S], *, lasts: bool) -> Stall[S]:
        ((place, _),) = case.places.most_common(1)
        return Stall(case.suspect, case.seconds, place, lasts, case.told)


def _computing(last: Look[S], look: Look[S]) -> float:
    """Return for how long the thread computed on behalf of somebody."""
    if last.cpu is None or look.cpu is None:
        return 0.0
    return max(0.0, look.cpu - last.cpu - (look.collecting - last.collecting))


def _idle(last: Look[S], look: Look[S]) -> bool:
    return last.cpu is not None and look.cpu is not None and look.cpu - last.cpu < _NOTHING


def _same(last: Look[S], look: Look[S], planned: float) -> float:
    """Return how much of an interval counts against a call that was found at both ends."""
    elapsed = look.at - last.at - (look.collecting - last.collecting)
    return max(0.0, min(elapsed, max(_STRETCHED * planned, _computing(last, look))))


def _locked_out(last: Look[S], look: Look[S]) -> float:
    """Return for how long the call that runs now has held the interpreter's lock in one piece."""
    computing = _computing(last, look)
    if look.due is None or computing < _NEARLY_ALL * (look.process - last.process):
        return 0.0
    return max(0.0, min(look.kept - last.kept, computing, look.at - look.due))
