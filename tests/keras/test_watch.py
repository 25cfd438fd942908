"""A watch plans the steps of an execution, keeps tracing out of the steps' times, and tells each trouble once."""

import time
from dataclasses import dataclass

import numpy as np
import pytest

from neural.session.anomaly import Anomaly
from neural.session.frame import Frame
from neural.session.layers import Layer, LayerTable
from neural.session.reader import SessionReader
from neural.session.statistics import unmeasured
from neural_callbacks.keras.watch import ANOTHER, Watch, disengage, engage
from neural_callbacks.recorder import Recorder
from neural_callbacks.schedule import Depth, schedule_from

NOTHING, STATISTICS, HISTOGRAMS, PROFILE = Depth
TABLE = LayerTable((Layer("Dense_1", "Dense", "dense"),))


@dataclass(frozen=True)
class Left:
    step: int
    anomalies: tuple[Anomaly, ...] = ()
    is_measured: bool = True

    def frame(self, table):
        matrices = {"activations": unmeasured(len(table.layers))} if self.is_measured else {}
        return Frame(self.step, 1.0 + self.step, matrices, anomalies=self.anomalies)


@pytest.fixture
def watch_of(tmp_path):
    """Return a function that opens a watch with options of the schedule; all are closed at the end."""
    opened = []

    def watch(**options):
        schedule = schedule_from(**options).anew(profiles_apart=True)
        recorder = Recorder(model="net", framework="none", log_dir=tmp_path, run_name=None)
        opened.append(Watch(recorder, schedule))
        return opened[-1]

    yield watch
    for one in opened:
        one.close()


def read(watch):
    watch.close()
    reader = SessionReader(watch.recorder.directory)
    reader.refresh()
    return reader


def test_of_one_execution_only_the_first_sample_goes_deep(watch_of):
    assert watch_of(every=2).plan(6) == [PROFILE, NOTHING, STATISTICS, NOTHING, STATISTICS, NOTHING]
    assert watch_of(overhead_budget=0.5).plan(3) == [PROFILE, NOTHING, NOTHING]
    assert watch_of(steps=[1, 2]).plan(3) == [NOTHING, PROFILE, PROFILE]


def test_steps_are_counted_also_where_none_was_measured(watch_of):
    watch = watch_of(every=4)
    watch.ended([NOTHING] * 3)
    assert (watch.step, watch.plan(2)) == (3, [NOTHING, PROFILE])


def test_histograms_are_left_out_where_they_are_not_wanted(watch_of):
    watch = watch_of(every=1)
    assert [watch.is_binned(depth) for depth in Depth] == [False, False, True, True]
    without = Watch(watch.recorder, schedule_from(every=1), histograms=False)
    assert not any(map(without.is_binned, Depth))


def test_tracing_is_no_steps_time_and_is_recorded_apart(watch_of):
    watch = watch_of(every=100)
    for step in range(20):
        traces = step == 10
        time.sleep(0.2 if traces else 0.002)
        watch.ended([NOTHING], tracing=0.198 if traces else 0.0)
    watch.ended([PROFILE], samples=[Left(20)], table=TABLE)
    scalars = read(watch).frame(20).scalars
    assert scalars["tracing_seconds"] == pytest.approx(0.198)
    assert scalars["step_seconds"] < 0.1


def test_a_trouble_is_told_where_it_begins_and_again_after_a_sound_step(watch_of):
    watch = watch_of(every=1)
    bad = (Anomaly("loss"),)
    for step, anomalies in enumerate([bad, bad, (), bad]):
        watch.ended([STATISTICS], samples=[Left(step, anomalies)], table=TABLE)
    watch.ended([NOTHING], samples=[Left(4, bad, is_measured=False)], table=TABLE)
    watch.found_sound(5)
    watch.ended([NOTHING])
    watch.ended([NOTHING], samples=[Left(6, bad, is_measured=False)], table=TABLE)
    reader = read(watch)
    assert list(reader.anomaly_steps()) == [0, 3, 6]
    np.testing.assert_array_equal(reader.steps("activations"), [0, 1, 2, 3])


def test_what_fails_to_make_a_frame_is_said_once_and_nothing_is_planned_any_more(watch_of):
    class Failing(Left):
        def frame(self, table):
            raise RuntimeError(f"no frame of {len(table.layers)} layer")

    watch = watch_of(every=1)
    watch.ended([STATISTICS], samples=[Failing(0)], table=TABLE)
    watch.ended([STATISTICS], samples=[Failing(1)], table=TABLE)
    assert watch.plan(1) == [NOTHING]
    assert read(watch).info().notices == (
        "NeuralDbg switched frames off after an error, training goes on: RuntimeError: no frame of 1 layer.",
    )


def test_for_one_call_another_stands_in_the_train_functions_place(watch_of):
    class Model:
        def __init__(self):
            self.train_function = lambda batch: ["plain", batch]
            self.history = object()  # of the present fit

    recorder = watch_of(every=1).recorder
    model = Model()
    plain = model.train_function
    engage(model, lambda own, batch: (own is plain, model.train_function is plain, own(batch)), recorder)
    assert model.train_function is not plain
    assert model.train_function(3) == (True, True, ["plain", 3])
    engage(model, len, recorder)  # the call that was prepared never comes
    disengage(model)
    assert model.train_function is plain
    engage(model, len, recorder)
    model.history = object()  # of another fit
    assert model.train_function(4) == ["plain", 4]
    assert recorder._info.notices == ()
    engage(model, len, recorder)
    engage(model, len, recorder)
    assert recorder._info.notices == (ANOTHER,)
    model.train_function = None
    engage(model, len, recorder)
    assert model.train_function is None
