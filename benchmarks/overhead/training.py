"""Training with PyTorch: one model that is trained over and over from the same start, with a time for each step."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from overhead.estimate import FloatArray
from overhead.watching import nothing
from overhead.workloads import Workload

# Steps before anything is measured: the allocator, oneDNN's and cuDNN's choices, the optimizer's state.
WARM_UP = 10


class Training:
    """The model of `workload` on `device`, its optimizer and its batch; `clock` times steps on the CPU, in seconds.

    All gears train this one model, in the same memory: two models of one kind, in one process, differ by several
    percent for as long as they live. `reset` brings back the weights and the optimizer's state, so that every block
    computes the same numbers; without that a batch is soon learnt by heart, and gradients that vanish take other time.
    """

    def __init__(self, workload: Workload, device: str, clock: Callable[[], float]) -> None:
        torch.manual_seed(0)
        self.workload = workload
        self.device = device
        self.clock = clock
        self.model = workload.model().to(device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), 1e-3)
        self._inputs, self._targets = (part.to(device) for part in workload.batch(torch.Generator().manual_seed(0)))
        # Of a plain step, in seconds, when last looked at: what a known cost is measured out by.
        self.typical = float(np.median(self.run(WARM_UP, nothing)))
        with torch.no_grad():
            self._start = [(tensor, tensor.clone()) for tensor in self._state()]

    def _state(self) -> list[Tensor]:
        slots = [slot for state in self.optimizer.state.values() for slot in state.values()]
        return [*self.model.parameters(), *self.model.buffers(), *(slot for slot in slots if isinstance(slot, Tensor))]

    def reset(self) -> None:
        """Go back to where every block starts."""
        with torch.no_grad():
            for tensor, start in self._start:
                tensor.copy_(start)

    def run(self, steps: int, observe: Callable[[Tensor], object]) -> FloatArray:
        """Train for `steps` steps, `observe` called with the loss before each update; return the seconds (steps,).

        On a GPU the times are between events at the ends of steps, so that the host waits for it once, at the end.
        """
        marks = [self._mark()]
        for _ in range(steps):
            self.optimizer.zero_grad()
            with torch.autocast(self.device, torch.bfloat16, enabled=self.workload.bf16):
                loss = functional.cross_entropy(self.model(self._inputs), self._targets)
            loss.backward()
            observe(loss)
            self.optimizer.step()
            marks.append(self._mark())
        return self._seconds(marks)

    def _mark(self) -> Any:
        if self.device == "cpu":
            return self.clock()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _seconds(self, marks: Sequence[Any]) -> FloatArray:
        if self.device == "cpu":
            return np.diff(marks)
        torch.cuda.synchronize()
        return np.array([1e-3 * mark.elapsed_time(later) for mark, later in itertools.pairwise(marks)])
