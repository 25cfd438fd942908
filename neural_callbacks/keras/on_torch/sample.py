"""Sample: everything that is measured of one train step on torch, and the frame that is made of it."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import torch
from torch import Tensor, nn

from neural.session import statistics
from neural.session.frame import Frame
from neural.session.layers import LayerTable
from neural.session.statistics import FloatArray
from neural_callbacks import anomalies
from neural_callbacks.gathering import figures_of, gather
from neural_callbacks.keras.on_torch.activity import judged
from neural_callbacks.keras.on_torch.profile import StepProfile
from neural_callbacks.keras.on_torch.taps import Place, TrainStep
from neural_callbacks.keras.optimizers import optimizers_of
from neural_callbacks.keras.structure import Catalog, Site
from neural_callbacks.pytorch.activity import Activity
from neural_callbacks.pytorch.parameters import ParameterTaps
from neural_callbacks.pytorch.profile import Profile
from neural_callbacks.pytorch.reach import reached
from neural_callbacks.pytorch.reducers import Reducer, reducer_for
from neural_callbacks.pytorch.sentinel import in_backward
from neural_callbacks.pytorch.statistics import Row, measurable
from neural_callbacks.recorder import Recorder

NO_BACKWARD = "Activation gradients are not recorded: the train step does not call backward."
NO_OPTIMIZER = (
    "Gradients and updates are not recorded: the train step does not apply gradients with an optimizer of Keras that "
    "the model holds."
)
NO_LOSS = "The loss is not recorded: the train step does not call compute_loss, and goes back from no single number."


class Sample(TrainStep):
    """Measures one step; `binned`: with histograms; `profile`: with times, memory and FLOPs.

    All floating tensors that a layer gives out in the step, over its outputs and calls, make one row.
    """

    def __init__(
        self,
        model: Any,
        sites: Sequence[Site],
        catalog: Catalog,
        recorder: Recorder,
        *,
        step: int,
        binned: bool,
        profile: Profile | None = None,
    ) -> None:
        super().__init__(model, sites, catalog, recorder)
        self.step = step
        self._binned = binned
        self._profile = StepProfile(model, profile, recorder)
        self.is_timed = self._profile.is_on
        self._reducers: dict[torch.device, Reducer] = {}
        # Of each tensor that a reducer was given: its kind and row.
        self._measured: dict[Reducer, list[tuple[str, int]]] = {}
        self._parameters = ParameterTaps(self._reducer, self._note)
        self._parameter_rows: dict[int, int] = {}  # by the id of the torch parameter
        # The rows of the parameters that an optimizer was given, and of those whose gradients were seen with them.
        self._changed: set[int] = set()
        self._applied: set[int] = set()
        self._activity = Activity()
        self._floating: dict[int, Site] = {}  # by the row of a layer that gave out something floating
        self._has_gradient: dict[int, Any] = {}  # the layers whose outputs a gradient reached, by their row
        self._is_going_back = False
        self._went_back = False
        self._may_overflow = False
        self._losses: dict[int, list[Tensor]] = {}  # by the id of the optimizer
        self._scalars: dict[Reducer, list[str]] = {}
        self._own_loss: Tensor | None = None
        self._pending: list[tuple[Tensor, frozenset[int] | None]] = []  # losses, and the leaves that each reached
        self._wall_time = time.time()
        self._figures: dict[str, float] = {}
        self._profiles: dict[str, FloatArray] = {}

    def _places(self) -> Iterator[Place]:
        yield from self._profile.places()
        yield from super()._places()

    def see_before_layer(self, layer: Any, inputs: tuple[Any, ...]) -> None:
        """See `TrainStep`."""
        self._profile.enter(layer, inputs)

    def see_layer(self, site: Site, inputs: tuple[Any, ...], outputs: Sequence[Tensor]) -> None:
        """See `TrainStep`."""
        if self.is_timed:
            self._profile.leave(site.layer, outputs)
        if in_backward() or not outputs:  # a checkpoint runs it again
            return
        mark = self._profile.mark()
        row = self._row(site, inputs, outputs)
        how = judged(site.layer)
        for output in outputs:
            place, measured = self._measure("activations", row, output)
            if place is None:
                continue
            self._floating[row] = site
            self._activity.take(
                output.detach(), place, measured, squashing=how.squashing, units=how.units, classes=how.classes
            )
            if output.requires_grad:
                output.register_hook(functools.partial(self._gradient_arrived, row, site.layer))
        self._profile.own_since(mark)

    def _gradient_arrived(self, row: int, layer: Any, gradient: Tensor) -> None:
        # What torch.autograd.grad computes on its way is not the gradient of the loss.
        if self._is_going_back:
            self._tell(self._see_gradient, row, layer, gradient)

    def _see_gradient(self, row: int, layer: Any, gradient: Tensor) -> None:
        mark = self._profile.mark()
        self._has_gradient[row] = layer
        self._measure("activation_gradients", row, gradient, self._inverse_scale)
        self._profile.own_since(mark)

    def see_loss(self, loss: Tensor) -> None:
        """See `TrainStep`."""
        self._own_loss = loss.clone()

    def see_backward(self, roots: Sequence[Tensor]) -> None:
        """See `TrainStep`."""
        self._is_going_back = self._went_back = True
        to = reached(roots) if len(optimizers_of(self._model)) > 1 else None
        for root in roots:
            if root.numel() == 1:
                loss = root.detach()
                self._pending.append((loss if self._inverse_scale is None else loss * self._inverse_scale, to))
        self._profile.backward_begins()

    def see_backward_end(self) -> None:
        """See `TrainStep`."""
        self._is_going_back = False
        self._profile.backward_ends()

    def see_weights(self, optimizer: Any, variables: Sequence[Any]) -> None:
        """Take in variables that are about to change, the first time that they do in the step."""
        mark = self._profile.mark()
        self._take_losses(optimizer, variables)
        self._may_overflow |= isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        fresh = []
        for variable in variables:
            row = self._row_of(variable)
            if row is not None and row not in self._changed:
                self._changed.add(row)
                self._parameter_rows[id(variable.value)] = row
                fresh.append(variable.value)
        with torch.no_grad():
            self._parameters.weights(fresh, set(map(id, fresh)))
        self._profile.own_since(mark)

    def see_gradients(self, optimizer: Any, gradients: Sequence[Tensor | None], variables: Sequence[Any]) -> None:
        """Take in their gradients, the first time too."""
        del optimizer
        mark = self._profile.mark()
        pairs = []
        for gradient, variable in zip(gradients, variables, strict=True):
            row = self._parameter_rows.get(id(variable.value))
            if row is not None and row not in self._applied:
                self._applied.add(row)
                pairs.append((variable.value, gradient))
        with torch.no_grad():
            self._parameters.gradients(pairs, self._inverse_scale)
        self._profile.own_since(mark)
        self._profile.optimizer_begins()

    def see_optimizer_end(self) -> None:
        """See `TrainStep`."""
        self._profile.optimizer_ends()

    def _take_losses(self, optimizer: Any, variables: Sequence[Any]) -> None:
        """Take what `backward` was called on, and reached these variables, as losses of the optimizer."""
        own = {id(variable.value) for variable in variables}
        mine = self._losses.setdefault(id(optimizer), [])
        pending, self._pending = self._pending, []
        for loss, to in pending:
            if to is None or not to.isdisjoint(own):
                mine.append(loss)
            else:
                self._pending.append((loss, to))

    def finish(self) -> None:
        """Take in what the step changed, and what it left as it was."""
        mark = self._profile.mark()
        with torch.no_grad():
            self._parameters.updates()
            rest = [(row, each.value) for row, each in enumerate(self._catalog.variables) if row not in self._changed]
            self._parameter_rows |= {id(parameter): row for row, parameter in rest}
            self._parameters.weights([parameter for _, parameter in rest], ())
            self._finish_losses()
        self._profile.own_since(mark)
        layers = [site.layer for site in self._sites]
        reached_layers = set(self._has_gradient.values())
        self._profiles, self._figures = self._profile.finish(self._catalog, layers, reached_layers)
        self._tell_what_is_missing()
        self._wall_time = time.time()

    def _finish_losses(self) -> None:
        """Give the losses to the reducers: of several optimizers each its own, and of several for one their mean."""
        losses = [found for each in optimizers_of(self._model) if (found := self._losses.get(id(each)))]
        if len(losses) > 1:
            named = {f"loss_{number}": torch.stack(found).mean() for number, found in enumerate(losses, 1)}
        elif self._own_loss is not None:
            named = {"loss": self._own_loss}
        else:
            named = {"loss": torch.stack(losses[0]).mean()} if losses else {}
        for name, loss in named.items():
            reducer = self._reducer(loss.device)
            reducer.measure_scalar(loss)
            self._scalars.setdefault(reducer, []).append(name)

    def _tell_what_is_missing(self) -> None:
        if self._is_outside:
            return
        without = [site.own_name for row, site in self._floating.items() if row not in self._has_gradient]
        if not self._went_back:
            self._recorder.notice(NO_BACKWARD)
        elif without:
            self._recorder.notice(
                f"Training needs no gradient by the outputs of {', '.join(without)}, so none is recorded."
            )
        if not self._applied:
            self._recorder.notice(NO_OPTIMIZER)
        if not self._scalars:
            self._recorder.notice(NO_LOSS)

    def _reducer(self, device: torch.device) -> Reducer:
        found = self._reducers.get(device)
        if found is None:
            found = self._reducers[device] = reducer_for(device, binned=self._binned)
            self._measured[found] = []
        return found

    def _note(self, reducer: Reducer, kind: str, owners: Sequence[nn.Parameter]) -> None:
        self._measured[reducer] += [(kind, self._parameter_rows[id(owner)]) for owner in owners]

    def _measure(
        self, kind: str, row: int, values: Tensor, factor: Tensor | None = None
    ) -> tuple[tuple[Reducer, int] | None, Row | None]:
        """Measure a tensor, times `factor`; return where its row will stand, if anywhere, and the row where known."""
        flat = measurable(values)
        if flat is None:
            return None, None
        if factor is not None:
            flat = flat * factor.to(flat)
        reducer = self._reducer(flat.device)
        measured = reducer.measure(flat, lasting=False)
        self._measured[reducer].append((kind, row))
        return (reducer, len(self._measured[reducer]) - 1), measured

    def frame(self, table: LayerTable) -> Frame:
        """Return the frame, its rows numbered as in `table`."""
        reduced = {reducer: reducer.collect() for reducer in self._reducers.values()}
        entries = [entry for reducer in reduced for entry in self._measured[reducer]]
        rows = np.concatenate([np.empty((0, len(statistics.COLUMNS))), *(part.rows for part in reduced.values())])
        counts = [part.counts for part in reduced.values() if part.counts is not None]
        heights = {"layers": len(table.layers), "parameters": len(table.parameters)}
        matrices, histograms = gather(entries, rows, np.concatenate(counts) if counts else None, heights)
        losses = {
            name: float(figure)
            for reducer, part in reduced.items()
            for name, figure in zip(self._scalars.get(reducer, []), part.scalars, strict=True)
        }
        activity = self._activity.finish(
            lambda place: reduced[place[0]].rows[place[1]],
            lambda place: self._measured[place[0]][place[1]][1],
            heights["layers"],
        )
        found = anomalies.find(entries, rows, table, loss_is_finite=bool(np.isfinite([*losses.values()]).all()))
        figures = losses | figures_of(matrices) | self._figures
        if self._may_overflow and any(one.place == "parameter" for one in found):
            # A scale that overflows is there to be found: the optimizer left this step out, and takes a smaller one.
            found = tuple(one for one in found if one.place in {"forward", "loss"})
            figures["skipped"] = 1.0
        # A graph that the user keeps refers to this sample: let it not keep the tensors too.
        self._reducers, self._measured, self._activity = {}, {}, Activity()
        self._parameters = ParameterTaps(self._reducer, self._note)
        return Frame(self.step, self._wall_time, matrices, histograms, figures, activity | self._profiles, found)
