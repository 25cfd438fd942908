"""Sentinel: looks in every step for the first loss, activation or gradient that is not finite.

It is traced into a train step of its own, which has one more output: a vector that says of each tensor whether it holds
anything that is not finite.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from neural.session.anomaly import Anomaly, Place
from neural.session.frame import Frame
from neural.session.layers import LayerTable
from neural_callbacks import anomalies
from neural_callbacks.keras.replicas import Replica
from neural_callbacks.keras.structure import Catalog, Site
from neural_callbacks.keras.taps import TrainStep, is_about_parameters
from neural_callbacks.recorder import Recorder

SENTINEL = "the sentinel"

# Where a tensor belongs: "forward" and a layer's row, "parameter" and a parameter's, "loss" and 0.
Key = tuple[Place, int]


class SentinelTaps(TrainStep):
    """The taps of a step that is only looked at."""

    part = SENTINEL

    def __init__(
        self, model: Any, sites: Sequence[Site], catalog: Catalog, recorder: Recorder, replica: Replica
    ) -> None:
        super().__init__(model, sites, catalog, recorder, replica)
        self._keys: list[Key] = []
        self._flags: list[Any] = []
        self._losses: dict[str, Any] = {}

    @property
    def keys(self) -> Sequence[Key]:
        """What each flag is of."""
        return self._keys

    def results(self) -> tuple[Any, dict[str, Any]]:
        """Return, of each tensor that was seen, whether it holds what is not finite, (len(keys),) of bool; the loss."""
        return tf.stack(self._flags) if self._flags else tf.zeros([0], tf.bool), self._losses

    def see_layer(self, site: Site, args: tuple[Any, ...], outputs: Any) -> None:
        """See `TrainStep`."""
        seen = [x for x in keras.tree.flatten(outputs) if tf.is_tensor(x)]
        row = self._catalog.layer(site, [x for x in keras.tree.flatten(args) if tf.is_tensor(x)], seen) if seen else 0
        for output in seen:
            self._look(("forward", row), output)

    def see_loss(self, loss: Any) -> None:
        """See `TrainStep`."""
        self._losses["loss"] = loss
        self._look(("loss", 0), loss)

    def gradient(self, gradient: Callable[..., Any], tape: Any, target: Any, sources: Any, **options: Any) -> Any:
        """Look at what training goes back from."""
        with self._recorder.contained(SENTINEL):
            if tf.is_tensor(target) and is_about_parameters(sources) and ("loss", 0) not in self._keys:
                self._look(("loss", 0), target)
        return gradient(tape, target, sources, **options)

    def see_before(self, optimizer: Any, gradients: Sequence[Any], variables: Sequence[Any]) -> None:
        """See `TrainStep`."""
        del optimizer
        for gradient, variable in zip(gradients, variables, strict=True):
            row = self._row_of(variable)
            if row is not None and gradient is not None:
                values = gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient
                self._look(("parameter", row), values)

    def _look(self, key: Key, tensor: Any) -> None:
        if isinstance(tensor, tf.Tensor) and tensor.dtype.is_floating and self._is_here(tensor):
            self._keys.append(key)
            self._flags.append(tf.logical_not(tf.reduce_all(tf.math.is_finite(tensor))))


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
