"""Comparing the ranks of a job: how far one figure of each departs from what the others have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neural.session.statistics import FloatArray

Flags = NDArray[np.bool_]

# A rank is judged by this many of the newest steps that it shares with others, and not by fewer than the lesser number:
# one batch that is harder than others is no difference between ranks.
JUDGED_STEPS = 16
LEAST_STEPS = 6
# A rank departs when it lies this many standard deviations of the others off the median, steadily. The median over
# sixteen steps of figures that differ by chance alone strays by a third of one.
DEVIATIONS = 4.0
# And by this share of the median at least: sums in another order differ by less.
LEAST_SHARE = 1e-3
# The standard deviation of normal values, from their mean and from their median absolute deviation.
FROM_MEAN_DEVIATION = 1.2533
FROM_MEDIAN_DEVIATION = 1.4826


@dataclass(frozen=True)
class PerStep:
    """The ranks over the steps; arrays are (S,).

    `median` and `spread` (the median absolute deviation from it) are over the finite values, NaN where there is none.
    `furthest` is the row of the rank that lies furthest off, -1 where fewer than two were measured, and `distance`
    how far, infinite for one that is not finite where others are.
    """

    median: FloatArray
    spread: FloatArray
    furthest: NDArray[np.int64]
    distance: FloatArray


@dataclass(frozen=True)
class Departure:
    """A rank that is not as the others.

    `row` is the rank's; None where there are two ranks, of which nobody can tell which one is off. `column` is the
    newest step that they share, `value` the rank's figure there, and the others' lie between `low` and `high`.
    """

    row: int | None
    column: int
    value: float
    low: float
    high: float


def compare(values: FloatArray, measured: Flags) -> PerStep:
    """Compare the ranks at each step; `values` and `measured` are (ranks, S)."""
    finite = measured & np.isfinite(values)
    known = finite.any(axis=0)
    median, spread = np.full((2, values.shape[1]), np.nan)
    within = np.where(finite, values, np.nan)[:, known]
    median[known] = np.nanmedian(within, axis=0)
    spread[known] = np.nanmedian(np.abs(within - median[known]), axis=0)
    distance = np.abs(np.where(finite, values, np.nan) - median)
    distance[measured & ~finite & known] = np.inf
    distance = np.where(np.isnan(distance), -1.0, distance)
    several = measured.sum(axis=0) > 1
    return PerStep(
        median,
        spread,
        np.where(several & known, distance.argmax(axis=0), -1),
        np.where(several & known, distance.max(axis=0, initial=-1.0), np.nan),
    )


def departures(values: FloatArray, measured: Flags) -> list[Departure]:
    """Return the ranks that steadily lie off the others in the newest steps, the furthest first.

    `values` and `measured` are (ranks, S). At the newest step a rank departs too where it alone is not finite.
    """
    (shared,) = np.nonzero(measured.sum(axis=0) > 1)
    if not len(shared):
        return []
    newest = int(shared[-1])
    rows = np.flatnonzero(measured[:, newest])
    broken = [row for row in rows if not np.isfinite(values[row, newest])]
    if 0 < len(broken) <= len(rows) / 2:
        return [_departure(int(row), newest, values, np.setdiff1d(rows, broken)) for row in broken]
    window = shared[-JUDGED_STEPS:]
    within = np.where(measured & np.isfinite(values), values, np.nan)[rows][:, window]
    within = within[:, ~np.isnan(within).all(axis=0)]
    if len(rows) == 2:  # noqa: PLR2004 - of two ranks nobody can tell which one is off
        return [_departure(None, newest, values, rows)] if _two_differ(within) else []
    off = [(row, _times_off(within, number)) for number, row in enumerate(rows)]
    found = sorted((item for item in off if item[1] > 1), key=lambda item: -item[1])
    return [_departure(int(row), newest, values, rows[rows != row]) for row, _ in found]


def _times_off(within: FloatArray, number: int) -> float:
    """Return how many times as far as it may a rank lies off the median of all, (ranks, steps), in most steps."""
    offset = within - np.nanmedian(within, axis=0)
    own, others = offset[number], np.delete(offset, number, axis=0)
    steps = ~np.isnan(own) & ~np.isnan(others).all(axis=0)
    if steps.sum() < LEAST_STEPS:
        return 0.0
    there = others[~np.isnan(others[:, steps]).all(axis=1)][:, steps]
    # Over the steps the mean: of three ranks, one that is often the median itself would seem not to stray at all.
    usual = FROM_MEAN_DEVIATION * float(np.median(np.nanmean(np.abs(there), axis=1)))
    size = float(np.median(np.abs(np.nanmedian(within[:, steps], axis=0))))
    return _ratio(float(np.median(own[steps])), max(DEVIATIONS * usual, LEAST_SHARE * size))


def _two_differ(within: FloatArray) -> bool:
    """Say whether two ranks, (2, steps), lie further from one another than that distance changes over the steps."""
    difference = (within[0] - within[1])[~np.isnan(within).any(axis=0)]
    if len(difference) < LEAST_STEPS:
        return False
    usual = float(np.median(difference))
    strays = FROM_MEDIAN_DEVIATION * float(np.median(np.abs(difference - usual)))
    size = float(np.nanmedian(np.abs(within)))
    return _ratio(usual, max(DEVIATIONS * strays, LEAST_SHARE * size)) > 1


def _ratio(offset: float, allowed: float) -> float:
    if offset == 0:
        return 0.0
    return abs(offset) / allowed if allowed > 0 else np.inf


def _departure(
    row: int | None, column: int, values: FloatArray, others: Sequence[int] | NDArray[np.int64]
) -> Departure:
    beside = values[others, column]
    value = values[row, column] if row is not None else beside[0]
    return Departure(row, column, float(value), float(np.fmin.reduce(beside)), float(np.fmax.reduce(beside)))
