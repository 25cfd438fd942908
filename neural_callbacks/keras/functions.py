"""A train step with taps in it, compiled as Keras compiles the plain one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from neural_callbacks.keras.taps import Taken, TrainStep

# Operations whose random state lives in the compiled function that has them: a second function would draw anew.
_STATEFUL_RANDOM = frozenset(
    {
        "Multinomial",
        "ParameterizedTruncatedNormal",
        "RandomGamma",
        "RandomPoisson",
        "RandomPoissonV2",
        "RandomShuffle",
        "RandomStandardNormal",
        "RandomUniform",
        "RandomUniformInt",
        "TruncatedNormal",
    }
)


class TappedFunction:
    """A train step that also gives out what `taps` took: call it with a batch.

    `finish` is applied to the tensors taken, outside of what XLA compiles: it would take a second for each tensor
    measured. `keys` and `notices` are those of the latest trace, or of the latest run where the model runs
    eagerly. `seconds` is what tracing it and its first call took, which compiles it.
    """

    def __init__(
        self, model: Any, taps: Callable[[], TrainStep], finish: Callable[[Any], Any] = lambda taken: taken
    ) -> None:
        self.keys: tuple[Any, ...] = ()
        self.notices: list[str] = []
        self.seconds = 0.0
        self._model = model
        self._taps = taps
        self._finish = finish
        self._is_fresh = True
        run = self._with_xla(self._tapped_step)

        def step(batch: Any) -> tuple[Any, Taken, Mapping[str, Any]]:
            outputs, taken, scalars = run(batch)
            return outputs, finish(taken), scalars

        self._step = tf.autograph.experimental.do_not_convert(step)
        self._function = self._step

    def trace(self, spec: Any) -> None:
        """Trace it for batches of `spec`, unless the model runs eagerly."""
        started = time.perf_counter()
        if not self._model.run_eagerly:
            self._function = tf.function(self._step, input_signature=[spec])
            self._graph = self._function.get_concrete_function(spec).graph
        self.seconds += time.perf_counter() - started

    def __call__(self, batch: Any) -> tuple[Any, Taken, Mapping[str, Any]]:
        """Make the step; return what the model's own gives out, what was taken, and scalar tensors by name."""
        if not self._is_fresh:
            return self._function(batch)  # type: ignore[no-any-return]
        started = time.perf_counter()
        self._is_fresh = False
        result: tuple[Any, Taken, Mapping[str, Any]] = self._function(batch)
        self.seconds += time.perf_counter() - started
        return result

    def take_seconds(self) -> float:
        """Return `seconds`, and begin to count them anew."""
        seconds, self.seconds = self.seconds, 0.0
        return seconds

    def stateful_random(self) -> list[str]:
        """Return the operations in it whose random state a second function would not share."""
        if self._model.run_eagerly:
            return []
        definition = self._graph.as_graph_def()
        inner = (node for function in definition.library.function for node in function.node_def)
        return sorted({node.op for node in (*definition.node, *inner)} & _STATEFUL_RANDOM)

    def _tapped_step(self, batch: Any) -> tuple[Any, Taken, Mapping[str, Any]]:
        taps = self._taps()
        with taps.in_place():
            outputs = plain_step(self._model, batch)
        self.keys, self.notices = tuple(taps.keys), taps.notices
        return outputs, *taps.results()

    def _with_xla(self, step: Callable[[Any], Any]) -> Callable[[Any], Any]:
        step = tf.autograph.experimental.do_not_convert(step)
        if self._model.run_eagerly:
            return step
        # In a function of its own, as Keras has it: the graph optimizer treats what was inlined in another way.
        inner: Callable[[Any], Any] = tf.function(step, jit_compile=self._model.jit_compile)
        return inner


def plain_step(model: Any, batch: Any) -> Any:
    """Run the Python code of a model's train step, as Keras does.

    An element that is missing from the data arrives as an empty Optional.
    """
    batch = keras.tree.map_structure(lambda x: None if isinstance(x, tf.experimental.Optional) else x, batch)
    return model.distribute_strategy.run(model.train_step, args=(batch,))


def has_accelerator() -> bool:
    """Whether tensors may lie in a device's memory, to be measured there; in the host's, numpy is faster."""
    return any(device.device_type != "CPU" for device in tf.config.list_logical_devices())
