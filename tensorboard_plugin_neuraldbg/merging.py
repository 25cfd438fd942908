"""Merging by layer: the parameters of each layer as if they were one tensor, over many frames at once.

`neural.session.statistics.merge` says what merging means, and merges all columns of some rows. A heat map needs one
statistic of every layer over thousands of frames: here only the columns behind that statistic are read and merged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neural.session import statistics
from neural.session.layers import LayerTable
from neural.session.reader import SessionReader
from neural.session.statistics import (
    COLUMNS,
    COUNT,
    L2,
    MAX,
    MEAN,
    MIN,
    NAN,
    NEGINF,
    POSINF,
    STD,
    FloatArray,
)

Indices = NDArray[np.int64]
_Selector = slice | Indices

_TALLIES = (COUNT, NAN, POSINF, NEGINF)
# The columns, besides itself, that a merged column is computed from. Every merging needs to know what was measured.
_ALSO_NEEDED = {MEAN: _TALLIES, STD: (MEAN, *_TALLIES)}


@dataclass(frozen=True)
class LayerGroups:
    """The layers that have parameters, ascending, and the numbers of each one's parameters."""

    layers: tuple[int, ...]
    parameters: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, table: LayerTable) -> LayerGroups:
        """Return the groups of a layer table; a layer's parameters need not stand together in it."""
        members: dict[int, list[int]] = {}
        for number, parameter in enumerate(table.parameters):
            members.setdefault(parameter.layer, []).append(number)
        return cls(tuple(sorted(members)), tuple(tuple(members[layer]) for layer in sorted(members)))

    def members(self, layer: int) -> list[int]:
        """Return the numbers of a layer's parameters."""
        return list(self.parameters[self.layers.index(layer)]) if layer in self.layers else []

    def merge(self, rows: FloatArray) -> FloatArray:
        """Return (groups, 10) for the (parameters, 10) of one frame; parameters beyond its rows were not measured."""
        missing = max(0, self._height - len(rows))
        whole = np.concatenate([rows, statistics.unmeasured(missing)])
        order = [number for group in self.parameters for number in group]
        starts = np.cumsum([0, *(len(group) for group in self.parameters[:-1])])
        return statistics.merge(whole[order], starts.tolist())

    def merged(self, reader: SessionReader, kind: str, statistic: str, steps: Indices) -> FloatArray:
        """Return `statistic`, "count" and "nonfinite" of every layer over `steps`: (3, steps, groups)."""
        names = (statistic, "count", "nonfinite")
        if not self.layers:
            return np.empty((len(names), len(steps), 0))
        targets = {column for name in names for column in statistics.needs(name)} | {COUNT}
        sources = sorted(targets.union(*(_ALSO_NEEDED.get(column, ()) for column in targets)))
        block = reader.column_block(kind, [COLUMNS[column] for column in sources], steps)
        missing = max(0, self._height - block.shape[2])
        block = np.pad(block, ((0, 0), (0, 0), (0, missing)), constant_values=np.nan) if missing else block
        merged = self.merge_columns(dict(zip(sources, block, strict=True)), targets)
        return np.stack(
            [statistics.compute(name, [merged[column] for column in statistics.needs(name)]) for name in names]
        )

    def merge_columns(self, columns: Mapping[int, FloatArray], targets: set[int]) -> dict[int, FloatArray]:
        """Merge the columns `targets`, (frames, parameters) each, into (frames, groups) each.

        `columns` has, by number, these, "count", and for "mean" and "std" also the counts of what is not finite, and
        for "std" the mean.
        """
        measured = self._fold(np.logical_or, np.isfinite(columns[COUNT]))
        merged = {column: self._merge_one(column, columns) for column in targets}
        if not measured.all():
            for values in merged.values():
                values[~measured] = np.nan
        return merged

    def _merge_one(self, column: int, columns: Mapping[int, FloatArray]) -> FloatArray:
        if column == MIN:
            return self._fold(np.fmin, columns[MIN])
        if column == MAX:
            return self._fold(np.fmax, columns[MAX])
        if column == L2:
            return self._fold(_hypot, _zero_for_nan(columns[L2]))
        if column in _ALSO_NEEDED:
            return self._moment(column, columns)
        return self._fold(np.add, _zero_for_nan(columns[column]))

    def _moment(self, column: int, columns: Mapping[int, FloatArray]) -> FloatArray:
        """Return the merged mean or std by the parallel algorithm of Chan, Golub and LeVeque (1979)."""
        weight = _zero_for_nan(columns[COUNT] - columns[NAN] - columns[POSINF] - columns[NEGINF])
        total = self._fold(np.add, weight)
        with np.errstate(invalid="ignore", divide="ignore"):
            share = weight / total[:, self._group_of]
        mean = self._fold(np.add, np.where(weight > 0, share * columns[MEAN], 0.0))
        if column == STD:
            spread = _hypot(columns[STD], columns[MEAN] - mean[:, self._group_of])
            moment = self._fold(_hypot, np.where(weight > 0, np.sqrt(share) * spread, 0.0))
        else:
            moment = mean
        return np.where(total > 0, moment, np.nan)

    def _fold(self, operation: Callable[..., Any], column: NDArray[Any]) -> NDArray[Any]:
        """Return `operation` over the parameters of each group: (frames, parameters) becomes (frames, groups).

        Groups are small: one pass for all first members, one for all second ones, and so on, takes a fraction of the
        time of `reduceat`.
        """
        (_, first), *later = self._passes
        folded = column[:, first]
        for groups, members in later:
            if groups is None:
                folded = operation(folded, column[:, members])
            else:
                folded = folded.copy()
                folded[:, groups] = operation(folded[:, groups], column[:, members])
        return folded

    @cached_property
    def _height(self) -> int:
        """How many parameters there are at least."""
        return 1 + max((number for group in self.parameters for number in group), default=-1)

    @cached_property
    def _group_of(self) -> Indices:
        """The group of each parameter, (parameters,)."""
        group_of = np.zeros(self._height, np.int64)
        for number, group in enumerate(self.parameters):
            group_of[list(group)] = number
        return group_of

    @cached_property
    def _passes(self) -> list[tuple[_Selector | None, _Selector]]:
        """For the first members, the second ones, and so on: the groups that have one (None: all), and its number."""
        passes: list[tuple[_Selector | None, _Selector]] = []
        for k in range(max((len(group) for group in self.parameters), default=0)):
            having = [number for number, group in enumerate(self.parameters) if len(group) > k]
            groups = None if len(having) == len(self.parameters) else _selector(having)
            passes.append((groups, _selector([self.parameters[number][k] for number in having])))
        return passes


# Squares between these limits have neither overflowed nor lost digits.
_SAFE_SQUARES = (1e-290, 1e300)


def _hypot(x: FloatArray, y: FloatArray) -> FloatArray:
    """Return sqrt(x^2 + y^2), as np.hypot does at seven times the cost."""
    with np.errstate(over="ignore", under="ignore"):
        squares = x * x + y * y
    least, greatest = _SAFE_SQUARES
    unsafe = ~((squares > least) & (squares < greatest))
    result: FloatArray = np.sqrt(squares)
    if unsafe.any():
        result[unsafe] = np.hypot(x[unsafe], y[unsafe])
    return result


def _selector(numbers: list[int]) -> _Selector:
    """Return `numbers` as a slice where they ascend by equal distances: it selects without copying."""
    distances = set(np.diff(numbers).tolist()) or {1}
    if len(distances) == 1 and min(distances) > 0:
        return slice(numbers[0], numbers[-1] + 1, *distances)
    return np.array(numbers)


def _zero_for_nan(column: FloatArray) -> FloatArray:
    missing = np.isnan(column)
    return np.where(missing, 0.0, column) if missing.any() else column
