"""A checked network as a compiled Keras model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from neural.dsl.model import Layer, Network


@keras.saving.register_keras_serializable("neural")
class Output(keras.layers.Dense):
    """The Dense layer that a network ends in; a type of its own, so that its canonical name is `Output_1`."""


def build(network: Network) -> keras.Model:
    """Return the model of `network`, compiled with its loss, optimizer and metrics.

    Its input is (batch, *network.input); every layer's own name is its canonical one.
    """
    layers = [keras.Input(network.input), *map(_layer, network.layers)]
    model = keras.Sequential(layers, name=network.name)
    model.compile(loss=network.loss, optimizer=optimizer(network), metrics=list(network.metrics))
    return model


def optimizer(network: Network) -> keras.optimizers.Optimizer:
    """Return the optimizer of `network`; its parameters have Keras's names already."""
    kinds = {"Adam": keras.optimizers.Adam, "AdamW": keras.optimizers.AdamW}
    kinds |= {"SGD": keras.optimizers.SGD, "RMSprop": keras.optimizers.RMSprop}
    return kinds[network.optimizer.name](**network.optimizer.parameters)


def _layer(layer: Layer) -> keras.layers.Layer:
    parameters = dict(layer.parameters)
    if layer.type == "Activation":
        return keras.layers.Activation(parameters["fn"], name=layer.name)
    kinds: dict[str, Callable[..., Any]] = {
        "Dense": keras.layers.Dense,
        "Output": Output,
        "Conv2D": keras.layers.Conv2D,
        "MaxPooling2D": keras.layers.MaxPooling2D,
        "Flatten": keras.layers.Flatten,
        "Dropout": keras.layers.Dropout,
        "BatchNormalization": keras.layers.BatchNormalization,
    }
    return kinds[layer.type](**parameters, name=layer.name)
