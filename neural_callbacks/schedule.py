"""Which training steps are measured."""

from __future__ import annotations

import operator
from dataclasses import dataclass


@dataclass(frozen=True)
class Every:
    """Sample every `n`-th step, the first one (step 0) included: calling it with a step says whether to.

    Raises:
        ValueError: `n` is not a whole number, or less than 1.
    """

    n: int

    def __post_init__(self) -> None:
        try:
            steps = operator.index(self.n)
        except TypeError:
            steps = 0
        if steps < 1 or isinstance(self.n, bool):
            raise ValueError(f"every={self.n!r} is not a number of steps; write a whole number from 1, as every=10.")
        object.__setattr__(self, "n", steps)

    def __call__(self, step: int) -> bool:
        """Say whether `step`, counted from 0, is sampled."""
        return step % self.n == 0
