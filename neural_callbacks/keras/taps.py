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
from dataclasses import dataclass, field
from typing import Any

import keras
import tensorflow as tf

from neural_callbacks.keras.patches import tapped_tape
from neural_callbacks.keras.replacing import replaced
from neural_callbacks.keras.replicas import Replica
from neural_callbacks.keras.structure import Catalog, Site
from neural_callbacks.recorder import BY_LOGITS, Recorder

TAPS = "the taps in the train step"
NOT_REDUCED = (
    "Gradients are not recorded: the optimizer adds up those of all workers inside a branch of the compiled step, as "
    "with loss scaling."
)


@dataclass
class Readings:
    """What the taps took from one train step, in the order taken.

    `keys[i]` is the kind and row of the measurement of `tensors[i]`; a tensor that stands for several rows is listed
    once and its keys have several entries. `losses` are scalar tensors, by the names of their figures.
    """

    keys: list[list[tuple[str, int]]] = field(default_factory=list)
    tensors: list[Any] = field(default_factory=list)
    losses: dict[str, Any] = field(default_factory=dict)

    def add(self, kind: str, row: int, tensor: Any) -> None:
        """Note that `tensor` is to be measured for a row; sparse gradients are spread out first."""
        for number, known in enumerate(self.tensors):
            if known is tensor:
                self.keys[number].append((kind, row))
                return
        self.keys.append([(kind, row)])
        self.tensors.append(tensor)


