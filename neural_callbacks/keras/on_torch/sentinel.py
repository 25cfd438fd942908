"""Sentinel: looks at a train step that is not measured for the first value that is not finite, and where it arose."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import torch
from torch import Tensor, nn

from neural.session.anomaly import Anomaly
from neural.session.frame import Frame
from neural.session.layers import LayerTable
from neural_callbacks import anomalies
from neural_callbacks.keras.on_torch.taps import TrainStep
from neural_callbacks.keras.structure import Catalog, Site
from neural_callbacks.pytorch.sentinel import Passed, Sentinel, is_finite
from neural_callbacks.recorder import Recorder

SENTINEL = "the sentinel"


def sentinel_of(sites: Sequence[Site]) -> Sentinel:
    """Return the sentinel of the layers at `sites`; it goes from step to step."""
    return Sentinel([site.layer for site in sites], is_harmless=_is_harmless)


def _is_harmless(layer: nn.Module) -> bool:
    # A Lambda is the user's own function.
    return type(layer).__module__.startswith("keras.") and not isinstance(layer, keras.layers.Lambda)


class LookedAt(TrainStep):
    """A step that is only looked at. `alarm` is what is to be recorded of it, once it is over."""

    part = SENTINEL

    def __init__(
        self,
        model: Any,
        sites: Sequence[Site],
        catalog: Catalog,
        recorder: Recorder,
        *,
        step: int,
        sentinel: Sentinel,
    ) -> None:
        super().__init__(model, sites, catalog, recorder)
        self.step = step
        self.alarm: Alarm | None = None
        self._sentinel = sentinel
        self._loss: Tensor | None = None
        self._loss_is_bad = False
        self._producers: Sequence[Passed] = ()
        self._bad_values: dict[int, int] = {}  # of each gradient, by its parameter's row
        sentinel.forget()

    def see_layer(self, site: Site, inputs: tuple[Any, ...], outputs: Sequence[Tensor]) -> None:
        """See `TrainStep`."""
        if outputs:
            self._row(site, inputs, outputs)
            self._sentinel.forward(site.layer, inputs, outputs[0] if len(outputs) == 1 else outputs)

    def see_loss(self, loss: Tensor) -> None:
        """See `TrainStep`."""
        self._loss = loss
        if loss.is_cpu and not math.isfinite(loss.item()):  # a device is not waited for, as yet
            self._loss_is_bad = True
            self._producers = self._sentinel.producers()

    def see_backward(self, roots: Sequence[Tensor]) -> None:
        """See `TrainStep`."""
        if self._loss is None and len(roots) == 1 and roots[0].numel() == 1:
            self.see_loss(roots[0].detach())
        self._sentinel.release()

    def see_gradients(self, optimizer: Any, gradients: Sequence[Tensor | None], variables: Sequence[Any]) -> None:
        """See `TrainStep`."""
        present = [gradient for gradient in gradients if gradient is not None]
        on_device = [] if self._loss is None or self._loss.is_cpu else [self._loss]
        # Who scales the loss by itself tries large scales until gradients overflow, and then leaves the step out.
        overflows = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        if is_finite([*on_device, *([] if overflows else present)]):
            return
        self._loss_is_bad = self._loss_is_bad or not is_finite(on_device)
        for gradient, variable in zip(gradients, variables, strict=True):
            row = self._row_of(variable)
            if row is not None and gradient is not None:
                self._bad_values[row] = int(torch.count_nonzero(~torch.isfinite(gradient)))

    def finish(self) -> None:
        """See `TrainStep`."""
        if self._loss_is_bad or any(self._bad_values.values()):
            loss = math.nan if self._loss is None else float(self._loss)
            trail = self._sentinel.trail(self._producers)
            self.alarm = Alarm(
                self.step,
                loss,
                self._loss_is_bad,
                self._bad_values,
                order=self._numbers(trail.order),
                forward=self._numbers(trail.forward),
                backward=self._numbers(trail.backward),
            )
        self._sentinel.release()

    def _numbers(self, layers: Collection[nn.Module]) -> list[int]:
        rows = map(self._catalog.row_of, layers)
        return [row for row in rows if row is not None]


@dataclass(frozen=True)
class Alarm:
    """A step in which something was not finite.

    `order`, `forward` and `backward` are rows of layers: as they ran, those whose outputs were not finite, and those
    whose gradient on the way back was seen not to be. `bad_values` counts of the gradient of each parameter, by row,
    what is not finite.
    """

    step: int
    loss: float
    loss_is_bad: bool
    bad_values: Mapping[int, int]
    order: Sequence[int]
    forward: Sequence[int]
    backward: Sequence[int]
    wall_time: float = field(default_factory=time.time)

    def frame(self, table: LayerTable) -> Frame:
        """Return the frame: the layers where it arose, in order, and no statistics, as nobody took these."""
        found = [Anomaly("loss")] if self.loss_is_bad else []
        found += [
            Anomaly("parameter", table.parameters[row].layer, row) for row, count in self.bad_values.items() if count
        ]
        gradients = np.full(len(table.parameters), np.nan)
        gradients[list(self.bad_values)] = list(self.bad_values.values())
        backward = anomalies.infer_backward(self.order, gradients, self.backward, table)
        return Frame(
            self.step,
            self.wall_time,
            scalars={} if math.isnan(self.loss) and not self.loss_is_bad else {"loss": self.loss},
            anomalies=anomalies.with_inferred(found, self.forward, backward),
        )
