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

from neural_callbacks.keras.apart import Apart
from neural_callbacks.keras.losses import Losses, optimizers_of, unscaled
from neural_callbacks.keras.patches import replaced, tapped_tape
from neural_callbacks.keras.samples import SKIPPED
from neural_callbacks.keras.structure import Catalog, Site
from neural_callbacks.recorder import BY_LOGITS, Recorder

TAPS = "the taps in the train step"
_SCOPE = "neuraldbg/"  # the slash makes it the same wherever it is opened


@dataclass
class Readings:
    """What the taps took from one train step, in the order taken.

    `keys[i]` is the kind and row of the measurement of `tensors[i]`, which has the factor `scales[i]` in it (None: 1);
    a tensor that stands for several rows is listed once and its keys have several entries.
    """

    keys: list[list[tuple[str, int]]] = field(default_factory=list)
    tensors: list[Any] = field(default_factory=list)
    scales: list[Any] = field(default_factory=list)

    def add(self, kind: str, row: int, tensor: Any, scale: Any = None) -> None:
        """Note that `tensor` is to be measured for a row."""
        for number, known in enumerate(self.tensors):
            if known is tensor and self.scales[number] is scale:
                self.keys[number].append((kind, row))
                return
        self.keys.append([(kind, row)])
        self.tensors.append(tensor)
        self.scales.append(scale)

    def finished(self, apart: Apart) -> list[Any]:
        """Return the tensors to be measured; sparse gradients are spread out."""
        return [unscaled(_dense(x, apart), scale) for x, scale in zip(self.tensors, self.scales, strict=True)]


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


# What taps took: tensors, or one tensor.
Taken = Any


