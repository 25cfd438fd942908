"""Merging by layer: the parameters of each layer as if they were one tensor, over many frames at once.

`neural.session.statistics.merge` says what merging means, and merges all columns of some rows. A heat map needs one
statistic of every layer over thousands of frames: here only the columns behind that statistic are read and merged.
"""

from __future__ import annotations

from collections.abc import Mapping
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
            return self._fold(np.hypot, _zero_for_nan(columns[L2]))
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
            spread = np.hypot(columns[STD], columns[MEAN] - mean[:, self._group_of])
            moment = self._fold(np.hypot, np.where(weight > 0, np.sqrt(share) * spread, 0.0))
        else:
            moment = mean
        return np.where(total > 0, moment, np.nan)

    def _fold(self, operation: np.ufunc, column: NDArray[Any]) -> NDArray[Any]:
        """Return `operation` over the parameters of each group: (frames, parameters) becomes (frames, groups).

        Groups are small: one pass for all first members, one for all second ones, and so on, takes a fifth of the
        time of `reduceat`.
        """
        folded = np.take(column, [group[0] for group in self.parameters], axis=1)
        for groups, members in self._later_members:
            if len(groups) == len(self.parameters):
                operation(folded, np.take(column, members, axis=1), out=folded)
            else:
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
    def _later_members(self) -> list[tuple[list[int], list[int]]]:
        """For the second members, the third, and so on: the groups that have one, and its number."""
        longest = max((len(group) for group in self.parameters), default=0)
        having = [
            [(number, group[k]) for number, group in enumerate(self.parameters) if len(group) > k]
            for k in range(1, longest)
        ]
        return [([group for group, _ in pairs], [member for _, member in pairs]) for pairs in having]


def _zero_for_nan(column: FloatArray) -> FloatArray:
    missing = np.isnan(column)
    return np.where(missing, 0.0, column) if missing.any() else column
