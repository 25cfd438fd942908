"""The data as a training loop takes it: what is trained on, what is held back, and labels in the form of the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neural.data.datasets import Dataset, Part
from neural.dsl.errors import DataError
from neural.dsl.model import Network

WITH_CLASS_NUMBERS = "sparse_categorical_crossentropy"


@dataclass(frozen=True)
class Examples:
    """Inputs `x` (n, *input) float32 and labels `y`: (n,) int64 class numbers, or (n, classes) float32 of 0 and 1."""

    x: NDArray[np.float32]
    y: NDArray[Any]


@dataclass(frozen=True)
class Prepared:
    """`validation` is None where the network holds nothing back."""

    train: Examples
    validation: Examples | None
    test: Examples


def prepare(network: Network, data: Dataset) -> Prepared:
    """Return the data for `network`; as in Keras, the end of the training data is held back for validation.

    Raises:
        DataError: holding back would leave no training images, or hold back none though asked to.
    """
    whole = _labelled(data.train, network, data)
    test = _labelled(data.test, network, data)
    share = network.train.validation_split
    if share == 0:
        return Prepared(whole, None, test)
    kept = int(len(whole.x) * (1 - share))
    if not 0 < kept < len(whole.x):
        part = "training" if kept == 0 else "validation"
        raise DataError(
            f"{network.source.filename}: validation_split {share:g} of the {len(whole.x)} images of {data.name} leaves "
            f"no {part} images. Write, for example, validation_split: 0.2."
        )
    held_back = Examples(whole.x[kept:], whole.y[kept:])
    return Prepared(Examples(whole.x[:kept], whole.y[:kept]), held_back, test)


def _labelled(part: Part, network: Network, data: Dataset) -> Examples:
    if network.loss == WITH_CLASS_NUMBERS:
        return Examples(part.x, part.y)
    return Examples(part.x, np.eye(data.classes, dtype=np.float32)[part.y])
