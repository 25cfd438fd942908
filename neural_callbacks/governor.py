"""Governor: spaces the samples so that watching costs no more than a share of the training time."""

from __future__ import annotations

import math

from neural_callbacks.ledger import ENOUGH_STEPS, Ledger

# The first so many steps are sampled whatever they cost, so that a short run shows something: with fewer, a line in a
# chart is not yet one. They are paid for by the steps after them.
WARM_UP_STEPS = 5
# Between two samples is a plain step: it is what they are compared with.
LEAST_WAIT = 2
# So many steps after a sample at the latest comes the next one, even where the budget has not yet covered a stall, or
# does not cover the plain steps alone: a session must not go blind. Only a sample that so many steps do not pay for
# waits longer, at most `PATIENCE` times as long as it takes to earn it, so that what was overdrawn is paid too.
RAREST_WAIT = 1000
PATIENCE = 2.0
# What the budget has left over beyond so many samples is forgotten: samples that become dear after many cheap ones must
# not come in a long row.
MOST_SAVED = 3.0
# Between samples the plan is made anew after so many plain steps, when the ledger has a new level of them.
REPLAN_STEPS = ENOUGH_STEPS
# Longer than any training, in steps.
NEVER = 2**62


class Governor:
    """Says of each step whether `budget`, a share of plain training time in (0, 1], allows to sample it.

    The budget earns its share of each step. A sample is planned for when that will have covered what was spent, by
    `ledger`, and what the sample will cost. `aligned`: it then waits for the next multiple of a power of two, so that
    the ranks of a distributed job, each of which has a governor of its own, sample the same steps.
    """

    def __init__(self, budget: float, ledger: Ledger, *, aligned: bool = False) -> None:
        self._budget = budget
        self._ledger = ledger
        self._aligned = aligned
        self._next = 0
        self._latest = 0
        self._forgotten = 0.0

    def __call__(self, step: int) -> bool:
        """Say whether `step`, counted from 0, is sampled."""
        return step >= self._next

    def replan(self, step: int, *, sampled: bool, depth: int) -> None:
        """Plan the next sample, of `depth`, after the ledger was told of `step`, `sampled` or not.

        To be called after each sample, and every `REPLAN_STEPS` plain steps.
        """
        ledger = self._ledger
        if sampled:
            self._latest = step
        if step + 1 < WARM_UP_STEPS:
            self._next = step + 1
        elif ledger.plain_steps < ENOUGH_STEPS:
            self._next = step + 1 + ENOUGH_STEPS - ledger.plain_steps
        else:
            soonest = max(step + 1, self._latest + LEAST_WAIT)
            self._next = max(soonest, min(step + self._wait(depth), self._latest + self._longest_wait(depth)))
            if self._aligned:
                self._next = _aligned(self._next, self._interval(depth))

    def _wait(self, depth: int) -> int:
        """Return in how many steps the next sample of `depth` will be covered."""
        ledger = self._ledger
        price = ledger.price(depth)
        saved = self._budget * ledger.plain_seconds - ledger.added
        self._forgotten = max(self._forgotten, saved - MOST_SAVED * price)
        missing = price - (saved - self._forgotten)
        return _steps(max(0.0, missing), self._budget * ledger.step_seconds)

    def _longest_wait(self, depth: int) -> int:
        ledger = self._ledger
        return max(RAREST_WAIT, _steps(PATIENCE * ledger.price(depth), self._budget * ledger.step_seconds))

    def _interval(self, depth: int) -> int:
        """Return in how many steps the budget earns a sample of `depth`."""
        return _steps(self._ledger.price(depth), self._budget * self._ledger.step_seconds)


def _aligned(step: int, interval: int) -> int:
    """Return the first multiple from `step` on of the least power of two from `interval` on, or from the rarest."""
    power: int = 1 << (max(1, min(interval, RAREST_WAIT)) - 1).bit_length()
    return -(-step // power) * power


def _steps(seconds: float, earned: float) -> int:
    """Return in how many steps `earned` seconds each make `seconds`; a very large number where they never do."""
    return math.ceil(min(seconds / earned, NEVER)) if earned > 0 else NEVER
