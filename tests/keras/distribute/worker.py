"""Trains as one of several workers under MultiWorkerMirroredStrategy: worker.py FOLDER SCENARIO FIRST.

Keras 3.15 cannot fit with several workers by itself: it averages over them a whole batch at once, and scalars along
their first axis, and TensorFlow refuses both. The model here leaves out the former and gives out vectors.
"""

import json
import os
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from neural_callbacks import NeuralDbgCallback
from neural_callbacks.keras.functions import TappedFunction

FOLDER, SCENARIO = Path(sys.argv[1]), sys.argv[2]
STRATEGY = tf.distribute.MultiWorkerMirroredStrategy()
TASK = json.loads(os.environ["TF_CONFIG"])["task"]
NAME = f"{TASK['type']}-{TASK['index']}"
IS_FIRST = sys.argv[3] == NAME
X = np.random.default_rng(5).normal(size=(26, 6)).astype("float32")
Y = X[:, :2] * X[:, 2:4]


class Net(keras.Sequential):
    def _maybe_symbolic_build(self, **data):
        pass

    def train_step(self, data):
        return {name: tf.reshape(value, [1]) for name, value in super().train_step(data).items()}


def sgd():
    return keras.optimizers.SGD(0.5)


def train(run, callbacks, *, optimizer=sgd, counted=True):
    """Train for two epochs of 8, 8, 8 and 2 rows in all, and keep the weights before and after."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(1)
    with STRATEGY.scope():
        model = Net([keras.Input((6,)), layers.Dense(4, activation="tanh"), layers.Dense(2)], name="net")
        model.compile(optimizer(), "mse")
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)
    if not counted:
        data = data.filter(lambda *_: True)  # how many batches are left is known to nobody
    before = model.get_weights()
    model.fit(data, epochs=2, shuffle=False, verbose=0, callbacks=callbacks)
    arrays = {f"before_{place}": w for place, w in enumerate(before)}
    arrays |= {f"after_{place}": w for place, w in enumerate(model.get_weights())}
    np.savez(FOLDER / f"{run}-{NAME}.npz", **arrays)


def watched(run, **options):
    return [NeuralDbgCallback(FOLDER / "runs", run, **options)]


def together():
    """Train without us, and with all workers sampled at one interval, in a run that nobody has named."""
    train("without", [])
    train("together", [NeuralDbgCallback(FOLDER / "runs", every=3)])
    train("scaled", watched("scaled", every=3), optimizer=lambda: keras.optimizers.LossScaleOptimizer(sgd()))


def apart():
    """Train with workers whose gears differ from step to step."""
    train("without", [])
    # The first alone is watched, also in the step in which it finds that an epoch is over.
    train("first", watched("first", every=4) if IS_FIRST else [], counted=False)
    train("differently", watched("differently", **({"every": 2} if IS_FIRST else {"steps": [1, 3]})))


def broken():
    """Train with a first worker that cannot trace its gears."""
    train("without", [])
    if IS_FIRST:

        def trace(*_):
            raise RuntimeError("no room")

        TappedFunction.trace = trace
    train("broken", watched("broken", every=3))


if __name__ == "__main__":
    globals()[SCENARIO]()
