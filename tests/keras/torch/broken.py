"""Trains models in which something stops being finite in a step that is not sampled."""

import random

import keras
import numpy as np
import torch
from keras import layers

from neural_callbacks import NeuralDbgCallback

ROWS, BATCH = 40, 4  # ten steps
X = np.random.default_rng(2).normal(size=(ROWS, 4)).astype("float32")


class Logarithm(layers.Layer):
    """A logarithm of its inputs' first column, from 1 on."""

    def call(self, inputs):
        return keras.ops.concatenate([keras.ops.log(inputs[:, :1] + 1), inputs[:, 1:]], axis=1)


def train(run, x, *between, optimizer=None, loss="mse", steps=(0, 9)):
    random.seed(1)
    torch.manual_seed(1)
    keras.backend.clear_session()
    model = keras.Sequential([keras.Input((4,)), layers.Dense(4, kernel_initializer="identity"), *between])
    model.add(layers.Dense(1, kernel_initializer="ones"))
    model.compile(optimizer or keras.optimizers.SGD(0.0), loss)
    callback = NeuralDbgCallback("runs", run, steps=steps)
    model.fit(x, np.zeros((ROWS, 1)), batch_size=BATCH, shuffle=False, verbose=0, callbacks=[callback])


def with_value(value, step, column=0):
    x = np.abs(X) + 1
    x[step * BATCH, column] = value
    return x


# The data of step 5 are not finite, and with no learning rate the steps after it are as before.
train("data", with_value(np.inf, 5))
# Within the model: the logarithm of 0 is minus infinity in step 6.
train("layer", with_value(-1, 6), Logarithm())
# On the way back alone: the square root of 0 has no finite slope.
unchanged = layers.Lambda(lambda x: x * 1, output_shape=(4,))
root = layers.Lambda(lambda x: keras.ops.sqrt(keras.ops.abs(x)), output_shape=(4,))
train("slope", with_value(0, 4), unchanged, root)
# In a step that is sampled.
train("sampled", with_value(np.inf, 9))
# A loss scaled until it overflows is no more than that.
train("scaled", X, optimizer=keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.0), initial_scale=3e38))
# A learning rate that is too large: from the step on where it overflows nothing is finite any more.
train("diverging", X * 1e4, optimizer=keras.optimizers.SGD(1e4), steps=(0,))
