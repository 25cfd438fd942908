"""NeuralDbg: watches the training of a PyTorch model."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.optim.optimizer import (
    Optimizer,
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.utils.hooks import RemovableHandle

from neural_callbacks.pytorch.distributed import SHARDED, are_sharded, model_class
from neural_callbacks.pytorch.layout import Layout
from neural_callbacks.pytorch.taps import Sample
from neural_callbacks.recorder import Recorder
from neural_callbacks.schedule import Every

FRAMES = "frames"  # the part that makes a frame of what was measured
COMPILED = (
    "The model is compiled: its weights, gradients and updates are recorded, its activations and their gradients not."
)


class NeuralDbg:
    """Records a debugging session of `model` while it trains; nothing in the training loop changes.

        with NeuralDbg(model, optimizer):
            for batch in batches:
                ...

    or `attach()` before training and `close()` after it. The session goes to `<log_dir>/<run_name>/neuraldbg/`; the
    name of the run is made from the model's class and the time where none is given.

    A step is a step of `optimizer`. Without one it is a step of the first optimizer that steps a parameter of `model`;
    steps that a GradScaler skips do not count. Every `every`-th step, the first included, is measured: per layer the
    activations and their gradients, per parameter the gradients (as the optimizer gets them: accumulated, unscaled,
    clipped), the weights before the step, and what the step changed. Of a layer that runs several times in a step all
    calls make one row. Forward passes without gradients, as in evaluation, are left aside. Of sparse gradients the
    stored values are measured; integer and complex tensors are not. Of a compiled model the parameters are recorded,
    the activations not.

    In a distributed job each rank records a session of its own, all in one run: under DistributedDataParallel the
    gradients as they are after the all-reduce, of sharded parameters (`fully_shard`) the rank's own shard.

    `notices` are sentences that the session shows to whoever looks at it.

    Training is the same, to the last bit, with and without; what fails in here is logged once and left off.

    Raises:
        TypeError: `model` is not an `nn.Module`, or `optimizer` not a torch optimizer.
        ValueError: `every` or `run_name` cannot be used; the text says what can.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer | None = None,
        log_dir: str | Path = "runs",
        run_name: str | None = None,
        every: int = 10,
        *,
        notices: Sequence[str] = (),
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"NeuralDbg watches a torch.nn.Module, not {type(model).__name__}; write NeuralDbg(model).")
        if optimizer is not None and not isinstance(optimizer, Optimizer):
            raise TypeError(
                f"The optimizer is a {type(optimizer).__name__}, not a torch.optim.Optimizer; write "
                "NeuralDbg(model, optimizer), or leave it out."
            )
        self._model = model
        self._optimizer = optimizer
        self._log_dir = log_dir
        self._run_name = run_name
        self._schedule = Every(every)
        self._notices = tuple(notices)
        self._recorder: Recorder | None = None
        self._handles: list[RemovableHandle] = []
        self._taps: list[RemovableHandle] = []
        self._sample: Sample | None = None
        self._layout = Layout()
        self._step = 0

    @property
    def directory(self) -> Path | None:
        """The session's folder; None before `attach`."""
        return self._recorder.directory if self._recorder is not None else None

    def attach(self) -> Self:
        """Start to watch. Attached already, it does nothing."""
        if self._handles:
            return self
        self._recorder = Recorder(
            model=model_class(self._model).__name__,
            framework=f"pytorch {torch.__version__}",
            log_dir=self._log_dir,
            run_name=self._run_name,
            every=self._schedule.n,
            notices=self._notices,
        )
        self._layout, self._step = Layout(), 0
        if self._optimizer is not None:
            self._handles += [
                self._optimizer.register_step_pre_hook(self._before_step),
                self._optimizer.register_step_post_hook(self._after_step),
            ]
        else:
            self._handles += [
                register_optimizer_step_pre_hook(_weak(self._before_step)),
                register_optimizer_step_post_hook(_weak(self._after_step)),
            ]
        # Who forgets to close, and drops both this and the optimizer, leaves no hook behind either.
        self._abandoned = weakref.finalize(self, _abandon, self._handles, self._taps, self._recorder)
        self._abandoned.atexit = False  # the recorder has its own last word then
        self._begin(self._recorder)
        return self

    def close(self, error: BaseException | None = None) -> None:
        """Stop watching and finish the session, as failed where `error` ended training. May be called again."""
        self._end_sample()
        _remove(self._handles)
        if self._recorder is not None:
            self._abandoned.detach()
            self._recorder.close(error)

    def __enter__(self) -> Self:
        return self.attach()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(error)

    def record_scalars(self, **scalars: Tensor | float) -> None:
        """Record figures of the step, as `record_scalars(loss=loss)`, before the optimizer's step.

        They are looked at in sampled steps only, and without making the device wait. Of a figure that is given several
        times in a step, as where gradients are accumulated, the mean is recorded.
        """
        if self._sample is not None:
            for name, value in scalars.items():
                self._sample.scalar(name, value)

    def _begin(self, recorder: Recorder) -> None:
        """Start to measure, where the schedule says so, all that runs until the end of the optimizer's next step."""
        if not self._schedule(self._step) or FRAMES in recorder.switched_off:
            return
        with recorder.contained(FRAMES):
            sample = Sample(self._model, self._layout, recorder)
            if _is_compiled(self._model):
                recorder.notice(COMPILED)
            else:
                # One hook for all modules, and none on the model itself: it can be copied and pickled in mid-step.
                self._taps.append(register_module_forward_hook(_unless_compiling(sample.forward)))
            self._sample = sample

    def _end_sample(self) -> Sample | None:
        _remove(self._taps)
        sample, self._sample = self._sample, None
        return sample

    def _before_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        recorder, sample = self._recorder, self._sample
        if recorder is None or sample is None or not self._is_watched(optimizer):
            return
        with recorder.contained(FRAMES):
            parameters = list(self._model.parameters())
            if are_sharded(parameters):
                recorder.notice(SHARDED)
            sample.before_step(parameters, _stepped(optimizer))
            if not _has_closure(args, kwargs):
                sample.gradients(parameters)

    def _after_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        recorder = self._recorder
        if recorder is None or not self._is_watched(optimizer):
            return
        sample = self._end_sample()
        if sample is not None:
            with recorder.contained(FRAMES):
                if _has_closure(args, kwargs):
                    # The closure ran forward and backward within the step: only now are the gradients there.
                    sample.gradients(list(self._model.parameters()))
                sample.after_step()
                recorder.record(sample.finish(self._step))
        self._step += 1
        self._begin(recorder)

    def _is_watched(self, optimizer: Optimizer) -> bool:
        if self._optimizer is None and not _stepped(optimizer).isdisjoint(self._model.parameters()):
            self._optimizer = optimizer
        return self._optimizer is optimizer


