"""Lives of a session on torch: fits, errors, train steps of all kinds; what is to be seen of each goes to a file."""

import functools
import gc
import json
import random
from contextlib import suppress
from pathlib import Path

import keras
import numpy as np
import torch
from keras import layers

from neural_callbacks import NeuralDbgCallback
from neural_callbacks.keras.on_torch import sample, train_steps

X = np.random.default_rng(2).normal(size=(20, 4)).astype("float32")
Y = X[:, :1]
BACKWARD = torch.autograd.backward


def network(*more, kind=keras.Sequential, **options):
    random.seed(1)
    torch.manual_seed(1)
    keras.backend.clear_session()
    model = kind([keras.Input((4,)), layers.Dense(3), *more, layers.Dense(1)], name="net")
    model.compile("sgd", "mse", **options)
    return model


def fit(model, *callbacks, **options):
    model.fit(X, Y, batch_size=4, shuffle=False, verbose=0, callbacks=list(callbacks), **options)
    return [variable.value.detach().numpy().tolist() for variable in model.trainable_variables]


def is_untouched(model):
    owners = (model, model.optimizer, *model.layers)
    replaced = {"call", "apply", "scale_loss", "compute_loss", "train_step"}
    is_plain = getattr(model.train_function, "plain", None) is None
    return is_plain and torch.autograd.backward is BACKWARD and all(replaced.isdisjoint(vars(one)) for one in owners)


class Looking(keras.callbacks.Callback):
    """Looks at the model after each batch, and saves it in mid-run."""

    def __init__(self):
        super().__init__()
        self.untouched = []

    def on_train_batch_end(self, batch, logs=None):
        del logs
        self.untouched.append(is_untouched(self.model))
        if batch == 2:
            self.model.save("mid.keras")


class Interrupting(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch, logs=None):
        del logs
        if batch == 2:
            raise KeyboardInterrupt


class Broken(layers.Layer):
    """Fails in its third step."""

    calls = 0

    def call(self, inputs):
        self.calls += not isinstance(inputs, keras.KerasTensor) and not inputs.is_meta
        if self.calls == 3:
            raise ValueError("mine")
        return inputs


class ByHand(keras.Sequential):
    """Goes back from a loss of its own."""

    def train_step(self, data):
        x, y = data
        self.zero_grad()
        loss = ((self(x, training=True) - y) ** 2).mean()
        loss.backward()
        self.optimizer.apply([v.value.grad for v in self.trainable_variables], self.trainable_variables)
        return {"loss": loss.detach()}


class ByGrad(keras.Sequential):
    """Asks for gradients in another way than backward."""

    def train_step(self, data):
        x, y = data
        loss = self.compute_loss(x, y, self(x, training=True))
        gradients = torch.autograd.grad(loss, [v.value for v in self.trainable_variables])
        self.optimizer.apply(gradients, self.trainable_variables)
        return {"loss": loss.detach()}


