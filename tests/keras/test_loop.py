"""A loop of one's own is watched as `fit` is: the same rows, and training the same to the last bit."""

import gc

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from neural.session.reader import SessionReader
from neural.session.statistics import reference_row
from neural_callbacks import NeuralDbgLoop

X = np.random.default_rng(4).normal(size=(8, 4)).astype("float32")
Y = X[:, :1]
KINDS = {"activations", "activation_gradients", "gradients", "weights", "updates"}


def network():
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [keras.Input((4,)), layers.Dense(5, activation="relu"), layers.Dropout(0.2), layers.Dense(1)]
    )


def squares(model, optimizer):
    """Return a train step with a condition on a tensor, which needs a graph's own way to branch."""

    def train_step(x, y, weight=1.0):
        with tf.GradientTape() as tape:
            loss = weight * tf.reduce_mean(tf.square(model(x, training=True) - y))
            if loss > 1e9:
                loss *= 0.0
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    return train_step


def compiled(train_step):
    return tf.function(train_step)


def compiled_by_xla(train_step):
    return tf.function(train_step, jit_compile=True)


def with_a_signature(train_step):
    return tf.function(train_step, input_signature=[tf.TensorSpec([None, 4]), tf.TensorSpec([None, 1])])


def eager(train_step):
    return train_step


def train(model, train_step, sizes=(8, 8, 6, 8, 4)):
    losses = [float(train_step(X[:size], Y[:size])) for size in sizes]
    return [*model.get_weights(), np.array(losses)]


WAYS = pytest.mark.parametrize("way", [compiled, compiled_by_xla, with_a_signature, eager])


@WAYS
@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.usefixtures("deterministic")
def test_a_train_step_of_ones_own_is_recorded_and_stays_the_same(way, every, tmp_path, read):
    model = network()
    expected = train(model, way(squares(model, keras.optimizers.Adam())))
    model, optimizer = network(), keras.optimizers.Adam()
    with NeuralDbgLoop(model, optimizer, tmp_path, every=every) as loop:
        found = train(model, loop.watch(way(squares(model, optimizer))))
    assert all(map(np.array_equal, found, expected))
    reader = read(loop)
    assert list(reader.steps()) == list(range(0, 5, every))
    assert set(reader.kinds()) == KINDS
    assert reader.info().notices == ()
    losses = [reader.frame(step).scalars["loss"] for step in reader.steps()]
    np.testing.assert_allclose(losses, expected[-1][::every], rtol=1e-6)


def test_rows_are_those_of_the_step(tmp_path, read):
    model, optimizer = network(), keras.optimizers.SGD(0.5)
    before = model.get_weights()
    with NeuralDbgLoop(model, optimizer, tmp_path, every=1) as loop:
        train(model, loop.watch(compiled(squares(model, optimizer))), sizes=(8,))
    reader = read(loop)
    updates = [after - was for after, was in zip(model.get_weights(), before, strict=True)]
    for row, update in zip(reader.matrix("updates", 0), updates, strict=True):
        np.testing.assert_allclose(row, reference_row(update), rtol=1e-4, atol=1e-7)
    for row, update in zip(reader.matrix("gradients", 0), updates, strict=True):
        np.testing.assert_allclose(row, reference_row(-2 * update), rtol=1e-3, atol=1e-6)


def test_each_optimizer_has_its_loss(tmp_path, read):
    class Pair(keras.Model):
        def __init__(self):
            super().__init__()
            self.one, self.other = layers.Dense(3), layers.Dense(1)

        def call(self, inputs):
            return self.other(self.one(inputs))

    model = Pair()
    model(X)
    first, last = keras.optimizers.SGD(0.1), keras.optimizers.SGD(0.1)

    @tf.function
    def train_step(x, y):
        with tf.GradientTape(persistent=True) as tape:
            low = tf.reduce_mean(tf.square(model(x) - y))
            high = 3 * low + 1
        for loss, optimizer, layer in ((low, first, model.one), (high, last, model.other)):
            variables = layer.trainable_variables
            optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return low

    with NeuralDbgLoop(model, [first, last], tmp_path, every=1) as loop:
        low = float(loop.watch(train_step)(X, Y))
    scalars = read(loop).frame(0).scalars
    assert (scalars["loss_1"], scalars["loss_2"]) == pytest.approx((low, 3 * low + 1))
    assert "loss" not in scalars
    assert not np.isnan(read(loop).matrix("updates", 0)).any()


