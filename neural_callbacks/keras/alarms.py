"""Alarms: what a sentinel saw in the steps between the samples, and what of it is to be recorded."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from neural.session.anomaly import Anomaly, Place
from neural.session.frame import Frame
from neural.session.layers import LayerTable
from neural_callbacks import anomalies
from neural_callbacks.keras.watch import Watch

SENTINEL = "the sentinel"

# Where a tensor belongs: "forward" and a layer's row, "parameter" and a parameter's, "loss" and 0.
Key = tuple[Place, int]


@dataclass(frozen=True)
class Alarm:
    """A step in which something was not finite: `flags` (n,) by `keys`; `scalars` are its figures, tensors."""

    step: int
    flags: Any
    keys: Sequence[Key]
    scalars: Mapping[str, Any] = field(default_factory=dict)
    wall_time: float = field(default_factory=time.time)

    def frame(self, table: LayerTable) -> Frame:
        """Return the frame: the layers where it arose, in order, and no statistics, as nobody took these."""
        flags = np.asarray(self.flags)
        bad: dict[Place, list[int]] = {"forward": [], "loss": [], "parameter": []}
        for (place, row), is_bad in zip(self.keys, flags.tolist(), strict=True):
            if is_bad and row not in bad[place]:
                bad[place].append(row)
        gradients = np.full(len(table.parameters), np.nan)
        for (place, row), is_bad in zip(self.keys, flags.tolist(), strict=True):
            if place == "parameter":
                gradients[row] = np.fmax(gradients[row], is_bad)  # of any replica
        order = [row for place, row in self.keys if place == "forward"]
        found = [Anomaly("loss") for _ in bad["loss"]]
        found += [Anomaly("parameter", table.parameters[row].layer, row) for row in bad["parameter"]]
        backward = anomalies.infer_backward(order, gradients, (), table)
        return Frame(
            self.step,
            self.wall_time,
            scalars={name: float(value) for name, value in self.scalars.items()},
            anomalies=anomalies.with_inferred(found, bad["forward"], backward),
        )


class Alarms:
    """The steps that a sentinel has looked at; of those in a row that were not sound, the first is to be recorded."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._looked: deque[Alarm] = deque()
        self._is_alarmed = False

    def add(self, looked: Alarm) -> None:
        """Take in a step that was looked at."""
        self._looked.append(looked)

    def take(self, *, lag: int) -> list[Alarm]:
        """Return what is to be recorded of the steps that were looked at, but for the latest `lag`."""
        found: list[Alarm] = []
        while len(self._looked) > lag:
            looked = self._looked.popleft()
            is_sound = not np.asarray(looked.flags).any()
            if is_sound:
                self._watch.found_sound(looked.step)
            elif not self._is_alarmed:
                found.append(looked)
            self._is_alarmed = not is_sound
        return found
