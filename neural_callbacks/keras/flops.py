"""FLOPs: the floating-point operations of each layer in one eager train step, counted from what it really ran."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neural.session.frame import PROFILES
from neural.session.statistics import FloatArray
from neural_callbacks.keras.operations import cost
from neural_callbacks.keras.trace import Call

_COLUMNS = len(PROFILES["flops"].columns)
_FORWARD, _BACKWARD = range(_COLUMNS)


@dataclass(frozen=True)
class _Gradient:
    """An operation on the way back: where it counts, how much, and what it gave out."""

    count: list[float]
    cost: float
    outputs: Sequence[Any]


class FlopCounter:
    """Adds up the FLOPs of one step by layer; see `operations.cost` for what counts.

    They go to the innermost layer running, or to the one whose gradients are computed. What gradient checkpointing
    runs again counts once. A gradient that nobody asked for, as that by the data, does not count: a compiled step
    leaves it out, where some of TensorFlow's gradient functions compute it when they run eagerly. A layer in which
    something ran whose FLOPs no formula tells has NaN: it was not counted.
    """

    def __init__(self) -> None:
        self._counts: dict[Any, list[float]] = {}
        self._gradients: list[list[_Gradient]] = []

    def entered(self, call: Call) -> None:
        """Note that a layer ran."""
        self._count_of(call)

    def _count_of(self, call: Call) -> list[float]:
        return self._counts.setdefault(None if call.site is None else id(call.site.layer), [0.0] * _COLUMNS)

    def forward(
        self, call: Call, name: str, inputs: Sequence[Any], attributes: Sequence[Any], outputs: Sequence[Any]
    ) -> None:
        """Count an operation that ran while `call` did; `attributes` are names and values in turn."""
        if not call.is_repeated:
            self._count_of(call)[_FORWARD] += _contained_cost(name, inputs, attributes, outputs)

    def begin_gradients(self) -> None:
        """Begin to compute the gradients of an operation."""
        self._gradients.append([])

    def backward(
        self, call: Call, name: str, inputs: Sequence[Any], attributes: Sequence[Any], outputs: Sequence[Any]
    ) -> None:
        """Count an operation of the gradients that are computed, which are those of an operation of `call`."""
        found = _Gradient(self._count_of(call), _contained_cost(name, inputs, attributes, outputs), outputs)
        self._gradients[-1].append(found)

    def end_gradients(self, gradients: Any, unneeded: Collection[int]) -> None:
        """End it; `gradients` are by the operation's inputs, those of the inputs `unneeded` nobody asked for."""
        left_out = {id(gradients[number]) for number in unneeded} if unneeded and gradients is not None else set()
        for each in self._gradients.pop():
            if not any(id(output) in left_out for output in each.outputs):
                each.count[_BACKWARD] += each.cost

    def finish(self, rows: Mapping[int, int], height: int) -> tuple[FloatArray, float]:
        """Return the matrix (height, 2), forward and backward, and what ran in the model but in none of its layers.

        `rows` tells the row of each layer by its identity; a layer that did not run has NaN.
        """
        matrix = np.full((height, _COLUMNS), np.nan)
        elsewhere = 0.0
        for identity, count in self._counts.items():
            row = rows.get(identity)
            if row is None:
                elsewhere += sum(count)
            else:
                matrix[row] = count
        return matrix, elsewhere


def _contained_cost(name: str, inputs: Sequence[Any], attributes: Sequence[Any], outputs: Sequence[Any]) -> float:
    try:
        return cost(name, inputs, dict(zip(attributes[::2], attributes[1::2], strict=True)), outputs)
    except Exception:  # noqa: BLE001 - a formula that does not take these tensors: the rest is worth having
        return math.nan
