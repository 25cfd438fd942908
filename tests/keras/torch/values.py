"""Trains small models for a step or two, and keeps beside each session what torch's autograd says by hand."""

import random

import keras
import numpy as np
import torch
from keras import layers
from torch.nn import functional

from neural_callbacks import NeuralDbgCallback

NUMBERS = np.random.default_rng(5)
X = NUMBERS.normal(size=(12, 6, 6, 2)).astype("float32")
LABELS = NUMBERS.integers(0, 4, size=12)
SAMPLE_WEIGHTS = NUMBERS.random(12).astype("float32")


def seeded():
    random.seed(1)
    torch.manual_seed(1)
    keras.backend.clear_session()


def network(optimizer):
    seeded()
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(3, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(4, activation="softmax"),
        ]
    )
    model.compile(optimizer, "sparse_categorical_crossentropy")
    return model


def arrays_of(model):
    return [variable.value.detach().numpy().copy() for variable in model.trainable_variables]


def by_hand(model, sample_weights):
    """Return outputs and their gradients by layer, weights and their gradients, and the loss, as arrays by name."""
    weights = [variable.value.detach().clone().requires_grad_() for variable in model.trainable_variables]
    kernel, bias, head_kernel, head_bias = weights
    x = torch.from_numpy(X).permute(0, 3, 1, 2)
    hidden = functional.relu(functional.conv2d(x, kernel.permute(3, 2, 0, 1), bias)).permute(0, 2, 3, 1)
    flat = hidden.reshape(len(X), -1)
    output = torch.softmax(flat @ head_kernel + head_bias, -1)
    shares = output / output.sum(-1, keepdim=True)  # Keras' loss does so, which its gradient shows
    losses = -torch.log(shares[range(len(X)), LABELS])
    loss = (losses * torch.from_numpy(sample_weights)).mean()
    outputs = [hidden, flat, output]
    gradients = torch.autograd.grad(loss, [*outputs, *weights])
    found = {f"activations {n}": each for n, each in enumerate(outputs)}
    found |= {f"activation_gradients {n}": each for n, each in enumerate(gradients[:3])}
    found |= {f"weights {n}": each for n, each in enumerate(weights)}
    found |= {f"gradients {n}": each for n, each in enumerate(gradients[3:])}
    return {name: each.detach().numpy() for name, each in found.items()} | {"loss": loss.item()}


def one_step(run, optimizer, sample_weights=None):
    model = network(optimizer)
    arrays = by_hand(model, np.ones(12, "float32") if sample_weights is None else sample_weights)
    before = arrays_of(model)
    callback = NeuralDbgCallback("runs", run)
    model.fit(X, LABELS, sample_weight=sample_weights, batch_size=12, shuffle=False, verbose=0, callbacks=[callback])
    arrays |= {f"updates {n}": a - b for n, (a, b) in enumerate(zip(arrays_of(model), before, strict=True))}
    np.savez(f"{run}.npz", **arrays)


def shared_layers():
    class Pair(layers.Layer):
        def call(self, inputs):
            return {"double": 2 * inputs, "sign": inputs > 0, "half": inputs / 2}

    seeded()
    inputs = keras.Input((4,))
    shared = layers.Dense(4)
    pair = Pair()(shared(shared(inputs)))
    model = keras.Model(inputs, pair["double"] + pair["half"])
    model.compile("sgd", "mse")
    x = NUMBERS.normal(size=(3, 4)).astype("float32")
    kernel = arrays_of(shared)[0]
    once, twice = x @ kernel, x @ kernel @ kernel
    model.fit(x, x, verbose=0, callbacks=[NeuralDbgCallback("runs", "shared")])
    np.savez("shared.npz", once=once, twice=twice)


def frozen_layers():
    seeded()
    inputs = keras.Input((4,))
    base = keras.Sequential(
        [layers.Dense(4, name="first"), layers.Dense(4, name="second", use_bias=False)], name="base"
    )
    base.trainable = False
    model = keras.Model(inputs, layers.Dense(1, use_bias=False)(base(inputs)))
    model.compile("sgd", "mse")
    model.fit(np.ones((3, 4)), np.ones(3), verbose=0, callbacks=[NeuralDbgCallback("runs", "frozen")])


def units():
    """One of three units is silent; all of the last layer's values lie near a bound."""
    seeded()
    model = keras.Sequential(
        [
            keras.Input((2, 2)),
            layers.Dense(3, activation="relu", kernel_initializer="ones", bias_initializer="ones"),
            layers.Dense(2, activation="tanh", kernel_initializer="ones"),
        ]
    )
    model.layers[0].kernel.assign(np.array([[1, -1, 0.5], [1, -1, 0]], "float32"))
    model.layers[0].bias.assign(np.array([0, -1, 0], "float32"))
    model.compile("sgd", "mse")
    x = np.array([[[1, 1], [2, 0]], [[0, 0], [3, 1]]], "float32")
    model.fit(x, np.zeros((2, 2, 2)), verbose=0, callbacks=[NeuralDbgCallback("runs", "units", histograms=False)])


def adam_with_two_layers():
    seeded()
    model = keras.Sequential([keras.Input((6,)), layers.Dense(8), layers.Dense(2)], name="net")
    model.compile("adam", "mse")
    model.fit(np.ones((4, 6)), np.ones((4, 2)), epochs=2, verbose=0, callbacks=[NeuralDbgCallback("runs", "adam")])


one_step("plain", keras.optimizers.SGD(0.5))
one_step("scaled", keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.5)))
one_step("weighted", keras.optimizers.SGD(0.5), SAMPLE_WEIGHTS)
shared_layers()
frozen_layers()
units()
adam_with_two_layers()
