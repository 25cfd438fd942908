import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from overhead.estimate import FIRST, FULL, SAMPLED, SETTLED, Block, estimate, kinds_of
from overhead.others import MissingPackageError, require_wandb
from overhead.shares import profiled_shares_at, shares_at
from overhead.turns import ROUND, RUN_IN, measure
from overhead.watching import Gear, Watch, plain

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "overhead_pytorch.py"


def block(steps, kinds, writing=(0.0,), first=1.0):
    return Block(np.array(steps, float), np.array(kinds), np.array(writing, float), first)


def test_a_step_is_a_sample_full_or_not_or_so_many_steps_after_one():
    kinds = kinds_of(np.arange(8, 16), sampled=[0, 10, 12], full=[12])
    assert kinds.tolist() == [SETTLED, SETTLED, SAMPLED, 1, FULL, 1, 2, SETTLED]


def test_rare_samples_count_by_their_share():
    blocks = [block([2.0, *[1.0] * 9], [SAMPLED, *[SETTLED] * 9])] * 3
    found = estimate(blocks)
    assert found.ratio == pytest.approx(1.1)
    assert (found.low, found.high) == pytest.approx((1.1, 1.1))
    assert (found.samples, found.turns) == (10.0, 3)


def test_full_samples_count_as_in_a_long_training_however_many_were_timed():
    plain_sample = block([2.0, *[1.0] * 9], [SAMPLED, *[SETTLED] * 9])
    full_sample = block([7.0, *[1.0] * 9], [FULL, *[SETTLED] * 9])
    shares = {FULL: 0.01, SAMPLED: 0.09, SETTLED: 0.9}
    found = estimate([plain_sample, full_sample, plain_sample], shares)
    assert found.ratio == pytest.approx(0.07 + 0.18 + 0.9)
    assert found.samples == pytest.approx(10.0)


def test_every_tenth_step_is_sampled_and_every_hundredth_fully():
    assert shares_at(10) == pytest.approx({FULL: 0.01, SAMPLED: 0.09, 1: 0.1, 2: 0.1, SETTLED: 0.7})
    assert shares_at(1) == pytest.approx({FULL: 0.1, SAMPLED: 0.9})


def test_a_profile_comes_first_and_in_one_of_ten_full_samples():
    after = {1: 0.1, 2: 0.1, SETTLED: 0.7}
    assert profiled_shares_at(10, histograms=True) == pytest.approx({FIRST: 0.001, FULL: 0.009, SAMPLED: 0.09} | after)
    assert profiled_shares_at(10, histograms=False) == pytest.approx({FIRST: 0.001, SAMPLED: 0.099} | after)
    assert profiled_shares_at(1, histograms=False) == pytest.approx({FIRST: 0.01, SAMPLED: 0.99})


def test_a_first_step_counts_by_its_share_alone():
    blocks = [block([2.0, 1.0], [SAMPLED, SETTLED], first=first) for first in (20.0, 30.0, 40.0)]
    assert estimate(blocks).ratio == pytest.approx(1.5)
    found = estimate(blocks, {FIRST: 0.01, SAMPLED: 0.09, SETTLED: 0.9})
    assert found.ratio == pytest.approx(0.3 + 0.18 + 0.9)
    assert found.samples == pytest.approx(10.0)


def test_writing_is_counted_by_the_sample():
    # Two stretches of three steps: one with two samples, one with a sample and a full one.
    steps = block([1.0] * 6, [SAMPLED, SAMPLED, SETTLED, FULL, SAMPLED, SETTLED], writing=[0.4, 1.2])
    found = estimate([steps], {FULL: 0.1, SAMPLED: 0.2, SETTLED: 0.7})
    assert found.writing == pytest.approx(0.2 * 0.2 + 0.1 * 1.0)
    assert found.ratio == pytest.approx(1.0 + found.writing)


