"""NeuralDbgCallback: watches `model.fit`."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from neural_callbacks.keras.frames import FrameThread
from neural_callbacks.recorder import Recorder
from neural_callbacks.schedule import DEFAULT_EVERY, Every

if TYPE_CHECKING:
    from neural_callbacks.keras.gears import Gears


class NeuralDbgCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Records a debugging session of a model while `fit` trains it.

        model.fit(x, y, callbacks=[NeuralDbgCallback()])

    The session goes to `<log_dir>/<run_name>/neuraldbg/`; the name of the run is made from the model's name and the
    time where none is given. Every `every`-th training step, the first included, is measured: per layer the
    activations and their gradients, per parameter the gradients (as the optimizer gets them, freed of loss scaling),
    the weights before the step, and what the step changed. Steps are counted from 0 over all fits of one callback;
    each fit that ran to its end is a session, and the next one opens another.

    Unsampled steps run the model's own compiled function, untouched. Sampled steps run a second one, traced from the
    same train step with taps in it; the first sampled step pays for that.

    `notices` are sentences that the session shows to whoever looks at it.

    Training is the same with and without, to the last bit where TensorFlow is deterministic; what fails in here is
    logged once and left off. Recorded is training on the TensorFlow backend, by `fit`, on one device; elsewhere a
    notice says that nothing is.

    Raises:
        ValueError: `every` or `run_name` cannot be used; the text says what can.
    """

    def __init__(
        self,
        log_dir: str | Path = "runs",
        run_name: str | None = None,
        every: int = DEFAULT_EVERY,
        *,
        notices: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self._schedule = Every(every)
        self._log_dir = log_dir
        self._run_name = run_name
        self._notices = tuple(notices)
        self._step = 0
        self._steps_ahead = range(0)
        self._frames: FrameThread | None = None
        self._recorder: Recorder | None = None
        self._gears: Gears | None = None
        self._abandon: Callable[[], Any] = lambda: None

    @property
    def directory(self) -> Path | None:
        """Where the session of the present or latest fit is kept; None before the first one."""
        return self._recorder.directory if self._recorder else None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Open a session; one that an error or an interrupt left open is closed first."""
        del logs
        self._abandon()
        recorder = self._recorder = Recorder(
            model=self.model.name,
            framework=_framework(),
            log_dir=self._log_dir,
            run_name=self._run_name,
            every=self._schedule.n,
            notices=self._notices,
        )
        # Keras does not say that a fit ended by an error; a callback that nobody holds any more cannot be in one.
        self._frames = FrameThread(recorder)
        finalizer = weakref.finalize(self, _close_unfinished, recorder, self._frames)
        finalizer.atexit = False  # at the interpreter's exit the recorder closes itself, and knows the error
        self._abandon = finalizer
        with recorder.contained("the gears"):
            self._gears = self._prepared_gears(recorder)

    def _prepared_gears(self, recorder: Recorder) -> Gears | None:
        reason = _unobservable(self.model)
        if reason:
            recorder.notice(reason)
            return None
        # Loads TensorFlow, which a fit on another backend must not.
        from neural_callbacks.keras.gears import Gears  # noqa: PLC0415

        if self._gears is None or self._gears.model is not self.model:
            return Gears(self.model, recorder)
        self._gears.disengage()
        self._gears.recorder = recorder
        self._gears.samples.clear()
        return self._gears

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Choose the gear of the steps that come."""
        del logs
        if self._gears is None:
            return
        self._steps_ahead = range(self._step, self._step + self._steps_in_execution(batch))
        if self._gears.usable and any(map(self._schedule, self._steps_ahead)):
            self._gears.engage(self._steps_ahead, self._schedule)

    def _steps_in_execution(self, batch: int) -> int:
        planned: int = self.model.steps_per_execution
        total = (self.params or {}).get("steps")
        return planned if total is None else max(1, min(planned, total - batch))

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Hand on what the step left."""
        del batch, logs
        if self._gears is None or self._frames is None:
            return
        self._step = self._steps_ahead.stop
        if self._gears.samples:
            samples, self._gears.samples = self._gears.samples, []
            self._frames.take(samples, self._gears.table())

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Close the session: it ran to its end."""
        del logs
        if self._gears is not None:
            self._gears.disengage()
        if self._recorder is not None and self._frames is not None:
            self._frames.close()
            self._recorder.close()


def _close_unfinished(recorder: Recorder, frames: FrameThread) -> None:
    frames.close()
    recorder.close(RuntimeError("model.fit did not come to its end"))


def _framework() -> str:
    backend = keras.backend.backend()
    return f"{backend} {sys.modules[backend].__version__}, keras {keras.__version__}"


def _unobservable(model: Any) -> str:
    """Return why training `model` cannot be looked into, as a sentence; empty where it can."""
    backend = keras.backend.backend()
    if backend != "tensorflow":
        return (
            f"Nothing is recorded: Keras runs on the {backend} backend here, and layers and parameters are recorded on "
            "the TensorFlow backend. Set the environment variable KERAS_BACKEND=tensorflow before Keras is imported."
        )
    import tensorflow as tf  # noqa: PLC0415 - a fit on another backend must not load it

    if tf.distribute.has_strategy() or model.distribute_strategy is not tf.distribute.get_strategy():
        return "Nothing is recorded: the model is trained under tf.distribute, and training on one device is recorded."
    if type(model).make_train_function is not keras.Model.make_train_function:
        return (
            f"Nothing is recorded: {type(model).__name__} makes its own train function (make_train_function), and only "
            "Keras' own can be traced with taps in it. Override train_step in its place."
        )
    return ""
