"""Taps: what is taken from one train step while TensorFlow traces it (or runs it eagerly).

A tap looks and passes on: the tensors that training computes with are never wrapped, copied or renamed, since Keras'
losses look at how the model's output was made (`_keras_logits`, or an operation of type Softmax or Sigmoid) and take
another way when they find anything else. So activation gradients do not come from an operation on the layer's output:
the train step's own `GradientTape.gradient` is asked for them beside the gradients of the parameters, which adds
nothing to the path of either.

Everything is put in place when the train step begins and taken away when it ends: outside of it, a model has nothing
of ours in it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from neural_callbacks.keras.apart import Apart
from neural_callbacks.keras.losses import Losses
from neural_callbacks.keras.patches import tapped_tape
from neural_callbacks.keras.replacing import replaced
from neural_callbacks.keras.replicas import Replica
from neural_callbacks.keras.structure import Catalog, Site
from neural_callbacks.recorder import Recorder

TAPS = "the taps in the train step"
SCOPE = "neuraldbg/"  # the slash makes it the same wherever it is opened


@dataclass(frozen=True)
class Subject:
    """What taps are put on: the layers of a model and the optimizers that train it; what fails goes to `recorder`."""

    model: Any
    optimizers: Sequence[Any]
    sites: Sequence[Site]
    catalog: Catalog
    recorder: Recorder


# What taps took: tensors, or one tensor.
Taken = Any


class TrainStep:
    """Taps in one run of a train step's Python code, by one replica: what is seen goes to the methods `see_...`.

    A failure of ours inside a tap switches all of them off (`recorder.contained`) and never reaches the train step.
    """

    part = TAPS

    def __init__(self, subject: Subject, replica: Replica) -> None:
        self.notices: list[str] = []
        self.replica = replica
        self._model = subject.model
        self._optimizers = subject.optimizers
        self._sites = subject.sites
        self._catalog = subject.catalog
        self._recorder = subject.recorder
        self._graph = _current_graph()
        self._losses = Losses()
        self._scaled_gradients: list[Any] = []  # those of which one that is not finite has the step skipped
        self._is_going_back = False

    @contextmanager
    def in_place(self, here: Callable[[], TrainStep]) -> Iterator[None]:
        """Put taps in place on the model for all replicas, which run inside the `with` block; `here` says whose run."""

        def tap(name: str, *args: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
            def placed(original: Callable[..., Any]) -> Callable[..., Any]:
                @functools.wraps(original)
                def tapped(*given: Any, **options: Any) -> Any:
                    return getattr(here(), name)(*args, original)(*given, **options)

                return tapped

            return placed

        with ExitStack() as stack:
            for site in self._sites:
                stack.enter_context(replaced(site.layer, "call", tap("_layer_tap", site)))
            for optimizer in self._optimizers:
                stack.enter_context(replaced(optimizer, "apply", tap("_apply_tap", optimizer)))
                stack.enter_context(replaced(optimizer, "scale_loss", tap("_scale_tap", optimizer)))
                if self.replica.in_sync > 1:
                    stack.enter_context(replaced(optimizer, "_all_reduce_sum_gradients", tap("_reduction_tap")))
            stack.enter_context(replaced(self._model, "compute_loss", tap("_loss_tap")))
            yield

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Look at what one replica, this thread, does inside the `with` block: its train step."""
        with tapped_tape(self._gradient_tap):
            yield
        with self._ours():
            self.finish()

    @contextmanager
    def _ours(self) -> Iterator[None]:
        """Contain what fails, and call operations by names that leave training's own as they are without us.

        The graph optimizer orders some by their names, which have numbers in them.
        """
        with self._recorder.contained(self.part), tf.name_scope(SCOPE):
            yield

    def see_layer(self, site: Site, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Take in the tensors that a layer gave out."""

    def see_loss(self, loss: Any) -> None:
        """Take in what `compute_loss` gave out, a tensor of this graph."""
        self._losses.computed(loss)

    def gradient(self, gradient: Callable[..., Any], tape: Any, target: Any, sources: Any, **options: Any) -> Any:
        """Ask the tape for the gradients by parameters; `target`, of this graph, is what training goes back from."""
        return gradient(tape, target, sources, **options)

    def see_before(self, optimizer: Any, gradients: Sequence[Any], variables: Sequence[Any]) -> None:
        """Take in the gradients that an optimizer is about to apply to variables."""

    def see_reduced(self, gradients_and_variables: Sequence[tuple[Any, Any]]) -> None:
        """Take in the gradients of all replicas together, and the TensorFlow variables that they are applied to."""

    def finish(self) -> None:
        """Take in the end of the replica's step."""

    def see_replicas(self, replicas: Sequence[TrainStep]) -> None:
        """Take in the end of the step of all `replicas` in this process, of which this one is the first."""

    def finished(self) -> tuple[Taken, dict[str, Any], Sequence[Any]]:
        """Return what was taken, the step's figures, scalar tensors by name, and what each of the things taken is of.

        Asked for when all is there that is not ours; until then nothing of ours uses its tensors.
        """
        with self._ours():
            taken, figures = self.results()
            return taken, figures, tuple(self.keys)
        return self.nothing(), {}, ()

    @property
    def keys(self) -> Sequence[Any]:
        """What each of the things taken is of."""
        raise NotImplementedError

    def results(self) -> tuple[Taken, dict[str, Any]]:
        """Return what was taken, and the step's figures."""
        raise NotImplementedError

    def nothing(self) -> Taken:
        """Return what is taken where nothing is."""
        raise NotImplementedError

    def _loss_figures(self, apart: Apart) -> dict[str, Any]:
        return {name: apart(loss) for name, loss in self._losses.by_name(self._optimizers).items()}

    def _layer_tap(self, site: Site, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def tapped(*args: Any, **kwargs: Any) -> Any:
            outputs = call(*args, **kwargs)
            # On the way back, gradient checkpointing calls layers again.
            if not self._is_going_back:
                with self._ours():
                    if seen := _tensors(outputs):
                        self.see_layer(site, _tensors(args) or _tensors(kwargs), seen)
            return outputs

        return tapped

    def _gradient_tap(self, gradient: Callable[..., Any], tape: Any, target: Any, sources: Any, **options: Any) -> Any:
        if not is_about_parameters(sources) or not all(map(self._is_here, _tensors(target))):
            return gradient(tape, target, sources, **options)
        with self._ours():
            if tf.is_tensor(target) and target.shape.num_elements() == 1:
                self._losses.went_back_from(target, sources)
        self._is_going_back = True
        try:
            return self.gradient(gradient, tape, target, sources, **options)
        finally:
            self._is_going_back = False

    def _scale_tap(self, optimizer: Any, scale_loss: Callable[[Any], Any]) -> Callable[[Any], Any]:
        @functools.wraps(scale_loss)
        def tapped(loss: Any) -> Any:
            scaled = scale_loss(loss)
            if scaled is not loss:
                with self._ours():
                    scale = tf.cast(scale_loss(tf.ones([], tf.float32)), tf.float32)
                    self._losses.scaled(optimizer, loss, scaled, scale)
            return scaled

        return tapped

    def _loss_tap(self, compute_loss: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(compute_loss)
        def tapped(*args: Any, **kwargs: Any) -> Any:
            loss = compute_loss(*args, **kwargs)
            with self._ours():
                if tf.is_tensor(loss) and self._is_here(loss):
                    self.see_loss(loss)
            return loss

        return tapped

    def _apply_tap(self, optimizer: Any, apply: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(apply)
        def tapped(grads: Any, trainable_variables: Any = None) -> Any:
            grads = list(grads)
            variables = None if trainable_variables is None else list(trainable_variables)
            with self._ours():
                if _current_graph() is self._graph:
                    own = optimizer._trainable_variables if variables is None else variables  # noqa: SLF001 - its default
                    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
                        self._scaled_gradients += [gradient for gradient in grads if gradient is not None]
                    self._losses.applied(optimizer, own)
                    self.see_before(optimizer, grads, own)
                else:
                    self.notices.append(
                        "Parameters are not recorded: the optimizer runs inside a loop or a branch of the compiled "
                        "step."
                    )
            return apply(grads, variables)

        return tapped

    def _reduction_tap(self, reduce: Callable[[Any], Any]) -> Callable[[Any], Any]:
        @functools.wraps(reduce)
        def tapped(grads_and_vars: Any) -> Any:
            reduced = reduce(grads_and_vars)
            with self._ours():
                if _current_graph() is self._graph:
                    self.see_reduced(reduced)
            return reduced

        return tapped

    def _row_of(self, variable: Any) -> int | None:
        row = self._catalog.parameter(variable)
        if row is not None:
            return row
        for site in self._sites:  # a layer that was not called, whose parameters are used all the same
            if any(own is variable for own in site.variables):
                self._catalog.layer(site)
                return self._catalog.parameter(variable)
        self.notices.append(f"{variable.name} is not recorded: it belongs to no layer of {self._model.name}.")
        return None

    def _is_here(self, tensor: Any) -> bool:
        if tf.executing_eagerly():
            return True
        return all(getattr(part, "graph", None) is self._graph for part in parts([tensor]))


def _current_graph() -> Any:
    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()


def is_about_parameters(sources: Any) -> bool:
    """Say whether a tape is asked for gradients by parameters."""
    return any(isinstance(x, (keras.Variable, tf.Variable)) for x in tf.nest.flatten(sources))


def is_nonfinite(tensor: Any, apart: Apart) -> Any:
    """Return whether anything in a tensor, or in a sparse gradient, is not finite: a scalar of bool."""
    values = apart(tensor.values if isinstance(tensor, tf.IndexedSlices) else tensor)
    return tf.logical_not(tf.reduce_all(tf.math.is_finite(values)))


def _tensors(structure: Any) -> list[Any]:
    return [x for x in keras.tree.flatten(structure) if tf.is_tensor(x)]


def parts(outputs: Sequence[Any]) -> list[Any]:
    """Return the plain tensors that outputs consist of: ragged and sparse ones hold their values in one."""
    return [
        x.flat_values if isinstance(x, tf.RaggedTensor) else x.values if isinstance(x, tf.SparseTensor) else x
        for x in outputs
    ]