def test_a_known_cost_is_found_beside_the_hiccups_of_a_machine():
    draw = np.random.default_rng(7)
    kinds = kinds_of(np.arange(10), [5])
    blocks = []
    for _ in range(200):
        steps = draw.normal(1.0, 0.03, 10) + 0.1 * (kinds == SAMPLED)
        # One step in twenty waits for something else on the machine, for up to ten times its own time.
        blocks.append(block(steps + draw.exponential(10.0, 10) * (draw.random(10) < 0.05), kinds))
    found = estimate(blocks)
    assert found.ratio == pytest.approx(1.01, abs=0.005)
    assert 1.005 < found.low < found.ratio < found.high < 1.02
    assert found.mean > 1.3


class Machine:
    """A training whose plain step takes what `speed` says, and which only counts its time."""

    def __init__(self, block=10):
        self.workload = SimpleNamespace(block=block)
        self.typical = 0.0
        self.now = 0.0
        self.added = 0.0
        self.steps = 0

    def clock(self):
        return self.now

    def reset(self):
        self.steps = 0

    def run(self, steps, observe):
        times = []
        for _ in range(steps):
            observe(None)
            # It gets slower all the time, by a tenth in a hundred steps.
            times.append((1.0 + 1e-3 * self.now) * (1.0 + self.added))
            self.now += 1.0
            self.steps += 1
        return np.array(times)


@contextmanager
def dearer(machine, share, seen):
    assert machine.added == 0.0  # no other gear is on
    machine.added = share
    yield Watch()
    machine.added = 0.0
    seen.append(machine.steps)


def test_a_machine_that_gets_slower_does_not_count():
    machine, seen = Machine(), []
    gears = [
        Gear("plain again", plain),
        Gear("3 %", lambda training: dearer(training, 0.03, seen)),
        Gear("rare", lambda training: dearer(training, 0.5, []), blocks=2, settling=1, turns=ROUND),
        Gear("deep", lambda training: dearer(training, 0.1, []), deep=20),
    ]
    measured = measure(machine, gears, seconds=0.0)
    ratios = {title: estimate(blocks).ratio for title, blocks in measured.blocks.items()}
    assert ratios == pytest.approx({"plain again": 1.0, "3 %": 1.03, "rare": 1.5, "deep": 1.1}, abs=0.01)
    assert {title: len(blocks) for title, blocks in measured.blocks.items()} == {
        "plain again": ROUND,
        "3 %": ROUND,
        "rare": 1,
        "deep": ROUND,
    }
    assert len(measured.blocks["rare"][0].steps) == 20
    assert seen == [RUN_IN + 10] * ROUND


def test_the_first_block_of_a_round_begins_later_for_who_has_a_rare_sample():
    begun = []

    @contextmanager
    def watched(machine):
        watch = Watch()
        yield watch
        begun.append(machine.steps - 10)
        watch.sampled, watch.full = range(0, machine.steps, 10), range(0, machine.steps, 100)

    measured = measure(Machine(), [Gear("tenth", watched, deep=95)], seconds=0.0)
    assert begun == [RUN_IN + 95, *[RUN_IN] * (ROUND - 1)]
    assert [FULL in block.kinds for block in measured.blocks["tenth"]] == [True, *[False] * (ROUND - 1)]


def test_who_compares_with_wandb_is_told_how_to_get_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", {}.get)
    with pytest.raises(MissingPackageError) as error:
        require_wandb()
    assert str(error.value) == (
        "wandb is not installed, and the gears wandb-10 and wandb-100 need it; write pip install wandb, or name other "
        "gears, as --gears idle default."
    )


def test_the_benchmark_runs_and_prints_its_table():
    command = [sys.executable, SCRIPT, "--short", "--busy", "--workload", "mlp", "--gears", "idle", "hooks-1"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    rows = [line.split("|")[1].strip() for line in ran.stdout.splitlines() if line.startswith("|")]
    ours = ["plain again", "attached, nothing sampled"]
    others = ["plain again", "hooks and .item(), every step"]
    assert [row for row in rows if row.strip("-")] == ours * 2 + others * 2
