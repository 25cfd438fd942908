"""What a session holds of a step is what numpy makes of tensors that were computed by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from neural.session.histogram import reference_counts
from neural.session.statistics import COUNT, reference_row
from neural_callbacks import NeuralDbgCallback
from neural_callbacks.keras import gears

NUMBERS = np.random.default_rng(5)
X = NUMBERS.normal(size=(12, 6, 6, 2)).astype("float32")
LABELS = NUMBERS.integers(0, 4, size=12)


def network(optimizer, **options):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(3, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(4, activation="softmax"),
        ]
    )
    model.compile(optimizer, "sparse_categorical_crossentropy", **options)
    return model


def by_hand(model, x, labels):
    """Return outputs and their gradients layer by layer (the last gradient by the logits), weights and theirs."""
    convolution, _, head = model.layers
    weights = [v.value for v in model.trainable_variables]
    kernel, bias, head_kernel, head_bias = weights
    with tf.GradientTape() as tape:
        hidden = tf.nn.relu(tf.nn.conv2d(x, kernel, 1, "VALID") + bias)
        flat = tf.reshape(hidden, [len(x), -1])
        logits = flat @ head_kernel + head_bias
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
    gradients = tape.gradient(loss, [hidden, flat, logits, *weights])
    assert (convolution.kernel.value is kernel, head.bias.value is head_bias) == (True, True)
    outputs = [hidden, flat, tf.nn.softmax(logits)]
    arrays = [[x.numpy() for x in group] for group in (outputs, gradients[:3], weights, gradients[3:])]
    return (*arrays, float(loss))


def assert_measured(reader, kind, step, arrays):
    rows, histograms = reader.matrix(kind, step), reader.histograms(kind, step)
    assert len(rows) == len(arrays)
    for number, array in enumerate(arrays):
        np.testing.assert_allclose(rows[number], reference_row(array), rtol=1e-4, atol=1e-6, err_msg=f"{kind} {number}")
        # Two ways to compute a value may leave it on either side of a bin's edge.
        moved = np.abs(histograms.row(number) - reference_counts(array)).sum()
        assert moved <= 0.02 * array.size + 4, (kind, number)


@pytest.mark.parametrize("accelerator", [False, True], ids=["numpy", "TensorFlow"])
@pytest.mark.parametrize("xla", [False, True], ids=["graph", "XLA"])
def test_a_step_is_measured_as_by_hand(xla, accelerator, tmp_path, read, monkeypatch):
    monkeypatch.setattr(gears, "has_accelerator", lambda: accelerator)
    model = network(keras.optimizers.SGD(0.5), jit_compile=xla)
    outputs, output_gradients, weights, gradients, loss = by_hand(model, X, LABELS)
    callback = NeuralDbgCallback(tmp_path)
    model.fit(X, LABELS, batch_size=12, shuffle=False, verbose=0, callbacks=[callback])
    reader = read(callback)
    assert_measured(reader, "activations", 0, outputs)
    assert_measured(reader, "activation_gradients", 0, output_gradients)
    assert_measured(reader, "weights", 0, weights)
    assert_measured(reader, "gradients", 0, gradients)
    updates = [after - before for after, before in zip(model.get_weights(), weights, strict=True)]
    assert_measured(reader, "updates", 0, updates)
    scalars = reader.frame(0).scalars
    assert scalars["loss"] == pytest.approx(loss, rel=1e-5)
    norm = np.sqrt(sum(np.sum(np.square(gradient, dtype="float64")) for gradient in gradients))
    assert scalars["gradient_norm"] == pytest.approx(norm, rel=1e-5)


def test_the_loss_is_the_steps_own_and_the_last_batch_may_be_smaller(tmp_path, read):
    callback = NeuralDbgCallback(tmp_path, steps=[0, 1, 2])
    model = network(keras.optimizers.SGD(0.0))
    model.fit(X, LABELS, batch_size=5, shuffle=False, verbose=0, callbacks=[callback])
    reader = read(callback)
    for step, rows in enumerate((slice(0, 5), slice(5, 10), slice(10, 12))):
        outputs, *_, loss = by_hand(model, X[rows], LABELS[rows])
        assert reader.frame(step).scalars["loss"] == pytest.approx(loss, rel=1e-5)
        assert_measured(reader, "activations", step, outputs)


def test_loss_scaling_is_taken_out_of_the_gradients(tmp_path, read):
    frames = []
    for optimizer in (keras.optimizers.SGD(0.1), keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1))):
        callback = NeuralDbgCallback(tmp_path)
        network(optimizer).fit(X, LABELS, batch_size=12, shuffle=False, verbose=0, callbacks=[callback])
        frames.append(read(callback).frame(0))
    for kind in ("gradients", "activation_gradients", "updates"):
        np.testing.assert_allclose(frames[0].matrices[kind], frames[1].matrices[kind], rtol=1e-3, atol=1e-6)


def test_an_embeddings_sparse_gradient_is_measured_spread_out(tmp_path, read):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [keras.Input((2,), dtype="int32"), layers.Embedding(7, 3), layers.Flatten(), layers.Dense(1)]
    )
    model.compile(keras.optimizers.SGD(1.0), "mse")
    words = np.array([[0, 1], [1, 1], [5, 0]])
    callback = NeuralDbgCallback(tmp_path)
    before = model.layers[0].get_weights()[0]
    model.fit(words, np.ones(3), batch_size=3, verbose=0, callbacks=[callback])
    gradient = before - model.layers[0].get_weights()[0]
    row = read(callback).matrix("gradients", 0)[0]
    np.testing.assert_allclose(row, reference_row(gradient), rtol=1e-4, atol=1e-6)


def test_calls_of_a_shared_layer_and_several_outputs_make_one_row(tmp_path, read):
    class Pair(layers.Layer):
        def call(self, inputs):
            return {"double": 2 * inputs, "sign": inputs > 0, "half": inputs / 2}

    inputs = keras.Input((4,))
    shared = layers.Dense(4)
    pair = Pair()(shared(shared(inputs)))
    model = keras.Model(inputs, pair["double"] + pair["half"])
    model.compile("sgd", "mse")
    x = NUMBERS.normal(size=(3, 4)).astype("float32")
    once = x @ shared.get_weights()[0]
    twice = once @ shared.get_weights()[0]
    callback = NeuralDbgCallback(tmp_path)
    model.fit(x, x, verbose=0, callbacks=[callback])
    reader = read(callback)
    rows = reader.matrix("activations", 0)
    np.testing.assert_allclose(rows[0], reference_row([once, twice]), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(rows[1], reference_row([2 * twice, twice / 2]), rtol=1e-4, atol=1e-6)
    histograms = reader.histograms("activations", 0)
    np.testing.assert_array_equal(histograms.row(1), reference_counts([2 * twice, twice / 2]))


def test_what_training_does_not_compute_is_not_measured(tmp_path, read):
    inputs = keras.Input((4,))
    base = keras.Sequential(
        [layers.Dense(4, name="first"), layers.Dense(4, name="second", use_bias=False)], name="base"
    )
    base.trainable = False
    model = keras.Model(inputs, layers.Dense(1, use_bias=False)(base(inputs)))
    model.compile("sgd", "mse")
    callback = NeuralDbgCallback(tmp_path)
    model.fit(np.ones((3, 4)), np.ones(3), verbose=0, callbacks=[callback])
    reader = read(callback)
    assert [parameter.trainable for parameter in reader.layers().parameters] == [False, False, False, True]
    assert list(np.isnan(reader.matrix("gradients", 0)[:, COUNT])) == [True, True, True, False]
    assert list(np.isnan(reader.matrix("updates", 0)[:, COUNT])) == [True, True, True, False]
    assert not np.isnan(reader.matrix("weights", 0)[:, COUNT]).any()
    assert list(np.isnan(reader.matrix("activation_gradients", 0)[:, COUNT])) == [True, True, False]
    assert reader.info().notices == (
        "Training needs no gradient by the outputs of base/first, base/second, so none is recorded.",
    )
