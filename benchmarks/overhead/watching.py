"""Gears: the ways in which a training is watched, and two whose cost is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from overhead.estimate import FloatArray, Shares


def nothing(loss: Any) -> None:
    """Observe a step in no way: what a plain training does with its loss."""


class Workload(Protocol):
    """What is trained: a timed block has `block` steps, a multiple of 10."""

    @property
    def block(self) -> int:
        """Steps."""


class Training(Protocol):
    """One model that is trained over and over from the same start; `clock` gives seconds.

    `typical` are those of a plain step, when last looked at: what a known cost is measured out by.
    """

    clock: Callable[[], float]
    typical: float

    @property
    def workload(self) -> Workload:
        """What is trained."""

    def reset(self) -> None:
        """Go back to where every block starts."""

    def run(self, steps: int, observe: Callable[[Any], object]) -> FloatArray:
        """Train for `steps` steps, `observe` called once in each; return the seconds (steps,)."""


def at_once() -> None:
    """Flush what keeps nothing back."""


@dataclass
class Watch:
    """A training that is being watched.

    `observe` is called in each step: in PyTorch with the loss, between the backward pass and the update, in Keras with
    None, before the step. `flush` returns when all
    that was sampled is where it belongs. Once the watching is over, `sampled` tells which steps were sampled, counted
    from 0 where it began, and `full` which of them took in more than others; both stay empty where all steps are alike.
    """

    observe: Callable[[Any], object] = nothing
    flush: Callable[[], object] = at_once
    sampled: Sequence[int] = ()
    full: Sequence[int] = ()


@dataclass(frozen=True)
class Gear:
    """One way to watch.

    `watch` puts it on and takes it off again; neither is within the time. It is timed over `blocks` blocks, and at
    least `steps` steps, after `settling` blocks that are not timed, and takes part in every `turns`-th turn. Where
    blocks do not hold all kinds of steps as a long training does, `shares` tells how many there are of each; in each
    round of turns one block begins `deep` steps later, where the rarest kind is.
    """

    title: str
    watch: Callable[[Any], AbstractContextManager[Watch]]
    blocks: int = 1
    steps: int = 0
    settling: int = 0
    turns: int = 1
    deep: int = 0
    shares: Shares | None = None


@contextmanager
def plain(training: Training) -> Iterator[Watch]:
    """Watch nothing."""
    del training
    yield Watch()


@contextmanager
def spin(training: Training, share: float, every: int) -> Iterator[Watch]:
    """Add `share` of a plain step to the average step: doing nothing for `every` times as long in every `every`-th."""
    begun: list[float] = []

    def observe(loss: Any) -> None:
        del loss
        begun.append(training.clock())
        if (len(begun) - 1) % every == 0:
            while training.clock() - begun[-1] < every * share * training.typical:
                pass

    watch = Watch(observe)
    yield watch
    if every > 1:
        watch.sampled = range(0, len(begun), every)
