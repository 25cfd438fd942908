"""A train step with taps in it, compiled as Keras compiles the plain one."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from neural_callbacks.keras import replicas
from neural_callbacks.keras.replacing import replaced
from neural_callbacks.keras.replicas import Replica
from neural_callbacks.keras.taps import Taken, TrainStep

# Operations whose random state lives in the compiled function that has them: a second function would draw anew.
_STATEFUL_RANDOM = frozenset(
    {
        "AllCandidateSampler",
        "FixedUnigramCandidateSampler",
        "FractionalAvgPool",
        "FractionalMaxPool",
        "LearnedUnigramCandidateSampler",
        "LogUniformCandidateSampler",
        "Multinomial",
        "ParameterizedTruncatedNormal",
        "RandomCrop",
        "RandomGamma",
        "RandomPoisson",
        "RandomPoissonV2",
        "RandomShuffle",
        "RandomStandardNormal",
        "RandomUniform",
        "RandomUniformInt",
        "SampleDistortedBoundingBox",
        "SampleDistortedBoundingBoxV2",
        "ThreadUnsafeUnigramCandidateSampler",
        "TruncatedNormal",
        "UniformCandidateSampler",
    }
)


# Puts what a replica does, a function, under the taps of the replica that runs it.
LookedAt = Callable[[Callable[..., Any]], Callable[..., Any]]


class TappedFunction:
    """A train step that also gives out what `taps` took: call it with a batch, or an iterator to draw that from.

    `step` makes it of a batch; what each replica does in it goes through `LookedAt`. Each replica has taps of its own.
    `finish` makes one of what all took, outside of what XLA compiles: it would take a second for each tensor measured.
    `is_inner` says that the plain step, too, is a function that another calls. `keys` and `notices` are those of the
    latest trace, or of the latest run where it runs eagerly. `seconds` is what tracing it and its first call took,
    which compiles it. `draws` tells whether Python's or numpy's global random stream moved while it was traced.
    """

    def __init__(
        self,
        step: Callable[[Any, LookedAt], Any],
        strategy: Any,
        taps: Callable[[Replica], TrainStep],
        finish: Callable[[Sequence[Taken]], Taken],
        *,
        run_eagerly: bool,
        jit_compile: bool,
        is_inner: bool,
    ) -> None:
        self.keys: tuple[Any, ...] = ()
        self.notices: list[str] = []
        self.seconds = 0.0
        self.draws = False
        self._step = step
        self._strategy = strategy
        self._around: LookedAt = lambda step: step
        self._taps = taps
        self._is_eager = run_eagerly
        self._is_fresh = True
        run = tf.autograph.experimental.do_not_convert(self._tapped_step)
        if is_inner and not run_eagerly:
            # The graph optimizer treats what was inlined in another way.
            run = tf.function(run, jit_compile=jit_compile)

        def finished_step(element: Any) -> tuple[Any, Taken, Mapping[str, Any]]:
            outputs, taken, scalars = run(replicas.drawn(element))
            return outputs, finish(taken), scalars

        self._function = tf.autograph.experimental.do_not_convert(finished_step)

    def trace(self, spec: Any) -> None:
        """Trace it for elements of `spec`, unless it runs eagerly."""
        started = time.perf_counter()
        if not self._is_eager:
            function = tf.function(self._function)
            before = _streams()
            traced = function.get_concrete_function(spec)
            self.draws = _streams() != before
            self._graph = traced.graph
            # The trace itself is called, where nothing but tensors is given: to find it takes longer than to call it.
            is_plain = all(isinstance(part, tf.TensorSpec) for part in tf.nest.flatten(spec))
            self._function = traced if is_plain else function
        self.seconds += time.perf_counter() - started

    def __call__(self, element: Any) -> tuple[Any, Taken, Mapping[str, Any]]:
        """Make the step; return what the model's own gives out, what was taken, and scalar tensors by name."""
        if not self._is_fresh:
            return self._function(element)  # type: ignore[no-any-return]
        started = time.perf_counter()
        self._is_fresh = False
        result: tuple[Any, Taken, Mapping[str, Any]] = self._function(element)
        self.seconds += time.perf_counter() - started
        return result

    def take_seconds(self) -> float:
        """Return `seconds`, and begin to count them anew."""
        seconds, self.seconds = self.seconds, 0.0
        return seconds

    def stateful_random(self) -> list[str]:
        """Return the operations in it whose random state a second function would not share."""
        return [] if self._is_eager else sorted(self.operations & _STATEFUL_RANDOM)

    @cached_property
    def operations(self) -> frozenset[str]:
        """The names of the operations in the traced step and in the functions that it calls."""
        definition = self._graph.as_graph_def()
        inner = (node for function in definition.library.function for node in function.node_def)
        return frozenset(node.op for node in (*definition.node, *inner))

    @property
    def captured(self) -> Sequence[Any]:
        """The tensors that the traced step takes from outside, those of its variables' resources among them."""
        captured: Sequence[Any] = self._graph.external_captures
        return captured

    def plainly(self, batch: Any, looked_at: LookedAt) -> Any:
        """Run the Python code of the step without taps, its replica's part under `looked_at`."""
        return self._step(batch, looked_at)

    def within(self, looked_at: LookedAt) -> AbstractContextManager[None]:
        """Put the steps that run eagerly inside the `with` block under `looked_at` too, inside of the taps."""
        return replaced(self, "_around", lambda _: looked_at)

    def _tapped_step(self, batch: Any) -> tuple[Any, Sequence[Taken], Mapping[str, Any]]:
        taps = [self._taps(replica) for replica in replicas.replicas_of(self._strategy)]
        running = threading.local()  # replicas run in threads, which take turns

        def looked_at(step: Callable[..., Any]) -> Callable[..., Any]:
            def step_of_replica(*args: Any, **kwargs: Any) -> Any:
                running.taps = taps[replicas.number_here(self._strategy)]
                with running.taps.looking():
                    return self._around(step)(*args, **kwargs)

            return step_of_replica

        with taps[0].in_place(lambda: getattr(running, "taps", taps[0])):
            outputs = self._step(batch, looked_at)
        taps[0].see_replicas(taps)
        results = [of_one.finished() for of_one in taps]
        self.keys = tuple(replicas.in_order([keys for _, _, keys in results]))
        self.notices = list(dict.fromkeys(sentence for of_one in taps for sentence in of_one.notices))
        return (
            outputs,
            [taken for taken, _, _ in results],
            replicas.loss([scalars for _, scalars, _ in results], taps[0].replica),
        )


def plain_step(model: Any, batch: Any, looked_at: LookedAt) -> Any:
    """Run the Python code of a model's train step, as Keras does.

    An element that is missing from the data arrives as an empty Optional.
    """
    batch = keras.tree.map_structure(lambda x: None if isinstance(x, tf.experimental.Optional) else x, batch)
    outputs = model.distribute_strategy.run(looked_at(model.train_step), args=(batch,))
    return replicas.reduced(outputs, model.distribute_strategy)


def _streams() -> tuple[Any, ...]:
    kind, keys, *more = np.random.get_state()  # noqa: NPY002 - the global stream, which users draw from
    return random.getstate(), kind, np.asarray(keys).tobytes(), *more


def has_accelerator() -> bool:
    """Whether tensors may lie in a device's memory, to be measured there; in the host's, numpy is faster."""
    return any(device.device_type != "CPU" for device in tf.config.list_logical_devices())
