"""Silent units and saturated values are those that numpy finds in the outputs computed by hand."""

import keras
import numpy as np
import pytest
from keras import layers

from neural_callbacks import NeuralDbgCallback
from neural_callbacks.keras import gears
from neural_callbacks.keras.activity import ON_A_DEVICE, Squashing, silent, squashing_of

NUMBERS = np.random.default_rng(8)
X = NUMBERS.normal(size=(6, 5, 5, 2)).astype("float32")
Y = NUMBERS.integers(0, 3, size=6)
NEAR = 0.95


def network(dtype="float32"):
    """Return a model whose first layer has two units that never fire and whose second has one."""
    keras.utils.set_random_seed(2)
    model = keras.Sequential(
        [
            keras.Input((5, 5, 2)),
            layers.Conv2D(4, 2, activation="relu", dtype=dtype),
            layers.Flatten(),
            layers.Dense(3),
            layers.ReLU(),
            layers.Dense(8, activation="tanh", kernel_initializer=keras.initializers.RandomNormal(stddev=9.0)),
            layers.Dense(7),
            layers.Activation("sigmoid"),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.layers[0].bias.assign([0.0, -99.0, 0.5, -99.0])
    model.layers[2].bias.assign([-99.0, 0.0, 0.0])
    model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    return model


def fit(model, tmp_path, **options):
    callback = NeuralDbgCallback(tmp_path, **options)
    model.fit(X, Y, batch_size=6, shuffle=False, verbose=0, callbacks=[callback])
    return callback


def outputs_of(model):
    values, found = X, []
    for layer in model.layers:
        values = layer(values)
        found.append(keras.ops.convert_to_numpy(keras.ops.cast(values, "float32")))
    return found


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_units_on_the_last_axis_and_values_near_a_bound_are_found(dtype, tmp_path, read):
    model = network(dtype)
    reader = read(fit(model, tmp_path, steps=[0]))
    outputs = outputs_of(model)
    expected = np.full((8, 4), np.nan)
    lists = []
    for layer in (0, 1, 3):
        by_unit = outputs[layer].reshape(-1, outputs[layer].shape[-1])
        (units,) = np.nonzero(by_unit.max(0) <= 0)
        expected[layer, :2] = by_unit.shape[1], len(units)
        lists += [(layer, unit) for unit in units]
    tanh, sigmoid, softmax = outputs[4], outputs[6], outputs[7]
    expected[4, 2:] = tanh.size, (np.abs(tanh) > NEAR).sum()
    expected[6, 2:] = sigmoid.size, (np.abs(2 * sigmoid - 1) > NEAR).sum()
    expected[7, 2:] = len(softmax), (softmax.max(1) > NEAR).sum()
    assert 0 < expected[4, 3] < tanh.size
    assert [unit for layer, unit in lists if layer == 0] == [1, 3]
    np.testing.assert_array_equal(reader.profile("activity", 0), expected)
    np.testing.assert_array_equal(reader.profile("silent_units", 0), lists)


def test_it_is_in_every_sampled_frame_and_not_only_in_those_with_a_profile(tmp_path, read):
    callback = NeuralDbgCallback(tmp_path, every=1)
    network().fit(X, Y, batch_size=2, verbose=0, callbacks=[callback])
    reader = read(callback)
    assert list(reader.profile_steps("activity")) == list(reader.profile_steps("silent_units")) == [0, 1, 2]
    assert list(reader.profile_steps("trace")) == [0]


def test_a_unit_that_fired_in_one_call_of_a_shared_layer_was_not_silent(tmp_path, read):
    inputs = keras.Input((2,))
    shared = layers.ReLU()
    hidden = layers.Concatenate()([shared(inputs), shared(-inputs)])
    model = keras.Model(inputs, layers.Dense(1)(hidden))
    model.compile("sgd", "mse")
    callback = NeuralDbgCallback(tmp_path, steps=[0])
    model.fit(np.array([[1.0, 0.0], [2.0, 0.0]]), np.zeros(2), verbose=0, callbacks=[callback])
    reader = read(callback)
    types = [layer.type for layer in reader.layers().layers]
    assert list(reader.profile("activity", 0)[types.index("ReLU")][:2]) == [2, 1]
    assert [types.index("ReLU"), 1] in reader.profile("silent_units", 0).tolist()


def test_where_nothing_is_judged_there_is_no_profile(tmp_path, read):
    model = keras.Sequential([keras.Input((5, 5, 2)), layers.Flatten(), layers.Dense(3)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    reader = read(fit(model, tmp_path, steps=[0]))
    assert list(reader.profile_steps("activity")) == []


def test_on_a_device_it_is_left_out_and_said_so(tmp_path, read, monkeypatch):
    monkeypatch.setattr(gears, "has_accelerator", lambda: True)
    reader = read(fit(network(), tmp_path, steps=[0]))
    assert list(reader.profile_steps("activity")) == []
    assert ON_A_DEVICE in reader.info().notices


@pytest.mark.parametrize("units", [1, 3, 700, 5000])
def test_silent_units_of_any_width(units):
    values = np.maximum(NUMBERS.normal(size=(31, units)), 0).astype("float32")
    values[:, :: max(1, units // 3)] = 0
    values[-1, 0] = np.nan  # what is not a number is not silent
    expected = ~((values != 0).any(0))
    assert expected.any() == (units > 1)
    np.testing.assert_array_equal(silent(values.reshape(31, 1, units)), expected)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (layers.Activation("tanh"), Squashing("tanh")),
        (layers.Conv1D(2, 2, activation="sigmoid"), Squashing("sigmoid")),
        (layers.Softmax(axis=1), Squashing("softmax", (1,))),
        (layers.Softmax(axis=[1, 2]), Squashing("softmax", (1, 2))),
        (layers.Dense(2), None),
        (layers.Activation("relu"), None),
        (layers.LSTM(2), None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_squashes(layer, expected):
    assert squashing_of(layer) == expected
