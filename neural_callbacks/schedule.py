"""Which training steps are measured, and how deep."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from itertools import islice
from numbers import Real

from neural_callbacks.governor import REPLAN_STEPS, Governor
from neural_callbacks.ledger import Ledger

# Where nothing else is said, training is watched within this share of its time: less than two runs of the same training
# differ by on the machine of docs/performance.md, so that nobody has a reason to leave it out.
DEFAULT_OVERHEAD_BUDGET = 0.02
# Histograms come with the first sample and one in so many after it. One takes several times the bytes of the other
# statistics of its tensor and makes the sample dearer, and distributions move slowly: of what a chart can tell, little
# is lost with one in ten.
HISTOGRAMS_EVERY = 10
# Where a profile takes a run of the step by itself, it comes with the first of these and one in so many after it.
PROFILES_EVERY = 10
# Steps named one by one are kept in the session's record of itself, which has room for some ten thousand.
MOST_STEPS = 10_000


class Depth(IntEnum):
    """How much of a step is measured; each depth includes those before it."""

    NOTHING = 0
    STATISTICS = 1
    HISTOGRAMS = 2  # with times, memory and FLOPs too, where these can be had beside
    PROFILE = 3  # with times, memory and FLOPs by a run of the step by itself


@dataclass(frozen=True)
class Every:
    """Sample every `n`-th step, the first one (step 0) included: calling it with a step says whether to.

    Raises:
        ValueError: `n` is not a whole number, or less than 1.
    """

    n: int

    def __post_init__(self) -> None:
        steps = _whole(self.n)
        if steps is None or steps < 1:
            raise ValueError(f"every={self.n!r} is not a number of steps; write a whole number from 1, as every=10.")
        object.__setattr__(self, "n", steps)

    def __call__(self, step: int) -> bool:
        """Say whether `step`, counted from 0, is sampled."""
        return step % self.n == 0


class Schedule:
    """Plans the steps of one training: which are measured, how deep; and keeps account of what that costs.

    Before each step, counted from 0, the observer asks for its plan, and after it reports what the step took; one
    thread does both. `schedule_from` makes and checks it; two of `every`, `steps` and `overhead_budget` are None.
    """

    def __init__(
        self,
        every: int | None,
        steps: tuple[int, ...] | None,
        overhead_budget: float | None,
        *,
        aligned: bool = False,
        profiles_apart: bool = False,
    ) -> None:
        self.every = every
        self.steps = steps
        self.overhead_budget = overhead_budget
        self._ledger = Ledger()
        self._governor = None if overhead_budget is None else Governor(overhead_budget, self._ledger, aligned=aligned)
        self._sampled: Callable[[int], bool]
        if self._governor is not None:
            self._sampled = self._governor
        elif every is not None:
            self._sampled = Every(every)
        else:
            self._sampled = frozenset(steps or ()).__contains__
        self._profiles_apart = profiles_apart
        self._depth = Depth.PROFILE if profiles_apart else Depth.HISTOGRAMS
        self._samples_since_histograms = 0
        self._histograms_since_profile = 0

    def anew(self, *, aligned: bool = False, profiles_apart: bool = False) -> Schedule:
        """Return a schedule of the same kind for another training.

        `aligned` is as for `Governor`; with `profiles_apart` there are steps of depth PROFILE, for who has no profile
        beside the other depths.
        """
        options = {"aligned": aligned, "profiles_apart": profiles_apart}
        return Schedule(self.every, self.steps, self.overhead_budget, **options)

    @property
    def step_seconds(self) -> float:
        """The seconds that a step takes without NeuralDbg, of late; NaN while no plain step was reported."""
        return self._ledger.step_seconds

    @property
    def overhead(self) -> float:
        """The share of plain training time that watching has cost so far; NaN while no plain step was reported."""
        return self._ledger.overhead

    def plan(self, step: int) -> Depth:
        """Return what to measure of `step`; the same until the next report. Asked on every step, it is cheap."""
        return self._depth if self._sampled(step) else Depth.NOTHING

    def report(self, step: int, *, duration: float, depth: Depth, own: float, background: float = 0.0) -> None:
        """Take in what `step` took, as `Ledger` says; to be called once for every step, in order.

        Args:
            step: counted from 0.
            duration: the seconds from the end of the step before to the end of this one.
            depth: what was measured of it, also where that was not planned.
            own: the seconds of these that NeuralDbg's own code took in the training's thread, on sampled steps and on
                plain ones. Waiting for a device does not belong to it: the training's own work is waited for as well,
                and what the device did for NeuralDbg shows in the durations.
            background: the seconds that NeuralDbg's other threads took since the last report.
        """
        if depth:
            self._ledger.sampled(duration, own, depth)
            self._choose_depth(depth)
        else:
            self._ledger.plain(duration, own)
        if background:
            self._ledger.background(background)
        if self._governor is not None and (depth or self._ledger.plain_steps % REPLAN_STEPS == 0):
            self._governor.replan(step, sampled=depth > 0, depth=self._depth)

    def _choose_depth(self, latest: Depth) -> None:
        """Choose the depth of the next sample after the `latest` one."""
        self._samples_since_histograms = 0 if latest >= Depth.HISTOGRAMS else self._samples_since_histograms + 1
        self._histograms_since_profile += latest is Depth.HISTOGRAMS
        if latest is Depth.PROFILE:
            self._histograms_since_profile = 0
        # Who names the steps wants to see all of them.
        if self.steps is None and self._samples_since_histograms < HISTOGRAMS_EVERY - 1:
            self._depth = Depth.STATISTICS
        elif self._profiles_apart and (self.steps is not None or self._histograms_since_profile >= PROFILES_EVERY - 1):
            self._depth = Depth.PROFILE
        else:
            self._depth = Depth.HISTOGRAMS


def schedule_from(
    *, every: int | None = None, steps: Iterable[int] | None = None, overhead_budget: float | None = None
) -> Schedule:
    """Return the schedule of a user's options.

    Args:
        every: measure every so many-th step, the first one included.
        steps: measure these steps, counted from 0; none of them where it is empty.
        overhead_budget: measure as often as this share of the training time allows; `DEFAULT_OVERHEAD_BUDGET` where
            nothing is given.

    Raises:
        ValueError: an option is not of its kind, or more than one is given; the text says what can be written.
    """
    given = {"every": every, "steps": steps, "overhead_budget": overhead_budget}
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise ValueError(
            f"{' and '.join(names)} exclude each other: each says which steps are measured; write one of them."
        )
    if every is not None:
        return Schedule(Every(every).n, None, None)
    if steps is not None:
        return Schedule(None, _checked_steps(steps), None)
    budget = DEFAULT_OVERHEAD_BUDGET if overhead_budget is None else overhead_budget
    return Schedule(None, None, _checked_budget(budget))


def _checked_steps(steps: Iterable[int]) -> tuple[int, ...]:
    try:
        given = list(islice(steps, MOST_STEPS + 1))
    except TypeError:
        raise ValueError(
            f"steps={steps!r} is not a list of steps; write whole numbers from 0, as steps=[0, 100, 1000]."
        ) from None
    if len(given) > MOST_STEPS:
        raise ValueError(f"steps holds more than {MOST_STEPS} steps; write every=N for steps at an interval.")
    checked = set()
    for step in given:
        number = _whole(step)
        if number is None or number < 0:
            raise ValueError(f"steps holds {step!r}; write whole numbers from 0, as steps=[0, 100, 1000].")
        checked.add(number)
    return tuple(sorted(checked))


def _checked_budget(budget: float) -> float:
    if isinstance(budget, bool) or not isinstance(budget, Real) or not 0 < budget <= 1:
        raise ValueError(
            f"overhead_budget={budget!r} is not a share of the training time; write a number above 0 and up to 1, as "
            "overhead_budget=0.02."
        )
    return float(budget)


def _whole(number: object) -> int | None:
    """Return a whole number as an int, and None for all else."""
    if isinstance(number, bool):
        return None
    try:
        return operator.index(number)  # type: ignore[arg-type]
    except TypeError:
        return None
