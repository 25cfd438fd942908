"""NeuralDbgLoop: watches a training that does without `model.fit`."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, cast

import keras

from neural.session.frame import Frame
from neural_callbacks.keras.backends import observer_of, own_step_of
from neural_callbacks.keras.options import Options
from neural_callbacks.keras.replacing import replaced
from neural_callbacks.keras.watch import Observer, OwnStep, Unobservable, Watch, disengage

LOOP = "the loop's observer"

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class NeuralDbgLoop:
    """Records a debugging session of a Keras model while a loop of one's own trains it.

        with NeuralDbgLoop(model, optimizer) as loop:
            train_step = loop.watch(train_step)
            for x, y in batches:
                train_step(x, y)

    `train_step` is a function, under `tf.function` or not, in which a `GradientTape` gives the gradients that
    `optimizer`, or several in a list, apply; `watch` returns one that does the same and is looked into. A loop of
    `model.train_on_batch` needs no `watch`, and the optimizer is that of `compile`. Or `attach()` before training and
    `close()` after it.

    A step is a call of the function. All options are those of `NeuralDbgCallback`, and so is what is recorded. The loss
    is what the tape goes back from; where several optimizers step, each has its own, `loss_1` and so on.

    Raises:
        ValueError: `every`, `steps`, `overhead_budget` or `run_name` cannot be used; the text says what can.
        TypeError: `model` is no Keras model, or `optimizer` no Keras optimizer.
    """

    def __init__(
        self,
        model: Any,
        optimizer: Any = None,
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
        self._model = _checked_model(model)
        self._optimizers = _checked_optimizers(optimizer)
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
        self._watch: Watch | None = None
        self._observer: Observer | None = None
        self._own_step: Callable[[], OwnStep] | None = None
        self._tapped = ExitStack()
        self._is_open = self._is_refused = False

    @property
    def directory(self) -> Path | None:
        """The session's folder; None before `attach`."""
        return self._watch.recorder.directory if self._watch else None

    @property
    def recent_frames(self) -> tuple[Frame, ...]:
        """The newest frames, oldest first, as long as they are kept in memory; none before `attach`."""
        return tuple(self._watch.recorder.flight) if self._watch else ()

    def attach(self) -> Self:
        """Start to watch. Attached already, it does nothing."""
        if self._is_open:
            return self
        watch = self._watch = self._options.watch(self._model)
        self._tapped.enter_context(replaced(self._model, "train_on_batch", _watched, self._model, weakref.ref(self)))
        # Who forgets to close, and drops this, finds the model as it was.
        self._abandoned = weakref.finalize(self, _abandon, self._tapped, watch)
        self._abandoned.atexit = False  # at the interpreter's exit the recorder closes itself, and knows the error
        self._is_open = True
        if self._own_step is not None:
            self._begin(watch, self._own_step)
        return self

    def close(self, error: BaseException | None = None) -> None:
        """Stop watching and finish the session, as failed where `error` ended training. May be called again."""
        if self._watch is None or not self._is_open:
            return
        self._is_open = False
        self._tapped.close()
        self._abandoned.detach()
        if self._observer is not None:
            with self._watch.recorder.contained(LOOP):
                self._observer.end()
            self._observer = None
        self._watch.close(error)

    def __enter__(self) -> Self:
        return self.attach()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(error)

    def watch(self, train_step: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        """Return a function that does what `train_step` does, and is looked into while this is attached.

        Each call makes one step. What the layers of the model do in it is recorded, and what the optimizers apply.

        Raises:
            ValueError: another function is watched already.
        """
        if self._own_step is not None:
            raise ValueError(
                "NeuralDbgLoop watches one function already, whose calls it counts as steps; put all that makes a step "
                "into one function, and watch that."
            )
        make = self._own_step = partial(own_step_of, self._model, self._optimizers, train_step)
        if self._watch is not None and self._is_open:
            self._begin(self._watch, make)

        @functools.wraps(train_step)
        def watched(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
            observer = self._observer
            if not self._is_open or observer is None:
                return train_step(*args, **kwargs)
            result: Result = cast("OwnStep", observer).step(*args, **kwargs)
            return result

        return watched

    def _before_batch(self) -> None:
        """Have the call of `train_on_batch` that comes watched."""
        if self._watch is None or not self._model.compiled or self._own_step is not None or self._is_refused:
            return
        with self._watch.recorder.contained(LOOP):
            self._model.make_train_function()  # as `train_on_batch` does; it is there from the first time on
            if self._observer is None:
                self._begin(self._watch, partial(observer_of, self._model))
            if self._observer is not None:
                self._observer.engage(1)

    def _begin(self, watch: Watch, make: Callable[[], Observer]) -> None:
        """Begin to watch with the observer that `make` returns, or say why that cannot be."""
        self._is_refused = True
        with watch.recorder.contained(LOOP):
            try:
                observer = make()
                observer.begin(watch)
            except Unobservable as reason:
                watch.recorder.notice(str(reason))
            else:
                self._observer, self._is_refused = observer, False


def _watched(train_on_batch: Callable[..., Any], model: Any, loop: weakref.ref[NeuralDbgLoop]) -> Callable[..., Any]:
    @functools.wraps(train_on_batch)
    def watched(*args: Any, **kwargs: Any) -> Any:
        if (alive := loop()) is not None:
            alive._before_batch()  # noqa: SLF001 - of the same module
        try:
            return train_on_batch(*args, **kwargs)
        finally:
            disengage(model)

    return watched


def _abandon(tapped: ExitStack, watch: Watch) -> None:
    tapped.close()
    watch.close()


def _checked_model(model: Any) -> Any:
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"NeuralDbgLoop watches a keras.Model, not {type(model).__name__}; write NeuralDbgLoop(model, optimizer). "
            "For several models that train together, make them parts of one."
        )
    return model


def _checked_optimizers(optimizer: Any) -> tuple[Any, ...]:
    given = optimizer if isinstance(optimizer, (list, tuple)) else () if optimizer is None else (optimizer,)
    for one in given:
        if not isinstance(one, keras.optimizers.Optimizer):
            raise TypeError(
                f"The optimizer is a {type(one).__name__}, not a keras.optimizers.Optimizer; write "
                "NeuralDbgLoop(model, optimizer), or leave it out where the model is compiled with one."
            )
    return tuple(given)
