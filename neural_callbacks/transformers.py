"""NeuralDbgCallback for Hugging Face Transformers: watches `Trainer.train`."""

from __future__ import annotations

import atexit
import functools
import inspect
import os
import sys
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from neural_callbacks.missing import installed_with

with installed_with("transformers", "NeuralDbgCallback", "transformers", "accelerate", "torch"):
    from accelerate.optimizer import AcceleratedOptimizer
    from torch import Tensor, nn
    from torch.optim import Optimizer
    from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

    from neural_callbacks.pytorch.manager import NeuralDbg

UNWATCHED = "Nothing is recorded of {}: it is not a torch.optim.Optimizer, whose steps can be watched."
NO_LOSS = "The loss is not recorded: training is not run by transformers.Trainer, whose training_step returns it."
UNFINISHED = "Trainer.train did not come to its end"


class NeuralDbgCallback(TrainerCallback):  # type: ignore[misc]
    """Records a debugging session of a model while a Trainer trains it.

        Trainer(model, args, train_dataset=data, callbacks=[NeuralDbgCallback()]).train()

    The session lies where the Trainer's TensorBoard logs do: in `<output_dir>/runs/RUN/neuraldbg/`, or below the folder
    that the environment variable TENSORBOARD_LOGGING_DIR names; a `log_dir` makes it `<log_dir>/<run_name>/neuraldbg/`.
    `notices` are sentences that the session shows. The other `options` are those of `NeuralDbg`, as `every=10`.

    Each `train` is a session, its steps are those of the optimizer. The loss is what the Trainer takes it for: what its
    `training_step` returns, summed over the batches of an accumulated gradient, and not the mean of several steps that
    the Trainer logs.

    A Trainer tells its callbacks of no error. One that arises in `training_step` is seen there and closes the session
    as failed; after another, the session is closed as failed when the next training begins, when the callback is
    dropped, or when the process ends.

    Raises:
        TypeError: `NeuralDbg` has no such option.
        ValueError: an option cannot be used; the text says what can.
    """

    def __init__(
        self,
        log_dir: str | Path | None = None,
        run_name: str | None = None,
        *,
        notices: Sequence[str] = (),
        **options: Any,
    ) -> None:
        NeuralDbg(nn.Identity(), **options)  # what cannot be used is said now, not when training begins
        self._log_dir = log_dir
        self._run_name = run_name
        self._notices = tuple(notices)
        self._options = options
        self._debugger: NeuralDbg | None = None
        self._losses: list[Tensor] = []
        self._untap: Callable[[], None] = _nothing
        self._abandon: Callable[[], Any] = _nothing

    @property
    def directory(self) -> Path | None:
        """The session's folder, of the present or latest training; None before the first one."""
        return None if self._debugger is None else self._debugger.directory

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open a session; one that an error left open is closed first."""
        del state, control
        self._untap()
        self._abandon()
        notices = list(self._notices)
        optimizer = kwargs["optimizer"]
        while isinstance(optimizer, AcceleratedOptimizer):
            optimizer = optimizer.optimizer
        if not isinstance(optimizer, Optimizer):
            notices.append(UNWATCHED.format(type(optimizer).__name__))
            optimizer = None
        trainer = _calling_trainer()
        if trainer is None:
            notices.append(NO_LOSS)
        debugger = NeuralDbg(
            kwargs["model"], optimizer, self._log_dir or _logs(args), self._run_name, notices=notices, **self._options
        ).attach()
        self._debugger = debugger
        finalizer = weakref.finalize(self, _close_unfinished, debugger)
        finalizer.atexit = False  # at the interpreter's exit it must come before the session closes itself as finished
        atexit.register(finalizer)
        self._abandon = finalizer
        if trainer is not None:
            self._tap(trainer)

    def _tap(self, trainer: Trainer) -> None:
        """Have the trainer's `training_step` tell its losses and what ended it."""
        step, before = trainer.training_step, vars(trainer).get("training_step")

        @functools.wraps(step)
        def training_step(*args: Any, **kwargs: Any) -> Any:
            try:
                loss = step(*args, **kwargs)
            except BaseException as error:
                self._close(error)
                raise
            if isinstance(loss, Tensor) and self._untap is untap:
                self._losses.append(loss.detach())
            return loss

        def untap() -> None:
            if vars(trainer).get("training_step") is not training_step:
                return  # somebody has put another in its place, around this one, which is idle from now on
            if before is None:
                del trainer.training_step
            else:
                trainer.training_step = before

        trainer.training_step, self._untap = training_step, untap

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Record the loss of the batches since the last step."""
        del args, state, control, kwargs
        if self._debugger is not None and self._losses:
            self._debugger.record_scalars(loss=sum(loss.float() for loss in self._losses))
            self._losses.clear()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the session: training ran to its end."""
        del args, state, control, kwargs
        self._close(None)

    def _close(self, error: BaseException | None) -> None:
        self._untap()
        self._losses, self._untap = [], _nothing
        if self._debugger is not None:
            self._debugger.close(error)
            atexit.unregister(self._abandon)
            self._abandon()  # there is nothing left to close


def _nothing() -> None:
    pass


def _close_unfinished(debugger: NeuralDbg) -> None:
    # sys.last_value is what ended the script; an interactive session keeps there what failed long before.
    error = None if hasattr(sys, "ps1") else getattr(sys, "last_value", None)
    debugger.close(error or RuntimeError(UNFINISHED))


def _logs(args: TrainingArguments) -> Path:
    """Return the folder that Trainer's TensorBoard logs are below."""
    named = os.environ.get("TENSORBOARD_LOGGING_DIR", "")
    return Path(named).expanduser() if named and "://" not in named else Path(args.output_dir) / "runs"


def _calling_trainer() -> Trainer | None:
    """Return the Trainer that is calling: it hands its callbacks everything but itself, and a loss only in its logs."""
    frame = inspect.currentframe()
    while frame is not None:
        if isinstance(trainer := frame.f_locals.get("self"), Trainer):
            return trainer
        frame = frame.f_back
    return None
