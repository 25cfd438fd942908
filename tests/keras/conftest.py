"""Fixtures for the Keras observer's tests; loading TensorFlow takes seconds, so everything runs in one process."""

import functools
import os
import random
from contextlib import contextmanager
from dataclasses import dataclass, field

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import config as tensorflow_config

from neural.session.reader import SessionReader
from neural.session.statistics import reference_row
from neural_callbacks import NeuralDbgCallback
from neural_callbacks.keras.sentinel import SentinelTaps

STEPS = 8  # of `train`: two epochs of 15 rows in batches of 4, the last one of 3


@pytest.fixture
def deterministic():
    """TensorFlow's operations give the same bits in every run."""
    tensorflow_config.enable_op_determinism()
    yield
    tensorflow_config.disable_op_determinism()


@pytest.fixture(autouse=True)
def fresh_names():
    """Layers are called dense, dense_1, ... from the start in every test."""
    keras.backend.clear_session()


def reader_of(callback):
    reader = SessionReader(callback.directory)
    reader.refresh()
    assert reader.problems == ()
    return reader


@pytest.fixture
def read():
    """Return a function that reads the session a callback has written."""
    return reader_of


def train(way, callbacks):
    """Return all that training determines: variables (seeds' and metrics' too), logs, and the random streams.

    `way()` returns a compiled model and the arguments of `fit`, or takes the callbacks and returns a model that it has
    trained with them.
    """
    keras.backend.clear_session()
    keras.utils.set_random_seed(3)
    batches = []
    log = keras.callbacks.LambdaCallback(on_train_batch_end=lambda _, logs: batches.append(sorted(logs.items())))
    if way.__code__.co_argcount:
        model, history = way([log, *callbacks]), None
    else:
        model, options = way()
        options = {"batch_size": 4, "epochs": 2, "verbose": 0, **options}
        options["callbacks"] = [log, *callbacks, *options.get("callbacks", ())]
        history = model.fit(**options).history
    optimizers = [x for x in vars(model).values() if isinstance(x, keras.optimizers.Optimizer)]
    variables = [np.asarray(v.value) for owner in (model, *optimizers) for v in owner.variables]
    return variables, repr(batches), repr(history), random.random(), np.random.rand()  # noqa: NPY002, S311 - the global streams


def same(one, other):
    variables, others = one[0], other[0]
    are_equal = (np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in zip(variables, others, strict=True))
    return one[1:] == other[1:] and len(variables) == len(others) and all(are_equal)


@functools.cache
def plainly(way):
    """Train without us, once for all samplings that are compared with it."""
    return train(way, [])


@pytest.fixture
def assert_same_bits(tmp_path, deterministic):
    """Return a function that trains in a `way` with and without us, sampled `every` so many steps, and compares.

    It returns the reader of the latest session, whose first step is `first`.
    """
    del deterministic

    def compare(way, every, *, first=0):
        callback = NeuralDbgCallback(tmp_path, every=every)
        assert same(plainly(way), train(way, [callback]))
        reader = reader_of(callback)
        assert reader.steps("activations").tolist() == list(range(first, STEPS, every))
        assert not [sentence for sentence in reader.info().notices if "switched" in sentence]
        # The sentinel has a function of its own, for the steps between.
        looked = any(built.functions.get(SentinelTaps) is not None for built in callback._observer._built)
        assert looked
        return reader

    return compare


@dataclass
class ByHand:
    """A step's tensors as arrays: by layer name those of all its calls, by variable, and the losses."""

    outputs: dict = field(default_factory=dict)
    output_gradients: dict = field(default_factory=dict)
    gradients: dict = field(default_factory=dict)
    losses: list = field(default_factory=list)


@contextmanager
def calls_of_layers():
    """Collect (layer, floating output tensor) of all calls of all layers, in the order in which they end."""
    calls = []
    call = keras.layers.Layer.__call__

    @functools.wraps(call)
    def noting(self, *args, **kwargs):
        outputs = call(self, *args, **kwargs)
        calls.extend((self, x) for x in keras.tree.flatten(outputs) if tf.is_tensor(x) and x.dtype.is_floating)
        return outputs

    keras.layers.Layer.__call__ = noting
    try:
        yield calls
    finally:
        keras.layers.Layer.__call__ = call


