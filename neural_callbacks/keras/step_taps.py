"""The taps of a step that is measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import tensorflow as tf

from neural_callbacks.keras.apart import Apart
from neural_callbacks.keras.losses import identity, unscaled
from neural_callbacks.keras.replicas import Replica
from neural_callbacks.keras.samples import SKIPPED
from neural_callbacks.keras.structure import Site
from neural_callbacks.keras.taps import Subject, TrainStep, is_nonfinite, parts
from neural_callbacks.recorder import BY_LOGITS

NOT_REDUCED = (
    "Gradients are not recorded: the optimizer adds up those of all workers inside a branch of the compiled step, as "
    "with loss scaling."
)


@dataclass
class Readings:
    """What the taps took from one train step, in the order taken.

    `keys[i]` is the kind and row of the measurement of `tensors[i]`, which has the factor `scales[i]` in it (None: 1);
    a tensor that stands for several rows is listed once and its keys have several entries. Two tensors stand for what
    the first has more than the second: their difference is for whoever measures it, as taken here it would have the
    graph optimizer make another last bit of what they were computed from.
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
        """Return the tensors to be measured, each where it lies; sparse gradients are spread out."""
        found = []
        for tensor, scale in zip(self.tensors, self.scales, strict=True):
            if isinstance(tensor, tuple):
                found.append(tensor)
                continue
            with tf.device(tensor.device or None):
                found.append(unscaled(_dense(tensor, apart), scale))
        return found


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


class StepTaps(TrainStep):
    """The taps of a step that is measured."""

    def __init__(self, subject: Subject, replica: Replica) -> None:
        super().__init__(subject, replica)
        self.readings = Readings()
        self._activations: list[_Activation] = []
        self._trained = False
        self._before: dict[int, Any] = {}
        # Of several replicas: by parameter, the gradients of this one alone, with their scale.
        self.own_gradients: dict[int, tuple[Any, Any]] = {}
        self._rows: dict[int, int] = {}  # by the identity of a TensorFlow variable

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
            self._rows[identity(variable)] = row
            self._before[row] = _value(variable)
            if gradient is not None and self.replica.in_sync > 1:
                self.own_gradients[row] = gradient, scale
            if self.replica.number == 0:  # parameters are the same on all of them
                self.readings.add("weights", row, self._before[row])
                if gradient is not None and self.replica.in_sync == 1:
                    self.readings.add("gradients", row, gradient, scale)

    def see_reduced(self, gradients_and_variables: Sequence[tuple[Any, Any]]) -> None:
        """See `TrainStep`."""
        for gradient, variable in gradients_and_variables:
            row = self._rows.get(id(variable))
            if row in self.own_gradients and gradient is not None:
                del self.own_gradients[row]
                if self.replica.number == 0:
                    self.readings.add("gradients", row, gradient)

    def see_replicas(self, replicas: Sequence[TrainStep]) -> None:
        """Add up the gradients of replicas where the sum of them all was not seen."""
        with self._ours():
            apart = Apart()
            of_replicas = [taps.own_gradients for taps in replicas if isinstance(taps, StepTaps)]
            for row in self.own_gradients if self.replica.in_sync == len(replicas) else ():
                gradients = [
                    unscaled(_dense(of_one[row][0], apart), of_one[row][1]) for of_one in of_replicas if row in of_one
                ]
                with tf.device(gradients[0].device or None):
                    self.readings.add("gradients", row, tf.add_n(gradients))
            if self.own_gradients and self.replica.in_sync > len(replicas):
                self.notices.append(NOT_REDUCED)

    def finish(self) -> None:
        """Take in what the step changed, and what it left as it was."""
        if self.replica.number == 0:
            for row, variable in enumerate(self._catalog.variables):
                if row in self._before:
                    self.readings.add("updates", row, (_value(variable), self._before[row]))
                else:  # frozen, or not trained in this step
                    self.readings.add("weights", row, _value(variable))
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

    def nothing(self) -> list[Any]:
        """See `TrainStep`."""
        return []

    def results(self) -> tuple[list[Any], dict[str, Any]]:
        """Return the tensors taken; the losses, and whether an optimizer skipped the step."""
        apart = Apart()
        taken, figures = self.readings.finished(apart), self._loss_figures(apart)
        if not figures:
            self.notices.append(
                "The loss is not recorded: the train step does not call compute_loss, and goes back from no single "
                "number."
            )
        if self._scaled_gradients:
            flags = [is_nonfinite(gradient, apart) for gradient in self._scaled_gradients]
            figures[SKIPPED] = tf.reduce_any(tf.stack(flags))
        return taken, figures


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
