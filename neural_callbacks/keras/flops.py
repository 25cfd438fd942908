"""FLOPs: the floating-point operations of each layer in one eager train step, counted from what it really ran."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neural.session.frame import PROFILES
from neural.session.statistics import FloatArray
from neural_callbacks.keras.operations import cost
from neural_callbacks.keras.trace import Call

_COLUMNS = len(PROFILES["flops"].columns)
_FORWARD, _BACKWARD = range(_COLUMNS)
# Name, inputs, attributes (names and values in turn), outputs.
Operation = tuple[str, Sequence[Any], Sequence[Any], Sequence[Any]]


@dataclass(frozen=True, slots=True)
class _Counted:
    """What operation number `number` of the step costs, and whose it is: a layer, by its identity, or nobody."""

    owner: int | None
    column: int
    number: int
    cost: float


class FlopCounter:
    """Adds up the FLOPs of one step by layer; see `operations.cost` for what counts.

    They go to the innermost layer running, or to the one whose gradients are computed. What gradient checkpointing
    runs again counts once, and what leads nowhere not at all (see `liveness`). A layer in which something ran whose
    FLOPs no formula tells has NaN: it was not counted.
    """

    def __init__(self) -> None:
        self._ran: set[int] = set()
        self._counted: list[_Counted] = []

    def entered(self, layer: Any) -> None:
        """Note that a layer ran."""
        self._ran.add(id(layer))

    def add(self, call: Call, number: int, operation: Operation, *, is_going_back: bool) -> None:
        """Count operation `number` of the step, which ran while `call` did, or computes its gradients."""
        if is_going_back or not call.is_repeated:
            owner = None if call.site is None else id(call.site.layer)
            column = _BACKWARD if is_going_back else _FORWARD
            self._counted.append(_Counted(owner, column, number, _contained_cost(*operation)))

    def finish(self, live: Sequence[bool], rows: Mapping[int, int], height: int) -> tuple[FloatArray, float]:
        """Return the matrix (height, 2), forward and backward, and what ran in the model but in none of its layers.

        `live` says of each operation whether it leads anywhere, `rows` the row of each layer by its identity; a layer
        that did not run has NaN.
        """
        matrix = np.full((height, _COLUMNS), np.nan)
        matrix[[rows[identity] for identity in self._ran if identity in rows]] = 0
        elsewhere = 0.0
        for each in self._counted:
            if live[each.number]:
                row = None if each.owner is None else rows.get(each.owner)
                if row is None:
                    elsewhere += each.cost
                else:
                    matrix[row, each.column] += each.cost
        return matrix, elsewhere


def _contained_cost(name: str, inputs: Sequence[Any], attributes: Sequence[Any], outputs: Sequence[Any]) -> float:
    try:
        return cost(name, inputs, dict(zip(attributes[::2], attributes[1::2], strict=True)), outputs)
    except Exception:  # noqa: BLE001 - a formula that does not take these tensors: the rest is worth having
        return math.nan
