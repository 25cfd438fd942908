"""FLOPs: the floating-point operations of each layer in a step, counted once for each shape of its inputs."""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode

from neural.session.frame import PROFILES
from neural.session.statistics import FloatArray
from neural_callbacks.pytorch.operations import UNKNOWN, Cost, cost, running_function

# How many shapes of inputs are remembered of a layer: what varies more, as lengths of sentences, begins anew.
SHAPES_KEPT = 256


@dataclass(slots=True)
class _Count:
    """The FLOPs of one call, without those of the layers called inside."""

    forward: float = 0.0
    backward: float = 0.0

    def add(self, forward: float, backward: float) -> None:
        self.forward += forward
        self.backward += backward


@dataclass(slots=True)
class _Call:
    """A layer that is running. `exception` is the one that was being handled when it began."""

    module: nn.Module
    exception: BaseException | None
    count: _Count | None = None  # None: this call is left aside
    takes_forward: bool = False
    takes_backward: bool = False
    is_counting: bool = False
    key: Any = None  # by what `count` is found again; None: by nothing
    mode: _Counting | None = None


@dataclass(slots=True)
class _Thread:
    calls: list[_Call] = field(default_factory=list)
    modes: list[_Counting] = field(default_factory=list)


class _Counting(TorchDispatchMode):  # type: ignore[misc]
    """Hears of every operation and adds its cost to the innermost layer running."""

    supports_higher_order_operators = True

    def __init__(self, calls: list[_Call]) -> None:
        super().__init__()
        self.calls = calls
        self.is_over = False

    @classmethod
    def is_infra_mode(cls) -> bool:
        # Else torch.compile would leave what runs under it uncompiled.
        return True

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        return True

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if not self.is_over and (call := self.calls[-1]).is_counting and call.count is not None:
            call.count.add(*_contained_cost(func, types, args, kwargs, output))
        return output


def _contained_cost(*operation: Any) -> Cost:
    try:
        return cost(*operation)
    except Exception:  # noqa: BLE001 - a formula that does not take these arguments: this runs inside the user's forward
        return UNKNOWN


