"""Activity: which units of a layer gave out nothing in a step, and how many values lie near their bounds.

A unit was silent in a step where none of its values was above zero, over the batch and all calls of its layer. Judged
are outputs that are nowhere negative and somewhere zero, as those of ReLU and what follows it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from neural.session import statistics
from neural.session.frame import PROFILES
from neural.session.statistics import FloatArray

# A value is saturated where 95 % of the way from the middle of its range to a bound lie behind it; of a softmax, where
# one class has 95 % of the whole. The limit of 0.95 is that of Rakitianskaia and Engelbrecht (2015) for tanh.
NEAR = 0.95
# An output of fewer axes has no units.
BATCH_AND_UNITS = 2


@functools.cache
def squashing(name: str) -> str:
    """Return "tanh", "sigmoid" or "softmax" where a function or layer has that name, else ""."""
    return name.lower() if name.lower() in {"tanh", "sigmoid", "softmax"} else ""


def is_rectified(row: FloatArray | Sequence[float]) -> bool:
    """Say by an output's row of statistics whether it is nowhere negative and somewhere zero."""
    return bool(row[statistics.MIN] >= 0 and row[statistics.ZEROS] > 0)


@dataclass
class Activity:
    """What was seen of the layers of one step, by their numbers in the layer table."""

    _silent: dict[int, NDArray[np.bool_]] = field(default_factory=dict)
    _bounded: dict[int, tuple[int, int]] = field(default_factory=dict)

    def add_units(self, layer: int, silent: NDArray[np.bool_]) -> None:
        """Take in which units (units,) of a rectified output were silent; calls are put together."""
        known = self._silent.get(layer)
        self._silent[layer] = silent if known is None or known.shape != silent.shape else known & silent

    def add_bounded(self, layer: int, judged: int, saturated: int) -> None:
        """Take in how many values of a bounded output there were, and how many of them were near a bound."""
        before = self._bounded.get(layer, (0, 0))
        self._bounded[layer] = before[0] + judged, before[1] + saturated

    def profiles(self, layers: int) -> dict[str, FloatArray]:
        """Return the profiles `activity` (layers, 4) and `silent_units` (n, 2); empty where nothing was judged."""
        if not (self._silent or self._bounded):
            return {}
        table = np.full((layers, len(PROFILES["activity"].columns)), np.nan)
        found: list[FloatArray] = [np.empty((0, 2))]
        for layer, silent in self._silent.items():
            (units,) = np.nonzero(silent)
            table[layer, :2] = len(silent), len(units)
            found.append(np.stack([np.full(len(units), layer), units], axis=1).astype(np.float64))
        for layer, counts in self._bounded.items():
            table[layer, 2:] = counts
        return {"activity": table, "silent_units": np.concatenate(found)}
