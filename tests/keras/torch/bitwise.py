"""Trains each kind of model with and without the callback, and tells which trainings were the same to the last bit."""

import json
import random
from pathlib import Path

import keras
import numpy as np
import torch
from keras import layers

from neural.session.reader import SessionReader
from neural_callbacks import NeuralDbgCallback
from neural_callbacks.keras.on_torch import taps

CROSSENTROPY = "sparse_categorical_crossentropy"
FROM_LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def compiled(model, optimizer, loss, **options):
    model.compile(optimizer, loss, **options)
    return model


def sequential(*more):
    return keras.Sequential([keras.Input((6,)), *more])


def softmax():
    model = sequential(layers.Dense(5, activation="tanh"), layers.Dense(3, activation="softmax"))
    return compiled(model, "adam", CROSSENTROPY, metrics=["accuracy"])


def sigmoid():
    return compiled(sequential(layers.Dense(1, activation="sigmoid")), "adam", "binary_crossentropy")


def convolution():
    model = sequential(
        layers.Reshape((3, 2, 1)),
        layers.Conv2D(4, 2, padding="same"),
        layers.BatchNormalization(),
        layers.Activation("relu"),
        layers.MaxPooling2D((2, 1)),
        layers.Dropout(0.4),
        layers.Flatten(),
        layers.Dense(3, activation="softmax"),
    )
    return compiled(model, keras.optimizers.SGD(0.1, momentum=0.9, clipnorm=1.0), CROSSENTROPY)


def functional():
    inputs = keras.Input((6,))
    shared = layers.Dense(6, activation="relu", kernel_regularizer="l2")
    hidden = shared(shared(inputs)) + inputs
    outputs = [layers.Dense(3, activation="softmax", name="a")(hidden), layers.Dense(1, name="b")(hidden)]
    return compiled(keras.Model(inputs, outputs), "rmsprop", [CROSSENTROPY, "mse"])


def subclassed():
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = keras.Sequential([layers.Dense(4, activation="gelu"), layers.LayerNormalization()])
            self.head = layers.Dense(3)

        def call(self, inputs):
            return {"logits": self.head(self.inner(inputs))}

    return compiled(Net(), "adamw", {"logits": FROM_LOGITS})


def mixed_precision():
    model = sequential(layers.Dense(4, activation="relu", dtype="mixed_float16"), layers.Dense(3, activation="softmax"))
    return compiled(model, keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam()), CROSSENTROPY)


def recurrent():
    model = sequential(layers.Reshape((3, 2)), layers.Bidirectional(layers.LSTM(4)), layers.Dense(3))
    return compiled(model, "adam", FROM_LOGITS)


def attention():
    inputs = keras.Input((6,))
    hidden = layers.Embedding(9, 4, mask_zero=True)(keras.ops.cast(inputs * 3 + 4, "int32") % 9)
    hidden = layers.MultiHeadAttention(2, 3, dropout=0.2)(hidden, hidden)
    hidden = layers.GlobalAveragePooling1D()(hidden)
    return compiled(keras.Model(inputs, layers.Dense(3)(hidden)), "adam", FROM_LOGITS)


def accumulated():
    optimizer = keras.optimizers.Adam(gradient_accumulation_steps=2, use_ema=True, ema_overwrite_frequency=3)
    return compiled(sequential(layers.Dense(3, kernel_constraint="max_norm")), optimizer, FROM_LOGITS)


def checkpointed():
    with keras.RematScope(mode="full"):
        model = sequential(layers.Dense(5, activation="tanh"), layers.Dropout(0.3), layers.Dense(3))
    return compiled(model, "adam", FROM_LOGITS)


KINDS = [
    softmax,
    sigmoid,
    convolution,
    functional,
    subclassed,
    mixed_precision,
    recurrent,
    attention,
    accumulated,
    checkpointed,
]


def train(build, *callbacks):
    """Return all that training determines: variables (seeds' and metrics' too), logs, and the random streams."""
    keras.backend.clear_session()
    random.seed(3)
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002 - Keras shuffles by the global stream
    model = build()
    numbers = np.random.default_rng(0)
    x = numbers.normal(size=(30, 6)).astype("float32")
    labels = numbers.integers(0, 2, size=30)
    y = [labels, x[:, :1]] if build is functional else {"logits": labels} if build is subclassed else labels
    batches = []
    log = keras.callbacks.LambdaCallback(on_train_batch_end=lambda _, logs: batches.append(sorted(logs.items())))
    history = model.fit(x, y, batch_size=8, verbose=0, callbacks=[log, *callbacks])
    variables = [v.value.detach().numpy() for v in (*model.variables, *model.optimizer.variables)]
    return variables, batches, history.history, random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002, S311 - the global streams


def same(one, other):
    variables, others = one[0], other[0]
    return one[1:] == other[1:] and len(variables) == len(others) and all(map(np.array_equal, variables, others))


def disturbed_is_found():
    """Say whether a tap that hands on something else than the layer gave out is seen as another training."""

    def disturbing(_taps, site):
        call = site.layer.call
        return lambda *args, **kwargs: call(*args, **kwargs) * (1 + 1e-6)

    original, taps.TrainStep._layer_tap = taps.TrainStep._layer_tap, disturbing
    try:
        return not same(train(softmax), train(softmax, NeuralDbgCallback("runs", "disturbed", every=1)))
    finally:
        taps.TrainStep._layer_tap = original


results = {}
for kind in KINDS:
    plain = train(kind)
    for every in (1, 3) if kind in {convolution, functional} else (1,):
        watching = NeuralDbgCallback("runs", f"{kind.__name__}-{every}", every=every)
        is_same = same(plain, train(kind, watching))
        reader = SessionReader(watching.directory)
        reader.refresh()
        results[f"{kind.__name__}-{every}"] = {
            "same": is_same,
            "steps": reader.steps().tolist(),
            "kinds": sorted(reader.kinds()),
            "notices": reader.info().notices,
        }
results["disturbed"] = disturbed_is_found()
Path("results.json").write_text(json.dumps(results))
