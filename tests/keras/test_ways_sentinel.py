"""What is not finite is recorded at the step where it arises, with where it arose; what scaling makes so is not."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from neural_callbacks import NeuralDbgCallback

X = np.random.default_rng(2).normal(size=(20, 4)).astype("float32")
Y = X[:, :1]
AT = 3  # the step at which something is planted; there are five


class Counting(layers.Layer):
    """Counts its calls in training, and plants something at one of them."""

    def build(self, _shape):
        self.steps = self.add_weight(shape=(), initializer="zeros", dtype="int32", trainable=False, name="steps")

    def call(self, inputs):
        self.steps.assign(self.steps + 1)
        return self.planted(inputs, tf.equal(self.steps.value, AT + 1))


class DividesByZero(Counting):
    def planted(self, inputs, is_now):
        return inputs / tf.where(is_now, 0.0, 1.0)


class BreaksGradients(Counting):
    def planted(self, inputs, is_now):
        @tf.custom_gradient
        def passing(x):
            return tf.identity(x), lambda gradient: gradient * tf.where(is_now, np.nan, 1.0)

        return passing(inputs)


def network(*middle):
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(3, name="first"),
            *middle,
            layers.Dense(3, activation="tanh", name="second"),
            layers.Dense(1, name="third"),
        ]
    )
    model.compile(keras.optimizers.SGD(0.01), "mse")
    return model


def through_the_data():
    x = X.copy()
    x[AT * 4 + 1, 2] = np.inf
    return network(), x


def through_a_layer():
    return network(DividesByZero(name="divides")), X


def in_the_gradient_only():
    return network(BreaksGradients(name="breaks")), X


FORWARD = {
    through_the_data: ["first", "second", "third"],
    through_a_layer: ["divides", "second", "third"],
    in_the_gradient_only: [],
}


@pytest.mark.parametrize("steps", [[0], [0, AT]], ids=["between the samples", "sampled"])
@pytest.mark.parametrize("plant", FORWARD)
def test_it_is_recorded_where_it_arises_and_once(plant, steps, tmp_path, read):
    keras.utils.set_random_seed(1)
    model, x = plant()
    callback = NeuralDbgCallback(tmp_path, steps=steps)
    model.fit(x, Y, batch_size=4, shuffle=False, verbose=0, callbacks=[callback])
    reader = read(callback)
    assert reader.steps().tolist() == steps
    assert reader.anomaly_steps().tolist() == [AT]  # the weights stay broken: one episode
    found = reader.anomalies_at(AT)
    table = reader.layers()
    names = {place: [] for place in ("forward", "loss", "backward", "parameter")}
    for one in found:
        names[one.place].append(None if one.layer is None else table.layers[one.layer].own_name)
    assert [one.place for one in found] == [place for place, of in names.items() for _ in of]
    assert names["forward"] == FORWARD[plant]
    assert names["loss"] == ([None] if FORWARD[plant] else [])
    if plant is in_the_gradient_only:
        assert names["backward"] == ["first"]
        assert names["parameter"] == ["first", "first"]
    else:
        assert names["backward"][0] == "third"
        assert set(names["parameter"]) == {"first", "second", "third"}


def scaled(scale):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="first"), layers.Dense(1, name="second")])
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.01), initial_scale=scale), "mse")
    return model


@pytest.mark.parametrize("steps", [[4], [0, 4], [0, 1, 4]])
def test_steps_that_the_loss_scale_skips_count_and_are_marked(steps, tmp_path, read):
    model = scaled(2.0**127)
    before = model.get_weights()
    callback = NeuralDbgCallback(tmp_path, steps=steps)
    skipped = []
    log = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: (  # noqa: ARG005 - as Keras calls it
            skipped.append(batch) if all(map(np.array_equal, before, model.get_weights())) else None
        )
    )
    model.fit(X, Y, batch_size=4, shuffle=False, verbose=0, callbacks=[callback, log])
    assert skipped == list(range(len(skipped)))
    assert skipped
    reader = read(callback)
    assert reader.scalar_steps("skipped").tolist() == skipped
    assert reader.steps().tolist() == steps
    assert reader.anomaly_steps().tolist() == []
    assert reader.steps("updates").tolist() == [step for step in steps if step not in skipped]


def test_what_is_not_finite_on_the_way_forward_is_told_of_in_a_skipped_step_too(tmp_path, read):
    x = X.copy()
    x[AT * 4] = np.nan
    callback = NeuralDbgCallback(tmp_path, steps=[0])
    model = scaled(2.0)
    model.fit(x, Y, batch_size=4, shuffle=False, verbose=0, callbacks=[callback])
    reader = read(callback)
    assert reader.scalar_steps("skipped").tolist() == [AT]
    assert [(one.place, one.layer) for one in reader.anomalies_at(AT)] == [
        ("forward", 0),
        ("forward", 1),
        ("loss", None),
    ]
