"""Times that were taken while the observer itself did something in between."""

from __future__ import annotations

import numpy as np

from neural.session.statistics import FloatArray


def without(times: FloatArray, intervals: FloatArray) -> FloatArray:
    """Return `times` (n,) as they were if nothing had taken place in `intervals` (k, 2), of begin and end.

    From each time is taken off what of the intervals, which may overlap, lies before it.
    """
    if not len(intervals):
        return times
    begins, ends = intervals[np.argsort(intervals[:, 0])].T
    # What is covered by one that began earlier counts there.
    covered = np.concatenate([[-np.inf], np.maximum.accumulate(ends)[:-1]])
    begins, ends = np.maximum(begins, covered), np.maximum(ends, covered)
    total = np.concatenate([[0.0], np.cumsum(ends - begins)])
    last = np.searchsorted(begins, times, side="right")  # how many have begun
    unfinished = np.where(last > 0, np.maximum(ends[last - 1] - times, 0), 0)
    result: FloatArray = times - (total[last] - unfinished)
    return result
