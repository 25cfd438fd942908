"""Sentinel: looks in every step for the first loss, activation or gradient that is not finite.

It is traced into a train step of its own, which has one more output: a vector that says of each tensor whether it holds
anything that is not finite.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from neural_callbacks.keras.alarms import SENTINEL, Key
from neural_callbacks.keras.replicas import Replica
from neural_callbacks.keras.structure import Site
from neural_callbacks.keras.taps import Subject, TrainStep, is_about_parameters


class SentinelTaps(TrainStep):
    """The taps of a step that is only looked at."""

    part = SENTINEL

    def __init__(self, subject: Subject, replica: Replica) -> None:
        super().__init__(subject, replica)
        self._keys: list[Key] = []
        self._sums: list[Any] = []
        self._losses: dict[str, Any] = {}

    @property
    def keys(self) -> Sequence[Key]:
        """What each flag is of."""
        return self._keys

    def results(self) -> tuple[Any, dict[str, Any]]:
        """Return, of each tensor that was seen, whether it holds what is not finite, (len(keys),) of bool; the loss.

        A sum is NaN or infinite where a value is: one operation for a tensor, in place of two passes. It is so too
        where finite values add up to more than float32 holds, which only values near the end of its range do.
        """
        if not self._sums:
            return tf.zeros([0], tf.bool), self._losses
        widest = max((total.dtype for total in self._sums), key=lambda dtype: dtype.size)
        totals = tf.stack([tf.cast(total, widest) for total in self._sums])
        return tf.logical_not(tf.math.is_finite(totals)), self._losses

    def see_layer(self, site: Site, args: tuple[Any, ...], outputs: Any) -> None:
        """See `TrainStep`."""
        seen = [x for x in keras.tree.flatten(outputs) if tf.is_tensor(x)]
        row = self._catalog.layer(site, [x for x in keras.tree.flatten(args) if tf.is_tensor(x)], seen) if seen else 0
        for output in seen:
            self._look(("forward", row), output)

    def see_loss(self, loss: Any) -> None:
        """See `TrainStep`."""
        self._losses["loss"] = loss
        self._look(("loss", 0), loss)

    def gradient(self, gradient: Callable[..., Any], tape: Any, target: Any, sources: Any, **options: Any) -> Any:
        """Look at what training goes back from."""
        with self._recorder.contained(SENTINEL):
            if tf.is_tensor(target) and is_about_parameters(sources) and ("loss", 0) not in self._keys:
                self._look(("loss", 0), target)
                if target.shape.num_elements() == 1 and self._is_here(target):
                    self._losses.setdefault("loss", tf.reshape(self._unscaled(target), []))
        return gradient(tape, target, sources, **options)

    def see_before(self, optimizer: Any, gradients: Sequence[Any], variables: Sequence[Any]) -> None:
        """See `TrainStep`."""
        del optimizer
        for gradient, variable in zip(gradients, variables, strict=True):
            row = self._row_of(variable)
            if row is not None and gradient is not None:
                values = gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient
                self._look(("parameter", row), values)

    def _look(self, key: Key, tensor: Any) -> None:
        if isinstance(tensor, tf.Tensor) and tensor.dtype.is_floating and self._is_here(tensor):
            self._keys.append(key)
            wide = tensor if tensor.dtype.size >= tf.float32.size else tf.cast(tensor, tf.float32)
            self._sums.append(tf.reduce_sum(wide))
