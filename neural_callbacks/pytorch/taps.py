"""Sample: everything that is measured of one training step, from its first forward pass to the optimizer's change."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neural.session import histogram, statistics
from neural.session.frame import KINDS, Frame
from neural.session.histogram import Histograms, IntArray
from neural.session.statistics import FloatArray
from neural_callbacks.pytorch.distributed import whole
from neural_callbacks.pytorch.layout import Layout, Signature, layers_of
from neural_callbacks.pytorch.reducers import Reducer, reducer_for
from neural_callbacks.pytorch.statistics import measurable
from neural_callbacks.recorder import BY_LOGITS, Recorder

# The parts that an error switches off one by one.
ACTIVATIONS, PARAMETERS, SCALARS = "activations", "parameters", "scalars"

_CODE_OF_BIN = histogram.counts_from_codes(np.arange(histogram.BINS))


def tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in `value`: itself, or those inside tuples, lists, mappings and dataclasses, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from tensors(getattr(value, field.name))


class Sample:
    """Measures one step of `model`.

    The manager calls it from hooks; what fails inside is contained by `recorder`. All floating tensors that a layer
    gives out in one step, over its outputs, its calls and the passes of an accumulated gradient, make one row.
    Forward passes without gradients, as in evaluation, are left aside.
    """

    def __init__(self, model: nn.Module, layout: Layout, recorder: Recorder) -> None:
        self._model = model
        self._layout = layout
        self._recorder = recorder
        self._called: list[nn.Module] = []
        self._signatures: dict[nn.Module, Signature] = {}
        self._reducers: dict[torch.device, Reducer] = {}
        self._measured: dict[Reducer, list[tuple[str, nn.Module | Tensor]]] = {}
        self._scalars: dict[Reducer, list[str]] = {}
        self._before: dict[nn.Parameter, Tensor] = {}
        self._by_output: set[nn.Module] = set()
        self._by_logits: list[nn.Module] = []
        self._is_over = False

    @functools.cached_property
    def _layers(self) -> frozenset[nn.Module]:
        # Looked up when the first forward pass runs: until then the user may still put other layers in.
        return frozenset(module for _, module in layers_of(self._model))

    def forward(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """Measure the output of a layer's forward pass, and have its gradient measured on the way back."""
        if self._is_off(ACTIVATIONS) or not torch.is_grad_enabled():
            return
        with self._recorder.contained(ACTIVATIONS):
            if module not in self._layers:
                return
            self._called.append(module)
            if module not in self._signatures and self._layout.needs_signature(module):
                self._signatures[module] = _signature(inputs, output)
            for tensor in tensors(output):
                self._measure("activations", module, tensor)
                if tensor.requires_grad:
                    tensor.register_hook(functools.partial(self._backward, module))
                    # What softmax or sigmoid gives out may carry its logits, for a loss that starts from there.
                    logits = getattr(tensor, "logits", None)
                    if isinstance(logits, Tensor) and logits.requires_grad:
                        logits.register_hook(functools.partial(self._backward_logits, module))

    def _backward(self, module: nn.Module, gradient: Tensor) -> None:
        # A graph kept by the user runs backward again in later steps: by then this sample is over.
        if not self._is_off(ACTIVATIONS):
            with self._recorder.contained(ACTIVATIONS):
                self._by_output.add(module)
                self._measure("activation_gradients", module, gradient)

    def _backward_logits(self, module: nn.Module, gradient: Tensor) -> None:
        # The way back meets an output before its logits: where the output had a gradient, that is the one.
        if module not in self._by_output and not self._is_off(ACTIVATIONS):
            with self._recorder.contained(ACTIVATIONS):
                self._by_logits.append(module)
                self._measure("activation_gradients", module, gradient)

    def before_step(self, parameters: Collection[nn.Parameter], stepped: Collection[nn.Parameter]) -> None:
        """Measure `parameters`; keep a copy of those that the optimizer steps, to tell what it changed."""
        if not self._is_off(PARAMETERS):
            with self._recorder.contained(PARAMETERS):
                for parameter in parameters:
                    if parameter in stepped:
                        self._before[parameter] = before = parameter.detach().clone()
                        self._measure("weights", parameter, before, lasting=True)
                    else:
                        self._measure("weights", parameter, parameter)

    def gradients(self, parameters: Collection[nn.Parameter]) -> None:
        """Measure the gradients that `parameters` hold now."""
        if not self._is_off(PARAMETERS):
            with self._recorder.contained(PARAMETERS):
                for parameter in parameters:
                    if parameter.grad is not None:
                        self._measure("gradients", parameter, parameter.grad)

    def after_step(self) -> None:
        """Measure what the optimizer's step changed."""
        if not self._is_off(PARAMETERS):
            with self._recorder.contained(PARAMETERS):
                for parameter, before in self._before.items():
                    after = parameter.detach()
                    narrow = after.element_size() < torch.float32.itemsize
                    change = after.float() - before.float() if narrow else after - before
                    self._measure("updates", parameter, change, lasting=True)

    def scalar(self, name: str, value: Tensor | float) -> None:
        """Take in a headline figure; of one that is given several times in a step, the mean counts."""
        if not self._is_off(SCALARS):
            with self._recorder.contained(SCALARS):
                tensor = (
                    whole(name, value.detach())
                    if isinstance(value, Tensor)
                    else torch.tensor(float(value), dtype=torch.float64)
                )
                if tensor.numel() != 1:
                    raise ValueError(f"{name} has the shape {tuple(tensor.shape)}; give a single number, as its mean")
                reducer = self._reducer(tensor.device)
                reducer.measure_scalar(tensor)
                self._scalars.setdefault(reducer, []).append(name)

    def _is_off(self, part: str) -> bool:
        return self._is_over or part in self._recorder.switched_off

    def _reducer(self, device: torch.device) -> Reducer:
        if device not in self._reducers:
            self._reducers[device] = reducer_for(device)
        return self._reducers[device]

    def _measure(self, kind: str, owner: nn.Module | Tensor, values: Tensor, *, lasting: bool = False) -> None:
        flat = measurable(values)
        if flat is not None:
            reducer = self._reducer(flat.device)
            reducer.measure(flat, lasting=lasting)
            self._measured.setdefault(reducer, []).append((kind, owner))

    def finish(self, step: int) -> Frame:
        """Bring the layout up to date, write it where it changed, and return the frame of what was measured."""
        self._is_over = True
        layout = self._layout
        if layout.update(self._model, self._called, self._signatures):
            self._recorder.write_layers(layout.table, step)
        for module in self._by_logits:
            self._recorder.notice(BY_LOGITS.format(layout.table.layers[layout.layer_numbers[module]].own_name))
        rows: list[FloatArray] = [np.empty((0, len(statistics.COLUMNS)))]
        counts: list[IntArray] = [np.empty((0, histogram.BINS), np.int64)]
        measured: list[tuple[str, nn.Module | Tensor]] = []
        scalars: dict[str, list[float]] = {}
        for reducer in self._reducers.values():
            some_rows, some_counts, figures = reducer.collect()
            rows.append(some_rows)
            counts.append(some_counts)
            measured += self._measured.get(reducer, [])
            for name, figure in zip(self._scalars.get(reducer, []), figures, strict=True):
                scalars.setdefault(name, []).append(float(figure))
        matrices, histograms = gather(
            [(kind, _number(owner, layout)) for kind, owner in measured],
            np.concatenate(rows),
            np.concatenate(counts),
            {"layers": len(layout.table.layers), "parameters": len(layout.table.parameters)},
        )
        figures_by_name = {name: float(np.mean(values)) for name, values in scalars.items()}
        if "gradients" in matrices:
            figures_by_name["gradient_norm"] = statistics.global_norm(matrices["gradients"])
        # A graph that the user keeps refers to this sample: let it not keep the tensors too.
        self._reducers, self._measured, self._before = {}, {}, {}
        return Frame(step, time.time(), matrices, histograms, figures_by_name)


