"""Taps: what is seen of one train step of a Keras model on torch, whatever is made of it.

They are put in place when the train step begins and taken away when it ends: outside of it, a model has nothing of ours
in it. A tap looks and passes on; the tensors that training computes with are never wrapped or copied.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import torch
from torch import Tensor

from neural_callbacks.keras.optimizers import optimizers_of
from neural_callbacks.keras.structure import Catalog, Site
from neural_callbacks.pytorch.sentinel import in_backward
from neural_callbacks.recorder import Recorder

TAPS = "the taps in the train step"

_MISSING = object()


@dataclass(frozen=True)
class Described:
    """The shape and type of a tensor; None is an extent that varies."""

    shape: tuple[int | None, ...]
    dtype: torch.dtype


# What is replaced: whose attribute, its name, and the tap that takes its place.
Place = tuple[Any, str, Callable[..., Any]]


@contextmanager
def all_replaced(places: Iterable[Place]) -> Iterator[None]:
    """Let each `owner.name` be the tap; written past Keras' and torch's tracking of attributes.

    In one loop: this is done for each layer in every step, where a `with` block for each would take ten times as long.
    """
    before: list[tuple[Any, str, Any]] = []
    try:
        for owner, name, tap in places:
            attributes: Any = vars(owner)
            before.append((attributes, name, attributes.get(name, _MISSING)))
            attributes[name] = tap
        yield
    finally:
        for attributes, name, was in reversed(before):
            if was is _MISSING:
                del attributes[name]
            else:
                attributes[name] = was


def presented(tap: Callable[..., Any], call: Callable[..., Any]) -> Callable[..., Any]:
    """Return `tap` with the signature of the `call` that it stands for, which Keras tells where an error arises."""
    tap.__wrapped__ = call  # type: ignore[attr-defined]
    return tap


class TrainStep:
    """The taps of one train step: what they see goes to the methods `see_...`.

    `is_timed` says whether `see_before_layer` is of interest. A failure of ours switches `part` off (`Recorder.failed`)
    and never reaches the train step. `own_seconds` is what the taps took of its time.
    """

    part = TAPS

    def __init__(self, model: Any, sites: Sequence[Site], catalog: Catalog, recorder: Recorder) -> None:
        self.own_seconds = 0.0
        self.is_timed = False
        self._model = model
        self._sites = sites
        self._catalog = catalog
        self._recorder = recorder
        self._thread = threading.get_ident()
        self._batch_size: int | None = None
        self._inverse_scale: Tensor | None = None
        self._is_outside = False  # of what is compiled
        self._is_over = False

    @contextmanager
    def in_place(self, data: Any) -> Iterator[None]:
        """Put the taps in place for the train step that runs inside the `with` block, on the batch `data`."""
        started = time.perf_counter()
        self._batch_size = _batch_size(data)
        places: list[Place] = []
        with self._recorder.contained(self.part):
            places += self._places()
        with all_replaced(places):
            self.own_seconds += time.perf_counter() - started
            yield
        self._tell(self.finish)
        self._is_over = True

    @contextmanager
    def around(self, data: Any) -> Iterator[None]:
        """Look at a compiled step from outside: at parameters before it, and at them and their gradients after it."""
        del data
        self._is_outside = True
        self._tell(self._look_before)
        yield
        self._tell(self._look_after)
        self._tell(self.finish)
        self._is_over = True

    def _places(self) -> Iterator[Place]:
        for site in self._sites:
            yield site.layer, "call", self._layer_tap(site)
        for optimizer in optimizers_of(self._model):
            yield optimizer, "apply", self._apply_tap(optimizer)
            yield optimizer, "scale_loss", self._scale_tap(optimizer.scale_loss)
        yield self._model, "compute_loss", self._loss_tap(self._model.compute_loss)
        yield torch.autograd, "backward", self._backward_tap(torch.autograd.backward)

    def see_before_layer(self, layer: Any, inputs: tuple[Any, ...]) -> None:
        """Take in that a layer begins: the last thing before it."""

    def see_layer(self, site: Site, inputs: tuple[Any, ...], outputs: Sequence[Tensor]) -> None:
        """Take in what a layer gave out: the first thing after it."""

    def see_loss(self, loss: Tensor) -> None:
        """Take in what `compute_loss` gave out, a single number."""

    def see_backward(self, roots: Sequence[Tensor]) -> None:
        """Take in that training goes back from `roots`."""

    def see_backward_end(self) -> None:
        """Take in that it has come to the end of the way back."""

    def see_weights(self, optimizer: Any, variables: Sequence[Any]) -> None:
        """Take in variables that an optimizer is about to change."""

    def see_gradients(self, optimizer: Any, gradients: Sequence[Tensor | None], variables: Sequence[Any]) -> None:
        """Take in the gradients that it applies to them."""

    def see_optimizer_end(self) -> None:
        """Take in that it has done so."""

    def finish(self) -> None:
        """Take in the end of the step."""

    def _tell(self, see: Callable[..., None], *args: Any) -> None:
        if self._is_over or self.part in self._recorder.switched_off:
            return
        started = time.perf_counter()
        try:
            see(*args)
        except Exception as error:  # noqa: BLE001 - as `contained`, in a fraction of its time: this runs in every step
            self._recorder.failed(self.part, error)
        self.own_seconds += time.perf_counter() - started

    def _layer_tap(self, site: Site) -> Callable[..., Any]:
        call = site.layer.call

        def tapped(*args: Any, **kwargs: Any) -> Any:
            if torch.compiler.is_compiling() or threading.get_ident() != self._thread:
                return call(*args, **kwargs)
            if self.is_timed:
                self._tell(self.see_before_layer, site.layer, args)
            outputs = call(*args, **kwargs)
            self._tell(self._see_outputs, site, args, outputs)
            return outputs

        return presented(tapped, call)

    def _see_outputs(self, site: Site, inputs: tuple[Any, ...], outputs: Any) -> None:
        seen = (outputs,) if isinstance(outputs, Tensor) else _tensors(outputs)
        self.see_layer(site, inputs, seen)

    def _row(self, site: Site, inputs: Any, outputs: Sequence[Tensor]) -> int:
        """Return the row of a layer; its shapes are those of the first call, with None where the batch is."""
        row = self._catalog.row_of(site.layer)
        if row is None:
            shapes = [self._described(tensor) for tensor in _tensors(inputs)]
            row = self._catalog.layer(site, shapes, [self._described(tensor) for tensor in outputs])
        return row

    def _described(self, tensor: Tensor) -> Described:
        shape = tuple(tensor.shape)
        varies = bool(shape) and shape[0] == self._batch_size
        return Described((None, *shape[1:]) if varies else shape, tensor.dtype)

    def _row_of(self, variable: Any) -> int | None:
        """Return the row of a parameter; None, with a notice, where it belongs to no layer of the model."""
        row = self._catalog.parameter(variable)
        if row is not None:
            return row
        for site in self._sites:  # a layer that was not called, whose parameters are used all the same
            if any(own is variable for own in site.variables):
                self._catalog.layer(site)
                return self._catalog.parameter(variable)
        self._recorder.notice(f"{variable.name} is not recorded: it belongs to no layer of {self._model.name}.")
        return None

    def _loss_tap(self, compute_loss: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(compute_loss)
        def tapped(*args: Any, **kwargs: Any) -> Any:
            loss = compute_loss(*args, **kwargs)
            if isinstance(loss, Tensor) and loss.numel() == 1:
                self._tell(self.see_loss, loss.detach())
            return loss

        return tapped

    def _scale_tap(self, scale_loss: Callable[[Any], Any]) -> Callable[[Any], Any]:
        @functools.wraps(scale_loss)
        def tapped(loss: Any) -> Any:
            self._tell(self._take_scale, scale_loss)
            return scale_loss(loss)

        return tapped

    def _take_scale(self, scale_loss: Callable[[Any], Any]) -> None:
        one = torch.ones([])
        scaled = scale_loss(one)
        self._inverse_scale = None if scaled is one else scaled.detach().double().reciprocal()

    def _backward_tap(self, backward: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(backward)
        def tapped(tensors: Any, *args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() != self._thread or in_backward():
                return backward(tensors, *args, **kwargs)
            given = tensors if isinstance(tensors, Tensor) else tuple(tensors)  # it may be read but once
            self._tell(self.see_backward, (given,) if isinstance(given, Tensor) else given)
            try:
                return backward(given, *args, **kwargs)
            finally:
                self._tell(self.see_backward_end)

        return tapped

    def _apply_tap(self, optimizer: Any) -> Callable[..., Any]:
        apply = optimizer.apply

        @functools.wraps(apply)
        def tapped(grads: Any, trainable_variables: Any = None) -> Any:
            grads = list(grads)
            variables = None if trainable_variables is None else list(trainable_variables)
            own = optimizer._trainable_variables if variables is None else variables  # noqa: SLF001 - its default
            self._tell(self.see_weights, optimizer, own)
            self._tell(self.see_gradients, optimizer, grads, own)
            result = apply(grads, variables)
            self._tell(self.see_optimizer_end)
            return result

        return tapped

    def _look_before(self) -> None:
        for site in self._sites:
            self._catalog.layer(site)
        self._take_scale(self._model.optimizer.scale_loss)
        self.see_weights(self._model.optimizer, self._model.trainable_variables)

    def _look_after(self) -> None:
        variables = self._model.trainable_variables
        self.see_gradients(self._model.optimizer, [variable.value.grad for variable in variables], variables)


def _tensors(value: Any) -> list[Tensor]:
    return [x for x in keras.tree.flatten(value) if isinstance(x, Tensor)]


def _batch_size(data: Any) -> int | None:
    """Return how many samples a batch holds, as Keras gives it to a train function; None where that is not seen."""
    shapes: Iterator[Any] = (getattr(x, "shape", ()) for x in keras.tree.flatten(data))
    return next((int(shape[0]) for shape in shapes if len(shape)), None)
