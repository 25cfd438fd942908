"""Rehearsal: a train step is run beside training, and then everything that it changed is as it was before.

What a step changes are variables: those that the traced step reads or writes, and all that Keras knows of the model,
its optimizers and its metrics. Their values are kept and assigned back, bit by bit. Python's side of it, which Keras
keeps too (as the losses that layers add), is put back as well. Where a step has effects beyond these, it is not
rehearsed. Nor is one that draws from the random streams of Python or numpy: other threads draw from these too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.python.framework import op_def_registry

# Operations that TensorFlow keeps in order for their state, and whose state is a variable's; or that only read, only
# check, or only call functions, whose operations are looked at as well.
_ALLOWED = frozenset(
    {
        *("AssignAddVariableOp", "AssignSubVariableOp", "AssignVariableOp", "ReadVariableOp", "VariableShape"),
        *("ResourceStridedSliceAssign", "VarIsInitializedOp"),
        *("RngReadAndSkip", "RngSkip", "StatefulRandomBinomial", "StatefulStandardNormalV2", "StatefulTruncatedNormal"),
        *("StatefulUniform", "StatefulUniformFullInt", "StatefulUniformInt", "StatelessRandomGetAlg"),
        *("Assert", "CheckNumerics", "CheckNumericsV2", "DeviceIndex", "Empty", "GuaranteeConst"),
        *("LookupTableFindV2", "LookupTableSizeV2"),
        *("Case", "If", "StatefulPartitionedCall", "While"),
        # Without dropout of its own, which Keras does not use, these read and write tensors only.
        *("CudnnRNN", "CudnnRNNBackprop", "CudnnRNNBackpropV2", "CudnnRNNBackpropV3", "CudnnRNNV2", "CudnnRNNV3"),
    }
)
_ALLOWED_FAMILIES = ("ResourceApply", "ResourceGather", "ResourceScatter", "ResourceSparseApply")
# In a graph, where a function's arguments come in and its results go out.
_ENDS = frozenset({"_Arg", "_Retval"})


def effects(operations: Collection[str]) -> list[str]:
    """Return which of a graph's operations, by their names, may have effects that are not a variable's new value."""
    return sorted(name for name in operations if not _is_harmless(name))


@functools.cache
def _is_harmless(name: str) -> bool:
    if name in _ALLOWED or name in _ENDS or name.startswith(_ALLOWED_FAMILIES):
        return True
    definition = op_def_registry.get(name)
    if definition is None:
        return False
    takes_state = any(argument.type == types_pb2.DT_RESOURCE or argument.is_ref for argument in definition.input_arg)
    return not (definition.is_stateful or takes_state)


@contextmanager
def taken_back(model: Any, optimizers: Sequence[Any], captured: Sequence[Any]) -> Iterator[Callable[[], None]]:
    """Put everything back when the `with` block ends, in whatever way, that a train step inside it changed.

    `captured` are the tensors that the traced step takes from outside, resources among them. The block gets a function
    that puts back what was changed so far.
    """
    variables = _Variables(model, optimizers, captured)
    attributes = _Attributes(_owners(model, optimizers))

    def put_back() -> None:
        variables.put_back()
        attributes.put_back()

    try:
        yield put_back
    finally:
        try:
            put_back()
        except KeyboardInterrupt:  # it came in the middle of this, and must find nothing half done
            put_back()
            raise


class _Variables:
    """The values of variables as they are now.

    What is kept are the tensors that reading gives: who changes a variable whose value somebody holds gives it another
    piece of memory, so that nothing is copied before it is changed.
    """

    def __init__(self, model: Any, optimizers: Sequence[Any], captured: Sequence[Any]) -> None:
        owned = [*model.variables, *model.metrics_variables, *(v for one in optimizers for v in one.variables)]
        handles = [variable.value.handle for variable in owned]
        handles += [tensor for tensor in captured if tensor.dtype == tf.resource and _dtype(tensor) is not None]
        self._handles = list({id(handle): handle for handle in handles}.values())
        self._values = [tf.raw_ops.ReadVariableOp(resource=x, dtype=_dtype(x)) for x in self._handles]

    def put_back(self) -> None:
        for handle, value in zip(self._handles, self._values, strict=True):
            tf.raw_ops.AssignVariableOp(resource=handle, value=value)


def _dtype(handle: Any) -> Any:
    """Return the type of a variable's values; None where the resource is no variable."""
    data = getattr(handle, "_handle_data", None)
    return tf.as_dtype(data.shape_and_type[0].dtype) if data is not None and data.shape_and_type else None


# Another thread may ask for these at any time.
_REQUESTS = frozenset({"stop_training", "stop_evaluating", "stop_predicting"})


class _Attributes:
    """What Python objects hold now: their attributes, and what is in those that are lists, sets or dictionaries."""

    def __init__(self, owners: Sequence[Any]) -> None:
        held = [vars(owner) for owner in owners]
        held += {id(x): x for each in held for x in each.values() if _is_container(x)}.values()
        self._held = [(each, _copy(each)) for each in held]

    def put_back(self) -> None:
        # By the methods of the plain types: those of Keras' own ones keep track of what changes.
        for container, before in self._held:
            if _is_same(container, before):
                continue
            if isinstance(container, list):
                list.__setitem__(container, slice(None), before)
            elif isinstance(container, set):
                set.intersection_update(container, before)
                set.update(container, before)
            else:
                dict.update(container, {key: value for key, value in before.items() if key not in _REQUESTS})
                for key in [key for key in container if key not in before and key not in _REQUESTS]:
                    dict.pop(container, key)


def _is_container(value: Any) -> bool:
    # TensorFlow's own lists, of which optimizers have some, keep a second list; no step changes these.
    return isinstance(value, (list, set, dict)) and not type(value).__module__.startswith("tensorflow.")


def _copy(container: Any) -> Any:
    plain = next(kind for kind in (list, set, dict) if isinstance(container, kind))
    return plain(container)


def _is_same(now: Any, before: Any) -> bool:
    """Whether a container holds the very objects that it held before."""
    if len(now) != len(before):
        return False
    if isinstance(now, dict):
        return all(key in before and before[key] is value for key, value in dict.items(now))
    if isinstance(now, set):
        return {id(x) for x in now} == {id(x) for x in before}
    return all(one is other for one, other in zip(now, before, strict=True))


def _owners(model: Any, optimizers: Sequence[Any]) -> list[Any]:
    layers = model._flatten_layers()  # noqa: SLF001 - Layer has no public one
    losses = [x for x in vars(model).values() if isinstance(x, (keras.losses.Loss, keras.metrics.Metric))]
    owners = [*layers, *optimizers, *model.metrics, *losses]
    return list({id(owner): owner for owner in owners}.values())
