"""Trains on two logical CPU devices under MirroredStrategy: mirrored.py FOLDER SCENARIO [INTERVAL...]."""

import sys
from pathlib import Path
from unittest import mock

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from neural_callbacks import NeuralDbgCallback
from neural_callbacks.keras import gears

CPU = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(CPU, [tf.config.LogicalDeviceConfiguration()] * 2)
tf.config.experimental.enable_op_determinism()

FOLDER = Path(sys.argv[1])
STRATEGY = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
NUMBERS = np.random.default_rng(5)
X = NUMBERS.normal(size=(30, 6)).astype("float32")
Y = X[:, :2] * X[:, 2:4]
LABELS = NUMBERS.integers(0, 3, size=30)


class Seen(keras.callbacks.Callback):
    """Keeps the weights before each step and after the last, and the loss that Keras shows for each first step."""

    def __init__(self):
        super().__init__()
        self.weights = []
        self.losses = []

    def on_train_batch_begin(self, batch, logs=None):
        del batch, logs
        self.weights.append(self.model.get_weights())

    def on_train_batch_end(self, batch, logs=None):
        del batch
        self.losses.append(logs["loss"])

    def on_train_end(self, logs=None):
        del logs
        self.weights.append(self.model.get_weights())


def network(optimizer):
    keras.utils.set_random_seed(1)
    with STRATEGY.scope():
        model = keras.Sequential([keras.Input((6,)), layers.Dense(4, activation="tanh"), layers.Dense(2)])
        model.compile(optimizer(), "mse")
    return model


def record(name, optimizer, x=X[:13], **options):
    """Train for two steps, of 4 + 4 and of 3 + 2 rows, and keep what is to be computed by hand."""
    seen = Seen()
    callback = NeuralDbgCallback(FOLDER / "runs", name, **options)
    model = network(optimizer)
    model.fit(x, Y[:13], batch_size=8, shuffle=False, verbose=0, callbacks=[seen, callback])
    weights = {f"{step}/{place}": w for step, of_step in enumerate(seen.weights) for place, w in enumerate(of_step)}
    np.savez(FOLDER / f"{name}.npz", x=x, y=Y[:13], losses=seen.losses, **weights)


def values():
    """Train with gradients that come from the replicas in different ways, and measured where a device would."""
    record("sgd", lambda: keras.optimizers.SGD(0.5), every=1)
    with mock.patch.object(gears, "has_accelerator", return_value=True):
        record("on_devices", lambda: keras.optimizers.SGD(0.5), every=1)
    record("loss_scaled", lambda: keras.optimizers.SGD(0.5, loss_scale_factor=8.0), every=1)
    record("loss_scaling", lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.5)), every=1)


def broken():
    """Train on rows of which one of the second step's is not finite, in the part of one replica or the other."""
    for name, row, options in (("measured", 12, {"every": 1}), ("looked_at", 9, {"steps": [0]})):
        x = X[:13].copy()
        x[row, 0] = np.nan
        record(name, lambda: keras.optimizers.SGD(0.5), x, **options)


def normalized():
    """Return a model with running averages, random numbers and clipped gradients."""
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(4),
            layers.BatchNormalization(),
            layers.Dropout(0.4),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9, clipnorm=1.0), "sparse_categorical_crossentropy")
    return model


def mixed_precision():
    """Return a model with loss scaling and a regularizer."""
    model = keras.Sequential(
        [
            layers.Dense(4, activation="relu", dtype="mixed_float16", kernel_regularizer="l2"),
            layers.Dense(3, activation="softmax", dtype="float32"),
        ]
    )
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam())
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def eager():
    """Return a model whose steps are not compiled."""
    model = keras.Sequential([keras.Input((6,)), layers.Dense(3, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", run_eagerly=True)
    return model


def trained(build, callbacks):
    """Return all that training determines: variables and what Keras shows."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(3)
    shown = []
    log = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: shown.append([batch, *map(float, logs.values())])
    )
    with STRATEGY.scope():
        model = build()
    model.fit(X, LABELS, batch_size=8, epochs=2, verbose=0, callbacks=[log, *callbacks])
    variables = [v.numpy() for v in (*model.variables, *model.optimizer.variables)]
    return {"shown": np.array(shown)} | {f"variable_{place}": v for place, v in enumerate(variables)}


def compare(build, intervals):
    """Train without us, and sampled at each of the intervals, with the sentinel in between."""
    np.savez(FOLDER / "without.npz", **trained(build, []))
    for every in intervals:
        callback = NeuralDbgCallback(FOLDER / "runs", f"every_{every}", every=every)
        np.savez(FOLDER / f"every_{every}.npz", **trained(build, [callback]))


if __name__ == "__main__":
    scenario = sys.argv[2]
    if scenario in {"values", "broken"}:
        globals()[scenario]()
    else:
        compare(globals()[scenario], list(map(int, sys.argv[3:])))