class TrainStep:
    """Taps in one run of a train step's Python code: what is seen of it goes to the methods `see_...`.

    A failure of ours inside a tap switches all of them off (`recorder.contained`) and never reaches the train step.
    """

    part = TAPS

    def __init__(self, model: Any, sites: Sequence[Site], catalog: Catalog, recorder: Recorder) -> None:
        self.notices: list[str] = []
        self._model = model
        self._sites = sites
        self._catalog = catalog
        self._recorder = recorder
        self._graph = _current_graph()
        self._losses = Losses()
        self._scaled_gradients: list[Any] = []  # those of which one that is not finite has the step skipped
        self._is_going_back = False

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the taps in place for the train step that runs inside the `with` block."""
        with ExitStack() as stack:
            for site in self._sites:
                tap = functools.partial(self._layer_tap, site)
                stack.enter_context(replaced(site.layer, "call", tap))
            for optimizer in optimizers_of(self._model):
                stack.enter_context(replaced(optimizer, "apply", self._apply_tap, optimizer))
                stack.enter_context(replaced(optimizer, "scale_loss", self._scale_tap, optimizer))
            stack.enter_context(replaced(self._model, "compute_loss", self._loss_tap))
            stack.enter_context(tapped_tape(self._gradient_tap))
            yield
        with self._ours():
            self.finish(Apart())

    @contextmanager
    def _ours(self) -> Iterator[None]:
        """Contain what fails, and call operations by names that leave training's own as they are without us.

        The graph optimizer orders some by their names, which have numbers in them.
        """
        with self._recorder.contained(self.part), tf.name_scope(_SCOPE):
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

    def finish(self, apart: Apart) -> None:
        """Take in the end of the step, when all is there that is not ours; until then nothing uses its tensors."""

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
                with self._ours():
                    if seen := _tensors(outputs):
                        self.see_layer(site, _tensors(args) or _tensors(kwargs), seen)
            return outputs

        return tapped

    def _gradient_tap(self, gradient: Callable[..., Any], tape: Any, target: Any, sources: Any, **options: Any) -> Any:
        if not _is_about_parameters(sources) or not all(map(self._is_here, _tensors(target))):
            return gradient(tape, target, sources, **options)
        with self._ours():
            if tf.is_tensor(target) and target.shape.num_elements() == 1:
                self._losses.went_back_from(target, sources)
        self._is_going_back = True
        try:
            return self.gradient(gradient, tape, target, sources, **options)
        finally:
            self._is_going_back = False

    def _scale_tap(self, scale_loss: Callable[[Any], Any], optimizer: Any) -> Callable[[Any], Any]:
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

    def _apply_tap(self, apply: Callable[..., Any], optimizer: Any) -> Callable[..., Any]:
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


class StepTaps(TrainStep):
    """The taps of a step that is measured."""

    def __init__(self, model: Any, sites: Sequence[Site], catalog: Catalog, recorder: Recorder) -> None:
        super().__init__(model, sites, catalog, recorder)
        self.readings = Readings()
        self._activations: list[_Activation] = []
        self._trained = False
        self._before: dict[int, Any] = {}
        self._taken: list[Any] = []
        self._figures: dict[str, Any] = {}

    def see_layer(self, site: Site, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        """See `TrainStep`."""
        row = self._catalog.layer(site, inputs, outputs)
        if not all(map(self._is_here, outputs)):
            self.notices.append(
                f"The activations of {site.own_name} are not recorded: it runs inside a loop, a branch or a "
                "tf.function of its own in the compiled step."
            )
            return
        # A layer may be frozen, and the tape reach it all the same: the way there is a cost that training has not.
        self._trained = self._trained or any(variable.trainable for variable in site.variables)
        for output in parts(outputs):
            if output.dtype.is_floating:
                self.readings.add("activations", row, output)
                self._activations.append(_Activation(row, site.own_name, output, _logits(output), self._trained))

    def gradient(self, gradient: Callable[..., Any], tape: Any, target: Any, sources: Any, **options: Any) -> Any:
        """Ask the tape for the gradients by activations too."""
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
        with self._ours():
            scale = self._losses.scale_on_the_way_back_from(target)
            self._see_gradients({id(x): g for x, g in zip(wanted, activations, strict=True) if g is not None}, scale)
        return found

    def _see_gradients(self, found: dict[int, Any], scale: Any) -> None:
        for activation in reversed(self._activations):  # in the order of the way back
            gradient = found.get(id(activation.output))
            if gradient is None and activation.logits is not None:
                gradient = found.get(id(activation.logits))
                if gradient is not None:
                    self.notices.append(BY_LOGITS.format(activation.name))
            if gradient is not None:
                self.readings.add("activation_gradients", activation.row, gradient, scale)

    def see_before(self, optimizer: Any, gradients: Sequence[Any], variables: Sequence[Any]) -> None:
        """Take in what an optimizer is about to use, the first time that it does so in the step."""
        scale = self._losses.scale_of(optimizer)
        for gradient, variable in zip(gradients, variables, strict=True):
            row = self._row_of(variable)
            if row is None or row in self._before:
                continue
            self._before[row] = _value(variable)
            self.readings.add("weights", row, self._before[row])
            if gradient is not None:
                self.readings.add("gradients", row, gradient, scale)

    def finish(self, apart: Apart) -> None:
        """Take in what the step changed, and what it left as it was."""
        for row, variable in enumerate(self._catalog.variables):
            if row in self._before:
                self.readings.add("updates", row, _difference(_value(variable), self._before[row]))
            else:  # frozen, or not trained in this step
                self.readings.add("weights", row, _value(variable))
        self._taken = self.readings.finished(apart)
        self._figures = {name: apart(loss) for name, loss in self._losses.by_name(optimizers_of(self._model)).items()}
        if not self._figures:
            self.notices.append(
                "The loss is not recorded: the train step does not call compute_loss, and goes back from no single "
                "number."
            )
        if self._scaled_gradients:
            flags = [is_nonfinite(gradient, apart) for gradient in self._scaled_gradients]
            self._figures[SKIPPED] = tf.reduce_any(tf.stack(flags))
        measured = {key for keys in self.readings.keys for key in keys}
        without = dict.fromkeys(a.name for a in self._activations if ("activation_gradients", a.row) not in measured)
        if without:
            self.notices.append(
                f"Training needs no gradient by the outputs of {', '.join(without)}, so none is recorded."
            )

    @property
    def keys(self) -> Sequence[tuple[tuple[str, int], ...]]:
        """The kinds and rows that each tensor stands for."""
        return tuple(map(tuple, self.readings.keys))

    def results(self) -> tuple[list[Any], dict[str, Any]]:
        """Return the tensors taken; the losses, and whether an optimizer skipped the step."""
        return self._taken, self._figures


def _current_graph() -> Any:
    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()


def _is_about_parameters(sources: Any) -> bool:
    """Say whether a tape is asked for gradients by parameters."""
    return any(isinstance(x, (keras.Variable, tf.Variable)) for x in tf.nest.flatten(sources))


def _logits(output: Any) -> Any:
    """Return what Keras' crossentropies use in place of `output`, as they find it; None where there is nothing."""
    if (logits := getattr(output, "_keras_logits", None)) is not None:
        return logits
    if not tf.executing_eagerly() and output.op.type in ("Softmax", "Sigmoid"):
        return output.op.inputs[0]
    return None


def _value(variable: Any) -> Any:
    return tf.convert_to_tensor(variable.value if isinstance(variable, keras.Variable) else variable)


def _dense(gradient: Any, apart: Apart) -> Any:
    if isinstance(gradient, tf.IndexedSlices):
        return tf.math.unsorted_segment_sum(apart(gradient.values), gradient.indices, gradient.dense_shape[0])
    return apart(gradient)


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


def _difference(after: Any, before: Any) -> Any:
    if after.dtype == tf.float64:
        return after - before
    return tf.cast(after, tf.float32) - tf.cast(before, tf.float32)
