"""NeuralDbgCallback for Lightning: watches `Trainer.fit`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from neural_callbacks.missing import installed_with

with installed_with("lightning", "NeuralDbgCallback", "lightning", "torch"):
    import torch
    from lightning.pytorch import Callback, LightningModule, Trainer
    from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from neural_callbacks.pytorch.manager import NeuralDbg

UNWATCHED = "Nothing is recorded of {}: it is not a torch.optim.Optimizer, whose steps can be watched."


class NeuralDbgCallback(Callback):  # type: ignore[misc]
    """Records a debugging session of a LightningModule while `fit` trains it.

        Trainer(callbacks=[NeuralDbgCallback()]).fit(model, batches)

    The session lies beside what the trainer logs: with Lightning's TensorBoardLogger or CSVLogger in
    `lightning_logs/version_N/neuraldbg/`, with another logger or none in `runs/RUN/neuraldbg/`; a `log_dir` makes it
    `<log_dir>/<run_name>/neuraldbg/`. `notices` are sentences that the session shows. The other `options` are those of
    `NeuralDbg`, as `every=10`.

    Each fit is a session, its steps are those of the optimizer: of several, those of the last. The loss is what
    backward starts from, freed of loss scaling and of the division by `accumulate_grad_batches`; of the batches of one
    step, the mean; of several optimizers, each has its own, `loss_1` and so on.

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
        super().__init__()
        NeuralDbg(nn.Identity(), **options)  # what cannot be used is said now, not when training begins
        self._log_dir = log_dir
        self._run_name = run_name
        self._notices = tuple(notices)
        self._options = options
        self._debugger: NeuralDbg | None = None

    @property
    def directory(self) -> Path | None:
        """The session's folder, of the present or latest fit; None before the first one."""
        return None if self._debugger is None else self._debugger.directory

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open a session; the sanity check of the validation is over by now."""
        optimizers = [optimizer for optimizer in trainer.optimizers if isinstance(optimizer, Optimizer)]
        others = [type(optimizer).__name__ for optimizer in trainer.optimizers if not isinstance(optimizer, Optimizer)]
        log_dir, run_name = self._place(trainer)
        self._debugger = NeuralDbg(
            pl_module,
            optimizers,
            log_dir,
            run_name,
            notices=(*self._notices, *map(UNWATCHED.format, others)),
            **self._options,
        ).attach()

    def _place(self, trainer: Trainer) -> tuple[str | Path, str | None]:
        """Return `log_dir` and `run_name` of the session."""
        logs = trainer.log_dir if isinstance(trainer.logger, (TensorBoardLogger, CSVLogger)) else None
        if self._log_dir is not None or logs is None or "://" in logs:  # a session is written to a file system
            return self._log_dir or "runs", self._run_name
        folder = Path(logs).absolute()
        return folder.parent, self._run_name or folder.name

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Take the loss that backward starts from where Lightning has divided it; else NeuralDbg sees it by itself."""
        batches = trainer.accumulate_grad_batches
        if self._debugger is not None and pl_module.automatic_optimization and batches > 1:
            scaler = getattr(trainer.precision_plugin, "scaler", None)
            scale = 1.0 if scaler is None else scaler.scale(torch.ones((), device=loss.device))
            self._debugger.record_scalars(loss=loss.detach() / scale * batches)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the session: training ran to its end."""
        del trainer, pl_module
        self._close(None)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close the session as failed, where the error ended training."""
        del trainer, pl_module
        self._close(exception)

    def _close(self, error: BaseException | None) -> None:
        if self._debugger is not None:
            self._debugger.close(error)
