"""Gears: which function runs a train step.

- plain: the user's own;
- sentinel: the same step, which also tells whether anything in it was not finite;
- instrumented: the same step with taps in it, for the steps that are measured.

The latter two are traced beside the plain one and take its place in `model.train_function` for one call. They take the
batch from the iterator themselves, so that after a failure of ours the plain function gets the same batch and training
goes on as if nothing had been.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import keras
import tensorflow as tf

from neural_callbacks.keras.functions import TappedFunction, has_accelerator
from neural_callbacks.keras.samples import Sample
from neural_callbacks.keras.sentinel import SENTINEL, Look, SentinelTaps
from neural_callbacks.keras.statistics import measure
from neural_callbacks.keras.structure import Catalog, Site, find_sites
from neural_callbacks.keras.taps import TAPS, StepTaps, TrainStep
from neural_callbacks.keras.watch import Frameable, Unobservable, Watch, disengage, engage
from neural_callbacks.schedule import Depth

INSTRUMENTED = "the instrumented train step"
# A device is not waited for: what the sentinel saw there is looked at so many steps later.
LAG_ON_DEVICES = 2


def observer_of(model: Any) -> Gears:
    """Return the observer of a model on the TensorFlow backend.

    Raises:
        Unobservable: training it cannot be looked into.
    """
    if tf.distribute.has_strategy() or model.distribute_strategy is not tf.distribute.get_strategy():
        raise Unobservable(
            "Nothing is recorded: the model is trained under tf.distribute, and training on one device is recorded."
        )
    if type(model).make_train_function is not keras.Model.make_train_function:
        raise Unobservable(
            f"Nothing is recorded: {type(model).__name__} makes its own train function (make_train_function), and only "
            "Keras' own can be traced with taps in it. Override train_step in its place."
        )
    return Gears(model)


class Gears:
    """The gears of one model; an `Observer` of it."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._catalog = Catalog()
        self._watch: Watch
        self._built_for: tuple[Any, Any] | None = None
        self._functions: dict[type[TrainStep], TappedFunction | None] = {}
        self._tracing = 0.0
        self._looked: deque[Look] = deque()
        self._is_alarmed = False

    @property
    def model(self) -> Any:
        """The model that is watched."""
        return self._model

    def begin(self, watch: Watch) -> None:
        """See `Observer`."""
        disengage(self._model)
        self._watch = watch
        self._looked.clear()
        self._is_alarmed = False

    def engage(self, count: int) -> None:
        """See `Observer`."""
        with self._watch.recorder.contained(INSTRUMENTED):
            engage(self._model, partial(self._run, count))

    def end(self) -> None:
        """See `Observer`."""
        disengage(self._model)
        self._watch.take(self._alarms(lag=0), self._catalog.table())

    def _run(self, count: int, plain: Callable[..., Any], iterator: Any) -> Any:
        """Run the `count` steps of one execution of the train function, `plain`, each in the gear that it needs."""
        started = time.perf_counter()
        self._tracing = 0.0
        depths = self._watch.plan(count)
        samples: list[Frameable] = []
        kind = StepTaps if any(depths) else SentinelTaps if count == 1 and self._watch.has_sentinel else None
        function, iterator = (None, iterator) if kind is None else self._function(kind, plain, iterator)
        own = time.perf_counter() - started - self._tracing
        if function is None:
            depths = [Depth.NOTHING] * count
            if kind is None and count > 1 and self._watch.has_sentinel:
                self._watch.recorder.notice(
                    "Steps that are not sampled are not looked at for what is not finite: the model runs several steps "
                    "in one execution (steps_per_execution), where nobody can look in between."
                )
            outputs = plain(iterator)
        elif kind is StepTaps:
            outputs, depths = self._measure(function, plain, iterator, depths, samples)
        else:
            outputs = self._look(function, plain, iterator, samples)
        self._tracing += 0.0 if function is None else function.take_seconds()
        self._watch.ended(depths, samples=samples, table=self._catalog.table(), own=own, tracing=self._tracing)
        return outputs

    def _measure(
        self,
        function: TappedFunction,
        plain: Callable[..., Any],
        iterator: Any,
        depths: Sequence[Depth],
        samples: list[Frameable],
    ) -> tuple[Any, list[Depth]]:
        """Make the steps of an execution, as many as there are batches; return its outputs and what was measured."""
        outputs: Any = None
        done: list[Depth] = []
        for step, depth in enumerate(depths, self._watch.step):
            try:
                batch = next(iterator)
            except StopIteration:
                if not done:
                    raise
                break  # the last execution of an epoch may cover fewer steps
            if depth and self._may_run(INSTRUMENTED, TAPS):
                outputs, sample = self._observe(function, plain, batch, step, depth)
                samples += [] if sample is None else [sample]
                done.append(Depth.NOTHING if sample is None else depth)
            else:
                outputs = plain(iter([batch]))
                done.append(Depth.NOTHING)
        return outputs, done

    def _observe(
        self, function: TappedFunction, plain: Callable[..., Any], batch: Any, step: int, depth: Depth
    ) -> tuple[Any, Sample | None]:
        iterations = self._iterations()
        try:
            outputs, taken, scalars = function(batch)
        except Exception:
            with self._watch.recorder.contained(INSTRUMENTED):
                raise
            return self._outputs_after_a_failure(plain, batch, step, iterations), None
        self._tell(function)
        binned = self._watch.is_binned(depth)
        return outputs, Sample(step, time.time(), taken, function.keys, scalars, binned=binned)

    def _outputs_after_a_failure(self, plain: Callable[..., Any], batch: Any, step: int, iterations: Any) -> Any:
        if int(self._iterations()) == int(iterations):
            # Should the error have been the model's own, it comes again here, as without us.
            return plain(iter([batch]))
        # The optimizer has stepped: making the step again would be another training.
        self._watch.recorder.notice(f"Step {step} may be incomplete: it failed after the optimizer had stepped.")
        return self._model.get_metrics_result()

    def _look(
        self, function: TappedFunction, plain: Callable[..., Any], iterator: Any, samples: list[Frameable]
    ) -> Any:
        """Make one step, and look at what the sentinel saw."""
        step, batch = self._watch.step, next(iterator)
        iterations = self._iterations()
        try:
            outputs, flags, scalars = function(batch)
        except Exception:
            with self._watch.recorder.contained(SENTINEL):
                raise
            return self._outputs_after_a_failure(plain, batch, step, iterations)
        self._looked.append(Look(step, flags, function.keys, scalars))
        samples += self._alarms(lag=LAG_ON_DEVICES if has_accelerator() else 0)
        return outputs

    def _alarms(self, *, lag: int) -> list[Look]:
        """Return what is to be recorded of the steps that the sentinel has looked at, but for the latest `lag`."""
        found: list[Look] = []
        while len(self._looked) > lag:
            looked = self._looked.popleft()
            if looked.is_sound:
                self._watch.found_sound(looked.step)
            elif looked.was_skipped or not self._is_alarmed:
                found.append(looked)
            self._is_alarmed = looked.is_alarming
        return found

    def _tell(self, function: TappedFunction) -> None:
        for sentence in function.notices:
            self._watch.recorder.notice(sentence)

    def _iterations(self) -> Any:
        optimizer = getattr(self._model.optimizer, "inner_optimizer", self._model.optimizer)
        # The public number stands still while gradients are accumulated.
        return -1 if optimizer is None else tf.identity(optimizer._iterations.value)  # noqa: SLF001

    def _may_run(self, *parts: str) -> bool:
        return self._watch.recorder.switched_off.isdisjoint(parts)

    def _function(
        self, kind: type[TrainStep], plain: Callable[..., Any], iterator: Any
    ) -> tuple[TappedFunction | None, Any]:
        """Return the train step with taps of a kind, traced where it is not yet, and what is to be iterated over.

        None stands for a step that cannot be tapped. A trace is for one train function (`compile` makes another) and
        for one structure of data.
        """
        parts = (INSTRUMENTED, TAPS) if kind is StepTaps else (SENTINEL,)
        if not self._may_run(*parts):
            return None, iterator
        with self._watch.recorder.contained(parts[0]):
            if (spec := getattr(iterator, "element_spec", None)) is None:
                batch = next(iterator)  # of train_on_batch, which has just this one
                iterator, spec = iter([batch]), tf.nest.map_structure(tf.type_spec_from_value, batch)
            if self._built_for is None or self._built_for[0] is not plain or self._built_for[1] != spec:
                self._functions.clear()
                self._built_for = plain, spec
            if kind not in self._functions:
                if self._model.run_eagerly and not all(layer.built for layer in _layers(self._model)):
                    return None, iterator  # this step makes the layers; the next sampled one is measured
                self._functions[kind] = self._traced(kind, spec)
        return self._functions.get(kind), iterator

    def _traced(self, kind: type[TrainStep], spec: Any) -> TappedFunction | None:
        """Trace a train step with taps; None where a second function would not draw the same random numbers."""
        sites: tuple[Site, ...] = ()
        is_fresh = not self._catalog.variables
        self._catalog.refresh()
        # Where the model was not built before, the first trace builds it, and more layers are found after it.
        while sites != (found := find_sites(self._model)):
            sites = found
            if is_fresh:
                self._catalog = Catalog()
            taps = partial(kind, self._model, sites, self._catalog, self._watch.recorder)
            function = TappedFunction(
                self._model, taps, measure if kind is StepTaps and has_accelerator() else lambda taken: taken
            )
            function.trace(spec)
            self._tracing += function.take_seconds()
            if drawing := function.stateful_random():
                self._watch.recorder.notice(
                    f"Nothing is recorded: the model draws random numbers with {', '.join(drawing)}, whose state lives "
                    "in the compiled function, so that a second function would change training. Write keras.random "
                    "with a SeedGenerator, or tf.random.stateless_*, in its place."
                )
                return None
        return function


def _layers(model: Any) -> Sequence[Any]:
    layers: Sequence[Any] = model._flatten_layers()  # noqa: SLF001 - see structure
    return layers
