"""How many of the steps of a long training are of which kind, by the rule that samples are planned by."""

from __future__ import annotations

import numpy as np

from neural_callbacks.schedule import HISTOGRAMS_EVERY, PROFILES_EVERY
from overhead.estimate import FIRST, FULL, SAMPLED, Shares, kinds_of, shares_of


def shares_at(every: int) -> Shares:
    """Return the kinds of steps in a long training that is sampled on every `every`-th."""
    period = every * HISTOGRAMS_EVERY
    return shares_of(kinds_of(np.arange(period, 2 * period), range(0, 2 * period, every), [period]))


def profiled_shares_at(every: int, *, histograms: bool) -> Shares:
    """Return them where a training's first sample is a profile, and so is one in many after it.

    Without histograms a full sample is like any other.
    """
    shares = dict(shares_at(every))
    profiled = shares[FULL] / PROFILES_EVERY
    shares[FULL] -= profiled
    if not histograms:
        shares[SAMPLED] = shares.get(SAMPLED, 0.0) + shares.pop(FULL)
    return {FIRST: profiled} | shares
