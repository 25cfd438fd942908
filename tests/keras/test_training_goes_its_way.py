"""What a user's training does it does with ours too: errors, numbers of steps, Python state, own functions."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from neural_callbacks import NeuralDbgCallback, NeuralDbgLoop

NUMBERS = np.random.default_rng(6)
X = NUMBERS.normal(size=(40, 4)).astype("float32")
Y = X[:, :1]
OPTIONS = pytest.mark.parametrize("options", [{}, {"every": 1}, {"every": 100}], ids=["default", "each", "rare"])


def network(**options):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="relu"), layers.Dense(1)])
    model.compile("sgd", "mse", **options)
    return model


@OPTIONS
def test_an_error_of_the_users_data_comes_where_it_comes_without(options, tmp_path):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [keras.Input((6,), dtype="int32"), layers.Embedding(50, 32), layers.Flatten(), layers.Dense(10)]
    )
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    labels = NUMBERS.integers(0, 10, 80)
    labels[51] = 12
    callback = NeuralDbgCallback(tmp_path, **options)
    with pytest.raises(tf.errors.InvalidArgumentError):
        model.fit(np.ones((80, 6)), labels, batch_size=4, shuffle=False, verbose=0, callbacks=[callback])
    assert callback._watch.step == 51 // 4


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@OPTIONS
def test_an_execution_makes_as_many_steps_as_without(options, tmp_path):
    batches = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)
    for data, steps_an_epoch in ((batches.repeat(), 6), (batches.filter(lambda *_: True), None)):
        plain, watched = network(steps_per_execution=4), network(steps_per_execution=4)
        callback = NeuralDbgCallback(tmp_path, **options)
        fit = {"shuffle": False, "steps_per_epoch": steps_an_epoch, "epochs": 2, "verbose": 0}
        plain.fit(data, **fit)
        watched.fit(data, callbacks=[callback], **fit)
        assert int(watched.optimizer.iterations) == int(plain.optimizer.iterations) == callback._watch.step
        assert all(map(np.array_equal, watched.get_weights(), plain.get_weights()))


@pytest.mark.parametrize("options", [{"steps": [5]}, {"every": 7}, {}], ids=["late", "every", "default"])
def test_what_the_python_code_saw_at_the_first_step_counts_later_too(options, tmp_path):
    class Weighted(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense, self.weight_of_loss = layers.Dense(1), 0.0

        def call(self, inputs):
            return self.dense(inputs)

        def train_step(self, data):
            x, y = data
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(self(x, training=True) - y)) * (1 + self.weight_of_loss)
            variables = self.trainable_variables
            self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
            return {"loss": loss}

    def trained(*callbacks):
        keras.utils.set_random_seed(1)
        model = Weighted()
        model.compile("sgd")
        change = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, _: setattr(model, "weight_of_loss", epoch))
        model.fit(X, Y, batch_size=20, epochs=6, shuffle=False, verbose=0, callbacks=[change, *callbacks])
        return model.get_weights()

    assert all(map(np.array_equal, trained(NeuralDbgCallback(tmp_path, **options)), trained()))


def test_a_train_function_that_the_user_put_there_is_called(tmp_path, read):
    model = network()
    model.make_train_function()
    own, called = model.train_function, []
    model.train_function = lambda iterator: called.append(1) or own(iterator)
    callback = NeuralDbgCallback(tmp_path)
    model.fit(X, Y, batch_size=4, verbose=0, callbacks=[callback])
    assert len(called) == 10
    assert read(callback).info().notices[0].startswith("Nothing is recorded: Sequential makes its own train function")


def test_callbacks_driven_by_hand_meet_a_model_without_a_train_function(tmp_path):
    model = network()
    callbacks = keras.callbacks.CallbackList([NeuralDbgCallback(tmp_path, every=2)], model=model)
    callbacks.on_train_begin()
    for batch in range(4):
        callbacks.on_train_batch_begin(batch)
        model.train_on_batch(X[:4], Y[:4])
    callbacks.on_train_end()
    assert int(model.optimizer.iterations) == 4


def test_a_python_value_that_varies_is_traced_once_for_each(tmp_path, read):
    model, optimizer, traces = network(), keras.optimizers.SGD(), []

    @tf.function
    def train_step(x, y, flag):
        traces.append(flag)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(x, training=True) - y))
        variables = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    with NeuralDbgLoop(model, optimizer, tmp_path, every=1) as loop:
        watched = loop.watch(train_step)
        for number in range(12):
            watched(X[:4], Y[:4], flag=number % 2 == 0)
        once = len(traces)
        for number in range(12):
            watched(X[:4], Y[:4], flag=number % 2 == 0)
        assert len(traces) == once
        for number in range(12):
            watched(X[:4], Y[:4], flag=number)
    assert int(optimizer.iterations) == 36
    assert read(loop).info().notices[-1].startswith("Steps on batches of other kinds than the first 8 are not recorded")


def test_two_callbacks_say_that_one_of_them_sees_nothing(tmp_path, read):
    first, last = (NeuralDbgCallback(tmp_path, name, every=1) for name in ("first", "last"))
    network().fit(X, Y, batch_size=4, verbose=0, callbacks=[first, last])
    assert (len(read(first).steps()), len(read(last).steps())) == (0, 10)
    assert read(last).info().notices[0].startswith("Another observer was to watch the same steps of this model")