@pytest.mark.usefixtures("deterministic")
def test_train_on_batch_needs_no_more(tmp_path, read):
    def trained(*loop):
        model = network()
        model.compile("adam", "mse", metrics=["mae"])
        with loop[0](model) if loop else tf.name_scope("plain"):
            logs = [model.train_on_batch(X[:size], Y[:size], return_dict=True) for size in (8, 8, 6, 8)]
        assert "train_on_batch" not in vars(model)
        return logs, model.get_weights()

    loops = []

    def watching(model):
        loops.append(NeuralDbgLoop(model, log_dir=tmp_path, every=2))
        return loops[0]

    logs, weights = trained()
    watched_logs, watched_weights = trained(watching)
    assert watched_logs == logs
    assert all(map(np.array_equal, watched_weights, weights))
    reader = read(loops[0])
    assert list(reader.steps()) == [0, 2]
    assert set(reader.kinds()) == KINDS
    assert reader.frame(2).scalars["loss"] == pytest.approx(logs[2]["loss"], rel=1e-6)


def test_what_is_not_finite_between_the_samples_is_found(tmp_path, read):
    model, optimizer = network(), keras.optimizers.SGD(0.1)
    with NeuralDbgLoop(model, optimizer, tmp_path, steps=[0]) as loop:
        step = loop.watch(compiled(squares(model, optimizer)))
        for number in range(5):
            step(X * (np.inf if number == 3 else 1), Y)
    reader = read(loop)
    assert list(reader.anomaly_steps()) == [3]
    first = reader.anomalies_at(3)[0]
    assert (first.place, first.layer) == ("forward", 0)


def test_outside_of_the_block_nothing_is_watched(tmp_path, read):
    model, optimizer = network(), keras.optimizers.SGD(0.1)
    loop = NeuralDbgLoop(model, optimizer, tmp_path, "run", every=1)
    step = loop.watch(compiled(squares(model, optimizer)))
    assert loop.directory is None
    step(X, Y)
    with loop:
        step(X, Y)
    step(X, Y)
    assert list(read(loop).steps()) == [0]
    with loop:
        step(X, Y)
        step(X, Y)
    assert loop.directory == tmp_path / "run-2" / "neuraldbg"
    assert list(read(loop).steps()) == [0, 1]


def test_an_error_ends_the_session_as_failed_and_a_loop_that_is_dropped_is_closed(tmp_path, read):
    model, optimizer = network(), keras.optimizers.SGD(0.1)
    loop = NeuralDbgLoop(model, optimizer, tmp_path, "failed")
    with pytest.raises(ValueError, match="Dimensions must be equal"), loop:
        loop.watch(compiled(squares(model, optimizer)))(X, Y[:3])
    assert read(loop).info().status == "failed"
    loop = NeuralDbgLoop(model, optimizer, tmp_path, "dropped").attach()
    directory = loop.directory
    del loop
    gc.collect()
    reader = SessionReader(directory)
    reader.refresh()
    assert reader.info().status == "finished"


def test_what_it_cannot_watch_is_said(tmp_path):
    model = network()
    with pytest.raises(TypeError, match=r"^NeuralDbgLoop watches a keras.Model, not list; write NeuralDbgLoop\(model"):
        NeuralDbgLoop([model])
    with pytest.raises(TypeError, match=r"^The optimizer is a str, not a keras.optimizers.Optimizer; write"):
        NeuralDbgLoop(model, "adam")
    loop = NeuralDbgLoop(model, keras.optimizers.SGD(), tmp_path)
    loop.watch(len)
    with pytest.raises(ValueError, match=r"^NeuralDbgLoop watches one function already"):
        loop.watch(len)
