"""A rehearsed step leaves nothing behind: training is the same to the last bit, and so is all that can be looked at."""

import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from neural_callbacks import NeuralDbgCallback
from neural_callbacks.keras import profile, rehearsal
from neural_callbacks.keras.profile import NOTHING, PROFILE, Profiler

NUMBERS = np.random.default_rng(4)
X = NUMBERS.normal(size=(20, 6, 6, 2)).astype("float32")
LABELS = NUMBERS.integers(0, 3, size=20)
STEPS = 5  # of 4 rows
EVERY_STEP = range(STEPS)
LOSS = "sparse_categorical_crossentropy"


def convolution(optimizer="adam", **options):
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(3, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.Dropout(0.3),
            layers.Flatten(),
            layers.Dense(3, activation="softmax", activity_regularizer="l2"),
        ]
    )
    model.compile(optimizer, LOSS, metrics=["accuracy"], **options)
    return model


def compiled_by_xla():
    return convolution(jit_compile=True)


def recurrent():
    model = keras.Sequential(
        [keras.Input((6, 6, 2)), layers.Reshape((6, 12)), layers.LSTM(4, dropout=0.2), layers.Dense(3)]
    )
    model.compile("rmsprop", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def scaled():
    # The first gradients overflow in float16, so that the scale is halved and no step made.
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Flatten(),
            layers.Dense(4, activation="relu", dtype="mixed_float16"),
            layers.Dense(3, activation="softmax", dtype="float32"),
        ]
    )
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(), initial_scale=2.0**20)
    model.compile(optimizer, LOSS)
    return model


def accumulating():
    return convolution(keras.optimizers.SGD(0.1, momentum=0.9, gradient_accumulation_steps=2))


def averaging():
    return convolution(keras.optimizers.Adam(use_ema=True, ema_overwrite_frequency=2))


class Two(keras.Model):
    """Two networks with an optimizer each, a state of the user's own and a random generator of TensorFlow's."""

    def __init__(self):
        super().__init__()
        self.first = keras.Sequential([layers.Flatten(), layers.Dense(5, activation="relu")])
        self.second = layers.Dense(1)
        self.other = keras.optimizers.Adam(0.01)
        self.seen = tf.Variable(0, trainable=False)
        self.generator = tf.random.Generator.from_seed(5)

    def call(self, inputs):
        return self.second(self.first(inputs))

    def train_step(self, data):
        x, labels = data
        self.seen.assign_add(1)
        noise = self.generator.normal(tf.shape(x), stddev=0.1)
        for network, optimizer in ((self.first, self.other), (self.second, self.optimizer)):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(self(x + noise) - tf.cast(labels[:, None], tf.float32)))
            weights = network.trainable_variables
            optimizer.apply(tape.gradient(loss, weights), weights)
        return {"loss": loss}


def two_optimizers():
    model = Two()
    model(X[:1])
    model.compile(keras.optimizers.SGD(0.1))
    return model


