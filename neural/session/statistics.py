"""The statistics of one tensor: which there are, their units, their formulas, and the numpy reference of each.

A tensor becomes one *row*: a float64 vector with one column per statistic, in the order of `STATISTICS`.
A row of NaN throughout, its count included, says "not measured"; an empty tensor has count 0.
Moments are over the finite values: NaN and Inf are counted, never dropped silently.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
_Reference = Callable[[FloatArray], float]


@dataclass(frozen=True)
class Statistic:
    """One column of a row.

    `reference` is the slow, obvious numpy definition, from a flat float64 array of any length to one number;
    every framework's version is tested against it. `unit` is "values" for a count, "" for the tensor's own unit.
    """

    name: str
    unit: str
    formula: str
    reference: _Reference


@dataclass(frozen=True)
class DerivedStatistic:
    """A quantity computed from recorded columns; `compute` takes the columns that it `needs`, each (...)."""

    name: str
    unit: str
    formula: str
    needs: tuple[int, ...]
    compute: Callable[..., FloatArray]


def _over_finite(function: Callable[[FloatArray], Any], *, of_none: float = float("nan")) -> _Reference:
    """Apply `function` to the finite values, scaled by a power of two so that squares stay in range."""

    def reference(values: FloatArray) -> float:
        finite = values[np.isfinite(values)]
        if not finite.size:
            return of_none
        exponent = np.frexp(np.max(np.abs(finite)))[1]
        return float(np.ldexp(function(np.ldexp(finite, -exponent)), exponent))

    return reference


STATISTICS: tuple[Statistic, ...] = (
    Statistic("count", "values", "number of values", lambda x: float(x.size)),
    Statistic("nan", "values", "number of NaN", lambda x: float(np.count_nonzero(np.isnan(x)))),
    Statistic("posinf", "values", "number of +Inf", lambda x: float(np.count_nonzero(np.isposinf(x)))),
    Statistic("neginf", "values", "number of -Inf", lambda x: float(np.count_nonzero(np.isneginf(x)))),
    Statistic("zeros", "values", "number of values equal to 0", lambda x: float(np.count_nonzero(x == 0))),
    Statistic("min", "", "least finite value", _over_finite(np.min)),
    Statistic("max", "", "greatest finite value", _over_finite(np.max)),
    Statistic("mean", "", "sum of the finite values / their number", _over_finite(np.mean)),
    Statistic("std", "", "sqrt(mean((x - mean)^2)) over the finite values", _over_finite(np.std)),
    Statistic("l2", "", "sqrt(sum(x^2)) over the finite values", _over_finite(np.linalg.norm, of_none=0.0)),
)

COLUMNS: tuple[str, ...] = tuple(statistic.name for statistic in STATISTICS)
COUNT, NAN, POSINF, NEGINF, ZEROS, MIN, MAX, MEAN, STD, L2 = range(len(COLUMNS))


def reference_row(values: Any) -> FloatArray:
    """Return the row of `values` (any shape, any real dtype that numpy can cast to float64)."""
    flat = np.asarray(values).astype(np.float64).ravel()
    return np.array([statistic.reference(flat) for statistic in STATISTICS])


def unmeasured(rows: int) -> FloatArray:
    """Return `rows` rows that say "not measured"."""
    return np.full((rows, len(COLUMNS)), np.nan)


def finite_count(rows: FloatArray) -> FloatArray:
    """Return how many finite values each row of (..., 10) saw."""
    result: FloatArray = rows[..., COUNT] - rows[..., NAN] - rows[..., POSINF] - rows[..., NEGINF]
    return result


def merge(rows: FloatArray, starts: Sequence[int] = (0,)) -> FloatArray:
    """Combine rows as if their tensors were one: parameters of a layer, calls of a module, replicas.

    `rows` is (..., n, 10); group k is rows `starts[k]` to `starts[k + 1]`, and no group may be empty.
    Returns (..., len(starts), 10). Rows that were not measured count for nothing; a group of them stays unmeasured.
    Means and deviations combine by the parallel algorithm of Chan, Golub and LeVeque (1979).
    """
    groups = np.asarray(starts)
    which = np.repeat(np.arange(len(groups)), np.diff(np.append(groups, rows.shape[-2])))
    measured = ~np.isnan(rows[..., COUNT])

    def total(values: FloatArray) -> FloatArray:
        summed: FloatArray = np.add.reduceat(values, groups, axis=-1)
        return summed

    merged = np.full((*rows.shape[:-2], len(groups), len(COLUMNS)), np.nan)
    for column in (COUNT, NAN, POSINF, NEGINF, ZEROS):
        merged[..., column] = total(np.where(measured, rows[..., column], 0.0))
    merged[..., MIN] = np.fmin.reduceat(rows[..., MIN], groups, axis=-1)
    merged[..., MAX] = np.fmax.reduceat(rows[..., MAX], groups, axis=-1)

    weight = np.nan_to_num(finite_count(rows))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        share = weight / total(weight)[..., which]
        mean = total(np.where(weight > 0, share * rows[..., MEAN], 0.0))
        spread = np.hypot(rows[..., STD], rows[..., MEAN] - mean[..., which])
        scale = np.fmax.reduceat(spread, groups, axis=-1)
        relative = np.where(spread > 0, spread / scale[..., which], 0.0)
        std = np.where(scale > 0, scale * np.sqrt(total(np.where(weight > 0, share * relative**2, 0.0))), 0.0)
        largest = np.fmax.reduceat(rows[..., L2], groups, axis=-1)
        parts = np.where(rows[..., L2] > 0, rows[..., L2] / largest[..., which], 0.0)
        l2 = np.where(largest > 0, largest * np.sqrt(total(parts**2)), 0.0)
    any_finite = total(weight) > 0
    merged[..., MEAN] = np.where(any_finite, mean, np.nan)
    merged[..., STD] = np.where(any_finite, std, np.nan)
    merged[..., L2] = l2
    any_measured = np.logical_or.reduceat(measured, groups, axis=-1)
    merged[~any_measured] = np.nan
    return merged


def global_norm(rows: FloatArray) -> float:
    """Return the l2 norm over the tensors of rows (n, 10); NaN or Inf where one of their values is."""
    measured = rows[~np.isnan(rows[:, COUNT])]
    if not len(measured):
        return 0.0
    nan, posinf, neginf = measured[:, [NAN, POSINF, NEGINF]].sum(axis=0)
    if nan or posinf or neginf:
        return float("nan") if nan else float("inf")
    largest = measured[:, L2].max()
    return float(largest * np.linalg.norm(measured[:, L2] / largest)) if largest > 0 else 0.0


def update_ratio(updates: FloatArray, weights: FloatArray) -> float:
    """Return the l2 norm of the updates (n, 10) over that of the weights (n, 10) that they changed.

    NaN where nothing was updated, or where the weights are zero.
    """
    changed = ~np.isnan(updates[:, COUNT])
    below = global_norm(weights[changed])
    return global_norm(updates[changed]) / below if below > 0 else float("nan")


def _ratio(top: FloatArray, bottom: FloatArray) -> FloatArray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(bottom > 0, top / bottom, np.nan)


def _rms(l2: FloatArray, count: FloatArray, nan: FloatArray, posinf: FloatArray, neginf: FloatArray) -> FloatArray:
    return _ratio(l2, np.sqrt(np.maximum(count - nan - posinf - neginf, 0.0)))


DERIVED: tuple[DerivedStatistic, ...] = (
    DerivedStatistic("rms", "", "l2 / sqrt(number of finite values)", (L2, COUNT, NAN, POSINF, NEGINF), _rms),
    DerivedStatistic("absmax", "", "max(|min|, |max|)", (MIN, MAX), lambda low, high: np.fmax(abs(low), abs(high))),
    DerivedStatistic("zero_share", "of values", "zeros / count", (ZEROS, COUNT), _ratio),
    DerivedStatistic(
        "nonfinite", "values", "nan + posinf + neginf", (NAN, POSINF, NEGINF), lambda nan, up, down: nan + up + down
    ),
)

_DERIVED_BY_NAME = {derived.name: derived for derived in DERIVED}
NAMES: tuple[str, ...] = COLUMNS + tuple(_DERIVED_BY_NAME)


def needs(name: str) -> tuple[int, ...]:
    """Return the columns that the statistic `name` (recorded or derived) is computed from.

    Raises:
        ValueError: there is no statistic of that name.
    """
    if name in _DERIVED_BY_NAME:
        return _DERIVED_BY_NAME[name].needs
    if name in COLUMNS:
        return (COLUMNS.index(name),)
    raise ValueError(f"There is no statistic {name!r}; write one of {', '.join(NAMES)}.")


def compute(name: str, columns: Sequence[FloatArray]) -> FloatArray:
    """Return the statistic `name` from the columns that it `needs`, each (...), as (...)."""
    derived = _DERIVED_BY_NAME.get(name)
    return columns[0] if derived is None else derived.compute(*columns)


def select(rows: FloatArray, name: str) -> FloatArray:
    """Return the statistic `name` (recorded or derived) of rows (..., 10) as (...).

    Raises:
        ValueError: there is no statistic of that name.
    """
    return compute(name, [rows[..., column] for column in needs(name)])
