"""The governor in simulated trainings: invented steps whose plain durations and added costs are known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from neural_callbacks.governor import LEAST_WAIT, RAREST_WAIT, WARM_UP_STEPS
from neural_callbacks.schedule import Depth, schedule_from

STEP = 0.01


@dataclass(frozen=True)
class Outcome:
    """What came of a simulated training: the sampled steps, and the true and the reported share of what they cost."""

    samples: np.ndarray
    share: float
    reported: float

    @property
    def gaps(self):
        return np.diff(self.samples)


def simulate(
    plain, *, cost=0.3 * STEP, with_histograms=2.0, seen=1.0, plain_own=0.0, budget=0.02, pauses=None, **options
):
    """Train through steps of `plain` seconds each, (steps,), watched under `budget`.

    A sample adds `cost` seconds, `with_histograms` times as much with histograms; the host sees the share `seen` of
    that in its own code. `pauses` of (steps,) seconds lie before the steps and are no training.
    """
    schedule = schedule_from(overhead_budget=budget).anew(**options)
    costs = {Depth.NOTHING: plain_own, Depth.STATISTICS: cost, Depth.HISTOGRAMS: with_histograms * cost}
    pauses = np.zeros_like(plain) if pauses is None else pauses
    added, samples = 0.0, []
    for step, (seconds, pause) in enumerate(zip(plain.tolist(), pauses.tolist(), strict=True)):
        depth = schedule.plan(step)
        own = costs[depth] * seen if depth else plain_own
        schedule.report(step, duration=seconds + pause + costs[depth], depth=depth, own=own)
        added += costs[depth]
        if depth:
            samples.append(step)
    return Outcome(np.array(samples), added / plain.sum(), schedule.overhead)


def constant(steps):
    return np.full(steps, STEP)


def noisy(steps, deviation=0.1):
    return constant(steps) * np.maximum(0.2, np.random.default_rng(3).normal(1.0, deviation, steps))


def spiky(steps):
    """Noise, and now and then what takes up to 200 steps' time."""
    random = np.random.default_rng(4)
    return noisy(steps) + STEP * (random.random(steps) < 0.02) * random.uniform(0, 200, steps)


def drifting(steps):
    """Noise of steps that grow from one to four times as long, as with longer and longer sequences."""
    return noisy(steps) * np.linspace(1, 4, steps)


def wandering(steps):
    """A machine that others use, too: slow for some hundred steps, then fast again."""
    random = np.random.default_rng(5)
    level = np.convolve(random.normal(size=steps + 200), np.ones(201) / 201, mode="valid")[:steps]
    return noisy(steps) * (1 + 3 * np.abs(level))


