"""Sentinel: notices, in the steps that are not sampled, the first value that is not finite, and where it arose.

On the host it costs a list of the outputs that a forward pass made, which are looked into only where the loss is not
finite, and one product per gradient. On a device nobody may wait for, it costs one sum per output.
"""

from __future__ import annotations

import functools
import math
import weakref
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from neural_callbacks.pytorch.statistics import PLAIN, measurable
from neural_callbacks.pytorch.structures import tensors

# Returns the layers of a model, and all its modules.
Look = Callable[[], tuple[Collection[nn.Module], Collection[nn.Module]]]


@dataclass(frozen=True, slots=True)
class Passed:
    """A forward pass of one layer: what went in, what came out, and each output's version then."""

    module: nn.Module
    inputs: Any
    outputs: tuple[Tensor, ...]
    versions: tuple[int, ...]

    @property
    def is_as_it_was(self) -> bool:
        """Whether nobody has written into the outputs since."""
        return all(tensor._version == was for tensor, was in zip(self.outputs, self.versions, strict=True))  # noqa: SLF001 - the only way to know

    def shares_storage_with(self, values: Any) -> bool:
        """Say whether an output lies where one of the tensors in `values` does."""
        places = {tensor.untyped_storage().data_ptr() for tensor in self.outputs}
        return any(tensor.untyped_storage().data_ptr() in places for tensor in tensors(values))


@dataclass(frozen=True)
class Trail:
    """What is known of a step whose forward passes nobody measured.

    `order` are the layers as they ran, `forward` those whose outputs were not finite, `backward` those whose gradient
    on the way back was seen not to be.
    """

    order: Sequence[nn.Module]
    forward: Sequence[nn.Module]
    backward: Sequence[nn.Module]


