"""Liveness: which operations of an eager step lead to anything that stays.

A step that runs eagerly does more than the same step compiled, which leaves out what leads nowhere: the gradients by
the data, the way back through frozen layers, a call of a recurrent layer's cell that only asks for its shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Numbers = tuple[int, ...]


class Liveness:
    """Follows the operations of a step."""

    def __init__(self) -> None:
        self._operations: list[tuple[Numbers, Numbers]] = []

    @property
    def count(self) -> int:
        """How many operations there were; the number of the next."""
        return len(self._operations)

    def record(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Take in an operation that has run."""
        self._operations.append((_numbers(inputs), _numbers(outputs)))

    def find(self, results: Sequence[Any]) -> list[bool]:
        """Return of each operation whether it leads to one of the `results`, or to one that gives out nothing.

        Who gives out nothing is there for its effect, as the assignment of a variable is.
        """
        needed = set(_numbers(results))
        live = []
        for inputs, outputs in reversed(self._operations):
            is_live = not outputs or not needed.isdisjoint(outputs)
            if is_live:
                needed.update(inputs)
            live.append(is_live)
        return live[::-1]


def _numbers(tensors: Sequence[Any]) -> Numbers:
    # TensorFlow's own number of a tensor, which no later one gets.
    return tuple([x._id for x in tensors])  # noqa: SLF001 - as TensorFlow's tapes tell them apart
