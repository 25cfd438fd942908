"""Training is the same to the last bit with and without the callback, and this test can tell when it is not."""

import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from neural_callbacks import NeuralDbgCallback
from neural_callbacks.keras.step_taps import StepTaps

STEPS_AN_EPOCH = 4  # of 8 rows, the last one of 6


def dense(*, output, loss):
    model = keras.Sequential([keras.Input((6,)), layers.Dense(5, activation="tanh"), *output])
    model.compile("adam", loss, metrics=["accuracy"])
    return model


def softmax():
    return dense(output=[layers.Dense(3, activation="softmax")], loss="sparse_categorical_crossentropy")


def softmax_layer():
    return dense(output=[layers.Dense(3), layers.Activation("softmax")], loss="sparse_categorical_crossentropy")


def softmax_operation():
    class Probabilities(layers.Layer):
        def call(self, inputs):
            return tf.nn.softmax(inputs)

    return dense(output=[layers.Dense(3), Probabilities()], loss="sparse_categorical_crossentropy")


def sigmoid():
    return dense(output=[layers.Dense(1, activation="sigmoid")], loss="binary_crossentropy")


def squared():
    return dense(output=[layers.Dense(1)], loss="mse")


def convolution():
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Reshape((3, 2, 1)),
            layers.Conv2D(4, 2, padding="same"),
            layers.BatchNormalization(),
            layers.Activation("relu"),
            layers.Dropout(0.4),
            layers.Flatten(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9, clipnorm=1.0), "sparse_categorical_crossentropy")
    return model


def functional():
    inputs = keras.Input((6,))
    shared = layers.Dense(6, activation="relu", kernel_regularizer="l2")
    hidden = shared(shared(inputs)) + inputs
    outputs = [layers.Dense(3, activation="softmax", name="a")(hidden), layers.Dense(1, name="b")(hidden)]
    model = keras.Model(inputs, outputs)
    model.compile("rmsprop", ["sparse_categorical_crossentropy", "mse"])
    return model


def subclassed():
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = keras.Sequential([layers.Dense(4, activation="gelu"), layers.LayerNormalization()])
            self.head = layers.Dense(3)

        def call(self, inputs):
            return {"logits": self.head(self.inner(inputs))}

    model = Net()
    model.compile("adamw", {"logits": keras.losses.SparseCategoricalCrossentropy(from_logits=True)})
    return model


def mixed_precision():
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(4, activation="relu", dtype="mixed_float16"),
            layers.Dense(3, activation="softmax", dtype="float32"),
        ]
    )
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam()), "sparse_categorical_crossentropy")
    return model


def recurrent():
    model = keras.Sequential([keras.Input((6,)), layers.Reshape((3, 2)), layers.LSTM(4), layers.Dense(3)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def several_steps_per_execution():
    model = softmax()
    model.compile("adam", "sparse_categorical_crossentropy", steps_per_execution=3)
    return model


def eager():
    model = softmax()
    model.compile("adam", "sparse_categorical_crossentropy", run_eagerly=True)
    return model


def train(build, callbacks):
    """Return all that training determines: variables (seeds' and metrics' too), logs, and the random streams."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(3)
    model = build()
    numbers = np.random.default_rng(0)
    x = numbers.normal(size=(30, 6)).astype("float32")
    labels = numbers.integers(0, 2, size=30)
    y = [labels, x[:, :1]] if build is functional else {"logits": labels} if build is subclassed else labels
    batches = []
    log = keras.callbacks.LambdaCallback(on_train_batch_end=lambda _, logs: batches.append(sorted(logs.items())))
    history = model.fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=[log, *callbacks])
    variables = [np.asarray(v.value) for v in (*model.variables, *model.optimizer.variables)]
    return variables, batches, history.history, random.random(), np.random.rand()  # noqa: NPY002, S311 - the global streams


def same(one, other):
    variables, others = one[0], other[0]
    return one[1:] == other[1:] and len(variables) == len(others) and all(map(np.array_equal, variables, others))


EVERY_STEP = [
    softmax,
    softmax_layer,
    softmax_operation,
    sigmoid,
    squared,
    convolution,
    functional,
    subclassed,
    mixed_precision,
    recurrent,
    several_steps_per_execution,
    eager,
]
CASES = [(build, 1) for build in EVERY_STEP] + [(build, 7) for build in (convolution, functional)]


@pytest.mark.parametrize(("build", "every"), CASES, ids=[f"{build.__name__}-{every}" for build, every in CASES])
@pytest.mark.usefixtures("deterministic")
def test_training_is_the_same_to_the_last_bit(build, every, tmp_path, read):
    callback = NeuralDbgCallback(tmp_path, every=every)
    assert same(train(build, []), train(build, [callback]))
    assert list(read(callback).steps()) == list(range(0, 2 * STEPS_AN_EPOCH, every))


def test_training_compiled_by_xla_is_the_same(tmp_path, read):
    def build():
        model = softmax()
        model.compile("adam", "sparse_categorical_crossentropy", jit_compile=True)
        return model

    callback = NeuralDbgCallback(tmp_path, every=2)
    assert same(train(build, []), train(build, [callback]))
    assert list(read(callback).steps()) == [0, 2, 4, 6]


@pytest.mark.parametrize("disturbance", [tf.identity, lambda x: x * (1 + 1e-6)], ids=["identity", "factor"])
@pytest.mark.usefixtures("deterministic")
def test_a_tap_that_disturbs_is_found(disturbance, tmp_path, monkeypatch):
    def disturbing(_taps, _site, call):
        return lambda *args, **kwargs: disturbance(call(*args, **kwargs))

    monkeypatch.setattr(StepTaps, "_layer_tap", disturbing)
    assert not same(train(softmax, []), train(softmax, [NeuralDbgCallback(tmp_path, every=1)]))