@dataclass
class _Activation:
    """An output of a layer as the tape knows it.

    `logits` is what a loss may use in its stead; `after_trained` says that a layer that learns ran before, or made it.
    """

    row: int
    name: str
    output: Any
    logits: Any
    after_trained: bool


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
        self._scale: Any = None
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
                stack.enter_context(replaced(optimizer, "scale_loss", tap("_scale_tap")))
                if self.replica.in_sync > 1:
                    stack.enter_context(replaced(optimizer, "_all_reduce_sum_gradients", tap("_reduction_tap")))
            stack.enter_context(replaced(self._model, "compute_loss", tap("_loss_tap")))
            yield

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Look at what one replica, this thread, does inside the `with` block: its train step."""
        with tapped_tape(self._gradient_tap):
            yield
        with self._recorder.contained(self.part):
            self.finish()

    def see_layer(self, site: Site, args: tuple[Any, ...], outputs: Any) -> None:
        """Take in what a layer gave out."""

    def see_loss(self, loss: Any) -> None:
        """Take in what `compute_loss` gave out, a tensor of this graph."""

    def gradient(self, gradient: Callable[..., Any], tape: Any, target: Any, sources: Any, **options: Any) -> Any:
        """Ask the tape for `gradient`; `target` is what training goes back from."""
        return gradient(tape, target, sources, **options)

    def see_before(self, optimizer: Any, gradients: Sequence[Any], variables: Sequence[Any]) -> None:
        """Take in the gradients that an optimizer is about to apply to variables."""

    def see_reduced(self, gradients_and_variables: Sequence[tuple[Any, Any]]) -> None:
        """Take in the gradients of all replicas together, and the TensorFlow variables that they are applied to."""

    def finish(self) -> None:
        """Take in the end of the replica's step."""

    def see_replicas(self, replicas: Sequence[TrainStep]) -> None:
        """Take in the end of the step of all `replicas` in this process, of which this one is the first."""

    @property
    def keys(self) -> Sequence[Any]:
        """What each of the tensors taken is of."""
        raise NotImplementedError

    def results(self) -> tuple[Taken, dict[str, Any]]:
        """Return what was taken, and the step's figures: scalar tensors by name."""
        raise NotImplementedError

    def _layer_tap(self, site: Site, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def tapped(*args: Any, **kwargs: Any) -> Any:
            outputs = call(*args, **kwargs)
            # On the way back, gradient checkpointing calls layers again.
            if not self._is_going_back:
                with self._recorder.contained(self.part):
                    self.see_layer(site, args, outputs)
            return outputs

        return tapped

    def _gradient_tap(self, gradient: Callable[..., Any], tape: Any, target: Any, sources: Any, **options: Any) -> Any:
        self._is_going_back = True
        try:
            return self.gradient(gradient, tape, target, sources, **options)
        finally:
            self._is_going_back = False

    def _scale_tap(self, scale_loss: Callable[[Any], Any]) -> Callable[[Any], Any]:
        @functools.wraps(scale_loss)
        def tapped(loss: Any) -> Any:
            scaled = scale_loss(loss)
            if scaled is not loss:
                with self._recorder.contained(self.part):
                    self._scale = tf.cast(scale_loss(tf.ones([], tf.float32)), tf.float32)
            return scaled

        return tapped

    def _unscaled(self, gradient: Any) -> Any:
        return gradient if self._scale is None else tf.cast(gradient, tf.float32) / self._scale

    def _loss_tap(self, compute_loss: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(compute_loss)
        def tapped(*args: Any, **kwargs: Any) -> Any:
            loss = compute_loss(*args, **kwargs)
            with self._recorder.contained(self.part):
                if tf.is_tensor(loss) and self._is_here(loss):
                    self.see_loss(loss)
            return loss

        return tapped

    def _apply_tap(self, optimizer: Any, apply: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(apply)
        def tapped(grads: Any, trainable_variables: Any = None) -> Any:
            grads = list(grads)
            variables = None if trainable_variables is None else list(trainable_variables)
            with self._recorder.contained(self.part):
                if _current_graph() is self._graph:
                    own = optimizer._trainable_variables if variables is None else variables  # noqa: SLF001 - its default
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
            with self._recorder.contained(self.part):
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
        return tf.executing_eagerly() or getattr(tensor, "graph", None) is self._graph


class StepTaps(TrainStep):
    """The taps of a step that is measured."""

    def __init__(self, subject: Subject, replica: Replica) -> None:
        super().__init__(subject, replica)
        self.readings = Readings()
        self._activations: list[_Activation] = []
        self._trained = False
        self._before: dict[int, Any] = {}
        self.own_gradients: dict[int, Any] = {}  # by parameter, those of this replica alone
        self._rows: dict[int, int] = {}  # by the identity of a TensorFlow variable
        self._losses: list[tuple[Any, set[int]]] = []  # with the variables that it was asked for the gradients of
        self._loss_of: dict[int, Any] = {}

    def see_layer(self, site: Site, args: tuple[Any, ...], outputs: Any) -> None:
        """See `TrainStep`."""
        seen = [x for x in keras.tree.flatten(outputs) if tf.is_tensor(x)]
        inputs = [x for x in keras.tree.flatten(args) if tf.is_tensor(x)]
        if not seen:
            return
        row = self._catalog.layer(site, inputs, seen)
        if not all(map(self._is_here, seen)):
            self.notices.append(
                f"The activations of {site.own_name} are not recorded: it runs inside a loop or a branch of the "
                "compiled step."
            )
            return
        # A layer may be frozen, and the tape reach it all the same: the way there is a cost that training has not.
        self._trained = self._trained or any(variable.trainable for variable in site.variables)
        for output in seen:
            if output.dtype.is_floating and isinstance(output, tf.Tensor):
                self.readings.add("activations", row, output)
                self._activations.append(_Activation(row, site.own_name, output, _logits(output), self._trained))

    def gradient(self, gradient: Callable[..., Any], tape: Any, target: Any, sources: Any, **options: Any) -> Any:
        """Ask the tape for the gradients by activations too, where it is asked for those by parameters."""
        if not is_about_parameters(sources):
            return gradient(tape, target, sources, **options)
        with self._recorder.contained(TAPS):
            if tf.is_tensor(target) and target.shape.num_elements() == 1 and self._is_here(target):
                self._losses.append(
                    (tf.reshape(self._unscaled(target), []), set(map(_identity, tf.nest.flatten(sources))))
                )
        wanted: list[Any] = []
        if options.get("unconnected_gradients", "none") not in ("none", tf.UnconnectedGradients.NONE):
            self.notices.append(
                "Activation gradients are not recorded: the train step asks its GradientTape for "
                "unconnected_gradients='zero'."
            )
        else:
            wanted = [x for a in self._activations if a.after_trained for x in (a.output, a.logits) if x is not None]
        if not wanted:
            return gradient(tape, target, sources, **options)
        found, activations = gradient(tape, target, [sources, wanted], **options)
        with self._recorder.contained(TAPS):
            self._see_gradients({id(x): g for x, g in zip(wanted, activations, strict=True) if g is not None})
        return found

    def _see_gradients(self, found: dict[int, Any]) -> None:
        for activation in reversed(self._activations):  # in the order of the way back
            gradient = found.get(id(activation.output))
            if gradient is None and activation.logits is not None:
                gradient = found.get(id(activation.logits))
                if gradient is not None:
                    self.notices.append(BY_LOGITS.format(activation.name))
            if gradient is not None:
                self.readings.add("activation_gradients", activation.row, self._unscaled(_dense(gradient)))

    def see_loss(self, loss: Any) -> None:
        """See `TrainStep`."""
        self.readings.losses["loss"] = loss

    def see_before(self, optimizer: Any, gradients: Sequence[Any], variables: Sequence[Any]) -> None:
        """Take in what an optimizer is about to use, the first time that it does so in the step."""
        own = set(map(_identity, variables))
        self._loss_of |= {id(optimizer): loss for loss, of in self._losses if not own.isdisjoint(of)}
        for gradient, variable in zip(gradients, variables, strict=True):
            row = self._row_of(variable)
            if row is None or row in self._before:
                continue
            self._rows[_identity(variable)] = row
            self._before[row] = _value(variable)
            if gradient is not None:
                self.own_gradients[row] = self._unscaled(_dense(gradient))
            if self.replica.number == 0:  # parameters are the same on all of them
                self.readings.add("weights", row, self._before[row])
                if gradient is not None and self.replica.in_sync == 1:
                    self.readings.add("gradients", row, self.own_gradients.pop(row))

    def see_reduced(self, gradients_and_variables: Sequence[tuple[Any, Any]]) -> None:
        """See `TrainStep`."""
        for gradient, variable in gradients_and_variables:
            row = self._rows.get(id(variable))
            if row in self.own_gradients and gradient is not None:
                del self.own_gradients[row]
                if self.replica.number == 0:
                    self.readings.add("gradients", row, _dense(gradient))

    def see_replicas(self, replicas: Sequence[TrainStep]) -> None:
        """Add up the gradients of replicas where the sum of them all was not seen."""
        with self._recorder.contained(TAPS):
            of_replicas = [taps.own_gradients for taps in replicas if isinstance(taps, StepTaps)]
            for row in self.own_gradients if self.replica.in_sync == len(replicas) else ():
                gradients = [of_one[row] for of_one in of_replicas if row in of_one]
                with tf.device(gradients[0].device):
                    self.readings.add("gradients", row, tf.add_n(gradients))
            if self.own_gradients and self.replica.in_sync > len(replicas):
                self.notices.append(NOT_REDUCED)
            for of_one in of_replicas:
                of_one.clear()

    def finish(self) -> None:
        """Take in what the step changed, and what it left as it was."""
        if self.replica.number == 0:
            self._finish_parameters()
        self._finish_losses()
        measured = {key for keys in self.readings.keys for key in keys}
        without = dict.fromkeys(a.name for a in self._activations if ("activation_gradients", a.row) not in measured)
        if without:
            self.notices.append(
                f"Training needs no gradient by the outputs of {', '.join(without)}, so none is recorded."
            )
        # What the step held must not live as long as the traced function does.
        self._activations.clear()
        self._before.clear()

    def _finish_parameters(self) -> None:
        for row, variable in enumerate(self._catalog.variables):
            if row in self._before:
                self.readings.add("updates", row, _difference(_value(variable), self._before[row]))
            else:  # frozen, or not trained in this step
                self.readings.add("weights", row, _value(variable))

    @property
    def keys(self) -> Sequence[tuple[tuple[str, int], ...]]:
        """The kinds and rows that each tensor stands for."""
        return tuple(map(tuple, self.readings.keys))

    def results(self) -> tuple[list[Any], dict[str, Any]]:
        """Return the tensors taken and the losses."""
        return self.readings.tensors, self.readings.losses

    def _finish_losses(self) -> None:
        """Take what the tapes went back from as the loss; of several optimizers each has its own."""
        losses = [self._loss_of[id(one)] for one in self._optimizers if id(one) in self._loss_of]
        if len(losses) > 1:
            self.readings.losses = {f"loss_{number}": loss for number, loss in enumerate(losses, 1)}
        elif losses and not self.readings.losses:
            self.readings.losses["loss"] = losses[0]
        if not self.readings.losses:
            self.notices.append(
                "The loss is not recorded: the train step does not call compute_loss, and goes back from no single "
                "number."
            )


def _current_graph() -> Any:
    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()


def is_about_parameters(sources: Any) -> bool:
    """Say whether a tape is asked for gradients by parameters."""
    return any(isinstance(x, (keras.Variable, tf.Variable)) for x in tf.nest.flatten(sources))


def _identity(variable: Any) -> int:
    return id(variable.value if isinstance(variable, keras.Variable) else variable)


def _logits(output: Any) -> Any:
    """Return what Keras' crossentropies use in place of `output`, as they find it; None where there is nothing."""
    if (logits := getattr(output, "_keras_logits", None)) is not None:
        return logits
    if not tf.executing_eagerly() and output.op.type in ("Softmax", "Sigmoid"):
        return output.op.inputs[0]
    return None


def _value(variable: Any) -> Any:
    return tf.convert_to_tensor(variable.value if isinstance(variable, keras.Variable) else variable)


def _dense(gradient: Any) -> Any:
    if isinstance(gradient, tf.IndexedSlices):
        return tf.math.unsorted_segment_sum(gradient.values, gradient.indices, gradient.dense_shape[0])
    return gradient


def _difference(after: Any, before: Any) -> Any:
    if after.dtype == tf.float64:
        return after - before
    return tf.cast(after, tf.float32) - tf.cast(before, tf.float32)