class ByTorch(keras.Sequential):
    """Steps with an optimizer of torch."""

    def train_step(self, data):
        x, y = data
        loss = self.compute_loss(x, y, self(x, training=True))
        optimizer = torch.optim.SGD([v.value for v in self.trainable_variables], 0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return {"loss": loss.detach()}


class Spare(keras.Model):
    """Has a layer that it does not use; `own` is one that only a train step of its own uses."""

    def __init__(self):
        super().__init__()
        self.used, self.spare = layers.Dense(1, name="used"), layers.Dense(2, name="spare")

    def build(self, shape):
        self.used.build(shape)

    def call(self, inputs):
        return self.used(inputs)


class SpareByHand(Spare):
    """Builds its own layer in the first train step."""

    def __init__(self):
        super().__init__()
        self.own = layers.Dense(1, name="own")
        self.second = keras.optimizers.SGD(0.1)

    def train_step(self, data):
        x, y = data
        loss = self.compute_loss(x, y, self(x) + self.own(x))
        self.zero_grad()
        loss.backward()
        for optimizer, layer in ((self.optimizer, self.used), (self.second, self.own)):
            optimizer.apply([each.value.grad for each in layer.trainable_variables], layer.trainable_variables)
        return {"loss": loss.detach()}


def spare(kind, *callbacks):
    random.seed(1)
    keras.backend.clear_session()
    model = kind()
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return fit(model, *callbacks)


class Gan(keras.Model):
    """A generator and a discriminator, each with an optimizer."""

    def __init__(self):
        super().__init__()
        self.generator = keras.Sequential([keras.Input((4,)), layers.Dense(4)], name="generator")
        self.discriminator = keras.Sequential([keras.Input((4,)), layers.Dense(1)], name="discriminator")
        self.other = keras.optimizers.SGD(0.1)

    def call(self, inputs):
        return self.discriminator(self.generator(inputs))

    def train_step(self, data):
        x, _ = data
        self.zero_grad()
        told = torch.nn.functional.softplus(self.discriminator(self.generator(x).detach())).mean() - 3
        told.backward()
        self.optimizer.apply(*zip(*self._pairs(self.discriminator), strict=True))
        self.zero_grad()
        fooled = torch.nn.functional.softplus(-self.discriminator(self.generator(x))).mean() + 3
        fooled.backward()
        self.other.apply(*zip(*self._pairs(self.generator), strict=True))
        return {"told": told.detach(), "fooled": fooled.detach()}

    def _pairs(self, part):
        return [(variable.value.grad, variable) for variable in part.trainable_variables]


def gan(*callbacks):
    random.seed(1)
    keras.backend.clear_session()
    model = Gan()
    model.compile(keras.optimizers.SGD(0.1))
    return fit(model, *callbacks)


def is_same(build, name, **options):
    """Train with and without the callback; say whether that was the same."""
    return build() == build(NeuralDbgCallback("runs", name, every=2, **options))


def by(kind, *callbacks):
    return fit(network(kind=kind), *callbacks)


def failing(*_args, **_kwargs):
    raise RuntimeError("ours")


def with_failing(owner, name, run):
    original = getattr(owner, name)
    setattr(owner, name, failing)
    try:
        model = network()
        weights = fit(model, NeuralDbgCallback("runs", run, every=2))
    finally:
        setattr(owner, name, original)
    return weights == fit(network()) and is_untouched(model)


found = {}

twice = NeuralDbgCallback("runs", "twice", every=2)
model = network()
looking = Looking()
fit(model, twice, looking)
found["untouched in mid-run"] = looking.untouched
plain = network()
fit(plain)
found["the same after two fits"] = fit(model, twice) == fit(plain)

stopping = keras.callbacks.EarlyStopping("loss", patience=0, min_delta=1e9)
fit(network(), NeuralDbgCallback("runs", "stopped", every=2), stopping, epochs=9)

model = network()
interrupted = NeuralDbgCallback("runs", "interrupted", every=1)
with suppress(KeyboardInterrupt):
    fit(model, interrupted, Interrupting())
del interrupted
gc.collect()
fit(model, NeuralDbgCallback("runs", "after", every=1))
found["untouched after an interrupt"] = is_untouched(model)

model = network(Broken())
broken = NeuralDbgCallback("runs", "broken", every=1)
try:
    fit(model, broken)
except ValueError as error:
    found["the model's own error"] = str(error).splitlines()[0]
found["untouched after an error"] = is_untouched(model)
del broken
gc.collect()

for kind in (ByHand, ByGrad, ByTorch):
    found[kind.__name__] = is_same(functools.partial(by, kind), kind.__name__)
for kind in (Spare, SpareByHand):
    found[kind.__name__] = is_same(functools.partial(spare, kind), kind.__name__)
found["Gan"] = is_same(gan, "Gan")

for owner, name in (
    (sample.Sample, "see_layer"),
    (sample.Sample, "_see_gradient"),
    (sample.Sample, "see_weights"),
    (sample.Sample, "_places"),
    (sample.Sample, "frame"),
    (sample.Profile, "enter"),
    (train_steps, "find_sites"),
    (train_steps.LookedAt, "see_layer"),
):
    found[f"failing {name}"] = with_failing(owner, name, f"failing {owner.__name__.rpartition('.')[2]} {name}")

Path("found.json").write_text(json.dumps(found))
