"""The observer of a Keras model, by the backend that Keras runs on."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import keras

from neural_callbacks.keras.watch import Observer, OwnStep, Unobservable

# The module with the backend's `observer_of(model)`; each loads its backend, which no other must.
_MODULES = {
    "tensorflow": "neural_callbacks.keras.gears",
    "torch": "neural_callbacks.keras.on_torch.train_steps",
    "jax": "neural_callbacks.keras.on_jax.steps",
}


def observer_of(model: Any) -> Observer:
    """Return a new observer of `model`.

    Raises:
        Unobservable: training it cannot be looked into.
    """
    backend = keras.backend.backend()
    if backend not in _MODULES:
        raise Unobservable(
            f"Nothing is recorded: Keras runs on the {backend} backend here, and layers and parameters are recorded on "
            f"{', '.join(_MODULES)}. Set the environment variable KERAS_BACKEND=tensorflow before Keras is imported."
        )
    observer: Observer = importlib.import_module(_MODULES[backend]).observer_of(model)
    return observer


def own_step_of(model: Any, optimizers: Sequence[Any], train_step: Callable[..., Any]) -> OwnStep:
    """Return a new observer of `train_step`, a function that trains `model` by `optimizers`.

    Raises:
        Unobservable: it cannot be looked into.
    """
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise Unobservable(
            f"Nothing is recorded of {getattr(train_step, '__name__', 'the train step')}: a function of one's own is "
            f"looked into on the TensorFlow backend, and Keras runs on {backend} here. Train by "
            "model.train_on_batch or model.fit."
        )
    step: OwnStep = importlib.import_module("neural_callbacks.keras.own_step").OwnStep(model, optimizers, train_step)
    return step
