"""One ratio, and how sure it is, from the steps of many turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Shares = Mapping[int, float]

# Kinds of steps: the first of a training, a full sample, a sample, one and two steps after either, and the rest, which
# have nothing left to do for any. The first comes once in a block, before its clock starts, and counts only by a share.
FIRST, FULL, SAMPLED, SETTLED = -2, -1, 0, 3
RESAMPLES = 1000
# What the interval leaves out on either side: it covers 95 %.
TAIL = 0.025


@dataclass(frozen=True)
class Block:
    """What was timed of one gear in one turn; all times are in plain steps of the same turn.

    `steps` (n,) are the times of the steps, `kinds` (n,) say what they were. After each n / m steps all that was
    sampled was brought to the disk; `writing` (m,) are the times of that. `first` is the time of the step that the gear
    began with.
    """

    steps: FloatArray
    kinds: IntArray
    writing: FloatArray
    first: float


@dataclass(frozen=True)
class Estimate:
    """A gear's cost: its ratio to plain steps with the 95 % interval, and what else the blocks say.

    Of the ratio `writing` was for bringing samples to the disk. `mean` is made of means in place of medians: it takes
    in each hiccup, the machine's too. Of 100 steps `samples` are sampled; there were `turns` blocks.
    """

    ratio: float
    low: float
    high: float
    writing: float
    mean: float
    samples: float
    turns: int


def kinds_of(steps: IntArray, sampled: Sequence[int], full: Sequence[int] = ()) -> IntArray:
    """Return the kinds (n,) of `steps` (n,), where those in `sampled` were sampled, and those in `full` fully."""
    kinds = np.full(len(steps), SETTLED)
    for distance in reversed(range(SETTLED)):
        kinds[np.isin(steps - distance, np.asarray(sampled, np.int64))] = distance
    kinds[np.isin(steps, np.asarray(full, np.int64))] = FULL
    return kinds


def shares_of(kinds: IntArray) -> Shares:
    """Return how many of all `kinds` (n,) each one is."""
    return {int(kind): float(np.mean(kinds == kind)) for kind in np.unique(kinds)}


def _average(times: FloatArray, kinds: IntArray, shares: Shares, middle: Callable[[FloatArray], float]) -> float:
    """Return the average of `times` (n,), where each kind counts by its share and for the middle of its times."""
    return sum(share * float(middle(times[kinds == kind])) for kind, share in shares.items())


def _writing(blocks: Sequence[Block], shares: Shares, middle: Callable[[FloatArray], float]) -> float:
    """Return what bringing samples to the disk takes of an average step."""
    times = np.concatenate([block.writing for block in blocks])
    kinds = np.concatenate([block.kinds.reshape(len(block.writing), -1) for block in blocks])
    full, samples = (kinds == FULL).sum(axis=1), (kinds == SAMPLED).sum(axis=1)
    only = (full == 0) & (samples > 0)
    of_a_sample = float(middle(times[only] / samples[only])) if only.any() else 0.0
    of_a_full_one = 0.0
    if (full > 0).any():
        of_a_full_one = float(middle((times - samples * of_a_sample)[full > 0] / full[full > 0]))
    return shares.get(SAMPLED, 0.0) * of_a_sample + shares.get(FULL, 0.0) * of_a_full_one


def _ratio(blocks: Sequence[Block], shares: Shares | None, middle: Callable[[FloatArray], float] = np.median) -> float:
    kinds = np.concatenate([block.kinds for block in blocks])
    shares = shares or shares_of(kinds)
    times = np.concatenate([*(block.steps for block in blocks), [block.first for block in blocks]])
    kinds = np.concatenate([kinds, np.full(len(blocks), FIRST)])
    return _average(times, kinds, shares, middle) + _writing(blocks, shares, middle)


def estimate(blocks: Sequence[Block], shares: Shares | None = None) -> Estimate:
    """Return the ratio of the time of an average step to that of a plain one.

    A median over all steps passes over everything that is rarer than each second one, as samples are, and a mean takes
    in the machine's hiccups. So the median is taken of each kind of step, and these count by their `shares` in a long
    training; where that is not known, by what the blocks hold. The interval is by bootstrap over whole blocks, for
    steps of one block are alike; those with a full sample, which may be few, are drawn apart from those without.
    """
    draw = np.random.default_rng(0)
    strata = [
        [block for block in blocks if (FULL in block.kinds) is with_full_sample] for with_full_sample in (False, True)
    ]

    def drawn() -> list[Block]:
        return [some[i] for some in strata if some for i in draw.integers(len(some), size=len(some))]

    low, high = np.quantile([_ratio(drawn(), shares) for _ in range(RESAMPLES)], [TAIL, 1 - TAIL])
    in_all = shares or shares_of(np.concatenate([block.kinds for block in blocks]))
    return Estimate(
        _ratio(blocks, shares),
        float(low),
        float(high),
        writing=_writing(blocks, in_all, np.median),
        mean=_ratio(blocks, shares, np.mean),
        samples=100 * sum(in_all.get(kind, 0.0) for kind in (FIRST, FULL, SAMPLED)),
        turns=len(blocks),
    )
