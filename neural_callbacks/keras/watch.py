"""Watch: one training that is looked at, on any backend of Keras: which steps, at what cost, recorded where."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

from neural.session.frame import Frame
from neural.session.layers import LayerTable
from neural_callbacks.recorder import Recorder
from neural_callbacks.schedule import Depth, Schedule

FRAMES = "frames"  # the part that makes a frame of what was measured


class Unobservable(Exception):  # noqa: N818 - it says why, and is no error
    """Why training a model cannot be looked into, as a sentence for the session."""


class Frameable(Protocol):
    """What a step left that is to be recorded."""

    @property
    def step(self) -> int:
        """Which step, from 0."""

    def frame(self, table: LayerTable) -> Frame:
        """Return the frame, its rows numbered as in `table`. Runs in a thread of its own, one at a time."""


class Observer(Protocol):
    """Watches the train steps of one model on one backend. It outlives a fit, so that the next need not trace again.

    `engage` and `end` are called from the training's thread. Nothing of it may raise: `watch.recorder.contained`.
    """

    @property
    def model(self) -> Any:
        """The model that is watched."""

    def begin(self, watch: Watch) -> None:
        """Start to watch for `watch`; the model's train function is there."""

    def engage(self, count: int) -> None:
        """Let the next call of the model's train function, which covers `count` steps at most, be watched.

        Until that call, `model.train_function` is the observer's; from its first moment on it is the model's own again,
        so that no other callback and no error finds ours.
        """

    def end(self) -> None:
        """Stop watching, and leave the model as it was."""


class OwnStep(Observer, Protocol):
    """Watches a function of the user's own that makes a train step; `engage` is not called."""

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """Do what the function does."""


