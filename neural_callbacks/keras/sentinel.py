"""Sentinel: looks in every step for the first loss, activation or gradient that is not finite.

It is traced into a train step of its own, which has one more output: a vector that says of each tensor whether it holds
anything that is not finite.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from neural.session.anomaly import Anomaly, Place
from neural.session.frame import Frame
from neural.session.layers import LayerTable
from neural_callbacks import anomalies
from neural_callbacks.keras.apart import Apart
from neural_callbacks.keras.losses import optimizers_of
from neural_callbacks.keras.samples import SKIPPED
from neural_callbacks.keras.structure import Catalog, Site
from neural_callbacks.keras.taps import TrainStep, is_nonfinite, parts
from neural_callbacks.recorder import Recorder

SENTINEL = "the sentinel"

# Where a tensor belongs: "forward" and a layer's row, "parameter" and a parameter's, "loss" and 0. "skipped" and 0:
# whether the optimizer, which scales the loss, left the step out, as it does until its scale fits.
Key = tuple[Place | Literal["skipped"], int]
LOSS: Key = ("loss", 0)
SKIP: Key = ("skipped", 0)


class SentinelTaps(TrainStep):
    """The taps of a step that is only looked at."""

    part = SENTINEL

    def __init__(self, model: Any, sites: Sequence[Site], catalog: Catalog, recorder: Recorder) -> None:
        super().__init__(model, sites, catalog, recorder)
        self._keys: list[Key] = []
        self._seen: list[Any] = []
        self._flags: list[Any] = []
        self._figures: dict[str, Any] = {}

    @property
    def keys(self) -> Sequence[Key]:
        """What each flag is of."""
        return self._keys

    def results(self) -> tuple[Any, dict[str, Any]]:
        """Return whether each tensor that was seen holds what is not finite, (len(keys),) of bool; and the losses."""
        return tf.stack(self._flags) if self._flags else tf.zeros([0], tf.bool), self._figures

    def see_layer(self, site: Site, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        """See `TrainStep`."""
        row = self._catalog.layer(site, inputs, outputs)
        for output in parts(outputs):
            self._look(("forward", row), output)

    def see_loss(self, loss: Any) -> None:
        """See `TrainStep`."""
        super().see_loss(loss)
        self._look(LOSS, loss)

    def gradient(self, gradient: Callable[..., Any], tape: Any, target: Any, sources: Any, **options: Any) -> Any:
        """Look at what training goes back from."""
        with self._ours():
            if tf.is_tensor(target):
                self._look(LOSS, self._losses.before_scaling(target))
        return gradient(tape, target, sources, **options)

    def see_before(self, optimizer: Any, gradients: Sequence[Any], variables: Sequence[Any]) -> None:
        """See `TrainStep`."""
        del optimizer
        for gradient, variable in zip(gradients, variables, strict=True):
            row = self._row_of(variable)
            if row is not None and gradient is not None:
                self._look(("parameter", row), gradient)

    def finish(self, apart: Apart) -> None:
        """See `TrainStep`."""
        self._flags = [is_nonfinite(tensor, apart) for tensor in self._seen]
        if self._scaled_gradients:
            self._keys.append(SKIP)
            self._flags.append(tf.reduce_any(tf.stack([is_nonfinite(x, apart) for x in self._scaled_gradients])))
        self._figures = {name: apart(loss) for name, loss in self._losses.by_name(optimizers_of(self._model)).items()}

    def _look(self, key: Key, tensor: Any) -> None:
        is_known = key == LOSS and any(tensor is known for known in self._seen)
        if tensor.dtype.is_floating and self._is_here(tensor) and not is_known:
            self._keys.append(key)
            self._seen.append(tensor)


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
        return not self.flags.numpy().any()

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
        flags = self.flags.numpy().tolist()
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