def _number(owner: nn.Module | Tensor, layout: Layout) -> int | None:
    return layout.parameter_numbers.get(owner) if isinstance(owner, Tensor) else layout.layer_numbers.get(owner)


def gather(
    measured: Sequence[tuple[str, int | None]], rows: FloatArray, counts: IntArray, heights: Mapping[str, int]
) -> tuple[dict[str, FloatArray], dict[str, Histograms]]:
    """Put what was measured in its place: matrices (height, 10) and histograms, by kind.

    `rows` (k, 10) and `counts` by code (k, 514) are of the kinds and numbers `measured` (k); those of the same kind and
    number are merged, those without a number left out. `heights` tells how many layers and parameters there are.
    """
    kinds = [*dict.fromkeys(kind for kind, number in measured if number is not None)]
    tallest = max(heights.values(), default=0)
    # One key for both, so that all kinds are sorted, merged and taken apart in one go.
    keys = np.array([-1 if n is None else kinds.index(kind) * tallest + n for kind, n in measured], np.int64)
    order = np.argsort(keys, kind="stable")[np.count_nonzero(keys < 0) :]
    keys, rows, counts = keys[order], rows[order], counts[order]
    is_first = np.ones(len(keys), bool)
    is_first[1:] = keys[1:] != keys[:-1]
    if not is_first.all():
        starts = np.flatnonzero(is_first)
        keys, rows, counts = keys[starts], statistics.merge(rows, starts.tolist()), np.add.reduceat(counts, starts)
    by_bin = counts[:, _CODE_OF_BIN]
    row, column = np.nonzero(by_bin)
    entries = np.stack([keys[row] % max(tallest, 1), column, by_bin[row, column]], axis=1)
    matrices: dict[str, FloatArray] = {}
    histograms: dict[str, Histograms] = {}
    for index, kind in enumerate(kinds):
        first, last = np.searchsorted(keys, [index * tallest, (index + 1) * tallest])
        matrices[kind] = statistics.unmeasured(heights[KINDS[kind].rows])
        matrices[kind][keys[first:last] - index * tallest] = rows[first:last]
        histograms[kind] = Histograms(entries[slice(*np.searchsorted(row, [first, last]))])
    return matrices, histograms


def _signature(inputs: tuple[Any, ...], output: Any) -> Signature:
    outputs = list(tensors(output))
    dtypes = [tensor.dtype for tensor in outputs if tensor.is_floating_point()] or [tensor.dtype for tensor in outputs]
    return Signature(
        tuple(tuple(tensor.shape) for tensor in tensors(inputs)),
        tuple(tuple(tensor.shape) for tensor in outputs),
        str(dtypes[0]).removeprefix("torch.") if dtypes else "",
    )
