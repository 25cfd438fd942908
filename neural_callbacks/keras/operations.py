"""Operations: what one operation of TensorFlow costs, from the shapes of what went in and came out."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow.python.eager import context
from tensorflow.python.framework import function_def_to_graph
from tensorflow.python.ops import handle_data_util

Shape = tuple[int | None, ...]
_Formula = Callable[[Sequence[Shape], Sequence[Shape], Mapping[str, Any]], float]

# Operations that multiply matrices, or solve equations in them, and have no formula here.
_UNCOUNTED = frozenset(
    {
        *("BatchCholesky", "BatchMatrixDeterminant", "BatchMatrixInverse", "BatchMatrixSolve", "BatchMatrixSolveLs"),
        *("BatchMatrixTriangularSolve", "BatchSelfAdjointEigV2", "BatchSvd"),
        *("BlockLSTM", "BlockLSTMGrad", "BlockLSTMGradV2", "BlockLSTMV2", "GRUBlockCell", "GRUBlockCellGrad"),
        *("LSTMBlockCell", "LSTMBlockCellGrad"),
        *("Cholesky", "CholeskyGrad", "Eig", "LogMatrixDeterminant", "Lu", "MatrixDeterminant", "MatrixExponential"),
        *("MatrixInverse", "MatrixLogarithm", "MatrixSolve", "MatrixSolveLs", "MatrixSquareRoot"),
        *("MatrixTriangularSolve", "Qr", "SelfAdjointEig", "SelfAdjointEigV2", "Svd", "TridiagonalMatMul"),
        *("Conv", "FusedPadConv2D", "FusedResizeAndPadConv2D"),
        *("SparseMatMul", "SparseMatrixMatMul", "SparseMatrixSparseMatMul", "SparseTensorDenseMatMul"),
        *("EagerPyFunc", "PyFunc", "PyFuncStateless", "RemoteCall", "SymbolicGradient"),
    }
)
# Families of operations that are left uncounted by how their names begin.
_UNCOUNTED_FAMILIES = ("CudnnRNN", "Quantized", "UniformQuantized", "Xla")
# Operations that call functions: once, or as often as only the values tell.
_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
_HOLDERS = _CALLS | {"Case", "If", "StatelessCase", "StatelessIf", "StatelessWhile", "While"}
# The attributes that a formula reads.
_ATTRIBUTES = ("adj_x", "equation", "transpose_a")
# How many functions and shapes of what goes into them are remembered.
_FUNCTIONS_KEPT = 256


def _product(inputs: Sequence[Shape], outputs: Sequence[Shape], attributes: Mapping[str, Any]) -> float:
    transposed = attributes.get("transpose_a") or attributes.get("adj_x")
    return 2 * _size(outputs[0]) * _extent(inputs[0][-2 if transposed else -1])


def _einsum(inputs: Sequence[Shape], outputs: Sequence[Shape], attributes: Mapping[str, Any]) -> float:
    if len(inputs) == 1:
        return 0.0
    equation = attributes["equation"]
    terms = (equation.decode() if isinstance(equation, bytes) else equation).split("->")
    sizes: dict[str, float] = {}
    for term, shape in zip([*terms[0].split(","), terms[1]], [*inputs, *outputs], strict=True):
        before, dots, after = term.partition("...")
        labels = [*before, *([f"...{n}" for n in range(len(shape) - len(before) - len(after), 0, -1)] if dots else ())]
        for label, extent in zip([*labels, *after], map(_extent, shape), strict=True):
            sizes[label] = max(sizes.get(label, 1), extent)  # the dots may stand for an axis of 1 that is spread out
    return 2 * prod(sizes.values())


def _convolution(kernel: Shape, place: Shape) -> float:
    """Return the cost of a convolution, forward or by one of its factors, whose outputs forward have shape `place`."""
    return 2 * _size(place) * _size(kernel[:-1])


def _depthwise(kernel: Shape, place: Shape) -> float:
    return 2 * _size(place) * _size(kernel[:-2])


def _size(shape: Shape) -> float:
    return float(prod(map(_extent, shape)))


def _extent(extent: int | None) -> float:
    return math.nan if extent is None else extent


_FORMULAS: dict[str, _Formula] = {
    "MatMul": _product,
    "BatchMatMul": _product,
    "BatchMatMulV2": _product,
    "BatchMatMulV3": _product,
    "Einsum": _einsum,
    "Conv2D": lambda inputs, outputs, _: _convolution(inputs[1], outputs[0]),
    "Conv3D": lambda inputs, outputs, _: _convolution(inputs[1], outputs[0]),
    "DepthwiseConv2dNative": lambda inputs, outputs, _: _depthwise(inputs[1], outputs[0]),
    "DepthwiseConv2dNativeBackpropInput": lambda inputs, _outputs, _: _depthwise(inputs[1], inputs[2]),
    "DepthwiseConv2dNativeBackpropFilter": lambda inputs, outputs, _: _depthwise(outputs[0], inputs[2]),
}
for _name in ("Conv2DBackpropInput", "Conv2DBackpropInputV2", "Conv3DBackpropInput", "Conv3DBackpropInputV2"):
    _FORMULAS[_name] = lambda inputs, _outputs, _: _convolution(inputs[1], inputs[2])
for _name in ("Conv2DBackpropFilter", "Conv2DBackpropFilterV2", "Conv3DBackpropFilter", "Conv3DBackpropFilterV2"):
    _FORMULAS[_name] = lambda inputs, outputs, _: _convolution(outputs[0], inputs[2])


def is_free(name: str) -> bool:
    """Say whether an operation multiplies no matrices, itself or in a function that it calls."""
    return not (name in _FORMULAS or name in _HOLDERS or _is_uncounted(name))


@functools.cache
def _is_uncounted(name: str) -> bool:
    return name in _UNCOUNTED or name.startswith(_UNCOUNTED_FAMILIES) or not hasattr(tf.raw_ops, name)


def cost(name: str, inputs: Sequence[Any], attributes: Mapping[str, Any], outputs: Sequence[Any]) -> float:
    """Return the floating-point operations of one operation, by its name, tensors and attributes.

    Counted are products of matrices and convolutions, and what computes their gradients, a multiplication and an
    addition two, as if nothing were padded. What multiplies no matrices is free. NaN is what no formula tells: other
    operations on matrices, those that are not TensorFlow's own, and loops and branches inside a traced function that
    hold anything counted. A traced function costs what is in it.
    """
    if is_free(name):
        return 0.0
    if name in _FORMULAS:
        if any(x.shape.rank is None for x in (*inputs, *outputs)):
            return math.nan
        return _FORMULAS[name](_shapes(inputs), _shapes(outputs), attributes)
    if context.context().has_function(name):
        return _cost_of_function(name, tuple(map(_argument, inputs)))
    return math.nan


def _shapes(tensors: Sequence[Any]) -> list[Shape]:
    return [tuple(x.shape) for x in tensors]


class _Argument(NamedTuple):
    """What goes into a traced function: a tensor; or a variable, by the type and shape of its values."""

    dtype: Any
    shape: Any
    of_values: tuple[Any, Any] | None


def _argument(tensor: Any) -> _Argument:
    data = handle_data_util.get_handle_data(tensor) if tensor.dtype == tf.resource else None
    if data is None or not data.shape_and_type:
        return _Argument(tensor.dtype, tensor.shape, None)
    values = data.shape_and_type[0]
    return _Argument(tensor.dtype, tensor.shape, (tf.as_dtype(values.dtype), tf.TensorShape(values.shape)))


@functools.lru_cache(_FUNCTIONS_KEPT)
def _cost_of_function(name: str, arguments: tuple[_Argument, ...]) -> float:
    definition = context.context().get_function_def(name)
    shapes = [argument.shape for argument in arguments]
    graph_def, _ = function_def_to_graph.function_def_to_graph_def(definition, shapes, include_library_functions=True)
    with tf.Graph().as_default() as graph:
        given = {}
        for place, argument in zip(definition.signature.input_arg, arguments, strict=True):
            given[f"{place.name}:0"] = tensor = tf.compat.v1.placeholder(argument.dtype, argument.shape)
            if argument.of_values is not None:
                dtype, shape = argument.of_values
                handle_data_util.set_handle_data(tensor, handle_data_util.create_handle_data(shape, dtype))
        tf.graph_util.import_graph_def(graph_def, given, name="")
        return sum(map(_cost_of_node, graph.get_operations()), 0.0)


def _cost_of_node(node: Any) -> float:
    if node.type in _CALLS:
        return _cost_of_function(node.get_attr("f").name, tuple(map(_argument, node.inputs)))
    if node.type in _HOLDERS:
        return 0.0 if _is_free_inside(node.node_def) else math.nan
    attributes = {name: node.get_attr(name) for name in _ATTRIBUTES if name in node.node_def.attr}
    return cost(node.type, node.inputs, attributes, node.outputs)


def _is_free_inside(node: Any) -> bool:
    """Say whether what a node of a graph calls, perhaps many times, multiplies no matrices."""
    values = node.attr.values()
    names = [name for value in values for name in (value.func.name, *(f.name for f in value.list.func)) if name]
    definitions = map(context.context().get_function_def, names)
    inner = [node for definition in definitions for node in definition.node_def]
    return all(_is_free_inside(node) if node.op in _HOLDERS else is_free(node.op) for node in inner)
