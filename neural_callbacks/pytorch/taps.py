"""Sample: everything that is measured of one training step, from its first forward pass to the optimizer's change."""

from __future__ import annotations

import functools
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from neural.session import statistics
from neural.session.anomaly import Anomaly
from neural.session.frame import Frame
from neural.session.layers import Shape
from neural.session.statistics import FloatArray
from neural_callbacks import anomalies
from neural_callbacks.gathering import figures_of, gather
from neural_callbacks.pytorch.activity import Activity
from neural_callbacks.pytorch.distributed import whole
from neural_callbacks.pytorch.layout import Layout, Signature
from neural_callbacks.pytorch.operations import running_function
from neural_callbacks.pytorch.parameters import ParameterTaps
from neural_callbacks.pytorch.profile import Profile
from neural_callbacks.pytorch.reducers import Reduced, Reducer, reducer_for
from neural_callbacks.pytorch.sentinel import Passed, Trail, in_backward
from neural_callbacks.pytorch.statistics import measurable
from neural_callbacks.pytorch.structures import tensors
from neural_callbacks.recorder import BY_LOGITS, Recorder

# The parts that an error switches off one by one.
ACTIVATIONS, PARAMETERS, SCALARS, PROFILE = "activations", "parameters", "scalars", "the profile"


@dataclass
class _Pass:
    """One call of the model, or of a part of it from outside: did a gradient leave it, could one?"""

    has_gradient: bool = False
    went_back: bool = False

    @property
    def is_training(self) -> bool:
        """Whether it counts: what could have a gradient and got none was evaluation."""
        return self.went_back or not self.has_gradient


@dataclass
class _Thread:
    """The modules that run in one thread, the outermost first, and the pass that they belong to."""

    running: list[nn.Module] = field(default_factory=list)
    of: _Pass = field(default_factory=_Pass)
    is_evaluation: bool = False


_Measured = tuple[str, nn.Module | nn.Parameter, _Pass | None]


