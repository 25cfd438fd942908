"""Train models without and with the callback; print of each whether all bits are the same, and the steps recorded."""

import json
import random
import sys

import jax
import keras
import numpy as np
from keras import layers

from neural.session.reader import SessionReader
from neural_callbacks import NeuralDbgCallback
from neural_callbacks.keras.on_jax.taps import TrainStep

# Keras seeds TensorFlow too where it finds it, and takes seconds to load it; nothing here needs it.
sys.modules["tensorflow"] = None

LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def dense(*output, loss="sparse_categorical_crossentropy", **options):
    model = keras.Sequential([keras.Input((6,)), layers.Dense(5, activation="tanh"), *output])
    model.compile("adam", loss, metrics=["accuracy"], **options)
    return model


def softmax(**options):
    return dense(layers.Dense(3, activation="softmax"), **options)


def sigmoid():
    return dense(layers.Dense(1, activation="sigmoid"), loss="binary_crossentropy")


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
    model.compile("adamw", {"logits": LOGITS})
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


class Masked(layers.Layer):
    """Gives out what its inner layer gave out, with the mask that is on it."""

    def __init__(self):
        super().__init__()
        self.masking = layers.Masking(0.0)

    def build(self, _):
        self.scale = self.add_weight(shape=(), initializer="ones")

    def call(self, inputs):
        return self.masking(inputs * self.scale)


def recurrent():
    masked = [layers.Reshape((3, 2)), layers.Dense(2, activation="relu"), Masked(), layers.LSTM(3)]
    model = keras.Sequential([keras.Input((6,)), *masked, layers.Dense(3)])
    model.compile("adam", LOGITS)
    return model


def attention():
    inputs = keras.Input((6,))
    sequence = layers.Reshape((3, 2))(inputs)
    sequence = layers.LayerNormalization()(layers.MultiHeadAttention(2, 2)(sequence, sequence))
    model = keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling1D()(sequence)))
    model.compile("adam", LOGITS)
    return model


def checkpointed():
    with keras.RematScope(mode="full"):
        hidden = layers.Dense(4, activation="tanh")
    return dense(hidden, layers.Dense(3, activation="softmax"))


class Within(layers.Layer):
    """Calls its layer inside of something that JAX transforms by itself."""

    def __init__(self, transformed):
        super().__init__()
        self.inner = layers.Dense(4, activation="tanh")
        self.transformed = transformed

    def build(self, shape):
        self.inner.build(shape)

    def call(self, inputs):
        is_symbolic = isinstance(inputs, keras.KerasTensor)
        return self.inner(inputs) if is_symbolic else self.transformed(self.inner, inputs)


def within_jit():
    return dense(Within(lambda layer, x: jax.jit(lambda x: layer(x))(x)), layers.Dense(3, activation="softmax"))  # noqa: PLW0108 - jit would take the layer for its function


def within_vmap():
    rows = Within(lambda layer, x: jax.vmap(lambda row: layer(row[None])[0])(x))
    return dense(rows, layers.Dense(3, activation="softmax"))


def within_grad():
    penalty = Within(lambda layer, x: jax.grad(lambda x: layer(x).sum())(x))
    return dense(penalty, layers.Dense(3, activation="softmax"))


def within_jvp():
    tangent = Within(lambda layer, x: jax.jvp(layer, (x,), (x,))[1])
    return dense(tangent, layers.Dense(3, activation="softmax"))


def several_steps_per_execution():
    return softmax(steps_per_execution=2)


def eager():
    return softmax(run_eagerly=True)


def train(build, callbacks):
    """Return all that training determines: variables (seeds' and metrics' too), logs, and the random streams."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(3)
    model = build()
    numbers = np.random.default_rng(0)
    x = numbers.normal(size=(24, 6)).astype("float32")
    labels = numbers.integers(0, 2, size=24)
    y = [labels, x[:, :1]] if build is functional else {"logits": labels} if build is subclassed else labels
    weights = None if build is functional else numbers.uniform(size=24)
    batches = []
    log = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda _, logs: batches.append(sorted((name, float(value)) for name, value in logs.items()))
    )
    # The last batch of three is smaller in one model, for which everything is compiled twice.
    size = 10 if build is softmax else 8
    options = {"epochs": 2, "verbose": 0, "sample_weight": weights, "callbacks": [log, *callbacks]}
    history = model.fit(x, y, batch_size=size, **options)
    variables = [np.asarray(v.value) for v in (*model.variables, *model.optimizer.variables)]
    return variables, batches, history.history, random.random(), np.random.rand()  # noqa: NPY002, S311 - the global streams


def same(one, other):
    variables, others = one[0], other[0]
    return one[1:] == other[1:] and len(variables) == len(others) and all(map(np.array_equal, variables, others))


def disturb():
    passed = TrainStep._passed
    TrainStep._passed = lambda self, value, *told: passed(self, value * (1 + 1e-6), *told)


def main():
    results = {}
    names = sys.argv[1:]
    if names[0] == "disturbed":
        disturb()
        names = names[1:]
    for name in names:
        build = globals()[name]
        callback = NeuralDbgCallback("runs", name, every=2)
        is_same = same(train(build, []), train(build, [callback]))
        reader = SessionReader(callback.directory)
        reader.refresh()
        layer_names = [layer.own_name for layer in reader.layers().layers]
        notices = reader.info().notices
        results[name] = [is_same, [int(step) for step in reader.steps()], layer_names, notices]
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
