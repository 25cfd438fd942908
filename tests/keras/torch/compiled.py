"""Trains a model whose train step is compiled, with and without the callback; what is to be seen goes to a file."""

import functools
import json
import random
from pathlib import Path

import keras
import numpy as np
import torch
from keras import layers

from neural_callbacks import NeuralDbgCallback

X = np.random.default_rng(2).normal(size=(12, 4)).astype("float32")
# Without a compiler for C++, whose code takes a minute: torch.compile traces and guards as ever.
torch.compile = functools.partial(torch.compile, backend="eager")


def network(*, compiled):
    random.seed(1)
    torch.manual_seed(1)
    keras.backend.clear_session()
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
    model.compile("sgd", "mse", jit_compile=compiled)
    return model


def train(model, *callbacks):
    """Train from the same weights each time."""
    with torch.no_grad():
        model.layers[0].kernel.value.copy_(torch.tensor([[0.5], [-0.25], [1.0], [0.125]]))
        model.layers[0].bias.value.fill_(0.5)
    model.fit(X, X[:, :1], batch_size=4, shuffle=False, verbose=0, callbacks=list(callbacks))
    return [variable.value.detach().numpy().tolist() for variable in model.trainable_variables]


def graphs():
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


compiled = network(compiled=True)
plain, before = train(compiled), graphs()
watched = train(compiled, NeuralDbgCallback("runs", "compiled", every=2))
train(network(compiled=False), NeuralDbgCallback("runs", "plain", every=2))
found = {"same": plain == watched, "graphs": before, "more graphs": graphs() - before}
Path("found.json").write_text(json.dumps(found))
