"""Activity: by which function the outputs of a Keras layer are kept within bounds, and where its units are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras

# Keras has the features of all layers on the last axis, but for those that are told to have them first.
_LAST = -1
_SQUASHING = {"tanh", "sigmoid", "softmax"}


@dataclass(frozen=True)
class Judged:
    """How the outputs of a layer are judged; see `neural_callbacks.pytorch.activity.Activity.take`."""

    squashing: str
    units: int
    classes: int


def judged(layer: Any) -> Judged:
    """Return how the outputs of `layer` are judged."""
    units = 1 if getattr(layer, "data_format", None) == "channels_first" else _LAST
    axis = getattr(layer, "axis", _LAST) if isinstance(layer, keras.layers.Softmax) else _LAST
    return Judged(_squashing(layer), units, axis if isinstance(axis, int) else _LAST)


def _squashing(layer: Any) -> str:
    if isinstance(layer, keras.layers.Softmax):
        return "softmax"
    if isinstance(layer, keras.layers.RNN):  # what it gives out comes from its gates besides
        return ""
    name = getattr(getattr(layer, "activation", None), "__name__", "")
    return name if name in _SQUASHING else ""
