"""The permit of a top-level call, and the calls nested in it that share it."""

from __future__ import annotations

from ..executor import Admission, Permit


class Lease:
    """A permit that is in use for as long as any of the calls that share it works."""

    __slots__ = ("_admission", "_permit", "_working")

    def __init__(self, admission: Admission, permit: Permit) -> None:
        self._admission = admission
        self._permit = permit
        self._working = 0

    @property
    def held(self) -> bool:
        """Whether the permit is in use."""
        return self._permit.held

    def count(self, change: int) -> None:
        """Count a call that works, or works no longer."""
        self._working += change
        if not self._working:
            self._admission.release(self._permit)
        elif not self._permit.held:
            self._admission.take(self._permit)


class Share:
    """The part that one call has in a permit, for as long as the block runs of which this is the
    context manager.

    A call works unless it waits, for other work or for a call nested in it that works in its place.
    What a tool has left running may still wait, or wait for a nested call, when the tool has ended:
    the permit is in use until all that is over.

    :ivar ended: whether the call has been answered.
    """

    __slots__ = ("_lease", "_nested", "_parent", "_waits", "_works", "ended")

    def __init__(self, lease: Lease, parent: Share | None = None) -> None:
        self._lease = lease
        self._parent = parent
        self._nested = 0
        self._waits = 0
        self._works = False
        self.ended = False

    def __enter__(self) -> Share:
        self._settle()
        if self._parent is not None:
            self._parent._nest(1)
        return self

    def __exit__(self, *exc_info: object) -> None:
        # Before this one ends: the permit must not be given away in between.
        if self._parent is not None:
            self._parent._nest(-1)
        self.ended = True
        self._settle()

    def nested(self) -> Share | None:
        """Return the share of a call nested in this one; ``None`` when the permit is given back at
        the moment, so that the call needs one of its own."""
        return Share(self._lease, self) if self._lease.held else None

    def wait(self) -> None:
        """Count one more wait for other work."""
        self._waits += 1
        self._settle()

    def resume(self) -> None:
        """Count one wait less."""
        self._waits -= 1
        self._settle()

    def _nest(self, change: int) -> None:
        self._nested += change
        self._settle()

    def _settle(self) -> None:
        works = not (self._nested or self._waits or self.ended)
        if works != self._works:
            self._works = works
            self._lease.count(1 if works else -1)