class Sample:
    """Measures one step of the model of `layout`; `binned`: with histograms; `profile`: with times, memory and FLOPs.

    The manager calls it from hooks; what fails inside is contained by `recorder`. All floating tensors that a layer
    gives out in one step, over its outputs, its calls and the passes of an accumulated gradient, make one row.
    Left aside are forward passes without gradients, those from which `backward` never started (both are evaluation),
    and those that a checkpointed module runs again on the way back.
    """

    def __init__(self, layout: Layout, recorder: Recorder, *, binned: bool, profile: Profile | None = None) -> None:
        self._layout = layout
        self._recorder = recorder
        self._binned = binned
        self.profile = profile
        self.own_seconds = 0.0
        self._called: list[nn.Module] = []
        self._signatures: dict[nn.Module, Signature] = {}
        self._reducers: dict[torch.device, Reducer] = {}
        # Of each tensor that a reducer was given: its kind, whose it is, and the pass that gave it out.
        self._measured: dict[Reducer, list[_Measured]] = {}
        self._scalars: dict[Reducer, list[str]] = {}
        self._parameters = ParameterTaps(self._reducer, self._note)
        self._activity = Activity()
        self._threads: defaultdict[int, _Thread] = defaultdict(_Thread)
        self._lock = threading.Lock()
        self._is_on_the_way_back = False
        self._on_the_way_forward: Counter[nn.Module] = Counter()
        self._inverse_scale: Tensor | None = None
        self._by_output: set[nn.Module] = set()
        self._by_logits: list[nn.Module] = []
        self._is_over = False
        self._has_looked = False
        self._has_run_eagerly = self._has_run_compiled = False

    @property
    def ran_eagerly(self) -> bool:
        """Whether layers ran, and all of them outside of compiled regions, as far as `CompiledTaps` showed."""
        return self._has_run_eagerly and not self._has_run_compiled

    @property
    def has_run(self) -> bool:
        """Whether a layer has been measured."""
        return bool(self._called)

    def enter(self, module: nn.Module, inputs: Any) -> None:
        """Note that the forward pass of a module begins."""
        if not self._has_looked:
            # Only now: until the first forward pass the user may still put other layers in.
            self._look()
        if module not in self._layout.modules:
            return
        started = time.perf_counter()
        thread = self._threads[threading.get_ident()]
        try:
            is_layer = module in self._layout.layers
            if not thread.running:
                thread.of, thread.is_evaluation = _Pass(), _is_evaluation()
            thread.running.append(module)
            if self.profile is not None and not thread.is_evaluation:
                if len(thread.running) == 1:
                    self.profile.begin_pass(module, inputs, is_layer=is_layer)
                if is_layer:
                    self.profile.enter(module, inputs)
        except Exception as error:  # noqa: BLE001 - as `contained`, in a fraction of its time
            self._stop_profile(error)
        self.own_seconds += time.perf_counter() - started

    def _look(self) -> None:
        self._has_looked = True
        self._layout.look()

    def leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """Note that the forward pass of a module has ended; measure what a layer gave out.

        One that an exception broke off gives out None.
        """
        if module not in self._layout.modules:
            return
        started = time.perf_counter()
        thread = self._threads[threading.get_ident()]
        profile = None if thread.is_evaluation else self.profile
        is_layer = module in self._layout.layers
        try:
            if profile is not None and is_layer:
                profile.leave(module, [*tensors(output)])
            if module in thread.running:
                while thread.running.pop() is not module:
                    pass  # one inside ended by what is no Exception, as an interrupt
                if profile is not None and not thread.running:
                    profile.end_pass(module, is_layer=is_layer)
        except Exception as error:  # noqa: BLE001 - as above
            self._stop_profile(error)
        if is_layer and output is not None and torch.is_grad_enabled() and not self._is_off(ACTIVATIONS):
            mark = None if profile is None else profile.mark()
            self._forward(module, inputs, output, thread.of)
            if profile is not None:
                profile.own_since(mark)
        self.own_seconds += time.perf_counter() - started

    def _stop_profile(self, error: Exception) -> None:
        self.profile = None
        self._recorder.failed(PROFILE, error)

    def _forward(self, module: nn.Module, inputs: Any, output: Any, of: _Pass) -> None:
        """Measure the output of a layer's forward pass, and have its gradient measured on the way back."""
        try:
            if in_backward():
                if self._on_the_way_forward[module]:
                    return
            else:
                self._on_the_way_forward[module] += 1
            self._take(module, inputs, tensors(output), of)
        except Exception as error:  # noqa: BLE001 - as above
            self._recorder.failed(ACTIVATIONS, error)

    @property
    def _pass(self) -> _Pass:
        return self._threads[threading.get_ident()].of

    # What `compiled.CompiledTaps` shows of a model that is compiled; see its `Observer`.

    def eager(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """Measure the output of a layer that ran outside of all compiled regions."""
        self._has_run_eagerly = True
        if torch.is_grad_enabled() and not self._is_off(ACTIVATIONS):
            started = time.perf_counter()
            self._forward(module, inputs, output, self._pass)
            self.own_seconds += time.perf_counter() - started

    def activation(self, module: nn.Module, values: Tensor, input_shapes: tuple[Shape, ...]) -> None:
        """Measure a tensor that a layer in a compiled region gave out."""
        self._has_run_compiled = True
        if self._is_off(ACTIVATIONS):
            return
        started = time.perf_counter()
        with self._recorder.contained(ACTIVATIONS):
            self._called.append(module)
            if module not in self._signatures and self._layout.needs_signature(module):
                dtype = _dtype_name(values.dtype)
                self._signatures[module] = Signature(input_shapes, (tuple(values.shape),), dtype, (), (dtype,))
            self._measure("activations", module, values, self._pass)
        self.own_seconds += time.perf_counter() - started

    def activation_gradient(self, module: nn.Module, gradient: Tensor) -> None:
        """Measure the gradient of such a tensor."""
        self._backward(module, self._pass, gradient)

    def catch_up(self, passed: Iterable[Passed]) -> None:
        """Take in forward passes of this step that nobody measured, where their outputs are still what they were."""
        if not self._is_off(ACTIVATIONS):
            with self._recorder.contained(ACTIVATIONS):
                for one in passed:
                    if one.is_as_it_was:
                        self._take(one.module, one.inputs, one.outputs, self._pass)

    def _take(self, module: nn.Module, inputs: Any, outputs: Iterable[Tensor], of: _Pass) -> None:
        self._called.append(module)
        outputs = list(outputs)
        if module not in self._signatures and self._layout.needs_signature(module):
            self._signatures[module] = _signature(inputs, outputs)
        for tensor in outputs:
            self._measure("activations", module, tensor, of)
            if tensor.requires_grad:
                of.has_gradient = True
                tensor.register_hook(functools.partial(self._backward, module, of))
                # What softmax or sigmoid gives out may carry its logits, for a loss that starts from there.
                logits = getattr(tensor, "logits", None)
                if isinstance(logits, Tensor) and logits.requires_grad:
                    logits.register_hook(functools.partial(self._backward_logits, module, of))

    def backward_begins(self, scale: Tensor | None) -> None:
        """Note that `backward` starts, from losses that were multiplied by `scale` (None: by nothing)."""
        self._threads[threading.get_ident()].running = []  # what an interrupt broke off has not left
        self._is_on_the_way_back = True
        self._inverse_scale = None if scale is None else scale.detach().double().reciprocal()

    def backward_ends(self) -> None:
        """Note that it has ended."""
        self._is_on_the_way_back = False

    def _is_elsewhere(self) -> bool:
        # A graph kept by the user runs backward again in later steps: by then this sample is over. And what
        # `torch.autograd.grad` computes on its way is not the gradient of the loss: it alone may not meet a checkpoint.
        return self._is_off(ACTIVATIONS) or not (self._is_on_the_way_back or torch.autograd._is_checkpoint_valid())  # noqa: SLF001 - nothing else tells

    def _backward(self, module: nn.Module, of: _Pass, gradient: Tensor) -> None:
        if self._is_elsewhere():
            return
        started = time.perf_counter()
        mark = None if self.profile is None else self.profile.mark()
        try:
            of.went_back = True
            self._by_output.add(module)
            self._measure("activation_gradients", module, gradient)
        except Exception as error:  # noqa: BLE001 - as above
            self._recorder.failed(ACTIVATIONS, error)
        if self.profile is not None:
            self.profile.own_since(mark)
        self.own_seconds += time.perf_counter() - started

    def _backward_logits(self, module: nn.Module, of: _Pass, gradient: Tensor) -> None:
        # The way back meets an output before its logits: where the output had a gradient, that is the one.
        if module not in self._by_output and not self._is_elsewhere():
            with self._recorder.contained(ACTIVATIONS):
                of.went_back = True
                self._by_logits.append(module)
                self._measure("activation_gradients", module, gradient)

    def before_step(self, parameters: Collection[nn.Parameter], stepped: Container[int]) -> None:
        """Measure `parameters`; keep a copy of those whose id is in `stepped`, to tell what the optimizer changed."""
        if not self._is_off(PARAMETERS):
            with self._recorder.contained(PARAMETERS), torch.no_grad():
                self._parameters.weights(parameters, stepped)

    def gradients(self, parameters: Collection[nn.Parameter], factor: Tensor | None = None) -> None:
        """Measure the gradients that `parameters` hold now, times `factor` where it is given."""
        if not self._is_off(PARAMETERS):
            with self._recorder.contained(PARAMETERS), torch.no_grad():
                self._parameters.gradients(((each, each.grad) for each in parameters), factor)

    def after_step(self) -> None:
        """Measure what the optimizers' steps changed."""
        if not self._is_off(PARAMETERS):
            with self._recorder.contained(PARAMETERS), torch.no_grad():
                self._parameters.updates()

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
        found = self._reducers.get(device)
        if found is None:
            found = self._reducers[device] = reducer_for(device, binned=self._binned)
            self._measured[found] = []
        return found

    def _note(self, reducer: Reducer, kind: str, owners: Sequence[nn.Parameter]) -> None:
        self._measured[reducer] += [(kind, owner, None) for owner in owners]

    def _measure(self, kind: str, owner: nn.Module, values: Tensor, of: _Pass | None = None) -> None:
        flat = measurable(values)
        if flat is None:
            return
        if of is None and self._inverse_scale is not None:
            flat = flat * self._inverse_scale.to(flat)
        reducer = self._reducer(flat.device)
        with self._lock:  # several threads may run the model
            row = reducer.measure(flat, lasting=False)
            measured = self._measured[reducer]
            measured.append((kind, owner, of))
            if of is not None:
                self._activity.look(owner, values.detach(), (reducer, len(measured) - 1), row)

    def finish(
        self,
        step: int,
        optimizers: Sequence[Optimizer],
        trail: Trail | None = None,
        *,
        was_skipped: bool = False,
    ) -> Frame:
        """Bring the layout up to date, write it where it changed, and return the frame of what was measured.

        `optimizers` are those that train the model. `trail` is what the sentinel knows of a step that was not sampled
        from its beginning. `was_skipped`: a scaler skipped the optimizer's step because a gradient is not finite, which
        scaling is there for.
        """
        self._is_over = True
        if not self._has_looked:
            self._look()
        layout = self._layout
        if layout.update(self._called, self._signatures):
            self._recorder.write_layers(layout.table, step)
        for module in self._by_logits:
            self._recorder.notice(BY_LOGITS.format(layout.table.layers[layout.layer_numbers[module]].own_name))
        reduced = {reducer: reducer.collect() for reducer in self._reducers.values()}
        of_layer, of_parameter = layout.layer_numbers, layout.parameter_numbers
        entries = [
            (
                kind,
                (of_layer.get(owner) if isinstance(owner, nn.Module) else of_parameter.get(id(owner)))
                if of is None or of.is_training
                else None,
            )
            for reducer in reduced
            for kind, owner, of in self._measured[reducer]
        ]
        rows = np.concatenate([np.empty((0, len(statistics.COLUMNS))), *(part.rows for part in reduced.values())])
        counts = [part.counts for part in reduced.values() if part.counts is not None]
        heights = {"layers": len(layout.table.layers), "parameters": len(layout.table.parameters)}
        matrices, histograms = gather(entries, rows, np.concatenate(counts) if counts else None, heights)
        figures = self._figures(reduced, matrices)
        profiles = self._activity.finish(
            lambda place: reduced[place[0]].rows[place[1]], self._number_of, heights["layers"]
        )
        if self.profile is not None:
            with self._recorder.contained(PROFILE):
                more, whole = self.profile.finish(
                    layout.layer_numbers,
                    heights["layers"],
                    layout.owners(),
                    [optimizer.state for optimizer in optimizers],
                    {*self._by_output, *self._by_logits},
                )
                profiles |= more
                figures |= whole
        found = self._anomalies(entries, rows, figures, matrices, trail)
        if was_skipped:
            found = tuple(one for one in found if one.place in {"forward", "loss"})
        # A graph that the user keeps refers to this sample: let it not keep the tensors too.
        self._reducers, self._measured, self._activity = {}, {}, Activity()
        self._parameters = ParameterTaps(self._reducer, self._note)
        return Frame(step, time.time(), matrices, histograms, figures, profiles, found)

    def _number_of(self, place: tuple[Reducer, int]) -> int | None:
        """Return the row of the layer that gave out what was measured at a place; None where it does not count."""
        _, owner, of = self._measured[place[0]][place[1]]
        counts = isinstance(owner, nn.Module) and (of is None or of.is_training)
        return self._layout.layer_numbers.get(owner) if counts else None

    def _anomalies(
        self,
        entries: Sequence[tuple[str, int | None]],
        rows: FloatArray,
        figures: Mapping[str, float],
        matrices: Mapping[str, FloatArray],
        trail: Trail | None,
    ) -> tuple[Anomaly, ...]:
        table, numbers = self._layout.table, self._numbers
        losses = [value for name, value in figures.items() if name == "loss" or name.startswith("loss_")]
        found = anomalies.find(entries, rows, table, loss_is_finite=bool(np.isfinite(losses).all()))
        if trail is None:
            return found
        gradients = statistics.select(matrices["gradients"], "nonfinite") if "gradients" in matrices else None
        on_the_way_back = anomalies.infer_backward(numbers(trail.order), gradients, numbers(trail.backward), table)
        return anomalies.with_inferred(found, numbers(trail.forward), on_the_way_back)

    def _numbers(self, modules: Iterable[nn.Module]) -> list[int]:
        numbers = self._layout.layer_numbers
        return [numbers[module] for module in modules if module in numbers]

    def _figures(self, reduced: Mapping[Reducer, Reduced], matrices: Mapping[str, FloatArray]) -> dict[str, float]:
        scalars: dict[str, list[float]] = {}
        for reducer, part in reduced.items():
            for name, figure in zip(self._scalars.get(reducer, []), part.scalars, strict=True):
                scalars.setdefault(name, []).append(float(figure))
        figures = {name: sum(values) / len(values) for name, values in scalars.items()}
        return figures | figures_of(matrices)


def _is_evaluation() -> bool:
    """Say whether the forward pass that begins is one without gradients that no checkpoint will run again."""
    return not torch.is_grad_enabled() and not in_backward() and running_function() is None


def _signature(inputs: Any, outputs: Sequence[Tensor]) -> Signature:
    given = list(tensors(inputs))
    floating = [tensor.dtype for tensor in outputs if tensor.is_floating_point()] or [t.dtype for t in outputs]
    return Signature(
        tuple(tuple(tensor.shape) for tensor in given),
        tuple(tuple(tensor.shape) for tensor in outputs),
        _dtype_name(floating[0]) if floating else "",
        tuple(_dtype_name(tensor.dtype) for tensor in given),
        tuple(_dtype_name(tensor.dtype) for tensor in outputs),
    )


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
