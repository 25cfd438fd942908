"""Memory: the bytes that each layer holds, and the bytes in use as TensorFlow and the system count them."""

from __future__ import annotations

import ctypes
import math
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from neural.session.frame import PROFILES
from neural.session.statistics import FloatArray
from neural_callbacks.resident import Reading, ResidentMemory

_COLUMNS = PROFILES["memory"].columns
_ACTIVATIONS, _PARAMETERS, _GRADIENTS, _OPTIMIZER = (
    _COLUMNS.index(name) for name in ("activations", "parameters", "gradients", "optimizer")
)
# Lists of an optimizer that are not what it keeps for each of the variables that it trains.
_NO_STATES = frozenset({"_trainable_variables", "_variables"})
# A DLPack capsule holds a structure whose first field is the address of the values.
_CAPSULE = b"dltensor"
_pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
_pointer_of.restype = ctypes.c_void_p
_pointer_of.argtypes = [ctypes.py_object, ctypes.c_char_p]


def size(tensor: Any) -> int:
    """Return the bytes of a tensor's or a variable's values, or of the indices and values of a sparse gradient."""
    if isinstance(tensor, tf.IndexedSlices):
        return size(tensor.values) + size(tensor.indices)
    values: int = math.prod(tensor.shape)
    return values * int(tf.as_dtype(tensor.dtype).size)


class LayerMemory:
    """Adds up what the layers hold in one eager step: outputs and gradients as they come, the rest at its end."""

    def __init__(self) -> None:
        self._outputs: dict[int, int] = {}
        self._gradients: dict[int, int] = {}
        # By address. Held weakly: nothing is kept alive, and no place is taken for another tensor that comes there.
        self._seen: dict[int, weakref.ref[Any]] = {}

    def given(self, values: Any) -> None:
        """Note tensors that are there without any layer, as the inputs of the model: who hands them on made nothing."""
        for tensor in eager_tensors(values):
            self._seen[_address(tensor)] = weakref.ref(tensor)

    def output(self, layer: Any, values: Any) -> None:
        """Take in what a call of `layer` gave out.

        An output counts once in a step, with the layer that gave it out first: who gives out its input, or another
        shape of it, adds nothing.
        """
        total = self._outputs.get(id(layer), 0)
        for tensor in eager_tensors(values):
            if not math.prod(tensor.shape):
                continue
            address = _address(tensor)
            known = self._seen.get(address)
            if known is None or known() is None:
                self._seen[address] = weakref.ref(tensor)
                total += size(tensor)
        self._outputs[id(layer)] = total

    def gradients(self, gradients: Sequence[Any], variables: Sequence[Any]) -> None:
        """Take in the gradients that an optimizer is about to apply to variables."""
        for gradient, variable in zip(gradients, variables, strict=True):
            if gradient is not None:
                self._gradients[id(variable)] = size(gradient)

    def matrix(
        self, rows: Mapping[int, int], owners: Sequence[tuple[Any, int]], height: int, optimizers: Iterable[Any]
    ) -> FloatArray:
        """Return the matrix (height, 4) of bytes: activations, parameters, gradients, optimizer state.

        `rows` tells the row of each layer by its identity, `owners` are variables and the rows of their layers. A layer
        that gave out nothing in the step has NaN as its activations.
        """
        matrix = np.zeros((height, len(_COLUMNS)))
        matrix[:, _ACTIVATIONS] = np.nan
        for identity, total in self._outputs.items():
            if identity in rows:
                matrix[rows[identity], _ACTIVATIONS] = total
        states: dict[int, int] = {}
        for optimizer in optimizers:
            for variable, state in _states(optimizer):
                states[id(variable)] = states.get(id(variable), 0) + size(state)
        for variable, row in owners:
            matrix[row, _PARAMETERS] += size(variable)
            matrix[row, _GRADIENTS] += self._gradients.get(id(variable), 0)
            matrix[row, _OPTIMIZER] += states.get(id(variable), 0)
        return matrix


def eager_tensors(values: Any) -> list[Any]:
    """Return the tensors with values in what a layer takes or gives out, those inside ragged and sparse ones too."""
    flat = tf.nest.flatten(keras.tree.flatten(values), expand_composites=True)
    return [x for x in flat if isinstance(x, tf.Tensor) and hasattr(x, "numpy") and _is_plain(x.dtype)]


def _is_plain(dtype: Any) -> bool:
    return bool(dtype.is_floating or dtype.is_integer or dtype.is_complex or dtype.is_bool)


def _address(tensor: Any) -> int:
    capsule = tf.experimental.dlpack.to_dlpack(tensor)
    return ctypes.c_void_p.from_address(_pointer_of(capsule, _CAPSULE)).value or 0


def _states(optimizer: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each trained variable and what an optimizer keeps for it: Keras keeps lists in the order of variables."""
    trained = optimizer._trainable_variables  # noqa: SLF001 - as keras.Optimizer.build leaves them
    for name, value in vars(optimizer).items():
        if isinstance(value, keras.optimizers.Optimizer):  # of a LossScaleOptimizer
            yield from _states(value)
        elif isinstance(value, list) and len(value) == len(trained) and name not in _NO_STATES:
            yield from (pair for pair in zip(trained, value, strict=True) if isinstance(pair[1], keras.Variable))


class MemoryReader:
    """Reads the bytes in use on the GPUs, as TensorFlow's allocators count them, and in this process.

    TensorFlow tells what its allocators have handed out, not what they hold; and counts nothing on the CPU.
    """

    def __init__(self) -> None:
        self._devices = [f"GPU:{number}" for number, _ in enumerate(tf.config.list_logical_devices("GPU"))]
        self._resident = ResidentMemory()

    def read(self) -> Reading:
        """Read what is in use now."""
        allocated = math.nan
        if self._devices:
            allocated = sum(tf.config.experimental.get_memory_info(name)["current"] for name in self._devices)
        return Reading(allocated, math.nan, self._resident.read())
