"""The life of a session: fits, errors, saved models; and what happens when something of ours, or the user's, fails."""

import gc

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from neural.session.reader import SessionReader, find_sessions
from neural_callbacks import NeuralDbgCallback
from neural_callbacks.keras import backends
from neural_callbacks.keras.functions import TappedFunction

X = np.random.default_rng(2).normal(size=(20, 4)).astype("float32")
Y = X[:, :1]
GRADIENT = tf.GradientTape.gradient


def network(*more, **options):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3), *more, layers.Dense(1)], name="net")
    model.compile("sgd", "mse", **options)
    return model


def fit(model, *callbacks, **options):
    model.fit(X, Y, batch_size=4, shuffle=False, verbose=0, callbacks=list(callbacks), **options)
    return model.get_weights()


def assert_nothing_of_ours(model):
    for owner in (model, model.optimizer, *model.layers):
        assert vars(owner).keys().isdisjoint({"call", "apply", "scale_loss", "compute_loss", "train_step"})
    assert getattr(model.train_function, "plain", None) is None
    assert tf.GradientTape.gradient is GRADIENT


def test_a_session_says_what_it_is_of(tmp_path, read):
    callback = NeuralDbgCallback(tmp_path, "first", every=3, notices=["The data is random."])
    fit(network(), callback)
    info = read(callback).info()
    assert callback.directory == tmp_path / "first" / "neuraldbg"
    assert (info.model, info.every, info.status, info.notices) == ("net", 3, "finished", ("The data is random.",))
    assert info.framework == f"tensorflow {tf.__version__}, keras {keras.__version__}"


def test_the_next_fit_of_a_callback_is_a_session_of_its_own_and_goes_on_counting(tmp_path):
    callback = NeuralDbgCallback(tmp_path, "run", every=2)
    model = network()
    fit(model, callback)
    fit(model, callback)
    sessions = {name: SessionReader(path) for name, path in find_sessions(tmp_path).items()}
    assert {name: (reader.refresh(), list(reader.steps())) for name, reader in sessions.items()} == {
        "run": (True, [0, 2, 4]),
        "run-2": (True, [6, 8]),
    }


