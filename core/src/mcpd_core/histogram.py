"""Durations, counted in buckets that widen with them: cheap to count, small to keep and to send."""

from __future__ import annotations

from collections.abc import Mapping

#: A duration's three leading binary digits after the first choose its bucket: a bucket is at most
#: an eighth as wide as the durations in it are long (the layout of HdrHistogram,
#: https://hdrhistogram.org, with integers only).
_DIGITS = 3
_FINE = 1 << _DIGITS


class Histogram:
    """How many durations fell into each bucket.

    :param counts: what was counted elsewhere, by the number of the bucket.
    """

    __slots__ = ("counts",)

    def __init__(self, counts: Mapping[int, int] | None = None) -> None:
        self.counts: dict[int, int] = dict(counts or {})

    def add(self, seconds: float) -> None:
        """Count one duration; a microsecond is the least that is told apart."""
        microseconds = int(seconds * 1e6)
        shift = microseconds.bit_length() - 1 - _DIGITS
        bucket = (shift << _DIGITS) + (microseconds >> shift) if shift > 0 else microseconds
        counts = self.counts
        counts[bucket] = counts.get(bucket, 0) + 1

    @property
    def total(self) -> int:
        """How many durations were counted."""
        return sum(self.counts.values())

    def quantile(self, share: float) -> float | None:
        """Return the duration that a share of all did not exceed, to within a sixteenth.

        :param share: 0.5 for the median.
        :returns: seconds; ``None`` when nothing was counted.
        """
        missing = share * self.total
        bucket = None
        for bucket in sorted(self.counts):
            missing -= self.counts[bucket]
            if missing <= 0:
                break
        return None if bucket is None else _middle(bucket)

    def since(self, earlier: Histogram) -> Histogram:
        """Return what was counted after ``earlier``, which is a copy of this at that time."""
        counts = {
            bucket: count - earlier.counts.get(bucket, 0) for bucket, count in self.counts.items()
        }
        return Histogram({bucket: count for bucket, count in counts.items() if count > 0})


def _middle(bucket: int) -> float:
    if bucket < 2 * _FINE:
        return bucket * 1e-6
    shift = (bucket >> _DIGITS) - 1
    least = (_FINE + (bucket & (_FINE - 1))) << shift
    return (least + (1 << shift) / 2) * 1e-6
