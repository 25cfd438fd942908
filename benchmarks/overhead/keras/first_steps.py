"""What a training's times say: of its first steps, of a usual one, and of an epoch's end."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

# So many steps of a training are its first ones: all that is traced and compiled for it is so in the first two, and the
# allocator and the caches are used to it after that.
WARM_UP = 10


@dataclass(frozen=True)
class Times:
    """Seconds of one process.

    `step` is the median of the steps after the first ones. `firsts` are what steps 0 and 1 took beyond that: a model's
    own function is traced and compiled in step 0. `epoch_end` is what passes between two epochs. `tracing` is what the
    session says of NeuralDbg's functions.
    """

    step: float
    firsts: tuple[float, float]
    epoch_end: float
    tracing: float | None


@dataclass(frozen=True)
class Comparison:
    """What a kind of watching costs, by processes in turn; medians over `turns`.

    `step` is the ratio of a usual step to one of the plain processes around, with the `least` and the `most` of it;
    `epoch_end` is what an epoch's end takes longer, in plain steps. `plain_first` are the seconds of a model's own
    first steps beyond usual ones. Of the watched model's first two steps `firsts` are the ratios to that, and
    `tracing` is that of what the session says of them; None where there is none.
    """

    step: float
    least: float
    most: float
    epoch_end: float
    plain_first: float
    firsts: tuple[float, float]
    tracing: float | None
    turns: int


def times_of(epochs: Sequence[Sequence[float]], tracing: float | None) -> Times:
    """Return what the begins of the steps say, by epoch, in seconds; there are two epochs at least."""
    of_steps = [np.diff(begins) for begins in epochs]
    step = float(np.median(np.concatenate([of_steps[0][WARM_UP:], *of_steps[1:]])))
    between = [later[0] - earlier[-1] for earlier, later in itertools.pairwise(epochs)]
    first, second = of_steps[0][:2] - step
    return Times(step, (float(first), float(second)), statistics.median(between) - step, tracing)


def compare(turns: Sequence[tuple[Times, Times, Times]]) -> Comparison:
    """Return what watching costs, from turns of a plain process, a watched one, and a plain one again."""

    def middle(quantity: Callable[[Times, Times, Times], float]) -> float:
        return statistics.median(quantity(*turn) for turn in turns)

    ratios = [2 * watched.step / (before.step + after.step) for before, watched, after in turns]
    plain_first = middle(lambda before, _, after: (sum(before.firsts) + sum(after.firsts)) / 2)
    tracing = [watched.tracing for _, watched, _ in turns if watched.tracing is not None]
    return Comparison(
        statistics.median(ratios),
        min(ratios),
        max(ratios),
        epoch_end=middle(lambda a, b, c: (2 * b.epoch_end - a.epoch_end - c.epoch_end) / (a.step + c.step)),
        plain_first=plain_first,
        firsts=(
            middle(lambda _, watched, __: watched.firsts[0]) / plain_first,
            middle(lambda _, watched, __: watched.firsts[1]) / plain_first,
        ),
        tracing=statistics.median(tracing) / plain_first if tracing else None,
        turns=len(turns),
    )
