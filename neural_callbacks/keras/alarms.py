"""Alarms: what a sentinel saw in the steps between the samples, and what of it is to be recorded."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np

from neural.session.anomaly import Anomaly, Place
from neural.session.frame import Frame
from neural.session.layers import LayerTable
from neural_callbacks import anomalies
from neural_callbacks.keras.samples import SKIPPED
from neural_callbacks.keras.watch import Watch

SENTINEL = "the sentinel"

# Where a tensor belongs: "forward" and a layer's row, "parameter" and a parameter's, "loss" and 0. "skipped" and 0:
# whether the optimizer, which scales the loss, left the step out, as it does until its scale fits.
Key = tuple[Place | Literal["skipped"], int]
LOSS: Key = ("loss", 0)
SKIP: Key = ("skipped", 0)


@dataclass(frozen=True)
class Look:
    """What the sentinel saw in a step: `flags` (n,) by `keys`; `scalars` are its figures, tensors."""

    step: int
    flags: Any
    keys: Sequence[Key]
    scalars: Mapping[str, Any] = field(default_factory=dict)
    wall_time: float = field(default_factory=time.time)

    @property
    def is_sound(self) -> bool:
        """Whether all of it was finite."""
        return not np.asarray(self.flags).any()

    @property
    def was_skipped(self) -> bool:
        """Whether the optimizer left the step out because its scale of the loss was too large."""
        return SKIP in self._bad

    @property
    def is_alarming(self) -> bool:
        """Whether something was not finite that is no matter of scaling."""
        return any(place in {"forward", "loss"} or not self.was_skipped for place, _ in self._bad)

    @cached_property
    def _bad(self) -> Sequence[Key]:
        """Return what was not finite, each once, in the order in which it was seen."""
        flags = np.asarray(self.flags).tolist()
        return tuple(dict.fromkeys(key for key, is_bad in zip(self.keys, flags, strict=True) if is_bad))

    def frame(self, table: LayerTable) -> Frame:
        """Return the frame: the layers where it arose, in order, and no statistics, as nobody took these."""
        scalars = {name: float(value) for name, value in self.scalars.items()}
        found = [Anomaly("loss")] if LOSS in self._bad else []
        forward = [row for place, row in self._bad if place == "forward"]
        backward: list[int] = []
        if self.was_skipped:
            scalars[SKIPPED] = 1.0
        else:
            bad = [row for place, row in self._bad if place == "parameter"]
            found += [Anomaly("parameter", table.parameters[row].layer, row) for row in bad]
            gradients = np.full(len(table.parameters), np.nan)
            gradients[[row for place, row in self.keys if place == "parameter"]] = 0
            gradients[bad] = 1
            order = [row for place, row in self.keys if place == "forward"]
            backward = anomalies.infer_backward(order, gradients, (), table)
        found_all = anomalies.with_inferred(found, forward, backward)
        return Frame(self.step, self.wall_time, scalars=scalars, anomalies=found_all)


class Alarms:
    """The steps that a sentinel has looked at; of those in a row that were not sound, the first is to be recorded."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._looked: deque[Look] = deque()
        self._is_alarmed = False

    def add(self, looked: Look) -> None:
        """Take in a step that was looked at."""
        self._looked.append(looked)

    def take(self, *, lag: int) -> list[Look]:
        """Return what is to be recorded of the steps that were looked at, but for the latest `lag`."""
        found: list[Look] = []
        while len(self._looked) > lag:
            looked = self._looked.popleft()
            if looked.is_sound:
                self._watch.found_sound(looked.step)
            elif looked.was_skipped or not self._is_alarmed:
                found.append(looked)
            self._is_alarmed = looked.is_alarming
        return found
