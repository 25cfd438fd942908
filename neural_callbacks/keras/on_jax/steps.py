"""Steps: which function runs a train step on JAX.

- plain: the user's own;
- sentinel: the same step, which also tells whether anything in it was not finite;
- instrumented: the same step with taps in it, for the steps that are measured.

The latter two are traced beside the plain one and take its place in `model.train_function` for one call. A train step
on JAX changes nothing but what it returns: after a failure of ours the plain function gets the same state and the same
batch, and training goes on as if nothing had been.

Keras gives the state's memory to the new state, and so do the latter two: a dense step of 1.6 ms took 1.2 times as long
with its statistics' tensors given out, and 1.6 times with a new place for the state too. Only on a device, where memory
may be short for what a measured step gives out, that step leaves the old state as it is, to go back to.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import keras
from keras.src.backend.config import is_nnx_enabled

from neural_callbacks.keras.activity import squashed_layers
from neural_callbacks.keras.alarms import SENTINEL, Alarms, Look
from neural_callbacks.keras.arrays import measure_arrays
from neural_callbacks.keras.on_jax.functions import TappedFunction
from neural_callbacks.keras.on_jax.sentinel import SentinelTaps
from neural_callbacks.keras.on_jax.statistics import measure, measured
from neural_callbacks.keras.on_jax.taken import Taken
from neural_callbacks.keras.on_jax.taps import TAPS, State, StepTaps, TrainStep
from neural_callbacks.keras.samples import Sample
from neural_callbacks.keras.structure import Catalog, find_sites
from neural_callbacks.keras.watch import Frameable, Unobservable, Watch, disengage, engage
from neural_callbacks.schedule import Depth

INSTRUMENTED = "the instrumented train step"
# JAX works through a queue, on the processor too, and is not waited for: what the sentinel saw is looked at so many
# steps later.
LAG = 2


def observer_of(model: Any) -> Steps:
    """Return the observer of a model on the JAX backend.

    Raises:
        Unobservable: training it cannot be looked into.
    """
    if keras.distribution.distribution() is not None:
        raise Unobservable(
            "Nothing is recorded: the model is trained under keras.distribution, and training on one device is "
            "recorded."
        )
    if is_nnx_enabled():
        raise Unobservable(
            "Nothing is recorded: Keras runs with Flax NNX here, and plain JAX is recorded. Leave the environment "
            "variable KERAS_NNX_ENABLED unset."
        )
    if type(model).make_train_function is not keras.Model.make_train_function:
        raise Unobservable(
            f"Nothing is recorded: {type(model).__name__} makes its own train function (make_train_function), and only "
            "Keras' own can be traced with taps in it. Override train_step in its place."
        )
    return Steps(model)


class Steps:
    """The train steps of one model; an `Observer` of it."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._catalog = Catalog()
        self._watch: Watch
        self._alarms: Alarms
        self._built_for: Any = None
        self._functions: dict[type[TrainStep], TappedFunction] = {}

    @property
    def model(self) -> Any:
        """The model that is watched."""
        return self._model

    def begin(self, watch: Watch) -> None:
        """See `Observer`."""
        disengage(self._model)
        self._watch = watch
        self._alarms = Alarms(watch)

    def engage(self, count: int) -> None:
        """See `Observer`."""
        with self._watch.recorder.contained(INSTRUMENTED):
            engage(self._model, partial(self._run, count), self._watch.recorder)

    def end(self) -> None:
        """See `Observer`."""
        disengage(self._model)
        with self._watch.recorder.contained(SENTINEL):
            self._watch.take(self._alarms.take(lag=0), self._catalog.table())

    def _run(self, count: int, plain: Callable[..., Any], state: State, iterator: Any) -> Any:
        """Run the `count` steps of one execution of the train function, `plain`, each in the gear that it needs."""
        own = -time.perf_counter()
        depths = self._watch.plan(count)
        own += time.perf_counter()
        samples: list[Frameable] = []
        done: list[Depth] = []
        logs: Any = None
        for step, depth in enumerate(depths, self._watch.step):
            try:
                batch = next(iterator)
            except StopIteration:
                if not done:
                    raise
                break  # the last execution of an epoch may cover fewer steps
            started = time.perf_counter()
            kind = StepTaps if depth else SentinelTaps if self._watch.has_sentinel else None
            function = None if kind is None else self._function(kind, plain)
            own += time.perf_counter() - started
            result = None if function is None else self._tapped(function, kind, state, batch)
            if result is None:
                logs, state = plain(state, iter([batch]))
                done.append(Depth.NOTHING)
                continue
            logs, state, taken = result
            if kind is not StepTaps:
                self._alarms.add(Look(step, taken.values, taken.keys, taken.losses))
            with self._watch.recorder.contained(SENTINEL):
                # What was looked at before a measured step is recorded before it.
                samples += self._alarms.take(lag=0 if kind is StepTaps else LAG)
            if kind is StepTaps:
                samples.append(self._sample(step, taken, depth))
            done.append(depth)
        tracing = sum(function.take_seconds() for function in self._functions.values())
        table = self._catalog.table() if samples else None
        self._watch.ended(done, samples=samples, table=table, own=own, tracing=tracing)
        return logs, state

    def _sample(self, step: int, taken: Taken, depth: Depth) -> Sample:
        keys: Any = taken.keys
        on_device = has_accelerator()
        return Sample(
            step,
            time.time(),
            taken.values,
            keys,
            taken.losses,
            measured if on_device else measure_arrays,
            binned=self._watch.is_binned(depth),
            squashed=None if on_device else squashed_layers(self._catalog.layers),
        )

    def _tapped(self, function: TappedFunction, kind: type[TrainStep] | None, state: State, batch: Any) -> Any:
        """Return what `function` makes of a state and a batch; None where it fails, and the state is as it was."""
        part = INSTRUMENTED if kind is StepTaps else SENTINEL
        try:
            result = function(state, batch)
        except Exception:
            if any(x.is_deleted() for x in jax.tree.leaves(state)):
                raise  # the device failed in the middle of the step, as it would have without us
            with self._watch.recorder.contained(part):
                raise
            return None
        for sentence in function.notices:
            self._watch.recorder.notice(sentence)
        return result

    def _function(self, kind: type[TrainStep], plain: Callable[..., Any]) -> TappedFunction | None:
        """Return the train step with taps of a kind; None where that is switched off."""
        parts = (INSTRUMENTED, TAPS) if kind is StepTaps else (SENTINEL,)
        if not self._watch.recorder.switched_off.isdisjoint(parts):
            return None
        with self._watch.recorder.contained(parts[0]):
            if self._built_for is not plain:  # `compile` made another train function
                self._functions.clear()
                self._built_for = plain
            if kind not in self._functions:
                there = kind is StepTaps and has_accelerator()
                options = {"finish": measure} if there else {"donates": True}
                self._functions[kind] = TappedFunction(self._model, partial(self._taps, kind), **options)
        return self._functions.get(kind)

    def _taps(self, kind: type[TrainStep], state: State) -> TrainStep:
        return kind(self._model, find_sites(self._model), self._catalog, self._watch.recorder, state)


def has_accelerator() -> bool:
    """Whether arrays lie in a device's memory, to be measured there; in the host's, numpy is faster."""
    return bool(jax.default_backend() != "cpu")
