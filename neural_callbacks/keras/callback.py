"""NeuralDbgCallback: watches `model.fit`."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import keras

from neural.session.frame import Frame
from neural_callbacks.keras.backends import observer_of
from neural_callbacks.keras.options import Options
from neural_callbacks.keras.watch import Observer, Unobservable, Watch


class NeuralDbgCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Records a debugging session of a model while `fit` trains it.

        model.fit(x, y, callbacks=[NeuralDbgCallback()])

    The session goes to `<log_dir>/<run_name>/neuraldbg/`; the name of the run is made from the model's name and the
    time where none is given. Steps are train steps, one for each batch, counted from 0 over all fits of one callback;
    each fit that ran to its end is a session, and the next one opens another.

    Which steps are measured: every `every`-th, the first included; or those in `steps`; or, where neither is given, as
    many as cost `overhead_budget` of the training time (2 % where that is not given either), the first few always.
    `histograms=False` leaves those out. Measured are per layer the activations and their gradients, per parameter the
    gradients (as the optimizer gets them, freed of loss scaling), the weights before the step, and what the step
    changed. On TensorFlow and JAX a measured step runs a function of its own, traced from the same train step with taps
    in it; the first one pays for that, which is recorded apart. On TensorFlow times, memory and FLOPs by layer come, on
    the first measured step and rarely after, from the same step run eagerly beside training, whose every change is
    taken back; as it does for tracing, the Python code of a custom train step runs once more for that. On torch the
    model's own step is measured as it runs, times, memory and FLOPs with it wherever it has histograms; of a step that
    torch.compile compiled (`jit_compile=True`) the parameters alone.

    Under `tf.distribute`, the rows of all replicas in this process are one. Gradients are what the optimizer applies,
    of all replicas together and after clipping, which each does for itself; the loss is the mean over replicas, as
    Keras shows it. Each worker of a MultiWorkerMirroredStrategy records its own replicas, as a rank of one run; its
    loss is the mean over these.

    With `sentinel`, also the steps between are looked at for the first loss, activation or gradient that is not finite,
    and such a step is recorded too, with the layers where that arose, in order. Without it they run the model's own
    compiled function, untouched.

    `notices` are sentences that the session shows to whoever looks at it.

    Training is the same with and without, to the last bit where the backend is deterministic; what fails in here is
    logged once and left off.

    Raises:
        ValueError: `every`, `steps`, `overhead_budget` or `run_name` cannot be used; the text says what can.
    """

    def __init__(
        self,
        log_dir: str | Path = "runs",
        run_name: str | None = None,
        every: int | None = None,
        *,
        steps: Iterable[int] | None = None,
        overhead_budget: float | None = None,
        histograms: bool = True,
        sentinel: bool = True,
        notices: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self._options = Options.checked(
            log_dir=log_dir,
            run_name=run_name,
            every=every,
            steps=steps,
            overhead_budget=overhead_budget,
            histograms=histograms,
            sentinel=sentinel,
            notices=notices,
        )
        self._step = 0
        self._watch: Watch | None = None
        self._observer: Observer | None = None
        self._abandon: Callable[[], Any] = lambda: None

    @property
    def directory(self) -> Path | None:
        """Where the session of the present or latest fit is kept; None before the first one."""
        return self._watch.recorder.directory if self._watch else None

    @property
    def recent_frames(self) -> tuple[Frame, ...]:
        """The newest frames, oldest first, as long as they are kept in memory; none before the first fit."""
        return tuple(self._watch.recorder.flight) if self._watch else ()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Open a session; one that an error or an interrupt left open is closed first."""
        del logs
        self._abandon()
        watch = self._watch = self._options.watch(self.model, self._step)
        # Keras does not say that a fit ended by an error; a callback that nobody holds any more cannot be in one.
        finalizer = weakref.finalize(self, _close_unfinished, watch)
        finalizer.atexit = False  # at the interpreter's exit the recorder closes itself, and knows the error
        self._abandon = finalizer
        with watch.recorder.contained("the gears"):
            try:
                if self._observer is None or self._observer.model is not self.model:
                    self._observer = observer_of(self.model)
                self._observer.begin(watch)
            except Unobservable as reason:
                self._observer = None
                watch.recorder.notice(str(reason))

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Have the steps that come watched.

        There is no `on_train_batch_end`: for that Keras would have all callbacks wait for every step's figures.
        """
        del batch, logs
        if self._observer is not None:
            self._observer.engage(self.model.steps_per_execution)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Close the session: it ran to its end."""
        del logs
        if self._observer is not None and self._watch is not None:
            with self._watch.recorder.contained("the gears"):
                self._observer.end()
        if self._watch is not None:
            self._step = self._watch.step
            self._watch.close()


def _close_unfinished(watch: Watch) -> None:
    watch.close(RuntimeError("model.fit did not come to its end"))
