"""The profiles of a step: which spans there are, whose time they take, and what the layers hold."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from neural.session.frame import BACKWARD, FORWARD, OPTIMIZER, STEP, WHOLE_MODEL
from neural_callbacks import NeuralDbgCallback
from neural_callbacks.keras import listening, memory, profile
from neural_callbacks.keras.memory import LayerMemory, MemoryReader
from neural_callbacks.keras.trace import Trace
from neural_callbacks.resident import Reading

NUMBERS = np.random.default_rng(6)
X = NUMBERS.normal(size=(8, 5)).astype("float32")
Y = X[:, :1]
FLOAT = 4


def fit(model, tmp_path, x=X, y=Y):
    callback = NeuralDbgCallback(tmp_path, steps=[0])
    model.fit(x, y, batch_size=4, verbose=0, callbacks=[callback])
    return callback


def spans(trace):
    """Return (layer, phase) of each span, in order."""
    return [tuple(row) for row in trace[:, :2].astype(int).tolist()]


@pytest.mark.parametrize("eager", [False, True], ids=["rehearsed", "eager"])
def test_every_layer_has_a_span_forward_and_backward_inside_those_of_the_model(eager, tmp_path, read):
    model = keras.Sequential(
        [keras.Input((5,)), layers.Dense(3, activation="silu"), layers.Dropout(0.5), layers.Dense(1)]
    )
    model.compile("adam", "mse", run_eagerly=eager)
    reader = read(fit(model, tmp_path))
    trace, timing = reader.profile("trace", 0), reader.profile("timing", 0)
    assert spans(trace) == [
        *((WHOLE_MODEL, STEP), (WHOLE_MODEL, FORWARD), (0, FORWARD), (1, FORWARD), (2, FORWARD)),
        *((WHOLE_MODEL, BACKWARD), (2, BACKWARD), (1, BACKWARD), (0, BACKWARD), (WHOLE_MODEL, OPTIMIZER)),
    ]
    start, end = trace[:, 2], trace[:, 2] + trace[:, 3]
    step, forward, *_ = range(len(trace))
    assert start[step] == 0
    assert (end <= end[step]).all()
    assert (trace[:, 3] > 0).all()
    inside = [[forward, 2, 3, 4], [5, 6, 7, 8]]
    for outer, *inner in inside:
        assert start[outer] <= start[inner[0]]
        assert all(end[one] <= start[other] for one, other in itertools.pairwise(inner))
        assert end[inner[-1]] <= end[outer]
    assert end[forward] <= start[5]
    np.testing.assert_allclose(timing[:, 0], 1)
    np.testing.assert_allclose(timing[:, 1], trace[2:5, 3])
    np.testing.assert_allclose(timing[:, 2], trace[[8, 7, 6], 3])
    assert np.isnan(trace[:, 4:6]).all()  # TensorFlow counts nothing on the CPU
    assert (trace[:, 6] > 2**20).all()
    assert reader.frame(0).scalars["memory_peak"] == trace[:, 6].max()
    assert reader.info().profiled == ("in training" if eager else "apart")


def test_what_training_does_not_go_back_through_has_no_time_backward(tmp_path, read):
    model = keras.Sequential(
        [keras.Input((5,)), layers.Dense(4, trainable=False), layers.Activation("relu"), layers.Dense(1)]
    )
    model.compile("sgd", "mse")
    reader = read(fit(model, tmp_path))
    assert list(np.isnan(reader.profile("timing", 0)[:, 2])) == [True, True, False]
    assert list(reader.profile("flops", 0)[:, 1] == 0) == [True, True, False]


def test_a_shared_layer_has_a_span_for_each_call_and_nested_models_none(tmp_path, read):
    inputs = keras.Input((5,))
    inner = keras.Sequential([keras.Input((5,)), layers.Dense(5, activation="tanh")], name="inner")
    model = keras.Model(inputs, layers.Dense(1)(inner(inner(inputs))))
    model.compile("sgd", "mse")
    reader = read(fit(model, tmp_path))
    trace = reader.profile("trace", 0)
    assert [span for span in spans(trace) if span[0] != WHOLE_MODEL] == [
        *((0, FORWARD), (0, FORWARD), (1, FORWARD), (1, BACKWARD), (0, BACKWARD), (0, BACKWARD))
    ]
    timing = reader.profile("timing", 0)
    assert list(timing[:, 0]) == [2, 1]
    first, second = trace[[2, 3], 3]
    assert timing[0, 1] == pytest.approx(first + second)


def test_a_layer_that_calls_layers_holds_their_time(tmp_path, read):
    class Outer(layers.Layer):
        def __init__(self):
            super().__init__()
            self.inner = layers.Dense(5, activation="tanh")
            self.scale = self.add_weight(shape=(5,), initializer="ones")

        def call(self, inputs):
            return self.inner(inputs) * self.scale

    model = keras.Sequential([keras.Input((5,)), Outer(), layers.Dense(1)])
    model.compile("sgd", "mse")
    reader = read(fit(model, tmp_path))
    names = [layer.type for layer in reader.layers().layers]
    outer, inner = names.index("Outer"), names.index("Dense")
    trace = reader.profile("trace", 0)
    for phase in (FORWARD, BACKWARD):
        (around,), (within,) = (trace[(trace[:, 0] == row) & (trace[:, 1] == phase)] for row in (outer, inner))
        assert around[2] <= within[2]
        assert within[2] + within[3] <= around[2] + around[3]


def test_what_checkpointing_runs_again_counts_once(tmp_path, read):
    frames = []
    for remat in (False, True):
        keras.utils.set_random_seed(0)
        keras.backend.clear_session()
        hidden = layers.Dense(6, activation="tanh")
        if remat:
            with keras.RematScope(mode="full"):
                hidden = layers.Dense(6, activation="tanh")
        model = keras.Sequential([keras.Input((5,)), layers.Dense(5), hidden, layers.Dense(1)])
        # In a graph, Keras 3.15 hands a checkpointed layer arguments by name, which TensorFlow refuses there.
        model.compile("sgd", "mse", run_eagerly=True)
        reader = read(fit(model, tmp_path))
        frames.append([reader.profile(kind, 0) for kind in ("trace", "timing", "flops")])
    (trace, timing, flops), (trace_again, timing_again, flops_again) = frames
    assert spans(trace_again).count((1, FORWARD)) == 2
    assert spans(trace).count((1, FORWARD)) == 1
    np.testing.assert_array_equal(timing[:, 0], timing_again[:, 0])
    np.testing.assert_array_equal(flops, flops_again)
    (way_back,) = trace_again[(trace_again[:, 0] == 1) & (trace_again[:, 1] == BACKWARD)]
    assert timing_again[1, 2] <= way_back[3]


def test_bytes_are_those_of_outputs_parameters_gradients_and_state(tmp_path, read):
    inputs = keras.Input((6,), dtype="int32")
    hidden = layers.Embedding(10, 3)(inputs)
    hidden = layers.Flatten()(hidden)  # another shape of the same values
    hidden = layers.Dense(4, use_bias=False, trainable=False)(hidden)
    hidden = layers.Dense(2, dtype="mixed_bfloat16")(hidden)
    model = keras.Model(inputs, layers.Activation("linear", dtype="float32")(hidden))
    model.compile(keras.optimizers.Adam(use_ema=True), "mse")
    words = NUMBERS.integers(0, 10, size=(4, 6))
    found = read(fit(model, tmp_path, words, np.zeros((4, 2)))).profile("memory", 0)
    rows, width, index = 4 * 6, 3, 4
    np.testing.assert_array_equal(
        found,
        [
            [rows * width * FLOAT, 10 * width * FLOAT, rows * (width * FLOAT + index), 3 * 10 * width * FLOAT],
            [0, 0, 0, 0],
            [4 * 4 * FLOAT, 18 * 4 * FLOAT, 0, 0],
            [4 * 2 * 2, 10 * FLOAT, 10 * FLOAT, 3 * 10 * FLOAT],
            [4 * 2 * FLOAT, 0, 0, 0],
        ],
    )


def test_the_state_of_a_scaled_optimizer_is_found_and_its_other_variables_are_not(tmp_path, read):
    model = keras.Sequential([keras.Input((5,)), layers.Dense(1)])  # as many variables as SGD has of its own
    optimizers = [keras.optimizers.SGD(), keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(momentum=0.9))]
    states = []
    for optimizer in optimizers:
        model.compile(optimizer, "mse")
        states.append(read(fit(model, tmp_path)).profile("memory", 0)[0, 3])
    assert states == [0, 6 * FLOAT]


def test_an_output_counts_once_for_as_long_as_it_is_there(monkeypatch):
    once = LayerMemory()
    kept = tf.ones([100])
    once.output("layer", [kept, tf.reshape(kept, [10, 10])])
    assert once.matrix({id("layer"): 0}, [], 1, [])[0, 0] == 100 * FLOAT
    monkeypatch.setattr(memory, "_address", lambda _tensor: 1)  # all come to lie in one place, one after the other
    again = LayerMemory()
    for _ in range(3):
        again.output("layer", tf.ones([100]))
    assert again.matrix({id("layer"): 0}, [], 1, [])[0, 0] == 300 * FLOAT


def test_the_memory_in_use_is_that_of_the_gpus_where_there_are_any(monkeypatch):
    counters = {"GPU:0": 1000, "GPU:1": 24}
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda _kind: list(counters))
    monkeypatch.setattr(tf.config.experimental, "get_memory_info", lambda name: {"current": counters[name], "peak": 1})
    reading = MemoryReader().read()
    assert reading.allocated == 1024
    assert np.isnan(reading.reserved)
    assert reading.process > 0


class Clock:
    """A clock that only the test moves."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr("time.perf_counter", lambda: self.now)

    def pass_by(self, seconds):
        self.now += seconds


