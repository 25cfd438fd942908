"""Reach: the leaves of the autograd graph, as parameters, whose gradients a backward pass changes."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator

from torch import Tensor

# The nodes of the graph that are looked at, at about 2 us each: more than large models have.
LONGEST_WALK = 100_000


class HiddenError(Exception):
    """A part of the graph cannot be looked at."""


def reached(roots: Iterable[Tensor]) -> frozenset[int] | None:
    """Return the ids of the leaf tensors that `backward` from `roots` reaches; None where that cannot be told.

    It cannot where a checkpoint hides a part of the graph until it runs, and where the graph is too large to walk.
    """
    try:
        return frozenset(map(id, _leaves(roots)))
    except HiddenError:
        return None


def reaches(roots: Iterable[Tensor], leaves: Container[int]) -> bool:
    """Say whether `backward` from `roots` may reach one of the tensors whose ids are `leaves`."""
    try:
        return any(id(leaf) in leaves for leaf in _leaves(roots))
    except HiddenError:
        return True


def _leaves(roots: Iterable[Tensor]) -> Iterator[Tensor]:
    pending = []
    for root in roots:
        if root.grad_fn is None:
            yield root
        else:
            pending.append(root.grad_fn)
    seen = set(pending)
    while pending:
        node = pending.pop()
        variable = getattr(node, "variable", None)
        if variable is not None:
            yield variable
        elif "Checkpoint" in node.name() or len(seen) > LONGEST_WALK:
            raise HiddenError
        following = {after for after, _ in node.next_functions if after is not None} - seen
        seen |= following
        pending += following
