"""The optimizers of a Keras model, and what they keep of each parameter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras


def optimizers_of(model: Any) -> list[Any]:
    """Return the optimizers that a model has, `model.optimizer` first, each once; not those inside another."""
    held = [y for x in vars(model).values() for y in (x if isinstance(x, list | tuple) else [x])]
    held += [y for x in vars(model).values() if isinstance(x, dict) for y in x.values()]
    found = {id(x): x for x in (model.optimizer, *held) if isinstance(x, keras.optimizers.Optimizer)}
    for one in [*found.values()]:
        found.pop(id(getattr(one, "inner_optimizer", None)), None)
    return list(found.values())


def state_of(optimizer: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each variable that an optimizer trains with one that it keeps of it, as a momentum.

    They stand in lists of the optimizer's that have one entry for each trained variable.
    """
    inner = getattr(optimizer, "inner_optimizer", None)
    if inner is not None:  # one that scales the loss has another do the rest
        yield from state_of(inner)
        return
    variables = optimizer._trainable_variables  # noqa: SLF001 - no public list is of these
    for kept in vars(optimizer).values():
        if kept is variables or not isinstance(kept, (list, tuple)) or len(kept) != len(variables):
            continue
        for variable, of_variable in zip(variables, kept, strict=True):
            if isinstance(of_variable, keras.Variable) and of_variable is not variable:
                yield variable, of_variable
