"""Training with Keras: one `fit` without end that trains so many steps as it is asked for, with a time for each."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Self

import keras
import numpy as np

from overhead.estimate import FloatArray
from overhead.keras.workloads import Workload
from overhead.watching import nothing

# Steps before anything is measured: tracing, the allocator, oneDNN's choices, the optimizer's state.
WARM_UP = 20
# Longer than any benchmark, in steps.
ENDLESS = 2**31


class _Pacer(keras.callbacks.Callback):  # type: ignore[misc]
    """Holds `fit` between two steps until more are wanted.

    It sees no ends of steps: for that Keras would have `fit` wait for every step's figures.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self._clock = clock
        self._changed = threading.Condition()
        self._observe: Callable[[Any], object] = nothing
        self._wanted = 0
        self._marks: list[float] = []
        self._is_over = False

    def steps(self, count: int, observe: Callable[[Any], object]) -> list[float]:
        """Let `fit` go on for `count` steps; return the times at which they began, and at which the last one ended."""
        with self._changed:
            self._observe, self._wanted, self._marks = observe, count, []
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._wanted or self._is_over)
        return self._marks

    def end(self) -> None:
        """Let `fit` come to its end, or take note that it has."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Take the time; wait where enough steps are made."""
        del batch, logs
        if self._marks:
            self._marks.append(self._clock())
            self._wanted -= 1
        if not self._wanted:
            with self._changed:
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._wanted or self._is_over)
            if self._is_over:
                self.model.stop_training = True
                return
        if not self._marks:
            self._marks.append(self._clock())
        self._observe(None)


class Training:
    """The model of `workload`, which a thread trains by `fit` while the `with` block runs; `clock` gives seconds.

    All gears train this one model, in the same memory, as `overhead.training` explains; `reset` brings back its weights
    and the optimizer's state. What `observe` does is done where a callback's `on_train_batch_begin` would.
    """

    def __init__(self, workload: Workload, clock: Callable[[], float]) -> None:
        self.workload = workload
        self.clock = clock
        self.model = workload.compiled()
        self.typical = 0.0
        self._pacer = _Pacer(clock)
        self._thread = threading.Thread(target=self._fit, name="fit", daemon=True)
        self._error: BaseException | None = None
        self._start: list[tuple[Any, Any]] = []

    def __enter__(self) -> Self:
        self._thread.start()
        self.typical = float(np.median(self.run(WARM_UP, nothing)[WARM_UP // 2 :]))
        variables = [*self.model.variables, *self.model.optimizer.variables]
        self._start = [(variable.value, variable.numpy()) for variable in variables]
        return self

    def __exit__(self, *raised: object) -> None:
        self._pacer.end()
        self._thread.join()

    def reset(self) -> None:
        """Go back to where every block starts."""
        for variable, start in self._start:
            variable.assign(start)

    def run(self, steps: int, observe: Callable[[Any], object]) -> FloatArray:
        """Train for `steps` steps, `observe` called with None before each; return the seconds (steps,)."""
        marks = self._pacer.steps(steps, observe)
        if self._error is not None:
            raise self._error
        return np.diff(marks)

    def _fit(self) -> None:
        try:
            self.model.fit(
                self.workload.data(), steps_per_epoch=ENDLESS, verbose=0, shuffle=False, callbacks=[self._pacer]
            )
        except BaseException as error:  # noqa: BLE001 - whoever waits for steps must hear of it
            self._error = error
        self._pacer.end()
