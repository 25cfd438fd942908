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


def train(*callbacks, compiled=True):
    random.seed(1)
    torch.manual_seed(1)
    keras.backend.clear_session()
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
    model.compile("sgd", "mse", jit_compile=compiled)
    model.fit(X, X[:, :1], batch_size=4, shuffle=False, verbose=0, callbacks=list(callbacks))
    return [variable.value.detach().numpy().tolist() for variable in model.trainable_variables]


plain = train()
graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
torch._dynamo.reset()
torch._dynamo.utils.counters.clear()
watched = train(NeuralDbgCallback("runs", "compiled", every=2))
more = torch._dynamo.utils.counters["stats"]["unique_graphs"] - graphs
train(NeuralDbgCallback("runs", "plain", every=2), compiled=False)
Path("found.json").write_text(json.dumps({"same": plain == watched, "graphs": graphs, "more graphs": more}))