# Keras 3.15 saves a variable through numpy.array(..., copy=False), which numpy 2 has deprecated.
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
def test_a_model_saved_in_mid_run_has_nothing_of_ours(tmp_path):
    class Saver(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            del logs
            self.model.save(tmp_path / f"begin-{batch}.keras")

        def on_train_batch_end(self, batch, logs=None):
            del logs
            assert_nothing_of_ours(self.model)
            self.model.save(tmp_path / f"end-{batch}.keras")

    with_ours, without = network(), network()
    fit(with_ours, NeuralDbgCallback(tmp_path, every=1), Saver())
    saved = keras.models.load_model(tmp_path / "end-4.keras")
    assert all(map(np.array_equal, saved.get_weights(), fit(without)))
    assert_nothing_of_ours(saved)
    assert b"neural" not in (tmp_path / "begin-4.keras").read_bytes()
    assert_nothing_of_ours(with_ours)


def test_an_error_in_fit_leaves_a_readable_session_and_the_model_as_it_was(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            del logs
            if batch == 2:
                raise KeyboardInterrupt

    model = network()
    callback = NeuralDbgCallback(tmp_path, "run", every=1)
    with pytest.raises(KeyboardInterrupt):
        fit(model, callback, Stop())
    again = NeuralDbgCallback(tmp_path, "other", every=1)
    fit(model, again)
    assert_nothing_of_ours(model)
    del callback
    gc.collect()
    reader = SessionReader(tmp_path / "run" / "neuraldbg")
    reader.refresh()
    assert list(reader.steps()) == [0, 1]
    assert (reader.info().status, reader.info().ended_because) == (
        "failed",
        "RuntimeError: model.fit did not come to its end",
    )


def failing(*_args, **_kwargs):
    message = "ours"
    raise RuntimeError(message)


@pytest.mark.parametrize(
    ("where", "part"),
    [
        ("StepTaps.see_layer", "the taps in the train step"),
        ("StepTaps._see_gradients", "the taps in the train step"),
        ("StepTaps.see_before", "the taps in the train step"),
        ("find_sites", "the instrumented train step"),
        ("Sample.frame", "frames"),
    ],
)
def test_what_fails_in_here_is_said_once_and_training_goes_on(where, part, tmp_path, read, monkeypatch):
    expected = fit(network())
    monkeypatch.setattr(f"neural_callbacks.keras.gears.{where}", failing)
    callback = NeuralDbgCallback(tmp_path, every=2)
    model = network()
    assert all(map(np.array_equal, fit(model, callback), expected))
    sentence = f"NeuralDbg switched {part} off after an error, training goes on: RuntimeError: ours."
    assert sentence in read(callback).info().notices
    assert_nothing_of_ours(model)


@pytest.mark.parametrize("stepped", [False, True], ids=["before the optimizer", "after the optimizer"])
def test_a_failure_while_the_step_runs_loses_no_batch_and_makes_none_twice(stepped, tmp_path, read, monkeypatch):
    run = TappedFunction.__call__

    def broken(self, batch):
        if stepped:
            run(self, batch)
        failing()

    expected = fit(network())
    monkeypatch.setattr(TappedFunction, "__call__", broken)
    callback = NeuralDbgCallback(tmp_path, every=2, sentinel=False)
    assert all(map(np.array_equal, fit(network(), callback), expected))
    assert read(callback).info().notices == (
        "NeuralDbg switched the instrumented train step off after an error, training goes on: RuntimeError: ours.",
        *(["Step 0 may be incomplete: it failed after the optimizer had stepped."] if stepped else []),
    )


def test_the_models_own_error_is_the_users_to_see(tmp_path):
    class Broken(layers.Layer):
        def call(self, inputs):
            if not tf.executing_eagerly() and not isinstance(inputs, keras.KerasTensor):
                message = "mine"
                raise ValueError(message)
            return inputs

    with pytest.raises(ValueError, match="mine"):
        fit(network(Broken()), NeuralDbgCallback(tmp_path))


@pytest.mark.usefixtures("deterministic")
def test_random_operations_with_a_state_of_their_own_are_left_alone(tmp_path, read):
    class Noise(layers.Layer):
        def call(self, inputs):
            return inputs + tf.random.normal(tf.shape(inputs), seed=1)

    expected = fit(network(Noise()))
    callback = NeuralDbgCallback(tmp_path, every=1)
    assert all(map(np.array_equal, fit(network(Noise()), callback), expected))
    reader = read(callback)
    assert reader.kinds() == ()
    assert reader.info().notices[0] == (
        "Nothing is recorded: the model draws random numbers with RandomStandardNormal, whose state lives in the "
        "compiled function, so that a second function would change training. Write keras.random with a SeedGenerator, "
        "or tf.random.stateless_*, in its place."
    )


def test_a_train_function_of_the_models_own_is_left_alone(tmp_path, read):
    class Own(keras.Sequential):
        def make_train_function(self, force=False):  # noqa: FBT002 - as Keras has it
            super().make_train_function(force)

    model = Own([keras.Input((4,)), layers.Dense(1)])
    model.compile("sgd", "mse")
    callback = NeuralDbgCallback(tmp_path)
    fit(model, callback)
    assert read(callback).info().notices[0] == (
        "Nothing is recorded: Own makes its own train function (make_train_function), and only Keras' own can be "
        "traced with taps in it. Override train_step in its place."
    )


def test_training_under_a_strategy_of_one_device_is_recorded_as_without(tmp_path, read):
    frames = []
    for strategy in (tf.distribute.get_strategy(), tf.distribute.OneDeviceStrategy("cpu:0")):
        keras.utils.set_random_seed(1)
        with strategy.scope():
            model = network()
        callback = NeuralDbgCallback(tmp_path, every=1)
        fit(model, callback)
        reader = read(callback)
        assert reader.info().notices == ()
        frames.append(reader.frame(reader.steps()[-1]))
    assert list(frames[0].matrices) == list(frames[1].matrices) != []
    for kind, matrix in frames[0].matrices.items():
        np.testing.assert_allclose(frames[1].matrices[kind], matrix, rtol=1e-6)
    assert frames[0].scalars["loss"] == frames[1].scalars["loss"]


def test_a_train_step_of_the_users_own_is_looked_into(tmp_path, read):
    class Own(keras.Sequential):
        def train_step(self, data):
            x, y = data
            with tf.GradientTape(persistent=True) as tape:
                loss = tf.reduce_mean(tf.square(self(x, training=True) - y))
            gradients = tape.gradient(loss, self.trainable_variables)
            self.optimizer.apply(gradients, self.trainable_variables)
            return {"loss": loss}

    model = Own([keras.Input((4,)), layers.Dense(1)])
    model.compile("sgd")
    callback = NeuralDbgCallback(tmp_path)
    fit(model, callback)
    reader = read(callback)
    assert set(reader.kinds()) == {"activations", "activation_gradients", "gradients", "weights", "updates"}
    assert not np.isnan(reader.matrix("activation_gradients", 0)).any()
    assert reader.info().notices == ()
    assert "loss" in reader.frame(0).scalars


def test_another_backend_is_told_what_is_missing(tmp_path, read, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "numpy")
    callback = NeuralDbgCallback(tmp_path)
    fit(network(), callback)
    (sentence,) = read(callback).info().notices
    assert sentence == (
        "Nothing is recorded: Keras runs on the numpy backend here, and layers and parameters are recorded on "
        f"{', '.join(backends._MODULES)}. Set the environment variable KERAS_BACKEND=tensorflow before Keras is "
        "imported."
    )