class Watch:
    """Counts, plans and times the steps of one training, and hands what was measured of them to the recorder.

    An observer asks before each execution of the train function for the `plan` of its steps, and calls `ended` after
    it, in the same thread. `step` is the next step, from 0.
    """

    def __init__(
        self, recorder: Recorder, schedule: Schedule, *, step: int = 0, histograms: bool = True, sentinel: bool = True
    ) -> None:
        self.recorder = recorder
        self.step = step
        self.has_sentinel = sentinel
        self._schedule = schedule
        self._has_histograms = histograms
        self._ended = time.perf_counter()
        self._tracing = 0.0
        self._thread = ThreadPoolExecutor(1, "neuraldbg-frames")
        self._latest: Future[None] | None = None
        self._table: LayerTable | None = None
        self._background = 0.0
        # The latest step that was found sound, beside the frames and by a frame; and the latest that was not.
        self._sound, self._sound_frame, self._broken_frame = -1, -1, -1

    @property
    def may_sample(self) -> bool:
        """Whether any step will be measured."""
        return self._schedule.steps != ()

    def plan(self, count: int) -> list[Depth]:
        """Return what to measure of each of the next `count` steps, which run in one execution."""
        if FRAMES in self.recorder.switched_off:
            return [Depth.NOTHING] * count
        depths = [self._schedule.plan(step) for step in range(self.step, self.step + count)]
        due = [number for number, depth in enumerate(depths) if depth]
        for number in due[1:]:
            # What comes after the first was planned without knowing that one.
            if self._schedule.overhead_budget is not None:
                depths[number] = Depth.NOTHING
            elif self._schedule.steps is None:
                depths[number] = Depth.STATISTICS
        return depths

    def is_binned(self, depth: Depth) -> bool:
        """Say whether a step of this depth is measured with histograms."""
        return self._has_histograms and depth >= Depth.HISTOGRAMS

    def found_sound(self, step: int) -> None:
        """Note that the loss and all gradients of `step` are known to be finite."""
        self._sound = max(self._sound, step)

    def ended(
        self,
        depths: Sequence[Depth],
        *,
        samples: Sequence[Frameable] = (),
        table: LayerTable | None = None,
        own: float = 0.0,
        tracing: float = 0.0,
    ) -> None:
        """Take in that the next `len(depths)` steps, one execution, are done.

        Args:
            depths: what was measured of each, also where that was not planned.
            samples: what is to be recorded of them, at most one for each step, in order.
            table: the layer table that the samples' rows are numbered by; None where there are no samples.
            own: the seconds that NeuralDbg's own code took in this thread, as for `Schedule.report`.
            tracing: the seconds, of the time since the execution before, in which a gear was traced and compiled. They
                are no step's, and are recorded apart.
        """
        with self.recorder.contained(FRAMES):
            started = time.perf_counter()
            if tracing:
                self._tracing += tracing
            if table is not None:
                self.take(samples, table)
            ended = time.perf_counter()
            own = (own + ended - started) / max(1, len(depths))
            duration = (ended - self._ended - tracing) / max(1, len(depths))
            self._ended = ended
            background, self._background = self._background, 0.0
            for depth in depths:
                self._schedule.report(self.step, duration=duration, depth=depth, own=own, background=background)
                self.step += 1
                background = 0.0

    def take(self, samples: Sequence[Frameable], table: LayerTable) -> None:
        """Have frames made in a thread of their own, so that training need not wait for arithmetic or a device.

        It holds the samples of two executions at most, the one that it works on and the next: this waits for the first
        of them, so that no more of a step's tensors stay in memory.
        """
        if not samples or FRAMES in self.recorder.switched_off:
            return
        self.settle()
        self._latest = self._thread.submit(self._record, samples, table, self._figures(), self._sound)

    def settle(self) -> None:
        """Wait until the frames of what was taken are made, which would slow down what is timed in this thread."""
        if self._latest is not None:
            self._latest.result()

    def _figures(self) -> dict[str, float]:
        known = {
            "overhead": self._schedule.overhead,
            "step_seconds": self._schedule.step_seconds,
            "tracing_seconds": self._tracing or math.nan,
        }
        return {name: value for name, value in known.items() if not math.isnan(value)}

    def _record(self, samples: Sequence[Frameable], table: LayerTable, figures: dict[str, float], sound: int) -> None:
        started = time.thread_time()
        with self.recorder.contained(FRAMES):
            if table != self._table:
                self._table = table
                self.recorder.write_layers(table, samples[0].step)
            for sample in samples:
                self.recorder.record(self._completed(sample.frame(table), figures, sound))
        self._background += time.thread_time() - started

    def _completed(self, frame: Frame, figures: dict[str, float], sound: int) -> Frame:
        """Return `frame` with the watch's own figures, and with what went wrong only where that began."""
        was_broken = self._broken_frame > max(sound, self._sound_frame)
        if frame.anomalies:
            self._broken_frame = frame.step
        elif frame.matrices:
            self._sound_frame = frame.step
        anomalies = () if was_broken else frame.anomalies
        return dataclasses.replace(frame, scalars={**frame.scalars, **figures}, anomalies=anomalies)

    def close(self, error: BaseException | None = None) -> None:
        """Wait for what was taken, and close the session, as failed where `error` ended training."""
        self._thread.shutdown(wait=True)
        self.recorder.close(error)


ANOTHER = (
    "Another observer was to watch the same steps of this model; those that both were to see are recorded by the later "
    "one alone."
)


def engage(model: Any, run: Callable[..., Any], recorder: Recorder) -> None:
    """Let the next call of `model.train_function` be `run(plain, *args)`, `plain` the model's own.

    Before anything else that call gives the model its own function back. If it is made in another fit than this one,
    which an error may have ended, it is that of `plain`. A model without a train function yet is left alone.
    """
    plain, fit = plain_of(model), vars(model).get("history")
    if plain is None:
        return

    def watched(*args: Any) -> Any:
        _put(model, plain)
        return run(plain, *args) if vars(model).get("history") is fit else plain(*args)

    if getattr(model.train_function, "fit", None) is fit and fit is not None:
        recorder.notice(ANOTHER)
    watched.plain, watched.fit = plain, fit  # type: ignore[attr-defined]
    _put(model, watched)


def disengage(model: Any) -> None:
    """Give the model its own train function back, should the call that `engage` prepared never have come."""
    if (plain := plain_of(model)) is not None:
        _put(model, plain)


def _put(model: Any, train_function: Callable[..., Any]) -> None:
    # Past Keras' tracking of attributes, which takes 0.02 ms in every step.
    vars(model)["train_function"] = train_function


def plain_of(model: Any) -> Callable[..., Any] | None:
    """Return the model's own train function; None where it has none yet."""
    plain: Callable[..., Any] | None = getattr(model.train_function, "plain", model.train_function)
    return plain
