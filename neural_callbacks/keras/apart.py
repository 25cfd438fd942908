"""Measuring a tensor of a graph without changing what TensorFlow's graph optimizer makes of its neighbours.

That optimizer (Grappler) makes other operations, whose last bit may differ, of those whose result goes to a single
place: it regroups products, (a * b) * c to a * (b * c), and computes a bias and the activation after it in the kernel
of the matrix product before. A tap is one more place. Where that matters, the tap gets a result of its own, computed by
a copy of the operation.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from tensorflow.core.framework.attr_value_pb2 import AttrValue

# What is regrouped, by the arithmetic optimizer (MinimizeBroadcasts) and the constant folding. Sums are regrouped too,
# but copies of sums have the optimizer take the others in another order, which is worse.
_REGROUPED = frozenset({"Mul"})
# What the remapper fuses with the product and bias before, so that values differ by a bit: with a Relu they do not.
_FUSED = frozenset({"Elu", "Sigmoid", "Tanh"})
# These count for nothing: they ask for a shape only, or are taken out and leave it open how many places come after.
_TAKEN_OUT = frozenset({"Identity", "IdentityN", "Rank", "Shape", "ShapeN", "Size"})
# Operations that differ in an attribute are not taken for the same one.
_MARK = "_neuraldbg"


class Apart:
    """Finds what can be measured in the place of tensors of one graph, once the graph has all that is not ours."""

    def __init__(self) -> None:
        self._instead: dict[int, tuple[Any, Any]] = {}  # by the tensor's id, which it keeps by being there itself
        self._own: set[str] = set()

    def __call__(self, tensor: Any) -> Any:
        """Return `tensor`, or one of the same value."""
        if not isinstance(tensor, tf.Tensor) or not hasattr(tensor, "graph"):
            return tensor
        if id(tensor) not in self._instead:
            self._instead[id(tensor)] = tensor, self._found(tensor)
        return self._instead[id(tensor)][1]

    def _found(self, tensor: Any) -> Any:
        operation = tensor.op
        others = (consumer for consumer in tensor.consumers() if consumer.name not in self._own)
        consumers = [other.type for other in others if other.type not in _TAKEN_OUT]
        if len(consumers) <= 1 and operation.type in _REGROUPED:
            return self._copy(operation, [self(x) for x in operation.inputs])
        if operation.type == "BiasAdd" and len(consumers) == 1 and consumers[0] in _FUSED:
            product, bias = operation.inputs
            return self._copy(operation, [self._copy(product.op, product.op.inputs), bias])
        return tensor

    def _copy(self, operation: Any, inputs: Any) -> Any:
        attributes = dict(operation.node_def.attr) | {_MARK: AttrValue(b=True)}
        copy = operation.graph.create_op(
            operation.type, list(inputs), [x.dtype for x in operation.outputs], attrs=attributes
        )
        self._own.add(copy.name)
        return copy.outputs[0]