def compiled_loss(model, batch):
    """Return the loss that the model was compiled with, and the variables that it trains."""
    x, y, weights = keras.utils.unpack_x_y_sample_weight(batch)
    predicted = model(x, training=True)
    loss = model.compute_loss(x=x, y=y, y_pred=predicted, sample_weight=weights, training=True)
    return [(loss, model.trainable_variables)]


def compute_by_hand(model, batch, losses_of):
    """Compute eagerly, from a batch, what a train step of the model computes; the model stays as it was.

    `losses_of(model, batch)` returns pairs of a loss and the variables that are trained by it.
    """
    before = [v.numpy() for v in model.variables]
    found = ByHand()
    with tf.GradientTape(persistent=True) as tape, calls_of_layers() as calls:
        losses = losses_of(model, batch)
    for layer, output in calls:
        found.outputs.setdefault(layer.name, []).append(output.numpy())
    for loss, variables in losses:
        found.losses.append(float(loss))
        for variable, gradient in zip(variables, tape.gradient(loss, [v.value for v in variables]), strict=True):
            found.gradients[variable.path] = None if gradient is None else tf.convert_to_tensor(gradient).numpy()
        for layer, output in reversed(calls):
            gradient = tape.gradient(loss, output)
            if gradient is None and hasattr(output, "_keras_logits"):
                gradient = tape.gradient(loss, output._keras_logits)
            if gradient is not None:
                found.output_gradients.setdefault(layer.name, []).append(gradient.numpy())
    for variable, value in zip(model.variables, before, strict=True):
        variable.assign(value)
    return found


def assert_rows(rows, expected, what, *, rtol, atol):
    assert len(rows) == len(expected)
    for number, (row, arrays) in enumerate(zip(rows, expected, strict=True)):
        if arrays is None:
            assert np.isnan(row).all(), f"{what} {number}"
        else:
            np.testing.assert_allclose(row, reference_row(arrays), rtol=rtol, atol=atol, err_msg=f"{what} {number}")


@pytest.fixture
def assert_measured_by_hand(tmp_path):
    """Return a function that makes one step in a `way`, and compares the session with the same computed by hand.

    It returns the session's reader.
    """

    def compare(way, *, losses_of=compiled_loss, rtol=1e-4, atol=1e-6):
        keras.utils.set_random_seed(3)
        model, options = way()
        arguments = {name: options.get(name) for name in ("x", "y", "sample_weight")}
        batch = tf.nest.map_structure(tf.convert_to_tensor, tuple(v for v in arguments.values() if v is not None))
        model(batch[0])  # builds it
        hand = compute_by_hand(model, batch, losses_of)
        variables = {v.path: v for v in model.variables}
        weights = {path: v.numpy() for path, v in variables.items()}
        callback = NeuralDbgCallback(tmp_path)
        model.fit(**{**options, "batch_size": 64, "shuffle": False, "verbose": 0, "callbacks": [callback]})
        reader = reader_of(callback)
        table = reader.layers()
        names = [layer.own_name.rpartition("/")[2] for layer in table.layers]
        assert len(set(names)) == len(names)
        assert names == [name for name in hand.outputs if name in names]
        paths = [_path(variables, table, parameter) for parameter in table.parameters]
        assert set(paths) == {v.path for v in model.trainable_variables}
        expected = {
            "activations": [hand.outputs[name] for name in names],
            "activation_gradients": [hand.output_gradients.get(name) for name in names],
            "weights": [weights[path] for path in paths],
            "gradients": [hand.gradients[path] for path in paths],
            "updates": [variables[path].numpy() - weights[path] for path in paths],
        }
        for kind, of_kind in expected.items():
            assert_rows(reader.matrix(kind, 0), of_kind, kind, rtol=rtol, atol=atol)
        scalars = reader.frame(0).scalars
        of_several = [f"loss_{number}" for number in range(1, len(hand.losses) + 1)]
        for name, loss in zip(of_several if len(hand.losses) > 1 else ["loss"], hand.losses, strict=True):
            assert scalars[name] == pytest.approx(loss, rel=rtol)
        return reader

    return compare


def _path(variables, table, parameter):
    """Return the path of the variable that a parameter of the table is, by its own and its layer's names."""
    layer = table.layers[parameter.layer].own_name.rpartition("/")[2]
    fits = (path for path in variables if f"/{path}".endswith(f"/{parameter.name}") and layer in path.split("/"))
    (found,) = fits
    return found