class Site:
    """A layer's site, as far as a trace looks at it."""

    def __init__(self):
        self.layer = self


def test_spans_leave_out_the_observers_work_and_what_is_done_for_others_in_between(monkeypatch):
    clock, first, second = Clock(monkeypatch), Site(), Site()

    def read():
        clock.pass_by(100.0)  # the observer's own work
        return Reading(1.0, np.nan, clock.now)

    trace = Trace(read, None)
    trace.open(STEP)
    calls = []
    for site, seconds in ((first, 1.0), (second, 2.0)):
        calls.append(trace.enter(site))
        clock.pass_by(seconds)
        trace.leave(calls[-1], is_broken=False)
    # The gradients of five operations, by one operation each, of which the fourth leads nowhere, and one by none.
    live = [True, True, True, False, True]
    for number, (call, seconds) in enumerate([(1, 3.0), (0, 4.0), (1, 5.0), (0, 7.0), (1, 6.0)]):
        way = trace.go_back(calls[call].number, number)
        clock.pass_by(seconds)
        trace.went_back(way, number + 1)
    trace.went_back(trace.go_back(calls[0].number, 5), 5)
    trace.close()
    table, timing = trace.finish(live, {id(first): 0, id(second): 1}, 3)
    np.testing.assert_allclose(
        table[:, :4],
        [
            [WHOLE_MODEL, STEP, 0, 28],
            [0, FORWARD, 0, 1],
            [1, FORWARD, 1, 2],
            [1, BACKWARD, 3, 3],
            [0, BACKWARD, 6, 4],
            [1, BACKWARD, 10, 18],
        ],
    )
    np.testing.assert_allclose(timing, [[1, 1, 4], [1, 2, 21], [np.nan] * 3])


