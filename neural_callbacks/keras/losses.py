"""The losses of one train step, as they are before an optimizer scales them, and what they are scaled by."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import keras
import tensorflow as tf


class Losses:
    """What a train step computes as its loss, and what its tapes go back from."""

    def __init__(self) -> None:
        self._computed: Any = None
        self._targets: list[tuple[Any, frozenset[int]]] = []  # with the variables that it was asked for gradients of
        self._of_optimizer: dict[int, Any] = {}
        self._scaled: dict[int, tuple[Any, Any, Any]] = {}  # by the scaled loss' id: that, the loss, the scale
        self._scale_of: dict[int, Any] = {}  # by the optimizer's
        self._latest_scale: Any = None

    def computed(self, loss: Any) -> None:
        """Note what `compute_loss` gave out."""
        self._computed = loss

    def scaled(self, optimizer: Any, loss: Any, scaled: Any, scale: Any) -> None:
        """Note that an optimizer made `scaled` of a loss, by a factor of `scale`."""
        self._scaled[id(scaled)] = scaled, loss, scale
        self._scale_of[id(optimizer)] = self._latest_scale = scale

    def before_scaling(self, target: Any) -> Any:
        """Return the loss that `target` is, or was made of by an optimizer; else `target` freed of the scale."""
        if id(target) in self._scaled:
            return self._scaled[id(target)][1]
        return target if self._latest_scale is None else unscaled(target, self._latest_scale)

    def scale_on_the_way_back_from(self, target: Any) -> Any:
        """Return the factor that all gradients of `target` have in them; None for 1."""
        return self._scaled[id(target)][2] if id(target) in self._scaled else self._latest_scale

    def scale_of(self, optimizer: Any) -> Any:
        """Return the factor that an optimizer's gradients have in them; None for 1."""
        return self._scale_of.get(id(optimizer))

    def went_back_from(self, target: Any, sources: Any) -> None:
        """Note that a tape was asked for the gradients of a scalar by `sources`."""
        asked = frozenset(identity(x) for x in tf.nest.flatten(sources))
        self._targets.append((self.before_scaling(target), asked))

    def applied(self, optimizer: Any, variables: Sequence[Any]) -> None:
        """Note that an optimizer changes variables, by the gradients of the loss that reached them last."""
        own = set(map(identity, variables))
        for loss, asked in self._targets:
            if not own.isdisjoint(asked):
                self._of_optimizer[id(optimizer)] = loss

    def by_name(self, optimizers: Collection[Any]) -> dict[str, Any]:
        """Return the step's losses: `loss`, or `loss_1`, ... of several optimizers that have one each."""
        losses = [self._of_optimizer[id(one)] for one in optimizers if id(one) in self._of_optimizer]
        if len(losses) > 1:
            return {f"loss_{number}": tf.reshape(loss, []) for number, loss in enumerate(losses, 1)}
        if self._computed is not None:
            return {"loss": self._computed}
        return {"loss": tf.reshape(losses[0], [])} if losses else {}


def unscaled(tensor: Any, scale: Any) -> Any:
    """Return `tensor` freed of a factor; None stands for 1."""
    return tensor if scale is None else tf.cast(tensor, tf.float32) / scale


def identity(variable: Any) -> int:
    """Return what tells a variable from others, whether Keras' or TensorFlow's own."""
    return id(variable.value if isinstance(variable, keras.Variable) else variable)


def optimizers_of(model: Any) -> list[Any]:
    """Return the optimizers that a model has, `model.optimizer` first, each once; not those inside another."""
    held = [y for x in vars(model).values() for y in (x if isinstance(x, list | tuple) else [x])]
    held += [y for x in vars(model).values() if isinstance(x, dict) for y in x.values()]
    found = {id(x): x for x in (model.optimizer, *held) if isinstance(x, keras.optimizers.Optimizer)}
    for one in [*found.values()]:
        found.pop(id(getattr(one, "inner_optimizer", None)), None)
    return list(found.values())
