"""A train step with taps in it, compiled as Keras compiles the plain one."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax

from neural_callbacks.keras.on_jax.taken import Taken
from neural_callbacks.keras.on_jax.taps import State, TrainStep


class TappedFunction:
    """A train step that also gives out what `taps`, made for a state, took: call it with a state and a batch.

    `finish` is applied to the values taken, outside of what is compiled. The state that it is given is free to be
    written over with the new one, as in Keras' own function, where it `donates`. `notices` are those of the latest
    trace, or of the latest run where the model runs eagerly. `seconds` is what tracing and compiling it took, for each
    shape of batches.
    """

    def __init__(
        self,
        model: Any,
        taps: Callable[[State], TrainStep],
        *,
        finish: Callable[[Any], Any] = lambda values: values,
        donates: bool = False,
    ) -> None:
        self.notices: list[str] = []
        self.seconds = 0.0
        self._model = model
        self._taps = taps
        self._finish = finish
        self._traces = 0
        self._is_compiled = model.jit_compile and not model.run_eagerly
        self._function = jax.jit(self._step, donate_argnums=0 if donates else ()) if self._is_compiled else self._step

    def __call__(self, state: State, batch: Any) -> tuple[Any, State, Taken]:
        """Make the step; return its logs, the new state, and what was taken."""
        traces, started = self._traces, time.perf_counter()
        logs, state, taken = self._function(state, batch)
        taken = replace(taken, values=self._finish(taken.values))
        if self._is_compiled and self._traces != traces:
            self.seconds += time.perf_counter() - started
        return logs, state, taken

    def take_seconds(self) -> float:
        """Return `seconds`, and begin to count them anew."""
        seconds, self.seconds = self.seconds, 0.0
        return seconds

    def _step(self, state: State, batch: Any) -> tuple[Any, State, Taken]:
        self._traces += 1
        taps = self._taps(state)
        with taps.in_place():
            logs, state = self._model.train_step(state, batch)
        taps.conclude(state)
        self.notices = taps.notices
        return logs, state, taps.taken()