def _remove(handles: list[RemovableHandle]) -> None:
    while handles:
        handles.pop().remove()


def _abandon(handles: list[RemovableHandle], taps: list[RemovableHandle], recorder: Recorder) -> None:
    _remove(handles)
    _remove(taps)
    recorder.close()


def _stepped(optimizer: Optimizer) -> set[nn.Parameter]:
    return {parameter for group in optimizer.param_groups for parameter in group["params"]}


def _has_closure(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    # args[0] is the optimizer itself.
    return (args[1] if len(args) > 1 else kwargs.get("closure")) is not None


def _is_compiled(model: nn.Module) -> bool:
    # As torch.compile(model) wraps it, and as model.compile() marks it.
    return any("_orig_mod" in module._modules or module._compiled_call_impl for module in model.modules())  # noqa: SLF001


def _unless_compiling(hook: Callable[..., None]) -> Callable[..., None]:
    """Return a hook that torch.compile traces as nothing: what it compiles is the same with and without."""

    def traceable(*args: Any) -> None:
        if not torch.compiler.is_compiling():
            hook(*args)

    return traceable


def _weak(method: Callable[..., None]) -> Callable[..., None]:
    """Return a hook for torch's global lists that does not keep the object of `method` alive."""
    reference = weakref.WeakMethod(method)

    def hook(*args: Any) -> None:
        if (alive := reference()) is not None:
            alive(*args)

    return hook
