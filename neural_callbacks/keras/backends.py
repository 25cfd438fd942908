"""The observer of a Keras model, by the backend that Keras runs on."""

from __future__ import annotations

import importlib
from typing import Any

import keras

from neural_callbacks.keras.watch import Observer, Unobservable

# The module with the backend's `observer_of(model)`; each loads its backend, which no other must.
_MODULES = {"jax": "neural_callbacks.keras.on_jax.steps", "tensorflow": "neural_callbacks.keras.gears"}


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