class FlopCounter:
    """Counts the FLOPs of layers, those that are called and those that are only inside, over the steps of a training.

    The taps say `enter` and `leave` around every call of a layer and of the model itself, and `take` the counts at the
    end of a step. FLOPs are those of products of matrices, of convolutions and of attention, a multiplication and an
    addition two; they go to the innermost layer running. What multiplies no matrices counts 0. A layer in which
    something ran whose FLOPs no formula tells, as torch's fused LSTM, has NaN: it was not counted.

    Backward FLOPs follow from the operations of the forward pass and from which of their factors need a gradient. A
    call that torch.utils.checkpoint repeats counts once; passes without gradients, as in evaluation, are left aside.

    A layer that is called with inputs of shapes that it had before is not counted again: only for new ones does torch
    report each operation, from the outermost layer with new shapes until it is done.
    """

    def __init__(self) -> None:
        self._known: weakref.WeakKeyDictionary[nn.Module, dict[Any, _Count]] = weakref.WeakKeyDictionary()
        self._threads: dict[int, _Thread] = {}
        self._totals: dict[nn.Module, _Count] = {}
        self._repeated: set[nn.Module] = set()

    def enter(self, module: nn.Module, inputs: Iterable[Tensor]) -> None:
        """Begin a call of `module`; `inputs` are the tensors that it was given, as far as they can be seen."""
        thread = self._threads.setdefault(threading.get_ident(), _Thread())
        call = _Call(module, sys.exception())
        self._decide(call, thread.calls)
        if call.takes_forward or call.takes_backward:
            call.key = _key(module, inputs)
            call.count = self._known.get(module, {}).get(call.key)
            if call.count is None:
                call.count, call.is_counting = _Count(), True
                if not any(outer.mode for outer in thread.calls):
                    call.mode = _Counting(thread.calls)
                    thread.modes.append(call.mode)
        thread.calls.append(call)
        if call.mode is not None:
            call.mode.__enter__()

    def _decide(self, call: _Call, outer: list[_Call]) -> None:
        """Decide which part of the cost of `call` counts."""
        if torch.is_grad_enabled():
            if torch._C._current_graph_task_id() == -1:  # noqa: SLF001 - not in a backward pass
                call.takes_forward = call.takes_backward = not outer or outer[-1].count is not None
            else:
                # A checkpoint repeats in the backward pass what it ran before: without gradients, where it is of the
                # kind that is a custom function.
                call.takes_backward = call.module in self._repeated
        elif running_function() is not None:
            self._repeated.add(call.module)
            call.takes_forward = True
        else:
            call.takes_forward = bool(outer) and outer[-1].count is not None

    def leave(self, module: nn.Module) -> None:
        """End the innermost call of `module`, and what it left running inside; without such a call nothing happens."""
        thread = self._threads.get(threading.get_ident())
        if thread is None:
            return
        places = [place for place, call in enumerate(thread.calls) if call.module is module]
        if not places:
            return
        call, *left = thread.calls[places[-1] :]
        del thread.calls[places[-1] :]
        for ended in (call, *left):
            if ended.mode is not None:
                ended.mode.is_over = True
        _close(thread)
        # An exception ends a call in the middle: what it cost is not what such calls cost.
        if call.count is None or left or sys.exception() is not call.exception:
            return
        if call.is_counting and call.key is not None:
            known = self._known.setdefault(module, {})
            if len(known) >= SHAPES_KEPT:
                known.clear()
            known[call.key] = call.count
        self._totals.setdefault(module, _Count()).add(
            call.count.forward if call.takes_forward else 0.0, call.count.backward if call.takes_backward else 0.0
        )

    def take(
        self, rows: Mapping[nn.Module, int], height: int, reached: Container[nn.Module]
    ) -> tuple[FloatArray, FloatArray]:
        """Return the counts of the step as a matrix (height, 2), forward and backward, and begin a new step.

        `rows` tells the row of each layer; a layer that did not run has NaN. The backward FLOPs of a layer that is not
        in `reached`, whose outputs no gradient reached in this step, are 0. The second array (2,) is what ran in the
        model but in none of these layers, as attention between them.
        """
        matrix = np.zeros((height, len(PROFILES["flops"].columns)))
        outside = np.zeros(matrix.shape[1])
        for module, count in self._totals.items():
            if module in rows:
                matrix[rows[module]] += count.forward, count.backward if module in reached else 0.0
            else:
                outside += count.forward, count.backward
        idle = set(range(height)).difference(rows[module] for module in self._totals if module in rows)
        matrix[list(idle)] = np.nan
        self.close()
        return matrix, outside

    def close(self) -> None:
        """Forget the step so far, and stop listening where a call was broken off and never left."""
        for thread in self._threads.values():
            for mode in thread.modes:
                mode.is_over = True
            thread.calls.clear()
        if (own := self._threads.get(threading.get_ident())) is not None:
            _close(own)
        self._totals, self._repeated = {}, set()


def _close(thread: _Thread) -> None:
    # Modes end in the order opposite to their beginning. One that the user opened inside and still holds, from a hook
    # perhaps, keeps ours listening to nothing until it has gone.
    while thread.modes and thread.modes[-1].is_over and _get_current_dispatch_mode() is thread.modes[-1]:
        thread.modes.pop().__exit__(None, None, None)


def _key(module: nn.Module, inputs: Iterable[Tensor]) -> Any:
    """Return what two calls of `module` with the same FLOPs have in common; None where that cannot be told."""
    shapes = tuple([(tensor.shape, tensor.requires_grad) for tensor in inputs])
    if not shapes:  # perhaps what is given by name is not seen here: then each call is counted
        return None
    return shapes, _needs(module), module.training, torch.is_grad_enabled()


def _needs(module: nn.Module) -> tuple[Any, ...]:
    """Return which parameters of a module need a gradient: a frozen layer has less to do on the way back."""
    own = [parameter is not None and parameter.requires_grad for parameter in module._parameters.values()]  # noqa: SLF001
    return (*own, *[_needs(child) for child in module._modules.values() if child is not None])  # noqa: SLF001
