"""The models that are trained with Keras: a small convolutional network and a dense one of about 2 ms a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

CLASSES = 10
# Batches that are trained on, over and over.
BATCHES = 4


@dataclass(frozen=True)
class Workload:
    """A model, and the shape of the batches that it is trained on.

    A timed block has `block` steps, a multiple of 10. Of the time that is given for all workloads this one takes
    `share`, by the length of its steps. A process of its own trains for `steps` steps an epoch.
    """

    name: str
    model: Callable[[], Any]
    batch: tuple[int, ...]
    block: int
    share: float
    steps: int

    def compiled(self) -> Any:
        """Return a new model, the same each time, ready to be trained."""
        keras.utils.set_random_seed(0)
        model = self.model()
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    def data(self) -> Any:
        """Return its batches of noise, from memory and without end."""
        draw = np.random.default_rng(0)
        x = draw.normal(size=(BATCHES * self.batch[0], *self.batch[1:])).astype("float32")
        y = draw.integers(0, CLASSES, size=len(x))
        return tf.data.Dataset.from_tensor_slices((x, y)).batch(self.batch[0]).cache().repeat()


def cnn() -> Any:
    """Return a convolutional network on 32x32 images: 4 convolutions with batch normalization, 17 layers."""
    stack: list[Any] = [keras.Input((32, 32, 3))]
    for filters, strides in ((16, 1), (16, 1), (32, 2), (32, 1)):
        stack += [layers.Conv2D(filters, 3, strides, padding="same", use_bias=False), layers.BatchNormalization()]
        stack += [layers.Activation("relu")]
    stack += [layers.GlobalAveragePooling2D(), layers.Dropout(0.1), layers.Dense(CLASSES, activation="softmax")]
    return keras.Sequential(stack)


def dense() -> Any:
    """Return three dense layers, 784-256-256-10."""
    return keras.Sequential(
        [
            keras.Input((784,)),
            layers.Dense(256, activation="relu"),
            layers.Dense(256, activation="relu"),
            layers.Dense(CLASSES, activation="softmax"),
        ]
    )


WORKLOADS = (
    Workload("cnn", cnn, (32, 32, 32, 3), block=10, share=0.65, steps=50),
    Workload("dense", dense, (64, 784), block=50, share=0.35, steps=400),
)
