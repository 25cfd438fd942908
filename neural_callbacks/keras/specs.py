"""The specification of the batches that a loop of the user's own hands to its train step."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf


class Specs:
    """`spec` is what all batches met so far have in common: one trace for it takes every one of them.

    It is a structure of tf.TypeSpec where there are tensors, with None for an extent that varies, and of the values
    themselves where there are others. As long as batches are alike, it stays the same.
    """

    def __init__(self) -> None:
        self.spec: Any = None
        self._structure: Any = None
        self._latest: list[Any] = []

    def meet(self, batch: Any) -> None:
        """Take in a batch."""
        leaves = list(map(_kind, tf.nest.flatten(batch)))
        if leaves == self._latest:
            return
        self._latest = leaves
        spec = tf.nest.map_structure(_spec, batch)
        try:
            tf.nest.assert_same_structure(self.spec, spec)
        except (TypeError, ValueError):
            self.spec = spec
        else:
            self.spec = tf.nest.map_structure(_common, self.spec, spec)


def _kind(x: Any) -> Any:
    """Return what tells values of another kind from `x`, in little time."""
    return (x.shape, x.dtype) if isinstance(x, (tf.Tensor, np.ndarray)) else _spec(x)


def _spec(x: Any) -> Any:
    if isinstance(x, np.ndarray):
        return tf.TensorSpec(x.shape, tf.as_dtype(x.dtype))
    return tf.type_spec_from_value(x) if tf.is_tensor(x) else x


def _common(one: Any, other: Any) -> Any:
    if one is other or not (isinstance(one, tf.TypeSpec) and isinstance(other, tf.TypeSpec)):
        return other
    common = one.most_specific_common_supertype([other])
    return other if common is None else common
