"""Trainings that end in several ways, or in which something is amiss; print what each session says."""

import gc
import json
import sys
from contextlib import suppress
from pathlib import Path

import jax
import keras
import numpy as np
from keras import layers

from neural.session.reader import SessionReader
from neural_callbacks import NeuralDbgCallback
from neural_callbacks.keras.on_jax import functions, taps

# Keras seeds TensorFlow too where it finds it, and takes seconds to load it; nothing here needs it.
sys.modules["tensorflow"] = None

X = np.random.default_rng(2).uniform(1, 2, size=(20, 4)).astype("float32")
Y = X[:, :1]


class Logarithm(layers.Layer):
    def call(self, inputs):
        return keras.ops.log(inputs)


def network(*more, cls=keras.Sequential, **options):
    keras.backend.clear_session()
    keras.utils.set_random_seed(1)
    model = cls([keras.Input((4,)), *more, layers.Dense(3), layers.Dense(1)], name="net")
    model.compile("sgd", "mse", **options)
    return model


def fit(model, *callbacks, x=X, **options):
    model.fit(x, Y, batch_size=4, shuffle=False, verbose=0, callbacks=list(callbacks), **options)
    return [np.asarray(variable.value) for variable in model.variables]


def told(directory):
    reader = SessionReader(Path(directory))
    reader.refresh()
    names = [layer.own_name for layer in reader.layers().layers] if reader.layers() else []
    frames = [reader.frame(int(step)) for step in reader.steps()]
    info = reader.info()
    return {
        "status": [info.status, info.ended_because],
        "steps": [frame.step for frame in frames],
        "kinds": sorted({kind for frame in frames for kind in frame.matrices}),
        "losses": ["loss" in frame.scalars for frame in frames],
        "anomalies": [
            [step, one.place, None if one.layer is None else names[one.layer], one.parameter]
            for step, anomalies in reader.anomalies().items()
            for one in anomalies
        ],
        "notices": info.notices,
    }


def is_clean(model):
    ours = {"call", "apply", "stateless_apply", "scale_loss", "compute_loss", "train_step"}
    owners = (model, model.optimizer, *model.layers)
    return all(vars(owner).keys().isdisjoint(ours) for owner in owners) and not hasattr(model.train_function, "plain")


def not_finite():
    """The logarithm of zero, in step 3 and not before; the weights are lost from then on."""
    x = X.copy()
    x[12:16, 1] = 0
    found = {}
    for name, every, options in (("single", 4, {}), ("several", 100, {"steps_per_execution": 2})):
        callback = NeuralDbgCallback("runs", name, every=every)
        fit(network(Logarithm(), **options), callback, x=x)
        found[name] = told(callback.directory)
    return found


def measured_not_finite():
    x = X.copy()
    x[4:8, 1] = np.nan
    callback = NeuralDbgCallback("runs", "run", every=1)
    fit(network(), callback, x=x)
    return told(callback.directory)["anomalies"]


def fits():
    callback = NeuralDbgCallback("runs", "run", every=2)
    model = network()
    fit(model, callback)
    fit(model, callback, epochs=2)
    clean = is_clean(model)
    return [clean, told("runs/run/neuraldbg")["steps"], told("runs/run-2/neuraldbg")["steps"]]


def stopped():
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            del logs
            self.model.stop_training = batch == 2

    callback = NeuralDbgCallback("runs", "run", every=2)
    model = network()
    fit(model, callback, Stop())
    return [is_clean(model), told(callback.directory)]


def broken():
    class Break(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            del logs
            if batch == 2:
                raise KeyboardInterrupt

    model = network()
    callback = NeuralDbgCallback("runs", "run", every=1)
    with suppress(KeyboardInterrupt):
        fit(model, callback, Break())
    again = NeuralDbgCallback("runs", "again", every=2)
    fit(model, again)
    del callback
    gc.collect()
    return [is_clean(model), told("runs/run/neuraldbg"), told("runs/again/neuraldbg")["steps"]]


def own_train_step():
    class Own(keras.Sequential):
        def loss_and_state(self, weights, state, x, y):
            outputs, state = self.stateless_call(weights, state, x, training=True)
            return self.own_loss(x, y, outputs), state

        def own_loss(self, x, y, outputs):
            return self.compute_loss(x, y, outputs)

        def train_step(self, state, data):
            weights, others, of_optimizer, metrics = state
            x, y = data
            (loss, others), gradients = jax.value_and_grad(self.loss_and_state, has_aux=True)(weights, others, x, y)
            weights, of_optimizer = self.optimizer.stateless_apply(of_optimizer, gradients, weights)
            return {"loss": loss}, (weights, others, of_optimizer, metrics)

    class Other(Own):
        def own_loss(self, x, y, outputs):
            del x
            return keras.ops.mean(keras.ops.square(outputs - y))

    found = {}
    for cls in (Own, Other):
        callback = NeuralDbgCallback("runs", cls.__name__, every=2)
        same = all(map(np.array_equal, fit(network(cls=cls)), fit(network(cls=cls), callback)))
        found[cls.__name__] = [same, told(callback.directory)]
    return found


def own_train_function():
    class Own(keras.Sequential):
        def make_train_function(self, force=False):  # noqa: FBT002 - as Keras has it
            super().make_train_function(force)

    callback = NeuralDbgCallback("runs", "run")
    fit(network(cls=Own), callback)
    return told(callback.directory)["notices"]


def distributed():
    model = network()
    callback = NeuralDbgCallback("runs", "run")
    with keras.distribution.DataParallel(devices=["cpu:0"]).scope():
        fit(model, callback)
    return told(callback.directory)["notices"]


def failing(*_args, **_kwargs):
    message = "ours"
    raise RuntimeError(message)


def ours_fails():
    """One part after the other: the same weights as without us, nothing of ours left, and what is said of it."""
    expected = fit(network())
    found = {}
    for owner, name in (
        (taps.StepTaps, "see_output"),
        (taps.StepTaps, "see_gradient"),
        (taps.StepTaps, "finish"),
        (functions.TappedFunction, "__call__"),
    ):
        kept = getattr(owner, name)
        setattr(owner, name, failing)
        callback = NeuralDbgCallback("runs", every=2)
        model = network()
        same = all(map(np.array_equal, fit(model, callback), expected))
        setattr(owner, name, kept)
        found[name] = [same, is_clean(model), told(callback.directory)["notices"]]
    return found


def theirs_fails():
    class Broken(layers.Layer):
        def call(self, inputs):
            if not isinstance(inputs, keras.KerasTensor):
                message = "mine"
                raise TypeError(message)
            return inputs

    try:
        fit(network(Broken()), NeuralDbgCallback("runs", "run"))
    except TypeError as error:
        return "mine" in str(error)
    return False


def main():
    json.dump({name: globals()[name]() for name in sys.argv[1:]}, sys.stdout)


if __name__ == "__main__":
    main()
