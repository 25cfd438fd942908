"""Decimation: many frames into as many columns as the screen can show, keeping the least and the greatest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Decimation:
    """The frames `first` to `last` (exclusive), in columns of `size` neighbours.

    Columns begin at multiples of `size`, counted from the session's first frame, so that a column keeps its frames
    while a session grows or a view moves along it; only the outermost two may hold fewer than `size`.
    """

    first: int
    last: int
    size: int

    @classmethod
    def to_width(cls, first: int, last: int, width: int) -> Decimation:
        """Return the finest decimation of these frames that has at most `width` columns."""
        size = max(1, -(-(last - first) // width))
        while cls(first, last, size).columns > width:
            size += 1
        return cls(first, last, size)

    @property
    def columns(self) -> int:
        """How many columns there are."""
        return (self.last - 1) // self.size - self.first // self.size + 1 if self.last > self.first else 0

    @property
    def starts(self) -> Indices:
        """The number of each column's first frame, (columns,)."""
        begin = self.first // self.size
        return np.maximum(np.arange(begin, begin + self.columns) * self.size, self.first)

    @property
    def ends(self) -> Indices:
        """The number of each column's last frame, (columns,)."""
        begin = self.first // self.size + 1
        return np.minimum(np.arange(begin, begin + self.columns) * self.size, self.last) - 1

    def column_steps(self, steps: Indices) -> dict[str, NDArray[np.float64]]:
        """Return the first and the last step of each column, (columns,) each, where frame n is at `steps[n]`."""
        return {
            "first_step": steps[self.starts].astype(np.float64),
            "last_step": steps[self.ends].astype(np.float64),
        }

    def reduce(self, operation: np.ufunc, values: NDArray[Any]) -> NDArray[Any]:
        """Return `operation` over each column's frames: (frames, ...) becomes (columns, ...).

        `values` holds all frames of the session, from number 0 on.
        """
        if self.size == 1 or self.last <= self.first:
            return values[self.first : self.last]
        inner, outer = -(-self.first // self.size) * self.size, self.last // self.size * self.size
        if inner > outer:  # within one column
            within: NDArray[Any] = operation.reduce(values[self.first : self.last], axis=0, keepdims=True)
            return within
        # Whole columns are reduced along an axis of their own: ten times faster than `reduceat`.
        whole = values[inner:outer].reshape(-1, self.size, *values.shape[1:])
        parts = [operation.reduce(whole, axis=1)]
        if self.first < inner:
            parts.insert(0, operation.reduce(values[self.first : inner], axis=0, keepdims=True))
        if outer < self.last:
            parts.append(operation.reduce(values[outer : self.last], axis=0, keepdims=True))
        return np.concatenate(parts) if len(parts) > 1 else parts[0]


@dataclass(frozen=True)
class Window:
    """Which steps (inclusive; None: all), in how many columns at most."""

    width: int
    first: int | None
    last: int | None

    def decimation(self, steps: Indices) -> Decimation:
        """Return that of the frames at `steps`, ascending."""
        begin = 0 if self.first is None else int(np.searchsorted(steps, self.first))
        end = len(steps) if self.last is None else int(np.searchsorted(steps, self.last, side="right"))
        return Decimation.to_width(begin, max(begin, end), self.width)
