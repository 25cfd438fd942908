"""A train step of the user's own, in the gears of TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from neural_callbacks.keras.functions import LookedAt, TappedFunction
from neural_callbacks.keras.gears import INSTRUMENTED, Gears
from neural_callbacks.keras.optimizers import optimizers_of
from neural_callbacks.keras.replicas import Replica
from neural_callbacks.keras.taps import Taken, TrainStep

# An ordinary function runs eagerly; what tf.function has made of one has these.
_COMPILED = ("python_function", "get_concrete_function")


class OwnStep(Gears):
    """A function that makes a train step of `model` by `optimizers`; see `neural_callbacks.keras.watch.OwnStep`.

    The plain gear is the function as it is. The others are traced from its Python code, as tf.function does, with its
    own choice of XLA; where it is not under tf.function, they run eagerly as it does.
    """

    def __init__(self, model: Any, optimizers: Sequence[Any], train_step: Callable[..., Any]) -> None:
        super().__init__(model)
        self._given = optimizers
        self._train_step = train_step
        self._plain = _on_batches(train_step)
        self._python_code = _python_code(train_step)

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """Make one step."""
        return self._run(1, self._plain, iter([(args, kwargs)]))

    def _outputs_of_a_lost_step(self, plain: Callable[[], Any], step: int) -> Any:
        # What the function gives out nobody else knows, and without it training ends.
        self._watch.recorder.notice(f"Step {step} was made again: it failed after the optimizer had stepped.")
        return plain()

    def _tapped(
        self, taps: Callable[[Replica], TrainStep], finish: Callable[[Sequence[Taken]], Taken]
    ) -> TappedFunction:
        def step(batch: Any, looked_at: LookedAt) -> Any:
            args, kwargs = batch
            return looked_at(self._python_code)(*args, **kwargs)

        compiled = bool(getattr(self._train_step, "_jit_compile", False))
        return TappedFunction(
            step, self._strategy, taps, finish, run_eagerly=self._is_eager(), jit_compile=compiled, is_inner=compiled
        )

    def _source(self, iterator: Any) -> tuple[Any, Any, Any]:
        batch = next(iterator)
        signature = getattr(self._train_step, "input_signature", None)
        tapped: Any = batch
        spec: Any = None
        with self._watch.recorder.contained(INSTRUMENTED):
            if signature is not None and not batch[1]:
                tapped, spec = (_cast(batch[0], signature), {}), (signature, {})
            else:
                self._specs.meet(batch)
                spec = self._specs.spec
        return iter([batch]), iter([tapped]), spec

    def _optimizers(self) -> Sequence[Any]:
        return self._given or optimizers_of(self._model)

    def _is_eager(self) -> bool:
        return not _is_compiled(self._train_step) or tf.config.functions_run_eagerly()


def _cast(arguments: Sequence[Any], signature: Sequence[Any]) -> tuple[Any, ...]:
    """Return arguments as tf.function makes them for its signature."""
    pairs = zip(arguments, signature, strict=True)
    return tuple(tf.nest.map_structure(lambda kind, x: _as(x, kind), kind, x) for x, kind in pairs)


def _as(x: Any, kind: Any) -> Any:
    return x if tf.is_tensor(x) or not isinstance(kind, tf.TensorSpec) else tf.convert_to_tensor(x, kind.dtype)


def _is_compiled(function: Callable[..., Any]) -> bool:
    return all(hasattr(function, name) for name in _COMPILED)


def _python_code(function: Any) -> Callable[..., Any]:
    """Return the Python function under tf.function, with its conditions on tensors turned into the graph's."""
    if not _is_compiled(function):
        return function  # type: ignore[no-any-return]
    if not getattr(function, "_autograph", True):
        return function.python_function  # type: ignore[no-any-return]
    context = tf.__internal__.autograph.control_status_ctx()
    code: Callable[..., Any] = tf.__internal__.autograph.tf_convert(function.python_function, context)
    return code


def _on_batches(function: Callable[..., Any]) -> Callable[[Any], Any]:
    """Return `function` as a train function: its arguments are the next batch of an iterator."""

    def train_function(iterator: Any) -> Any:
        args, kwargs = next(iterator)
        return function(*args, **kwargs)

    return train_function
