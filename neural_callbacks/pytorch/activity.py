"""The activity of modules: which units gave out nothing in a step, and how many values lie near their bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from neural.session.statistics import FloatArray
from neural_callbacks import activity
from neural_callbacks.activity import BATCH_AND_UNITS, NEAR, is_rectified
from neural_callbacks.pytorch.statistics import Row

# Where the row of an output stands, as whoever measures it says.
Place = Any

# Modules whose outputs of three axes have their units on axis 1, and those that have them on the last.
_CHANNELS_FIRST = (
    nn.Conv1d,
    nn.ConvTranspose1d,
    nn.BatchNorm1d,
    nn.InstanceNorm1d,
    nn.MaxPool1d,
    nn.AvgPool1d,
    nn.GroupNorm,
)
_CHANNELS_LAST = (nn.Linear, nn.LayerNorm, nn.Embedding, nn.RNNBase, nn.MultiheadAttention)


def squashing(module: nn.Module) -> str:
    """Return "tanh", "sigmoid" or "softmax" where the layer's outputs come from that function, else ""."""
    given = vars(module).get("activation")
    return activity.squashing(given if isinstance(given, str) else type(module).__name__)


def _saturated(function: str, classes: int, output: Tensor) -> tuple[int, Tensor]:
    """Return how many values are judged, and how many of them are saturated, as a tensor on the output's device."""
    if function == "softmax":
        winners = output.amax(classes)
        return winners.numel(), torch.count_nonzero(winners > NEAR)
    distance = output.abs() if function == "tanh" else (output - 0.5).abs().mul(2)
    return output.numel(), torch.count_nonzero(distance > NEAR)


@dataclass
class _Quiet:
    """The largest value of each unit (units,) of one output, and its place among what was measured."""

    place: Place
    largest: Tensor


@dataclass
class Activity:
    """Looks at the outputs of one step, on their own devices.

    A unit is an index of axis 1 of an output, or of its last axis where that has three and comes from layers that have
    their features there.
    """

    _quiet: list[_Quiet] = field(default_factory=list)
    _bounded: list[tuple[Place, int, Tensor]] = field(default_factory=list)
    _is_last: bool = False

    def look(self, module: nn.Module, output: Tensor, place: Place, row: Row | None) -> None:
        """Take in an output, detached; `place` says where its row will be found, `row` is that row, where known."""
        if isinstance(module, _CHANNELS_LAST):
            self._is_last = True
        elif isinstance(module, _CHANNELS_FIRST):
            self._is_last = False
        axes = output.dim()
        units = axes - 1 if self._is_last and axes == BATCH_AND_UNITS + 1 else 1
        given = getattr(module, "dim", None)
        classes = given if isinstance(given, int) else min(1, axes - 1)
        self.take(output, place, row, squashing=squashing(module), units=units, classes=classes)

    def take(self, output: Tensor, place: Place, row: Row | None, *, squashing: str, units: int, classes: int) -> None:
        """Take in an output as `look`, of which more is known.

        Its units are on axis `units`; `squashing` is as the function of that name says, of a softmax over the axis
        `classes`.
        """
        if not output.is_floating_point() or not output.numel():
            return
        if squashing:
            self._bounded.append((place, *_saturated(squashing, classes, output)))
        elif output.dim() >= BATCH_AND_UNITS and (row is None or is_rectified(row)):
            others = [number for number in range(output.dim()) if number != units % output.dim()]
            self._quiet.append(_Quiet(place, output.amax(others)))

    def finish(
        self, row_at: Callable[[Place], FloatArray], number: Callable[[Place], int | None], layers: int
    ) -> dict[str, FloatArray]:
        """Return the profiles `activity` (layers, 4) and `silent_units` (n, 2); empty where nothing was judged.

        `row_at` gives the row at a place, `number` that of its layer in the layer table, None where it does not count.
        """
        found = activity.Activity()
        for quiet in self._quiet:
            layer = number(quiet.place)
            if layer is not None and is_rectified(row_at(quiet.place)):
                found.add_units(layer, (quiet.largest <= 0).cpu().numpy())
        for place, judged, saturated in self._bounded:
            layer = number(place)
            if layer is not None:
                found.add_bounded(layer, judged, int(saturated.item()))
        return found.profiles(layers)
