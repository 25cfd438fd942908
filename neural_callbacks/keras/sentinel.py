"""Sentinel: looks in every step for the first loss or gradient that is not finite, and for where that arose.

It is traced into a train step of its own, which has one more output: a vector that says of each tensor whether it holds
anything that is not finite. The outputs of layers are looked into only where the loss they lead to is not finite: the
way forward of a sound step gets nothing more to do, and nothing is held longer than until the loss is known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from neural_callbacks.keras.alarms import LOSS, SENTINEL, SKIP, Key
from neural_callbacks.keras.apart import Apart
from neural_callbacks.keras.replicas import Replica
from neural_callbacks.keras.structure import Site
from neural_callbacks.keras.taps import Subject, TrainStep, is_nonfinite, parts


class SentinelTaps(TrainStep):
    """The taps of a step that is only looked at."""

    part = SENTINEL

    def __init__(self, subject: Subject, replica: Replica) -> None:
        super().__init__(subject, replica)
        self._outputs: list[tuple[Key, Any]] = []
        self._seen: list[tuple[Key, Any]] = []
        self._keys: list[Key] = []

    @property
    def keys(self) -> Sequence[Key]:
        """What each flag is of."""
        return self._keys

    def nothing(self) -> Any:
        """See `TrainStep`."""
        return tf.zeros([0], tf.bool)

    def results(self) -> tuple[Any, dict[str, Any]]:
        """Return whether each tensor that was seen holds what is not finite, (len(keys),) of bool; and the losses."""
        apart = Apart()
        losses = [is_nonfinite(tensor, apart) for key, tensor in self._seen if key == LOSS]
        flags = self._of_outputs(tf.reduce_any(tf.stack(losses)) if losses else tf.constant(True), apart)
        flags += [is_nonfinite(tensor, apart) for _, tensor in self._seen]
        self._keys = [key for key, _ in (*self._outputs, *self._seen)]
        if self._scaled_gradients:
            self._keys.append(SKIP)
            flags.append(tf.reduce_any(tf.stack([is_nonfinite(x, apart) for x in self._scaled_gradients])))
        return tf.stack(flags) if flags else self.nothing(), self._loss_figures(apart)

    def _of_outputs(self, is_suspect: Any, apart: Apart) -> list[Any]:
        tensors = [apart(tensor) for _, tensor in self._outputs]
        if not tensors:
            return []
        exact = Apart()  # in a branch there is nothing that is not ours
        flags = tf.cond(
            is_suspect,
            lambda: tf.stack([is_nonfinite(tensor, exact) for tensor in tensors]),
            lambda: tf.zeros([len(tensors)], tf.bool),
        )
        return list(tf.unstack(flags, len(tensors)))

    def see_layer(self, site: Site, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        """See `TrainStep`."""
        row = self._catalog.layer(site, inputs, outputs)
        self._outputs += [(("forward", row), output) for output in parts(outputs) if self._counts(output)]

    def see_loss(self, loss: Any) -> None:
        """See `TrainStep`."""
        super().see_loss(loss)
        self._look(LOSS, loss)

    def gradient(self, gradient: Callable[..., Any], tape: Any, target: Any, sources: Any, **options: Any) -> Any:
        """Look at what training goes back from."""
        with self._ours():
            if tf.is_tensor(target):
                self._look(LOSS, self._losses.before_scaling(target))
        return gradient(tape, target, sources, **options)

    def see_before(self, optimizer: Any, gradients: Sequence[Any], variables: Sequence[Any]) -> None:
        """See `TrainStep`."""
        del optimizer
        for gradient, variable in zip(gradients, variables, strict=True):
            row = self._row_of(variable)
            if row is not None and gradient is not None:
                self._look(("parameter", row), gradient)

    def _look(self, key: Key, tensor: Any) -> None:
        is_known = key == LOSS and any(tensor is known for _, known in self._seen)
        if self._counts(tensor) and not is_known:
            self._seen.append((key, tensor))

    def _counts(self, tensor: Any) -> bool:
        return bool(tensor.dtype.is_floating) and self._is_here(tensor)