def train(build, callbacks):
    """Return all variables after training, what each batch logged, and the state of the random streams."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(3)
    model = build()
    batches = []
    log = keras.callbacks.LambdaCallback(on_train_batch_end=lambda _, logs: batches.append(sorted(logs.items())))
    model.fit(X, LABELS, batch_size=4, verbose=0, callbacks=[log, *callbacks])
    return values(model), batches, random.random(), np.random.rand()  # noqa: NPY002, S311 - the global streams


def values(model):
    optimizers = [model.optimizer, *([model.other] if isinstance(model, Two) else [])]
    held = [*model.variables, *model.metrics_variables, *(v for one in optimizers for v in one.variables)]
    own = [model.seen, model.generator.state] if isinstance(model, Two) else []
    return [np.asarray(v.value) for v in held] + [v.numpy() for v in own]


def same(one, other):
    return one[1:] == other[1:] and len(one[0]) == len(other[0]) and all(map(np.array_equal, one[0], other[0]))


MODELS = [convolution, recurrent, scaled, accumulating, averaging, two_optimizers]


@pytest.mark.parametrize("build", MODELS, ids=lambda build: build.__name__)
@pytest.mark.usefixtures("deterministic")
def test_training_is_the_same_to_the_last_bit_with_a_profile_of_every_step(build, tmp_path, read):
    callback = NeuralDbgCallback(tmp_path, steps=EVERY_STEP)
    assert same(train(build, []), train(build, [callback]))
    assert list(read(callback).profile_steps("trace")) == list(EVERY_STEP)


def test_training_compiled_by_xla_is_the_same_with_and_without_a_rehearsal(tmp_path, read, monkeypatch):
    # Against the step with taps: of convolutions with batch normalization, XLA makes other code where there are taps.
    callback = NeuralDbgCallback(tmp_path, steps=EVERY_STEP)
    with_profile = train(compiled_by_xla, [callback])
    assert list(read(callback).profile_steps("trace")) == list(EVERY_STEP)
    monkeypatch.setattr(Profiler, "rehearse", lambda *_: NOTHING)
    assert same(train(compiled_by_xla, [NeuralDbgCallback(tmp_path, steps=EVERY_STEP)]), with_profile)


@pytest.mark.usefixtures("deterministic")
def test_a_rehearsal_that_is_not_taken_back_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(rehearsal._Variables, "put_back", lambda _self: None)
    assert not same(train(convolution, []), train(convolution, [NeuralDbgCallback(tmp_path, steps=EVERY_STEP)]))


def streams():
    """Return the state of the random streams that everybody shares."""
    kind, keys, *more = np.random.get_state()  # noqa: NPY002 - the global stream
    return random.getstate(), (kind, keys.tolist(), *more)


def attributes_of(model):
    """Return what every layer, metric and optimizer of Keras holds, by identity."""
    owners = [*model._flatten_layers(), *model.metrics, model.optimizer]
    held = {(id(owner), name): value for owner in owners for name, value in vars(owner).items()}
    contents = {
        key: [id(x) for x in (value.values() if isinstance(value, dict) else value)]
        for key, value in held.items()
        if isinstance(value, (list, set, dict))
    }
    return {key: id(value) for key, value in held.items()}, contents


class AtRehearsals:
    """Notes what a model holds before and after each rehearsal, and may interrupt one in its middle."""

    def __init__(self, monkeypatch, model, error=None):
        self.pairs = []
        self.model = model
        rehearse, finish = Profiler._rehearsed, profile._Profile.finish

        def noted(profiler, *args):
            before = values(model), attributes_of(model), streams()
            try:
                return rehearse(profiler, *args)
            finally:
                self.pairs.append((before, (values(model), attributes_of(model), streams())))

        def finished(one, catalog):
            if error is not None:
                raise error
            return finish(one, catalog)

        monkeypatch.setattr(Profiler, "_rehearsed", noted)
        monkeypatch.setattr(profile._Profile, "finish", finished)

    def assert_nothing_changed(self):
        for before, after in self.pairs:
            assert all(map(np.array_equal, before[0], after[0]))
            assert before[1:] == after[1:]


def counting():
    """A model whose layer keeps state in Python, as users' layers do."""

    class Counting(layers.Layer):
        def __init__(self):
            super().__init__()
            self.calls, self.seen, self.names = 0, [], {}

        def call(self, inputs):
            self.calls += 1
            self.seen.append(self.calls)
            self.names[self.calls] = inputs
            self.add_loss(keras.ops.mean(inputs))
            return inputs

    model = keras.Sequential([keras.Input((6, 6, 2)), layers.Flatten(), Counting(), layers.Dense(3)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model


@pytest.mark.parametrize("build", [convolution, counting], ids=lambda build: build.__name__)
def test_python_side_state_is_as_before(build, tmp_path, monkeypatch):
    model = build()
    at_rehearsals = AtRehearsals(monkeypatch, model)
    model.fit(X, LABELS, batch_size=4, verbose=0, callbacks=[NeuralDbgCallback(tmp_path, steps=[0, 1])])
    assert len(at_rehearsals.pairs) == 2
    at_rehearsals.assert_nothing_changed()


def test_a_step_that_draws_from_the_global_random_streams_is_not_rehearsed(tmp_path, read):
    class Drawing(layers.Layer):
        def call(self, inputs):
            return inputs * np.random.rand()  # noqa: NPY002 - the global stream

    model = keras.Sequential([keras.Input((6, 6, 2)), Drawing(), layers.Flatten(), layers.Dense(3)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    callback = NeuralDbgCallback(tmp_path, steps=[0])
    model.fit(X, LABELS, batch_size=4, verbose=0, callbacks=[callback])
    reader = read(callback)
    assert not list(reader.profile_steps("trace"))
    assert (
        "Times, memory and FLOPs are not recorded: for them the step runs once more, and its code draws from Python's "
        "or numpy's global random stream."
    ) in reader.info().notices


def test_a_failure_is_taken_back_and_training_goes_on(tmp_path, read, monkeypatch):
    model = convolution()
    error = tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")
    at_rehearsals = AtRehearsals(monkeypatch, model, error)
    callback = NeuralDbgCallback(tmp_path, steps=EVERY_STEP)
    model.fit(X, LABELS, batch_size=4, verbose=0, callbacks=[callback])
    assert len(at_rehearsals.pairs) == 1
    at_rehearsals.assert_nothing_changed()
    reader = read(callback)
    assert (list(reader.steps()), list(reader.profile_steps("trace"))) == (list(EVERY_STEP), [])
    (notice,) = [x for x in reader.info().notices if PROFILE in x]
    assert notice == (
        "NeuralDbg switched the profile off after an error, training goes on: ResourceExhaustedError: OOM when "
        "allocating."
    )


def test_an_interrupt_is_taken_back_and_passed_on(tmp_path, monkeypatch):
    model = convolution()
    at_rehearsals = AtRehearsals(monkeypatch, model, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, LABELS, batch_size=4, verbose=0, callbacks=[NeuralDbgCallback(tmp_path)])
    at_rehearsals.assert_nothing_changed()
    assert "train_step" not in vars(model)


def test_an_interrupt_while_it_is_taken_back_does_not_leave_it_half_done(tmp_path, monkeypatch):
    model = convolution()
    at_rehearsals = AtRehearsals(monkeypatch, model)
    put_back, interrupted = rehearsal._Attributes.put_back, []

    def interrupting(attributes):
        if len(interrupted) < 2:  # after the unmeasured run, and at the end
            interrupted.append(True)
            raise KeyboardInterrupt
        put_back(attributes)

    monkeypatch.setattr(rehearsal._Attributes, "put_back", interrupting)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, LABELS, batch_size=4, verbose=0, callbacks=[NeuralDbgCallback(tmp_path)])
    assert len(interrupted) == 2
    at_rehearsals.assert_nothing_changed()


class WithEffect(layers.Layer):
    """A layer that does in each step what nobody can take back."""

    def __init__(self, effect):
        super().__init__()
        self.effect = effect

    def call(self, inputs):
        self.effect(inputs)
        return inputs


def printing(inputs):
    tf.print(tf.shape(inputs), output_stream="file:///dev/null")


def calling_python(inputs):
    tf.py_function(lambda _: None, [inputs], [])


@pytest.mark.parametrize(
    ("effect", "operation"), [(printing, "PrintV2"), (calling_python, "EagerPyFunc")], ids=["print", "py_function"]
)
def test_a_step_with_other_effects_is_not_rehearsed(effect, operation, tmp_path, read, monkeypatch):
    model = keras.Sequential([keras.Input((6, 6, 2)), WithEffect(effect), layers.Flatten(), layers.Dense(3)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    at_rehearsals = AtRehearsals(monkeypatch, model)
    callback = NeuralDbgCallback(tmp_path, steps=[0, 1])
    model.fit(X, LABELS, batch_size=4, verbose=0, callbacks=[callback])
    reader = read(callback)
    assert not at_rehearsals.pairs
    assert (list(reader.steps()), list(reader.profile_steps("trace"))) == ([0, 1], [])
    assert (
        "Times, memory and FLOPs are not recorded: for them the step runs once more, and what it does with "
        f"{operation} could not be taken back."
    ) in reader.info().notices


@pytest.mark.usefixtures("deterministic")
def test_a_step_under_a_strategy_of_one_device_is_rehearsed_as_without(tmp_path, read):
    def trained(*callbacks):
        keras.utils.set_random_seed(1)
        with tf.distribute.OneDeviceStrategy("/cpu:0").scope():
            model = convolution()
        model.fit(X, LABELS, batch_size=4, shuffle=False, verbose=0, callbacks=list(callbacks))
        return model.get_weights()

    callback = NeuralDbgCallback(tmp_path, steps=[0, 1])
    assert all(map(np.array_equal, trained(callback), trained()))
    assert list(read(callback).profile_steps("trace")) == [0, 1]


def test_operations_whose_effects_cannot_be_taken_back_are_known():
    harmless = ["AssignAddVariableOp", "Conv2D", "ResourceScatterAdd", "StatefulPartitionedCall", "VariableShape"]
    effective = [
        *("EagerPyFunc", "IteratorGetNext", "LookupTableInsertV2", "MadeUpByALibrary", "PyFunc", "QueueEnqueueV2"),
        *("RandomUniform", "TensorArrayV3", "VarHandleOp", "WriteFile", "WriteScalarSummary"),
    ]
    assert rehearsal.effects([*harmless, *effective]) == effective


def test_a_step_that_runs_eagerly_is_looked_at_itself(tmp_path, read, monkeypatch):
    model = convolution(run_eagerly=True)
    at_rehearsals = AtRehearsals(monkeypatch, model)
    calls = []
    monkeypatch.setattr(layers.Flatten, "call", lambda _, x: calls.append(1) or keras.ops.reshape(x, (len(x), -1)))
    callback = NeuralDbgCallback(tmp_path, steps=EVERY_STEP)
    model.fit(X, LABELS, batch_size=4, verbose=0, callbacks=[callback])
    assert not at_rehearsals.pairs
    assert len(calls) == STEPS
    assert list(read(callback).profile_steps("trace")) == list(EVERY_STEP)


@pytest.mark.usefixtures("deterministic")
def test_looking_at_an_eager_step_changes_nothing(tmp_path, read):
    def build():
        return convolution(run_eagerly=True)

    callback = NeuralDbgCallback(tmp_path, steps=EVERY_STEP)
    assert same(train(build, []), train(build, [callback]))
    assert list(read(callback).profile_steps("trace")) == list(EVERY_STEP)
