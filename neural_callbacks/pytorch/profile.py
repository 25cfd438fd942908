"""Profile: when the layers of one step ran, what they hold in memory, and their floating-point operations."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neural.session.frame import FORWARD, STEP
from neural.session.statistics import FloatArray
from neural_callbacks.pytorch.flops import FlopCounter
from neural_callbacks.pytorch.memory import LayerMemory, MemoryReader
from neural_callbacks.pytorch.sentinel import in_backward
from neural_callbacks.pytorch.structures import tensors
from neural_callbacks.pytorch.trace import Trace


class Profiler:
    """What one training's profiles have in common: the FLOPs that are known, and the memory's reader."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._flops = FlopCounter()
        self._device = _device_of(model)
        self._reader = MemoryReader([self._device])

    def begin(self) -> Profile:
        """Return the profile of a step that begins now."""
        device = _device_of(self._model)
        if device != self._device:  # the model was moved
            self._device, self._reader = device, MemoryReader([device])
        return Profile(Trace(device, self._reader), self._flops, self._reader)

    def close(self) -> None:
        """Let go of whatever an exception left open."""
        self._flops.close()


def _device_of(model: nn.Module) -> torch.device:
    parameter = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


class Profile:
    """The profile of one step. The taps say what runs; `mark` and `own_since` tell what is the observer's own work."""

    def __init__(self, trace: Trace, flops: FlopCounter, reader: MemoryReader) -> None:
        self._trace = trace
        self._flops = flops
        self._reader = reader
        self._memory = LayerMemory()
        self.mark, self.own_since = trace.mark, trace.own_since
        self.open, self.close = trace.open, trace.close
        self.open(STEP)

    def begin_pass(self, module: nn.Module, inputs: Any, *, is_layer: bool) -> None:
        """Begin a forward pass of the model, or of a part that is called from outside."""
        given = list(tensors(inputs))
        self._memory.given(given)
        if not is_layer:
            self._flops.enter(module, given)
        self.open(FORWARD)

    def end_pass(self, module: nn.Module, *, is_layer: bool) -> None:
        """End it."""
        self.close(FORWARD)
        if not is_layer:
            self._flops.leave(module)

    def enter(self, module: nn.Module, inputs: Any) -> None:
        """Begin a layer's forward pass; the last thing that is done before it."""
        mark = self.mark()
        self._flops.enter(module, tensors(inputs))
        self.own_since(mark)
        self._trace.enter(module)

    def leave(self, module: nn.Module, outputs: Sequence[Tensor]) -> None:
        """End a layer's forward pass; the first thing that is done after it."""
        self._trace.leave(module, outputs)
        mark = self.mark()
        self._flops.leave(module)
        if not in_backward():  # what a checkpoint runs again takes the place of what it ran before
            self._memory.output(module, outputs)
        self.own_since(mark)

    def finish(
        self,
        rows: Mapping[nn.Module, int],
        height: int,
        owners: Mapping[nn.Parameter, int],
        states: Iterable[Mapping[Tensor, Any]],
        reached: Container[nn.Module],
    ) -> tuple[dict[str, FloatArray], dict[str, float]]:
        """Return the matrices of `neural.session.frame.PROFILES` that this is about, and figures of the whole step.

        `rows` tells the row of each layer, of which the table has `height`, `owners` and `states` are as for
        `LayerMemory.matrix`, `reached` the layers whose outputs a gradient reached.
        """
        self.close(STEP)
        trace, timing = self._trace.finish(rows, height)
        flops, elsewhere = self._flops.take(rows, height, reached)
        memory = self._memory.matrix(rows, owners, height, states)
        figures = {}
        peak = self._reader.peak()
        if math.isnan(peak) and not np.isnan(trace[:, -1]).all():
            peak = float(np.nanmax(trace[:, -1]))
        if not math.isnan(peak):
            figures["memory_peak"] = peak
        if elsewhere.any():
            figures["flops_between_layers"] = float(elsewhere.sum())
        return {"trace": trace, "timing": timing, "memory": memory, "flops": flops}, figures