def turning(steps):
    """All of a sudden ten times as long, and back."""
    return noisy(steps) * np.repeat([1.0, 10.0, 1.0], -(-steps // 3))[:steps]


TRAININGS = [constant, noisy, drifting, wandering, turning]


@pytest.mark.parametrize("seen", [1.0, 0.05], ids=["on the host", "on a device"])
@pytest.mark.parametrize("training", TRAININGS)
def test_the_share_ends_below_the_budget_and_not_far_below(training, seen):
    outcome = simulate(training(20_000), cost=0.5 * STEP, seen=seen)
    assert 0.02 / 3 < outcome.share <= 0.0201


@pytest.mark.parametrize("budget", [0.005, 0.02, 0.2])
@pytest.mark.parametrize("cost", [0.1, 0.5, 4.0], ids=lambda cost: f"{cost} steps")
def test_whatever_a_sample_costs(cost, budget):
    outcome = simulate(noisy(60_000, 0.03), cost=cost * STEP, budget=budget)
    # The most that can be spent is a sample at every other step.
    most = min(budget, 1.1 * cost / 2)
    assert most / 3 < outcome.share <= 1.005 * budget
    assert outcome.reported == pytest.approx(outcome.share, rel=0.2)


@pytest.mark.parametrize("steps", [1, 3, WARM_UP_STEPS])
def test_the_first_steps_are_sampled_whatever_they_cost(steps):
    assert simulate(constant(steps), cost=50 * STEP).samples.tolist() == list(range(steps))


def test_after_the_first_steps_it_waits_until_they_are_paid_for():
    outcome = simulate(constant(1000))
    assert outcome.samples[:WARM_UP_STEPS].tolist() == list(range(WARM_UP_STEPS))
    # Five samples and the next one, 0.3 steps each, the first of them twice that: 2.1 steps at 2 % a step.
    assert outcome.samples[WARM_UP_STEPS] == pytest.approx(2.1 / 0.02, abs=2)


def test_a_cheap_sample_comes_often_and_a_dear_one_rarely():
    gaps = [np.median(simulate(constant(60_000), cost=cost * STEP).gaps[100:]) for cost in (0.005, 0.1, 0.5, 5.0)]
    assert gaps[0] == LEAST_WAIT
    assert gaps[1:] == [pytest.approx(cost / 0.02, rel=0.1) for cost in (0.1, 0.5, 5.0)]


def test_between_two_samples_is_a_plain_step_to_compare_with():
    outcome = simulate(constant(2000), cost=1e-4 * STEP)
    assert set(outcome.gaps[WARM_UP_STEPS:]) == {LEAST_WAIT}
    assert outcome.share < 0.001


def test_plain_steps_are_paid_from_the_same_budget():
    free = simulate(constant(20_000))
    outcome = simulate(constant(20_000), plain_own=0.01 * STEP)
    assert outcome.share <= 0.0201
    assert len(outcome.samples) == pytest.approx(len(free.samples) / 2, rel=0.1)


def test_a_budget_that_plain_steps_exceed_leaves_a_rare_sample():
    outcome = simulate(constant(10_000), plain_own=0.05 * STEP)
    assert set(outcome.gaps[WARM_UP_STEPS:]) == {RAREST_WAIT}
    assert outcome.reported == pytest.approx(outcome.share, rel=0.01)
    assert outcome.share > 0.05


def test_a_sample_dearer_than_the_rarest_interval_pays_for_is_rarer_still():
    outcome = simulate(constant(200_000), cost=40 * STEP)
    assert outcome.gaps.max() > RAREST_WAIT
    assert 0.01 < outcome.share <= 0.0201


def test_what_takes_long_now_and_then_does_not_stop_the_sampling():
    usual, outcome = simulate(noisy(20_000)), simulate(spiky(20_000))
    assert len(outcome.samples) > len(usual.samples) / 2
    assert outcome.gaps.max() <= RAREST_WAIT


@pytest.mark.parametrize("seen", [1.0, 0.05], ids=["on the host", "on a device"])
@pytest.mark.parametrize("interval", [50, 1000])
def test_validation_between_the_steps_changes_nothing(interval, seen):
    """Its time is not what the budget is a share of, nor is it a sample's cost."""
    pauses = np.zeros(20_000)
    pauses[interval::interval] = 300 * STEP
    usual = simulate(noisy(20_000), seen=seen)
    outcome = simulate(noisy(20_000), seen=seen, pauses=pauses)
    assert 0.02 / 3 < outcome.share <= 0.0202
    assert len(outcome.samples) == pytest.approx(len(usual.samples), rel=0.3)


def test_a_slow_start_is_not_taken_for_a_cost_nor_for_training_time():
    start = np.zeros(5000)
    start[:3] = 2000 * STEP, 500 * STEP, 100 * STEP
    usual = simulate(noisy(5000), seen=0.05)
    outcome = simulate(noisy(5000), seen=0.05, pauses=start)
    assert len(outcome.samples) == pytest.approx(len(usual.samples), rel=0.1)


def test_a_stall_in_our_own_code_is_paid_for_but_leaves_a_rare_sample():
    schedule = schedule_from()
    samples = []
    for step in range(12_000):
        depth = schedule.plan(step)
        own = (1000 * STEP if step == 0 else 0.1 * STEP) if depth else 0.0
        schedule.report(step, duration=STEP + own, depth=depth, own=own)
        if depth:
            samples.append(step)
    # It takes 50 000 steps to pay for a stall of 1000.
    assert set(np.diff(samples)[WARM_UP_STEPS:]) == {RAREST_WAIT}
    assert schedule.overhead > 0.02


def test_samples_that_become_dear_do_not_use_up_what_cheap_ones_left():
    schedule = schedule_from()
    samples = []
    for step in range(30_000):
        cost = 0.001 * STEP if step < 20_000 else 2 * STEP
        depth = schedule.plan(step)
        own = cost if depth else 0.0
        schedule.report(step, duration=STEP + own, depth=depth, own=own)
        if depth:
            samples.append(step)
    dear = [step for step in samples if step >= 20_000]
    assert len(dear) < 0.02 * 10_000 / 2 * 1.3


def test_ranks_with_noise_of_their_own_sample_the_same_steps():
    def rank(seed):
        steps = STEP * np.maximum(0.2, np.random.default_rng(seed).normal(1.0, 0.1, 20_000))
        return simulate(steps, cost=0.5 * STEP, aligned=True)

    several = [rank(seed) for seed in range(4)]
    # A rank whose costs lie in another octave samples every other one of the steps that the others do.
    least, most = sorted((set(one.samples.tolist()) for one in several), key=len)[:: len(several) - 1]
    shared = set.intersection(*(set(one.samples.tolist()) for one in several))
    assert len(shared) >= 0.8 * len(least)
    assert len(most) <= 3 * len(least)
    assert all(0.02 / 4 < one.share <= 0.02 for one in several)
