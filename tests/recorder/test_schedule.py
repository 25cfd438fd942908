from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from neural_callbacks.schedule import DEFAULT_OVERHEAD_BUDGET, MOST_STEPS, Depth, Every, schedule_from

NOTHING, STATISTICS, HISTOGRAMS, PROFILE = Depth


def plans(schedule, steps):
    """Follow the schedule for a training whose steps all take the same; return the plan of each."""
    planned = []
    for step in range(steps):
        depth = schedule.plan(step)
        own = 0.002 if depth else 0.0
        schedule.report(step, duration=0.01 + own, depth=depth, own=own)
        planned.append(depth)
    return planned


def steps_of(planned, *depths):
    return [step for step, depth in enumerate(planned) if depth in depths]


def test_every_nth_step_is_sampled_from_the_first_on():
    assert [step for step in range(8) if Every(3)(step)] == [0, 3, 6]
    assert all(Every(1)(step) for step in range(5))


def test_numbers_of_numpy_are_numbers():
    assert Every(np.int64(2)) == Every(2)
    assert schedule_from(steps=np.array([4, 2])).steps == (2, 4)
    assert schedule_from(overhead_budget=np.float32(0.5)).overhead_budget == 0.5


@pytest.mark.parametrize("n", [0, -1, 2.0, "10", None, True])
def test_what_is_no_number_of_steps_is_refused(n):
    with pytest.raises(ValueError, match="every") as caught:
        Every(n)
    assert str(caught.value) == f"every={n!r} is not a number of steps; write a whole number from 1, as every=10."


def test_histograms_come_with_the_first_sample_and_every_tenth_after_it():
    planned = plans(schedule_from(every=2), 45)
    assert steps_of(planned, STATISTICS, HISTOGRAMS) == list(range(0, 45, 2))
    assert steps_of(planned, HISTOGRAMS) == [0, 20, 40]


def test_profiles_apart_come_with_the_first_of_these_and_every_tenth_after_it():
    planned = plans(schedule_from(every=2).anew(profiles_apart=True), 405)
    assert steps_of(planned, HISTOGRAMS, PROFILE) == list(range(0, 405, 20))
    assert steps_of(planned, PROFILE) == [0, 200, 400]
    assert PROFILE not in plans(schedule_from(every=2), 405)


def test_steps_named_one_by_one_all_have_a_profile_apart():
    planned = plans(schedule_from(steps=[3, 4, 7]).anew(profiles_apart=True), 10)
    assert steps_of(planned, PROFILE) == [3, 4, 7]


def test_under_a_budget_too():
    planned = plans(schedule_from(), 3000)
    samples = steps_of(planned, STATISTICS, HISTOGRAMS)
    assert len(samples) > 50
    assert steps_of(planned, HISTOGRAMS) == samples[::10]


def test_a_step_that_was_measured_unplanned_counts():
    schedule = schedule_from(every=100)
    schedule.report(0, duration=1.0, depth=schedule.plan(0), own=0.1)
    assert schedule.plan(1) is NOTHING
    schedule.report(1, duration=1.0, depth=HISTOGRAMS, own=0.1)
    assert [schedule.plan(step) for step in (2, 99, 100)] == [NOTHING, NOTHING, STATISTICS]
    for step in range(2, 11):
        schedule.report(step, duration=1.0, depth=STATISTICS, own=0.1)
    assert schedule.plan(100) is HISTOGRAMS


def test_histograms_that_were_due_and_did_not_come_stay_due():
    schedule = schedule_from(every=1)
    for step in range(15):
        schedule.report(step, duration=1.0, depth=STATISTICS, own=0.1)
    assert schedule.plan(15) is HISTOGRAMS


def test_named_steps_are_measured_in_full_and_no_other():
    schedule = schedule_from(steps=iter([7, 3, 7, 4]))
    assert schedule.steps == (3, 4, 7)
    assert steps_of(plans(schedule, 20), HISTOGRAMS) == [3, 4, 7]
    assert steps_of(plans(schedule.anew(), 20), STATISTICS) == []


def test_no_steps_named_is_never():
    assert set(plans(schedule_from(steps=[]), 20)) == {NOTHING}


def test_without_options_it_is_the_budget():
    schedule = schedule_from()
    assert (schedule.every, schedule.steps, schedule.overhead_budget) == (None, None, DEFAULT_OVERHEAD_BUDGET)
    assert DEFAULT_OVERHEAD_BUDGET == 0.02


def test_anew_begins_at_the_start():
    schedule = schedule_from(overhead_budget=0.1)
    first = plans(schedule, 500)
    again = schedule.anew()
    assert (again.overhead_budget, again.every, again.steps) == (0.1, None, None)
    assert math.isnan(again.overhead)
    assert plans(again, 500) == first
    assert schedule_from(every=3).anew().every == 3


@pytest.mark.parametrize("options", [{"every": 4}, {"steps": range(0, 100, 4)}])
def test_what_fixed_samples_cost_is_known_too(options):
    schedule = schedule_from(**options)
    plans(schedule, 100)
    assert schedule.overhead == pytest.approx(0.25 * 0.002 / 0.01)


def test_without_a_plain_step_there_is_nothing_to_compare_with():
    schedule = schedule_from(every=1)
    plans(schedule, 100)
    assert math.isnan(schedule.overhead)


def test_what_other_threads_take_counts():
    schedule = schedule_from(every=50)
    for step in range(100):
        schedule.report(step, duration=0.01, depth=schedule.plan(step), own=0.0, background=0.001)
    assert schedule.overhead == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"every": 10, "steps": [1]}, "every and steps"),
        ({"every": 10, "overhead_budget": 0.02}, "every and overhead_budget"),
        ({"steps": [], "overhead_budget": 0.02}, "steps and overhead_budget"),
    ],
)
def test_two_ways_to_choose_exclude_each_other(options, names):
    with pytest.raises(ValueError, match="exclude") as caught:
        schedule_from(**options)
    assert str(caught.value) == f"{names} exclude each other: each says which steps are measured; write one of them."


@pytest.mark.parametrize("budget", [0, -0.1, 1.01, math.nan, math.inf, "2%", True, 0.02j])
def test_what_is_no_share_is_refused(budget):
    with pytest.raises(ValueError, match="overhead_budget") as caught:
        schedule_from(overhead_budget=budget)
    assert str(caught.value) == (
        f"overhead_budget={budget!r} is not a share of the training time; write a number above 0 and up to 1, as "
        "overhead_budget=0.02."
    )


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"every": 0}, "every=0 is not a number of steps; write a whole number from 1, as every=10."),
        (
            {"steps": 5},
            "steps=5 is not a list of steps; write whole numbers from 0, as steps=[0, 100, 1000].",
        ),
        ({"steps": [0, -1]}, "steps holds -1; write whole numbers from 0, as steps=[0, 100, 1000]."),
        ({"steps": [0, 1.5]}, "steps holds 1.5; write whole numbers from 0, as steps=[0, 100, 1000]."),
        ({"steps": [True]}, "steps holds True; write whole numbers from 0, as steps=[0, 100, 1000]."),
        ({"steps": "12"}, "steps holds '1'; write whole numbers from 0, as steps=[0, 100, 1000]."),
        (
            {"steps": itertools.count()},
            f"steps holds more than {MOST_STEPS} steps; write every=N for steps at an interval.",
        ),
    ],
)
def test_what_is_no_step_is_refused(options, text):
    with pytest.raises(ValueError, match="write") as caught:
        schedule_from(**options)
    assert str(caught.value) == text
