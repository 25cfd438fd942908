"""Taps: what is taken from one train step while JAX traces it (or runs it eagerly).

The train step is a pure function of its state and its batch, so what the taps see needs no way of its own to the host:
it becomes one more output of the step. A host callback (`jax.debug.callback`) would cost a call from the device for
each tensor, and is an effect that the compiler must not move, where an output is only one more use of a value that is
there anyway.

Inside of `jax.grad` the values of the way forward belong to the differentiation and cannot be given out. So a layer's
output is passed through an identity with a `jax.custom_vjp`, whose rules are told the value and, on the way back, the
gradient, both outside of the differentiation. The rules leave no operation in the step: it is the user's own, with more
outputs. Keras' losses on JAX look at nothing but the values (not at `_keras_logits`, which traced arrays cannot carry),
so that it makes no difference to them either.

Everything is put in place when the train step begins and taken away when it ends: outside of it, a model has nothing
of ours in it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import keras
from keras.src.backend.common.masking import get_keras_mask, set_keras_mask

from neural_callbacks.keras.on_jax.taken import Taken
from neural_callbacks.keras.optimizers import optimizers_of
from neural_callbacks.keras.replacing import replaced
from neural_callbacks.keras.structure import Catalog, Site
from neural_callbacks.recorder import Recorder

TAPS = "the taps in the train step"

# The parts of Keras' state of a train step: trainable and other variables, the optimizer's, the metrics'.
State = tuple[Any, ...]


class TrainStep:
    """Taps in one run of a train step's Python code: what is seen of it goes to the methods `see_...`.

    A failure of ours inside a tap switches all of them off (`recorder.contained`) and never reaches the train step.
    """

    part = TAPS

    def __init__(self, model: Any, sites: Sequence[Site], catalog: Catalog, recorder: Recorder, state: State) -> None:
        self.notices: list[str] = []
        self._model = model
        self._sites = sites
        self._catalog = catalog
        self._recorder = recorder
        self._state = state
        tracers = [x for x in jax.tree.leaves(state) if isinstance(x, jax.core.Tracer)]
        self._trace = tracers[0]._trace if tracers else None  # noqa: SLF001 - only it tells what may be given out
        self._is_open = False

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the taps in place for the train step that runs inside the `with` block."""
        with ExitStack() as stack:
            for site in self._sites:
                stack.enter_context(replaced(site.layer, "call", functools.partial(self._layer_tap, site)))
            for optimizer in optimizers_of(self._model):
                stack.enter_context(replaced(optimizer, "stateless_apply", self._stateless_tap, optimizer))
                stack.enter_context(replaced(optimizer, "apply", self._apply_tap, optimizer))
                stack.enter_context(replaced(optimizer, "scale_loss", self._scale_tap))
            stack.enter_context(replaced(self._model, "compute_loss", self._loss_tap))
            self._is_open = True
            try:
                yield
            finally:
                self._is_open = False

    def conclude(self, state: State) -> None:
        """Let the taps take in the `state` that the step ends with."""
        with self._recorder.contained(self.part):
            self.finish(state)

    def see_output(self, row: int, site: Site, output: Any) -> None:
        """Take in an output of a layer."""

    def see_gradient(self, row: int, gradient: Any) -> None:
        """Take in the gradient by an output of a layer."""

    def see_loss(self, loss: Any) -> None:
        """Take in what `compute_loss` gave out."""

    def see_scale(self, scale: Any) -> None:
        """Take in what the loss is multiplied with before the way back."""

    def see_before(self, gradients: Sequence[Any], variables: Sequence[Any]) -> None:
        """Take in the gradients that an optimizer is about to apply to variables."""

    def finish(self, state: State) -> None:
        """Take in the state that the step ends with."""

    def taken(self) -> Taken:
        """Return what was taken."""
        raise NotImplementedError

    def _layer_tap(self, site: Site, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def tapped(*args: Any, **kwargs: Any) -> Any:
            outputs = call(*args, **kwargs)
            with self._recorder.contained(self.part):
                return self._see_layer(site, args, outputs)
            return outputs

        return tapped

    def _see_layer(self, site: Site, args: tuple[Any, ...], outputs: Any) -> Any:
        seen = [x for x in keras.tree.flatten(outputs) if isinstance(x, jax.Array)]
        if not seen:
            return outputs
        row = self._catalog.layer(site, [x for x in keras.tree.flatten(args) if isinstance(x, jax.Array)], seen)
        forward = functools.partial(self._contained, self._see_output, row, site)
        back = functools.partial(self._contained, self._see_gradient, row, site)

        def tapped(output: Any) -> Any:
            is_tapped = isinstance(output, jax.Array) and jnp.issubdtype(output.dtype, jnp.floating)
            return self._passed(output, forward, back) if is_tapped else output

        return keras.tree.map_structure(tapped, outputs)

    def _passed(self, value: Any, forward: Callable[[Any], None], back: Callable[[Any], None]) -> Any:
        """Return `value`, having told `forward` of it; `back` is told of the gradient by it when that is known."""
        if self._is_here(value) or type(value._trace) is type(self._trace):  # noqa: SLF001 - see __init__
            forward(value)
            return value
        passed = _identity(forward, back)(value)
        if (mask := get_keras_mask(value)) is not None:
            set_keras_mask(passed, mask)
        return passed

    def _see_output(self, row: int, site: Site, output: Any) -> None:
        if self._is_here(output):
            self.see_output(row, site, output)
        else:
            self.notices.append(
                f"The activations of {site.own_name} are not recorded: it runs inside a loop, a branch or another "
                "function that JAX transforms by itself."
            )

    def _see_gradient(self, row: int, site: Site, gradient: Any) -> None:
        del site
        if self._is_here(gradient):
            self.see_gradient(row, gradient)

    def _contained(self, see: Callable[..., None], *args: Any) -> None:
        # Where JAX has kept what it traced, the rules may be called once more after the step.
        if self._is_open:
            with self._recorder.contained(self.part):
                see(*args)

    def _is_here(self, value: Any) -> bool:
        """Say whether `value` may be given out by the step: it is concrete, or of the step's own trace."""
        return not isinstance(value, jax.core.Tracer) or value._trace is self._trace  # noqa: SLF001 - see __init__

    def _loss_tap(self, compute_loss: Callable[..., Any]) -> Callable[..., Any]:
        def see(loss: Any) -> None:
            if self._is_here(loss):
                self.see_loss(loss)

        @functools.wraps(compute_loss)
        def tapped(*args: Any, **kwargs: Any) -> Any:
            loss = compute_loss(*args, **kwargs)
            with self._recorder.contained(self.part):
                if isinstance(loss, jax.Array):
                    return self._passed(loss, functools.partial(self._contained, see), lambda _: None)
            return loss

        return tapped

    def _scale_tap(self, scale_loss: Callable[[Any], Any]) -> Callable[[Any], Any]:
        @functools.wraps(scale_loss)
        def tapped(loss: Any) -> Any:
            scaled = scale_loss(loss)
            if scaled is not loss:
                with self._recorder.contained(self.part):
                    self.see_scale(scale_loss(jnp.ones([], jnp.float32)))
            return scaled

        return tapped

    def _stateless_tap(self, stateless_apply: Callable[..., Any], optimizer: Any) -> Callable[..., Any]:
        @functools.wraps(stateless_apply)
        def tapped(optimizer_variables: Any, grads: Any, trainable_variables: Any) -> Any:
            grads = list(grads)
            self._see_apply(optimizer, grads, None)
            return stateless_apply(optimizer_variables, grads, trainable_variables)

        return tapped

    def _apply_tap(self, apply: Callable[..., Any], optimizer: Any) -> Callable[..., Any]:
        @functools.wraps(apply)
        def tapped(grads: Any, trainable_variables: Any = None) -> Any:
            grads = list(grads)
            variables = None if trainable_variables is None else list(trainable_variables)
            self._see_apply(optimizer, grads, variables)
            return apply(grads, variables)

        return tapped

    def _see_apply(self, optimizer: Any, gradients: Sequence[Any], variables: Sequence[Any] | None) -> None:
        with self._recorder.contained(self.part):
            if all(gradient is None or self._is_here(gradient) for gradient in gradients):
                own = optimizer._trainable_variables if variables is None else variables  # noqa: SLF001 - its default
                self.see_before(gradients, own)
            else:
                self.notices.append(
                    "Gradients are not recorded: the optimizer runs inside a loop, a branch or another function that "
                    "JAX transforms by itself."
                )

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


class StepTaps(TrainStep):
    """The taps of a step that is measured."""

    def __init__(self, model: Any, sites: Sequence[Site], catalog: Catalog, recorder: Recorder, state: State) -> None:
        super().__init__(model, sites, catalog, recorder, state)
        self._keys: list[list[tuple[str, int]]] = []
        self._tensors: list[Any] = []
        self._losses: dict[str, Any] = {}
        self._names: dict[int, str] = {}
        self._scale: Any = None
        self._trained: set[int] = set()

    def see_output(self, row: int, site: Site, output: Any) -> None:
        """See `TrainStep`."""
        self._names[row] = site.own_name
        self._add("activations", row, output)

    def see_gradient(self, row: int, gradient: Any) -> None:
        """See `TrainStep`."""
        self._add("activation_gradients", row, self._unscaled(gradient))

    def see_loss(self, loss: Any) -> None:
        """See `TrainStep`."""
        self._losses["loss"] = loss

    def see_scale(self, scale: Any) -> None:
        """See `TrainStep`."""
        if self._is_here(scale):
            self._scale = scale
        else:
            self.notices.append("Gradients are recorded as the loss' scaling leaves them: its scale is out of reach.")

    def see_before(self, gradients: Sequence[Any], variables: Sequence[Any]) -> None:
        """Take in what an optimizer is about to use, the first time that it does so in the step."""
        for gradient, variable in zip(gradients, variables, strict=True):
            row = self._row_of(variable)
            if row is None or row in self._trained:
                continue
            self._trained.add(row)
            if gradient is not None:
                self._add("gradients", row, self._unscaled(gradient))

    def finish(self, state: State) -> None:
        """Take in the weights before the step, and what it changed."""
        before, after = self._values(self._state), self._values(state)
        for row, variable in enumerate(self._catalog.variables):
            if id(variable) not in before:
                continue
            self._add("weights", row, before[id(variable)])
            if row in self._trained:
                self._add("updates", row, _difference(after[id(variable)], before[id(variable)]))
        if TAPS in self._recorder.switched_off:
            return  # what is missing then has another reason
        measured = {key for keys in self._keys for key in keys}
        without = [name for row, name in self._names.items() if ("activation_gradients", row) not in measured]
        if without:
            self.notices.append(
                f"Training needs no gradient by the outputs of {', '.join(without)}, so none is recorded."
            )
        if not self._losses:
            self.notices.append("The loss is not recorded: the train step does not call compute_loss.")

    def taken(self) -> Taken:
        """Return the tensors, each with the kinds and rows that it stands for, and the loss."""
        return Taken(self._tensors, self._losses, tuple(map(tuple, self._keys)))

    def _values(self, state: State) -> dict[int, Any]:
        variables = (*self._model.trainable_variables, *self._model.non_trainable_variables)
        return {id(variable): x for variable, x in zip(variables, (*state[0], *state[1]), strict=True)}

    def _add(self, kind: str, row: int, tensor: Any) -> None:
        for number, known in enumerate(self._tensors):
            if known is tensor:
                self._keys[number].append((kind, row))
                return
        self._keys.append([(kind, row)])
        self._tensors.append(tensor)

    def _unscaled(self, gradient: Any) -> Any:
        return gradient if self._scale is None else gradient.astype(jnp.float32) / self._scale


def _identity(forward: Callable[[Any], None], back: Callable[[Any], None]) -> Callable[[Any], Any]:
    """Return an identity that tells `forward` of the value and `back` of the gradient by it."""
    identity: Any = jax.custom_vjp(lambda value: value)

    def forward_rule(value: Any) -> tuple[Any, None]:
        forward(value)
        return value, None

    def back_rule(_: None, gradient: Any) -> tuple[Any]:
        back(gradient)
        return (gradient,)

    identity.defvjp(forward_rule, back_rule)
    passed: Callable[[Any], Any] = identity
    return passed


def _difference(after: Any, before: Any) -> Any:
    if after.dtype == jnp.float64:
        return after - before
    return after.astype(jnp.float32) - before.astype(jnp.float32)
