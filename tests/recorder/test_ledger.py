from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from neural_callbacks.ledger import Ledger

STEP = 0.01
SHALLOW, DEEP = 1, 2


def told(ledger, cycles, *, plain=16, own=0.0, cost=0.0, depth=SHALLOW, step=STEP, plain_own=0.0, after=()):
    """Tell of samples, each with plain steps behind it; `after` is what the first of these differ by."""
    for _ in range(cycles):
        ledger.sampled(step + max(own, cost), own, depth)
        for number in range(plain):
            ledger.plain(step + plain_own + (after[number] if number < len(after) else 0.0), plain_own)
    return ledger


def test_before_a_plain_step_nothing_is_known():
    ledger = told(Ledger(), 5, plain=0, own=0.001)
    assert math.isnan(ledger.overhead)
    assert ledger.price(SHALLOW) == 0.001
    assert ledger.price(DEEP) == 0.0


def test_the_hosts_own_time_is_exact():
    ledger = told(Ledger(), 10, own=0.002, plain_own=0.0001)
    assert ledger.added == pytest.approx(10 * 0.002 + 160 * 0.0001)
    assert ledger.plain_seconds == pytest.approx(170 * STEP)
    assert ledger.overhead == pytest.approx((10 * 0.002 + 160 * 0.0001) / (170 * STEP))
    assert ledger.step_seconds == pytest.approx(STEP)


def test_a_devices_time_shows_in_the_durations():
    ledger = told(Ledger(), 100, own=0.001, cost=0.004)
    assert ledger.price(SHALLOW) == pytest.approx(0.004)
    assert ledger.overhead == pytest.approx(100 * 0.004 / (1700 * STEP), rel=0.01)


def test_depths_have_accounts_of_their_own():
    ledger = Ledger()
    for _ in range(20):
        told(ledger, 1, own=0.001, cost=0.002)
        told(ledger, 1, own=0.001, cost=0.007, depth=DEEP)
    assert (ledger.price(SHALLOW), ledger.price(DEEP)) == (pytest.approx(0.002), pytest.approx(0.007))
    assert ledger.added == pytest.approx(20 * 0.009, rel=0.06)


def test_the_first_samples_are_compared_with_the_first_plain_steps():
    """All of the warm-up comes before any plain step; the very first step holds what starts up."""
    ledger = Ledger()
    ledger.sampled(30.0, 0.002, DEEP)
    told(ledger, 4, plain=0, own=0.001, cost=0.005)
    told(ledger, 1, plain=16, own=0.001, cost=0.005)
    assert (ledger.price(SHALLOW), ledger.price(DEEP)) == (pytest.approx(0.005), 0.002)
    assert ledger.added == pytest.approx(0.002 + 5 * 0.005)
    assert ledger.plain_seconds == pytest.approx((6 + 16) * STEP)


def test_what_a_sample_delays_in_the_steps_after_it_counts():
    ledger = told(Ledger(), 50, after=(0.002, 0.001))
    assert ledger.price(SHALLOW) == pytest.approx(0.003)


def test_what_a_sample_waited_for_that_the_steps_after_need_not_does_not_count():
    ledger = told(Ledger(), 50, cost=0.025, after=(-0.005,) * 4)
    assert ledger.price(SHALLOW) == pytest.approx(0.005)


@pytest.mark.parametrize("interval", [2, 5, 10, 16])
def test_what_takes_longer_every_few_steps_is_no_cost(interval):
    """As a loss that is read, or a line that is written, every ten steps."""
    schedule = itertools.cycle([STEP] * (interval - 1) + [3 * STEP])
    ledger = Ledger()
    for _ in range(50):
        ledger.sampled(0.001 + next(schedule), 0.001, SHALLOW)
        for _ in range(22):
            ledger.plain(next(schedule), 0.0)
    assert ledger.price(SHALLOW) < 0.001 + 0.1 * STEP


def test_noise_in_the_steps_after_does_not_count():
    random = np.random.default_rng(1)
    ledger, prices = Ledger(), []
    for _ in range(200):
        told(ledger, 1, own=0.001, after=0.2 * STEP * random.normal(size=16))
        prices.append(ledger.price(SHALLOW))
    assert np.mean(prices) < 0.001 + 0.04 * STEP


@pytest.mark.parametrize("pause", [1.0, 1000.0])
def test_a_pause_is_no_training_time_and_no_cost(pause):
    ledger = told(Ledger(), 20, own=0.002)
    ledger.plain(pause, 0.0)
    ledger.sampled(pause, 0.002, SHALLOW)
    told(ledger, 20, own=0.002)
    assert ledger.plain_seconds == pytest.approx(682 * STEP)
    assert ledger.added == pytest.approx(41 * 0.002)


def test_one_pause_in_the_first_sample_of_a_depth_counts_as_a_few_steps_at_most():
    ledger = told(Ledger(), 20, own=0.002)
    told(ledger, 1, own=0.002, cost=100.0, depth=DEEP)
    assert ledger.price(DEEP) <= 0.002 + 5 * STEP
    told(ledger, 1, own=0.002, depth=DEEP)
    assert ledger.price(DEEP) == pytest.approx(0.002)


def test_the_price_follows_a_training_that_changes():
    ledger = told(Ledger(), 100, cost=0.001)
    told(ledger, 40, cost=0.05, step=10 * STEP)
    assert ledger.price(SHALLOW) == pytest.approx(0.05)
    assert ledger.step_seconds == pytest.approx(10 * STEP)
    # Half of the recent samples are the old ones when the median turns; those before stay counted as they were.
    assert 100 * 0.001 + 40 * 0.05 < ledger.added < 84 * 0.001 + (16 + 40) * 0.05


def test_its_memory_does_not_grow_with_the_steps():
    def size(ledger):
        rings = [ledger._plain, ledger._to_compare]
        rings += [ring for account in ledger._accounts.values() for ring in (account._owns, account._excesses)]
        return sum(map(len, rings))

    assert size(told(Ledger(), 200)) == size(told(Ledger(), 400))
    assert size(told(Ledger(), 200, plain=0)) == size(told(Ledger(), 400, plain=0))
