"""Which rank departs from the others, and when none does."""

import math

import numpy as np
import pytest

from tensorboard_plugin_neuraldbg.rank_comparison import JUDGED_STEPS, LEAST_STEPS, compare, departures

NAN, INF = math.nan, math.inf


def recorded(values):
    values = np.asarray(values, np.float64)
    return values, np.ones(values.shape, bool)


def losses(ranks, steps, seed=0):
    """Return losses that fall, and differ between ranks by chance alone."""
    random = np.random.default_rng(seed)
    return np.exp(-np.arange(steps) / 50) + 0.1 * random.normal(size=(ranks, steps))


def off(values, measured=None):
    values = np.asarray(values, np.float64)
    return departures(values, np.ones(values.shape, bool) if measured is None else measured)


def test_each_step_has_its_median_spread_and_furthest_rank():
    found = compare(*recorded([[1.0, 2.0], [2.0, 2.0], [9.0, 2.5]]))
    assert found.median.tolist() == [2.0, 2.0]
    assert found.spread.tolist() == [1.0, 0.0]
    assert found.furthest.tolist() == [2, 2]
    assert found.distance.tolist() == [7.0, 0.5]


def test_what_is_not_finite_lies_furthest_and_what_is_not_there_nowhere():
    values = np.array([[1.0, NAN, 1.0, NAN], [NAN, NAN, 5.0, NAN], [1.0, -INF, 1.0, 1.0]])
    measured = np.array([[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 0, 1]], bool)
    found = compare(values, measured)
    np.testing.assert_array_equal(found.median, [1.0, NAN, 1.0, 1.0])
    np.testing.assert_array_equal(found.spread, [0.0, NAN, 0.0, 0.0])
    assert found.furthest.tolist() == [1, -1, -1, -1]
    np.testing.assert_array_equal(found.distance, [INF, NAN, NAN, NAN])


@pytest.mark.parametrize("ranks", [2, 3, 4, 8])
def test_ranks_that_differ_by_chance_alone_do_not_depart(ranks):
    for seed in range(200):
        values = losses(ranks, 40, seed)
        assert off(values) == []
    # So few steps may deceive, rarely.
    few = [bool(off(losses(ranks, LEAST_STEPS, seed))) for seed in range(200)]
    assert np.mean(few) < 0.05


@pytest.mark.parametrize("ranks", [3, 4, 8])
@pytest.mark.parametrize("factor", [3.0, 0.2])
def test_a_rank_with_another_loss_is_the_one_named(ranks, factor):
    values = losses(ranks, 20)
    values[ranks - 2] *= factor
    (found,) = off(values)
    others = np.delete(values[:, -1], ranks - 2)
    assert (found.row, found.column, found.value) == (ranks - 2, 19, values[ranks - 2, -1])
    assert (found.low, found.high) == (others.min(), others.max())


def test_of_two_ranks_nobody_can_tell_which_is_off():
    values = losses(2, 20)
    values[1] += 2
    (found,) = off(values)
    assert (found.row, found.column) == (None, 19)
    assert (found.low, found.high) == (values[0, -1], values[1, -1])
    assert off(values[:, : LEAST_STEPS - 1]) == []


@pytest.mark.parametrize("ranks", [2, 3])
def test_gradients_that_should_be_the_same_may_not_differ_but_in_their_last_digits(ranks):
    norms = np.tile(losses(1, 20), (ranks, 1))
    assert off(norms) == []
    norms[0] *= 1 + 1e-6
    assert off(norms) == []
    norms[0] *= 1.01
    assert len(off(norms)) == 1


def test_one_hard_batch_is_no_difference():
    values = losses(4, 40)
    values[1, -2] = 50.0
    assert off(values) == []


def test_what_was_long_ago_is_not_judged():
    values = losses(4, 3 * JUDGED_STEPS)
    values[1, :-JUDGED_STEPS] += 5
    assert off(values) == []
    assert off(values[:, : 2 * JUDGED_STEPS])[0].row == 1


@pytest.mark.parametrize("ranks", [2, 4])
def test_a_rank_that_alone_is_not_finite_departs_at_once(ranks):
    values = losses(ranks, 1)
    values[1] = NAN
    (found,) = off(values)
    assert found.row == 1
    assert math.isnan(found.value)
    assert (found.low, found.high) == (np.nanmin(values), np.nanmax(values))
    assert off(np.full((ranks, 1), NAN)) == []


def test_only_steps_that_ranks_share_are_judged():
    values = losses(4, 20)
    values[3, 10:] = NAN
    measured = np.isfinite(values)
    values[2] += 4
    (found,) = off(values, measured)
    assert (found.row, found.column) == (2, 19)
    alone = np.zeros(values.shape, bool)
    alone[0] = True
    assert off(values, alone) == off(np.empty((0, 0))) == []


def test_two_ranks_that_depart_are_both_named_the_further_one_first():
    values = losses(8, 20)
    values[2] += 30
    values[5] += 60
    assert [found.row for found in off(values)] == [5, 2]