def _is_torchs_own(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.nn.")


class Sentinel:
    """Watches the `layers` of a model from step to step; the manager calls it.

    `look` gives the layers and all modules of the model as they are now: it is asked about a module that was not met
    before, which may have been put into the model since. `is_harmless` says of a layer without parameters that it turns
    no finite gradient into one that is not.
    """

    def __init__(
        self,
        layers: Collection[nn.Module],
        look: Look | None = None,
        is_harmless: Callable[[nn.Module], bool] = _is_torchs_own,
    ) -> None:
        self._look = look
        self._is_harmless = is_harmless
        self.watch(layers)
        # How many passes are held at most: as many as have come before a backward pass so far. Who evaluates without
        # no_grad must not find the outputs of all batches in memory.
        self._most = 2 * len(layers)
        self._count = 0
        self.forget()

    def watch(self, layers: Collection[nn.Module]) -> None:
        """Watch `layers` from now on."""
        self._layers = frozenset(layers)
        # Other modules that were met: of the model, and of others.
        self._inside: frozenset[nn.Module] = frozenset()
        self._strangers: weakref.WeakSet[nn.Module] = weakref.WeakSet()
        self._suspects = frozenset(
            module for module in layers if next(module.parameters(), None) is None and not self._is_harmless(module)
        )

    def forward(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """Note the forward pass of a layer; this runs for every module in every step."""
        if module not in self._layers and not self._is_new(module):
            return
        if not torch.is_grad_enabled() or in_backward():
            return
        self.order.append(module)
        self._count += 1
        is_one = isinstance(output, Tensor)
        if is_one and output.is_cpu:
            self._passed.append((module, inputs, output, output._version))  # noqa: SLF001 - the only way to know
        else:
            self._note_several(module, inputs, tuple(tensors(output)))
        if module in self._suspects:
            for tensor in (output,) if is_one else tensors(output):
                if tensor.requires_grad:
                    tensor.register_hook(functools.partial(self._backward, module))

    def _is_new(self, module: nn.Module) -> bool:
        """Say whether a module is a layer that was put into the model since the last look."""
        if module in self._inside or module in self._strangers or self._look is None:
            return False
        # DataParallel makes new replicas for each step.
        if not torch.is_grad_enabled() or getattr(module, "_is_replica", False):
            return False
        layers, modules = self._look()
        if module in layers:
            self.watch(layers)
        elif module not in modules:
            self._strangers.add(module)
        self._inside = frozenset(modules).difference(layers)
        return module in layers

    def _note_several(self, module: nn.Module, inputs: Any, outputs: tuple[Tensor, ...]) -> None:
        if outputs and not outputs[0].is_cpu:
            self._sums += [
                (module, tensor.detach().sum(dtype=torch.float32)) for tensor in outputs if _is_float(tensor)
            ]
        else:
            self._passed.append((module, inputs, outputs, tuple(tensor._version for tensor in outputs)))  # noqa: SLF001 - as above

    def _backward(self, module: nn.Module, gradient: Tensor) -> None:
        if gradient.is_cpu and not is_finite([gradient]):
            self.bad_on_the_way_back.append(module)

    def producers(self) -> list[Passed]:
        """Return the passes with outputs that are not finite, the one where that arose first.

        An output that was written into since counts only where what lies there still came out of it: in place, a
        later layer may have brought in what is not finite.
        """
        bad = [passed for passed in self.passed if not is_finite(passed.outputs)]
        certain = [passed for passed in bad if passed.is_as_it_was]
        if not certain:
            return bad
        first = certain[0]
        earlier = [
            passed
            for passed in bad[: bad.index(first)]
            if passed.shares_storage_with(first.outputs) or passed.shares_storage_with(first.inputs)
        ]
        return [*earlier, *certain]

    @property
    def passed(self) -> list[Passed]:
        """The forward passes since the last backward pass, in order."""
        return [
            Passed(module, inputs, (outputs,), (versions,))
            if isinstance(outputs, Tensor)
            else Passed(module, inputs, outputs, versions)
            for module, inputs, outputs, versions in self._passed
        ]

    def release(self) -> None:
        """Let go of the outputs: a backward pass begins."""
        self._most, self._count = max(self._most, self._count), 0
        # Forward passes as `Passed`, or with the one output and its version as they are.
        self._passed: deque[tuple[nn.Module, Any, Any, Any]] = deque(maxlen=self._most)

    def forget(self) -> None:
        """Begin a new step."""
        self._count = 0
        self.release()
        self.order: deque[nn.Module] = deque(maxlen=self._most)
        self.bad_on_the_way_back: list[nn.Module] = []
        self._sums: list[tuple[nn.Module, Tensor]] = []

    def is_quiet(self, optimizer: Optimizer, losses: Sequence[Tensor]) -> bool:
        """Say whether `losses` and the gradients that `optimizer` is about to use are finite; see `is_finite`."""
        gradients = [
            parameter.grad
            for group in optimizer.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        return is_finite([*losses, *gradients])

    def trail(self, producers: Sequence[Passed] = ()) -> Trail:
        """Return what is known of the step, where `producers` are the passes that `producers` found."""
        forward = [passed.module for passed in producers] or self._bad_sums()
        return Trail(tuple(self.order), forward, self.bad_on_the_way_back)

    def _bad_sums(self) -> list[nn.Module]:
        """Return the layers on a device whose outputs were not finite, in order; waits for the device once."""
        if not self._sums:
            return []
        sums = torch.stack([value for _, value in self._sums]).cpu()
        return [
            module for (module, _), value in zip(self._sums, sums.tolist(), strict=True) if not math.isfinite(value)
        ]


def _is_float(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.layout is torch.strided and not tensor.is_meta


def in_backward() -> bool:
    """Say whether autograd is on its way back in this thread: a forward pass there is one that is made again."""
    running: int = torch._C._current_graph_task_id()  # noqa: SLF001 - as torch.utils.module_tracker does
    return running != -1


def is_finite(values: Iterable[Tensor]) -> bool:
    """Say whether all values of some tensors are finite; a device that holds some of them is waited for once."""
    others: list[Tensor] = []
    with np.errstate(all="ignore"):
        for tensor in values:
            try:
                # Whatever has no such array, as on a device or in bfloat16, raises: to ask first takes as long again.
                is_real = type(tensor) in PLAIN and not tensor.is_complex()  # of which numpy would warn
                flat = tensor.numpy().reshape(-1) if is_real else None
                # The square of a large value may overflow: only then is each value looked at.
                is_fine = flat is not None and (math.isfinite(flat.dot(flat)) or bool(np.isfinite(flat).all()))
            except (TypeError, RuntimeError):
                flat = None
            if flat is None:
                others.append(tensor)
            elif not is_fine:
                return False
    on_host = [tensor for tensor in others if tensor.is_cpu]
    on_devices = [flat for flat in (measurable(tensor) for tensor in others if not tensor.is_cpu) if flat is not None]
    return all(map(_exactly_finite, on_host)) and _finite_on_devices([flat for flat in on_devices if flat.numel()])


def _finite_on_devices(flats: list[Tensor]) -> bool:
    if not flats:
        return True
    norms = torch.stack([norm.to(flats[0].device, torch.float64) for norm in torch._foreach_norm(flats)])  # noqa: SLF001 - one call for all
    return bool(torch.isfinite(norms).all()) or all(map(_exactly_finite, flats))


def _exactly_finite(tensor: Tensor) -> bool:
    flat = measurable(tensor)
    return flat is None or bool(torch.isfinite(flat).all())
