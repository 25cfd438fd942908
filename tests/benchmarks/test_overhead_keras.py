import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from overhead.estimate import estimate
from overhead.keras import processes
from overhead.keras.first_steps import WARM_UP, Times, compare, times_of
from overhead.keras.observer import NeuralDbgGear
from overhead.keras.training import Training
from overhead.keras.workloads import WORKLOADS, Workload
from overhead.turns import measure
from overhead.watching import Gear, nothing, plain

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "overhead_keras.py"


def begins_of(durations, start=0.0):
    return np.concatenate([[start], start + np.cumsum(durations)]).tolist()


def test_first_steps_and_an_epochs_end_are_told_from_usual_steps():
    first = begins_of([5.0, 2.0, *[1.5] * (WARM_UP - 2), 1.0, 1.0, 1.0])
    # The last step of an epoch and its end lie between two begins.
    second = begins_of([1.0, 9.0, 1.0], first[-1] + 1.0 + 0.25)
    assert times_of([first, second], tracing=3.0) == Times(1.0, (4.0, 1.0), pytest.approx(0.25), 3.0)


def test_a_process_is_compared_with_the_plain_ones_before_and_after():
    def plain_times(step):
        return Times(step, (2.0, 0.0), 0.5, None)

    turns = [
        (plain_times(1.0), Times(1.2, (3.0, 1.0), 2.5, 3.5), plain_times(1.0)),
        (plain_times(1.0), Times(3.0, (1.0, 0.5), 3.5, 3.0), plain_times(2.0)),
        (plain_times(2.0), Times(2.6, (2.0, 0.6), 4.5, 5.0), plain_times(2.0)),
    ]
    found = compare(turns)
    assert (found.step, found.least, found.most) == pytest.approx((1.3, 1.2, 2.0))
    assert found.epoch_end == pytest.approx(2.0)
    assert (found.plain_first, *found.firsts, found.tracing) == pytest.approx((2.0, 1.0, 0.3, 1.75))
    assert found.turns == 3


def test_where_no_session_was_written_none_tells_of_tracing():
    usual = Times(1.0, (2.0, 0.0), 0.5, None)
    assert compare([(usual, usual, usual)]).tracing is None


def test_each_process_stands_between_plain_ones(monkeypatch):
    started = []

    def times(workload, kind, how):
        assert (workload, how) == (WORKLOADS[0], "wall")
        started.append(kind)
        return Times({"plain": 1.0, "slow": 1.5, "slower": 2.0}[kind], (1.0, 0.0), 0.0, None)

    monkeypatch.setattr(processes, "_times", times)
    found = processes.measure_processes(WORKLOADS[0], ["slow", "slower"], 0.0, "wall")
    assert started == ["plain", "slow", "plain", "slower", "plain"]
    assert {kind: (of_kind.step, of_kind.turns) for kind, of_kind in found.items()} == {
        "slow": (1.5, 1),
        "slower": (2.0, 1),
    }


def tiny():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(10, activation="softmax")])


TINY = Workload("tiny", tiny, (4, 3), block=10, share=1.0, steps=20)


class Ticks:
    now = 0.0

    def __call__(self):
        self.now += 1.0
        return self.now


def test_fit_goes_on_for_as_many_steps_as_are_wanted_and_from_the_same_start():
    with Training(TINY, Ticks()) as training:
        seen = []
        training.reset()
        first = training.model.get_weights()[0]
        assert training.run(3, seen.append).tolist() == [1.0, 1.0, 1.0]
        assert seen == [None] * 3
        assert int(training.model.optimizer.iterations) == 23
        assert not np.array_equal(training.model.get_weights()[0], first)
        training.reset()
        np.testing.assert_array_equal(training.model.get_weights()[0], first)
        assert int(training.model.optimizer.iterations) == 20


def test_what_ends_fit_reaches_who_waits_for_steps():
    def fail(loss):
        raise ValueError(f"no step for {loss}")

    with Training(TINY, Ticks()) as training, pytest.raises(ValueError, match="no step for None"):
        training.run(2, fail)


def test_a_gear_tells_which_steps_of_its_block_were_sampled():
    with Training(TINY, Ticks()) as training, NeuralDbgGear(every=5) as gear:
        for _ in range(2):  # each block is a training of its own
            with gear(training) as watch:
                training.run(12, watch.observe)
                watch.flush()
            assert (watch.sampled, watch.full) == ([0, 5, 10], [0])
        plain_function = training.model.train_function
        training.run(2, nothing)
        assert training.model.train_function is plain_function


def test_one_training_with_a_budget_goes_on_from_block_to_block():
    with Training(TINY, Ticks()) as training, NeuralDbgGear(overhead_budget=1.0, keeps_on=True) as gear:
        seen = []
        for _ in range(2):
            with gear(training) as watch:
                training.run(30, watch.observe)
                watch.flush()
            seen.append(watch.sampled)
    before, now = seen
    # The samples of both, told from where each block began.
    assert [step - 30 for step in before] == now[: len(before)]
    assert max(before) < 30


def test_gears_of_keras_are_measured_in_turns():
    with Training(TINY, Ticks()) as training, NeuralDbgGear(steps=[], sentinel=False) as gear:
        gears = [Gear("plain again", plain), Gear("attached, nothing", gear)]
        measured = measure(training, gears, seconds=0.0)
    assert measured.plain == 1.0
    assert {title: estimate(blocks).ratio for title, blocks in measured.blocks.items()} == {
        "plain again": 1.0,
        "attached, nothing": 1.0,
    }


def test_the_benchmark_runs_and_prints_its_table():
    command = [sys.executable, SCRIPT, "--short", "--busy", "--workload", "dense", "--gears", "nothing"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    rows = [line.split("|")[1].strip() for line in ran.stdout.splitlines() if line.startswith("|")]
    assert [row for row in rows if row.strip("-")] == ["plain again", "attached, nothing"] * 2