def test_nothing_of_the_taps_is_left(tmp_path):
    places = list(listening._REPLACED)
    before = [getattr(*place) for place in places]
    model = keras.Sequential([keras.Input((5,)), layers.Dense(1)])
    model.compile("sgd", "mse")
    fit(model, tmp_path)
    assert [getattr(*place) for place in places] == before
    for owner in (model, model.optimizer, *model.layers):
        assert vars(owner).keys().isdisjoint({"call", "apply", "train_step"})


def test_a_failure_of_ours_in_an_eager_step_does_not_reach_it(tmp_path, read, monkeypatch):
    def failing(*_args, **_kwargs):
        raise RuntimeError("ours")

    monkeypatch.setattr(Trace, "go_back", failing)
    model = keras.Sequential([keras.Input((5,)), layers.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=True)
    reader = read(fit(model, tmp_path))
    assert (list(reader.steps()), list(reader.profile_steps("trace"))) == ([0], [])
    assert reader.info().notices == (
        "NeuralDbg switched the profile off after an error, training goes on: RuntimeError: ours.",
    )


def test_the_first_rehearsal_is_paid_once_as_tracing_is(tmp_path, monkeypatch):
    model = keras.Sequential([keras.Input((5,)), layers.Dense(1)])
    model.compile("sgd", "mse")
    taken = []
    take = profile.Profiler.take_preparing_seconds
    monkeypatch.setattr(profile.Profiler, "take_preparing_seconds", lambda self: taken.append(take(self)) or taken[-1])
    callback = NeuralDbgCallback(tmp_path, steps=[0, 1])
    model.fit(X, Y, batch_size=4, verbose=0, callbacks=[callback])
    assert [seconds > 0 for seconds in taken] == [True, False, False][: len(taken)]
