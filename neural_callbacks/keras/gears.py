"""Gears: which function runs a train step. Plain is the user's own; instrumented is the same step with taps in it.

The instrumented function is built beside the plain one and takes its place in `model.train_function` for one call. It
takes the batch from the iterator itself, so that after a failure of ours the plain function gets the same batch and
training goes on as if nothing had been.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from neural.session.layers import LayerTable
from neural_callbacks.keras.samples import Keys, Sample
from neural_callbacks.keras.statistics import measure
from neural_callbacks.keras.structure import Catalog, Site, find_sites
from neural_callbacks.keras.taps import TAPS, StepTaps
from neural_callbacks.recorder import Recorder

INSTRUMENTED = "the instrumented train step"

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


class Gears:
    """The gears of one model; `samples` collects what sampled steps left, until somebody takes it out.

    They outlive a fit, so that the next one need not trace again; `recorder` is that of the present fit.
    """

    def __init__(self, model: Any, recorder: Recorder) -> None:
        self.model = model
        self.recorder = recorder
        self.samples: list[Sample] = []
        self._catalog = Catalog()
        self._built_for: tuple[Any, Any] | None = None
        self._observed: Callable[[Any], tuple[Any, Any, Any]] | None = None
        self._unobserved: Callable[[Any], Any] | None = None
        self._keys: Keys = ()
        self._notices: list[str] = []

    @property
    def usable(self) -> bool:
        """Whether nothing has failed in the instrumented gear so far."""
        return self.recorder.switched_off.isdisjoint({INSTRUMENTED, TAPS})

    def table(self) -> LayerTable:
        """Return the layer table that the samples' rows are numbered by; it grows as training meets layers."""
        return self._catalog.table()

    def engage(self, steps: range, is_due: Callable[[int], bool]) -> None:
        """Let the next call of the model's train function, which covers `steps`, measure those that are due."""
        plain = self.model.train_function

        def instrumented(iterator: Any) -> Any:
            # Before anything else, so that no other callback and no error ever finds ours on the model.
            self.model.train_function = plain
            with self.recorder.contained(INSTRUMENTED):
                self._build(plain, iterator.element_spec)
            if self._observed is None or not self.usable:
                return plain(iterator)
            return self._run(plain, iterator, steps, is_due)

        instrumented.plain = plain  # type: ignore[attr-defined]
        self.model.train_function = instrumented

    def disengage(self) -> None:
        """Give the model its own train function back, should the call that `engage` prepared never have come."""
        plain = getattr(self.model.train_function, "plain", None)
        if plain is not None:
            self.model.train_function = plain

    def _run(self, plain: Callable[..., Any], iterator: Any, steps: range, is_due: Callable[[int], bool]) -> Any:
        outputs = None
        for step in steps:
            try:
                batch = next(iterator)
            except StopIteration:
                if outputs is None:
                    raise
                break  # the last execution of an epoch may cover fewer steps
            due = self.usable and is_due(step)
            outputs = self._observe(plain, batch, step) if due else self._unobserved(batch)  # type: ignore[misc]
        return outputs

    def _observe(self, plain: Callable[..., Any], batch: Any, step: int) -> Any:
        iterations = self._iterations()
        try:
            outputs, taken, loss = self._observed(batch)  # type: ignore[misc]
        except Exception:
            with self.recorder.contained(INSTRUMENTED):
                raise
            if int(self._iterations()) == int(iterations):
                # Should the error have been the model's own, it comes again here, as without us.
                return plain(iter([batch]))
            # The optimizer has stepped: making the step again would be another training.
            self.recorder.notice(f"Step {step} may be incomplete: it failed after the optimizer had stepped.")
            return self.model.get_metrics_result()
        self._tell()
        self.samples.append(Sample(step, time.time(), taken, self._keys, loss))
        return outputs

    def _tell(self) -> None:
        for sentence in self._notices:
            self.recorder.notice(sentence)

    def _iterations(self) -> Any:
        optimizer = self.model.optimizer
        return -1 if optimizer is None else tf.identity(optimizer.iterations.value)

    def _build(self, plain: Callable[..., Any], spec: Any) -> None:
        """Trace the instrumented step, unless it was for this train function (`compile` makes another) and data."""
        if self._built_for is not None and self._built_for[0] is plain and self._built_for[1] == spec:
            return
        self._observed = self._unobserved = None
        eager = self.model.run_eagerly
        if eager and not all(layer.built for layer in self.model._flatten_layers()):  # noqa: SLF001 - see structure
            return  # this step makes the layers; the next sampled one is measured
        self._built_for = plain, spec
        fresh = not self._catalog.variables
        sites: tuple[Site, ...] = ()
        observed = None
        # Where the model was not built before, the first trace builds it, and more layers are found after it.
        while sites != (found := find_sites(self.model)):
            sites = found
            if fresh:
                self._catalog = Catalog()
            self._notices = []
            observed = self._function(self._observed_step(sites), spec)
            if not eager and (drawing := _stateful_random(observed.get_concrete_function(spec).graph)):
                self.recorder.notice(
                    f"Nothing is recorded: the model draws random numbers with {', '.join(drawing)}, whose state lives "
                    "in the compiled function, so that a second function would change training. Write keras.random "
                    "with a SeedGenerator, or tf.random.stateless_*, in its place."
                )
                return
        self._tell()
        self._unobserved = self._function(self._plain_step, spec)
        self._observed = observed

    def _function(self, step: Callable[[Any], Any], spec: Any) -> Any:
        """Return `step` as Keras itself would compile it for batches of `spec`: with or without XLA, or eagerly."""
        return step if self.model.run_eagerly else tf.function(step, input_signature=[spec])

    def _observed_step(self, sites: Sequence[Site]) -> Callable[[Any], tuple[Any, Any, Any]]:
        def tapped_step(batch: Any) -> tuple[Any, list[Any], Any]:
            taps = StepTaps(self.model, sites, self._catalog, self.recorder)
            with taps.in_place():
                outputs = self._train_step(batch)
            readings = taps.readings
            self._keys = tuple(map(tuple, readings.keys))
            self._notices = readings.notices
            return outputs, readings.tensors, readings.loss

        run = self._with_xla(tapped_step)

        def measured_step(batch: Any) -> tuple[Any, Any, Any]:
            # The measuring stays outside of XLA, which takes a second of compiling for every tensor measured.
            outputs, tensors, loss = run(batch)
            return outputs, measure(tensors), loss

        return tf.autograph.experimental.do_not_convert(measured_step) if has_accelerator() else run

    def _plain_step(self, batch: Any) -> Any:
        return self._with_xla(self._train_step)(batch)

    def _with_xla(self, step: Callable[[Any], Any]) -> Callable[[Any], Any]:
        step = tf.autograph.experimental.do_not_convert(step)
        compiled = self.model.jit_compile and not self.model.run_eagerly
        return tf.function(step, jit_compile=True) if compiled else step

    def _train_step(self, batch: Any) -> Any:
        # As Keras does: an element that is missing from the data arrives as an empty Optional.
        batch = keras.tree.map_structure(lambda x: None if isinstance(x, tf.experimental.Optional) else x, batch)
        return self.model.distribute_strategy.run(self.model.train_step, args=(batch,))


def has_accelerator() -> bool:
    """Whether tensors may lie in a device's memory, to be measured there; in the host's, numpy is faster."""
    return any(device.device_type != "CPU" for device in tf.config.list_logical_devices())


def _stateful_random(graph: Any) -> list[str]:
    definition = graph.as_graph_def()
    inner = (node for function in definition.library.function for node in function.node_def)
    return sorted({node.op for node in (*definition.node, *inner)} & _STATEFUL_RANDOM)
