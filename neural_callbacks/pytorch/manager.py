"""NeuralDbg: watches the training of a PyTorch model."""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
import time
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.optim.optimizer import (
    Optimizer,
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.utils.hooks import RemovableHandle

from neural.session.frame import BACKWARD, KINDS, OPTIMIZER, Frame
from neural_callbacks import ranks
from neural_callbacks.pytorch import calls
from neural_callbacks.pytorch.compiled import CompiledTaps, is_compiled, is_in_use
from neural_callbacks.pytorch.distributed import (
    REPLICATED,
    SHARDED,
    are_sharded,
    is_replicated,
    local,
    model_class,
)
from neural_callbacks.pytorch.layout import Layout
from neural_callbacks.pytorch.module_hooks import SENTINEL, ModuleHooks
from neural_callbacks.pytorch.profile import Profile, Profiler
from neural_callbacks.pytorch.reach import reached, reaches
from neural_callbacks.pytorch.sentinel import Passed, Sentinel, Trail
from neural_callbacks.pytorch.taps import PROFILE, Sample
from neural_callbacks.recorder import Recorder
from neural_callbacks.schedule import Depth, schedule_from

FRAMES = "frames"  # the part that makes a frame of what was measured
# What torch puts around each optimizer's step, to call its hooks.
_STEP = Optimizer.profile_hook_step(int).__code__


class NeuralDbg:
    """Records a debugging session of `model` while it trains; nothing in the training loop changes.

        with NeuralDbg(model, optimizer):
            for batch in batches:
                ...

    or `attach()` before training and `close()` after it. The session goes to `<log_dir>/<run_name>/neuraldbg/`; the
    name of the run is made from the model's class and the time where none is given.

    `model` may be several models that train together, as a list or by name. A step ends with a step of `optimizer`; of
    several optimizers with that of the last one. Without one it is the first optimizer that steps a parameter of
    `model`. A step that a GradScaler skips counts, and is marked by the scalar `skipped`.

    Which steps are measured: every `every`-th, the first included; or those in `steps`; or, where neither is given, as
    many as cost `overhead_budget` of the training time (2 % where that is not given either), the first few always.
    `histograms=False` leaves those out. Measured are per layer the activations and their gradients, per parameter the
    gradients (as the optimizer gets them: accumulated, unscaled, clipped), the weights before the step, and what the
    step changed; of an optimizer that steps several times within a step the first weights and gradients, and the whole
    change; of a closure that runs several times the first loss and the last gradients. Of a layer that runs several
    times in a step all calls make one row, over all tensors in what it gives out, be it a tuple, list, mapping or
    dataclass. Left aside are forward passes without gradients, or from which `backward` does not start, as in
    evaluation (but times, memory and FLOPs are those of all passes with gradients), what runs inside of the transforms
    of `torch.func`, and the way back of `torch.autograd.grad`. Of sparse gradients the stored values are measured;
    integer and complex tensors are not. Under `nn.DataParallel` on several devices the parameters alone are recorded.
    Of a model under `torch.compile` the activations of linear layers, convolutions and attention are recorded, with
    their gradients, and no times: to look at more would change what is compiled, and the training in its last bits.

    The loss is what `backward` is called on, before any scaling; where that is called several times before the
    optimizer steps, the mean. Of several optimizers each has its own, `loss_1` and so on: what was called since any of
    them stepped, and reached its parameters.

    With `sentinel`, also the steps between are looked at for the first loss or gradient that is not finite, and such a
    step is recorded too, with the layers where that arose, in order; layers inside a checkpoint with
    `use_reentrant=True` are seen in sampled steps alone.

    In a distributed job each rank records a session of its own, all in one run: under DistributedDataParallel the
    gradients as they are after the all-reduce, of sharded parameters (`fully_shard`) the rank's own shard.

    `notices` are sentences that the session shows to whoever looks at it.

    Training is the same, to the last bit, with and without; what fails in here is logged once and left off.

    Raises:
        TypeError: `model` holds something else than `nn.Module`, or `optimizer` than torch optimizers.
        ValueError: `every`, `steps`, `overhead_budget` or `run_name` cannot be used; the text says what can.
    """

    def __init__(
        self,
        model: nn.Module | Sequence[nn.Module] | Mapping[str, nn.Module],
        optimizer: Optimizer | Sequence[Optimizer] | None = None,
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
        self._model, self._name = _one_model(model)
        self._given = _listed(optimizer)
        self._log_dir = log_dir
        self._run_name = run_name
        self._schedule = schedule_from(every=every, steps=steps, overhead_budget=overhead_budget)
        self._has_histograms = histograms
        self._has_sentinel = sentinel
        self._notices = tuple(notices)
        self._recorder: Recorder | None = None
        self._handles: list[RemovableHandle] = []
        self._taps: list[RemovableHandle] = []
        self._reset()

    def _reset(self) -> None:
        self._optimizers = self._given
        self._layout = Layout(self._model)
        self._layout.look()
        self._profiler = Profiler(self._model)
        self._sentinel = Sentinel(self._layout.layers, functools.partial(_look_at, self._layout))
        self._compiled = CompiledTaps(self._model)
        self._is_eager = False
        self._is_replicated = is_replicated(self._model)
        self._is_compiled = is_in_use(self._model)
        self._step = 0
        self._ended = time.perf_counter()
        self._is_broken = False
        self._sample: Sample | None = None
        self._reset_step()

    def _reset_step(self) -> None:
        self._depth = Depth.NOTHING
        self._trail: Trail | None = None
        self._own = 0.0
        # The losses that no optimizer has stepped on yet, each with what `reached` says of it where that is asked.
        self._losses: list[tuple[Tensor | float, frozenset[int] | None]] = []
        self._given_scalars: set[str] = set()
        self._measured: list[Optimizer] = []
        self._call: tuple[Any, ...] | None = None
        self._stepped: list[Optimizer] = []
        self._closure_of: Optimizer | None = None
        self._scaled: Optimizer | None = None
        self._was_skipped = False

    @property
    def directory(self) -> Path | None:
        """The session's folder; None before `attach`."""
        return self._recorder.directory if self._recorder is not None else None

    @property
    def recent_frames(self) -> tuple[Frame, ...]:
        """The newest frames, oldest first, as long as they are kept in memory; none before `attach`."""
        return tuple(self._recorder.flight) if self._recorder is not None else ()

    def attach(self) -> Self:
        """Start to watch. Attached already, it does nothing."""
        if self._handles:
            return self
        schedule = self._schedule = self._schedule.anew(aligned=ranks.find().world_size > 1)
        self._recorder = Recorder(
            model=self._name,
            framework=f"pytorch {torch.__version__}",
            log_dir=self._log_dir,
            run_name=self._run_name,
            every=schedule.every,
            steps=schedule.steps,
            overhead_budget=schedule.overhead_budget,
            notices=self._notices,
        )
        self._reset()
        if self._is_replicated:
            self._recorder.notice(REPLICATED)
        self._on_modules = ModuleHooks(self._recorder)
        if self._optimizers:
            for optimizer in self._optimizers:
                self._handles += [
                    optimizer.register_step_pre_hook(self._before_step),
                    optimizer.register_step_post_hook(self._after_step),
                ]
        else:
            self._handles += [
                register_optimizer_step_pre_hook(_weak(self._before_step)),
                register_optimizer_step_post_hook(_weak(self._after_step)),
            ]
        calls.listen(self)
        # Who forgets to close, and drops both this and the optimizer, leaves no hook behind either.
        self._abandoned = weakref.finalize(self, _abandon, self._handles, self._taps, self._recorder)
        self._abandoned.atexit = False  # the recorder has its own last word then
        self._begin(self._recorder)
        return self

    def close(self, error: BaseException | None = None) -> None:
        """Stop watching and finish the session, as failed where `error` ended training. May be called again."""
        self._sample = None
        self._compiled.close()
        _remove(self._taps)
        _remove(self._handles)
        calls.leave(self)
        self._profiler.close()
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
        """Record figures of the step, as `record_scalars(accuracy=accuracy)`, before the optimizer's step.

        They are looked at in sampled steps only, and without making the device wait. Of a figure that is given several
        times in a step, as where gradients are accumulated, the mean is recorded. A `loss` given here counts in place
        of what `backward` is called on.
        """
        if self._sample is not None:
            self._given_scalars.update(scalars)
            for name, value in scalars.items():
                self._sample.scalar(name, value)

    def _begin(self, recorder: Recorder) -> None:
        """Start the step: to measure, where it is sampled, all until the end of the last optimizer's step."""
        self._reset_step()
        if FRAMES in recorder.switched_off:
            _remove(self._taps)
            return
        try:
            self._depth = self._schedule.plan(self._step)
            if self._depth:
                self._sample = self._new_sample(recorder, profile=self._new_profile(recorder))
            watches = self._sample is None and self._watches_all_steps(recorder)
            if self._is_compiled:
                # A hook for all modules would have torch.compile warn.
                _remove(self._taps)
                if self._step == 0:
                    self._compiled.watch()
                if self._sample is not None:
                    self._layout.look()
                    self._compiled.attach(self._layout.layers, self._sample)
            elif self._sample is not None or self._has_sentinel:
                self._on_modules.sample = self._sample
                self._on_modules.sentinel = self._sentinel if watches else None
                if not self._taps:
                    self._taps += self._on_modules.hang()
            if watches:
                self._sentinel.forget()
        except Exception as error:  # noqa: BLE001 - as `contained`, in a fraction of its time: this runs in every step
            recorder.failed(FRAMES, error)

    def _watches_all_steps(self, recorder: Recorder) -> bool:
        off = recorder.switched_off
        return self._has_sentinel and not (off and (SENTINEL in off or FRAMES in off))

    def _new_sample(self, recorder: Recorder, *, profile: Profile | None) -> Sample:
        is_binned = self._has_histograms and self._depth is Depth.HISTOGRAMS
        return Sample(self._layout, recorder, binned=is_binned, profile=profile)

    def _new_profile(self, recorder: Recorder) -> Profile | None:
        if self._depth is Depth.HISTOGRAMS and not self._is_compiled and PROFILE not in recorder.switched_off:
            with recorder.contained(PROFILE):
                return self._profiler.begin()
        return None

    def _begin_phase(self, phase: int) -> None:
        """Tell the profile of this step, if there is one, that the model's way back or an optimizer's step begins."""
        if self._sample is not None and self._sample.profile is not None:
            self._sample.profile.open(phase)

    def _end_phase(self, phase: int) -> None:
        if self._sample is not None and self._sample.profile is not None:
            self._sample.profile.close(phase)

    def _end_sample(self) -> Sample | None:
        sample, self._sample = self._sample, None
        if sample is not None:
            self._compiled.detach()
            if not self._has_sentinel:  # else the hooks stay
                _remove(self._taps)
        return sample

    def backward_begins(self, start: calls.Start) -> bool:
        """Take in the losses that training goes back from; see `calls.Listener`."""
        started, recorder = time.perf_counter(), self._recorder
        if recorder is None or not self._has_run():
            return False
        try:
            if not start.is_alone and not self._concerns(start):
                return False
            self._take_in(recorder, start)
        except Exception as error:  # noqa: BLE001 - as `contained`, in a fraction of its time: this runs in every step
            recorder.failed(FRAMES, error)
        self._own += time.perf_counter() - started
        return True

    def _take_in(self, recorder: Recorder, start: calls.Start) -> None:
        losses = [
            # On the host the loss is there; a device is not waited for.
            value.item() if value.device.type == "cpu" else value
            for value in (local(loss) for loss in start.losses if not are_sharded([loss]))
            if value.numel() == 1 and value.is_floating_point()
        ]
        if self._closure_of is not None and self._losses:
            losses = []  # of a closure that runs several times the first counts
        if self._sample is None and not _are_finite(losses):
            self._alarm(recorder, self._sentinel.producers())
        if self._sample is not None:
            self._sample.backward_begins(start.scale)
        to = reached(start.roots) if self._sample is not None and len(self._optimizers) > 1 else None
        self._losses += [(loss, to) for loss in losses]
        self._sentinel.release()
        self._begin_phase(BACKWARD)

    def _concerns(self, start: calls.Start) -> bool:
        """Say whether this `backward` may be one of this model: other models are watched too."""
        own = self._layout.parameters()
        ids = set(map(id, own)).union(*map(_parameters_of, self._optimizers))
        return are_sharded(own) or reaches(start.roots, ids)

    def backward_ends(self) -> None:
        """See `calls.Listener`."""
        if self._recorder is not None:
            with self._recorder.contained(FRAMES):
                if self._sample is not None:
                    self._sample.backward_ends()
                self._end_phase(BACKWARD)

    def _has_run(self) -> bool:
        """Say whether the model took part in this step so far, as far as that can be known."""
        if self._is_compiled or self._is_replicated:
            return True
        return self._sample.has_run if self._sample is not None else bool(self._sentinel.order)

    def _alarm(self, recorder: Recorder, producers: Sequence[Passed] = ()) -> None:
        """Something is not finite in a step that is not sampled: measure from here on what is still there."""
        if self._is_broken or not self._watches_all_steps(recorder):
            return
        self._depth = Depth.HISTOGRAMS
        # Without a profile: what has run already was not timed.
        self._sample = self._new_sample(recorder, profile=None)
        self._sample.catch_up(self._sentinel.passed)
        self._trail = self._sentinel.trail(producers)

    def _before_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        started, recorder = time.perf_counter(), self._recorder
        if recorder is None or not self._is_watched(optimizer) or self._is_nested(args):
            return
        self._call = args
        try:
            if _has_closure(args, kwargs):
                self._closure_of = optimizer
                self._measure(recorder, optimizer, gradients=False)
            else:
                is_skipping = _is_skipping(optimizer)
                if not is_skipping:  # a scaler tries large scales until gradients overflow
                    self._look(recorder, optimizer)
                self._measure(recorder, optimizer, gradients=True, is_skipping=is_skipping)
            self._begin_phase(OPTIMIZER)
        except Exception as error:  # noqa: BLE001 - as above
            recorder.failed(FRAMES, error)
        self._own += time.perf_counter() - started

    def _look(self, recorder: Recorder, optimizer: Optimizer) -> None:
        """Let the sentinel look at the gradients, and at the losses that are on a device."""
        if self._sample is not None or not self._watches_all_steps(recorder):
            return
        losses = [loss for loss, _ in self._losses if isinstance(loss, Tensor)]
        try:
            is_quiet = self._sentinel.is_quiet(optimizer, losses)
        except Exception as error:  # noqa: BLE001 - as above
            recorder.failed(SENTINEL, error)
            return
        if is_quiet:
            self._is_broken = False
        else:
            self._alarm(recorder)

    def _measure(self, recorder: Recorder, optimizer: Optimizer, *, gradients: bool, is_skipping: bool = False) -> None:
        """Measure the parameters that `optimizer` is about to change, or is skipping."""
        sample = self._sample
        if sample is None:
            return
        self._take_losses(sample, optimizer)
        if any(optimizer is one for one in self._measured):
            return
        self._measured.append(optimizer)
        chosen = self._chosen(optimizer)
        if are_sharded(chosen):
            recorder.notice(SHARDED)
        sample.before_step(chosen, () if is_skipping else _parameters_of(optimizer))
        if gradients:
            sample.gradients(chosen, _inverse_of(getattr(optimizer, "grad_scale", None)))

    def _chosen(self, optimizer: Optimizer) -> list[nn.Parameter]:
        """Return the parameters that are measured with `optimizer`: its own, with the last one what nobody changes."""
        if self._is_last(optimizer):
            others = {one for other in self._optimizers if other is not optimizer for one in _parameters_of(other)}
            return [parameter for parameter in self._layout.parameters() if id(parameter) not in others]
        own = _parameters_of(optimizer)
        return [parameter for parameter in self._layout.parameters() if id(parameter) in own]

    def _take_losses(self, sample: Sample, optimizer: Optimizer) -> None:
        """Record what `backward` was called on since the last optimizer's step, as the loss of this one.

        Of several optimizers a loss counts for the one whose parameters it reached.
        """
        name, own = "loss", None
        if len(self._optimizers) > 1:
            name, own = f"loss_{self._optimizers.index(optimizer) + 1}", _parameters_of(optimizer)
        pending, self._losses = self._losses, []
        for loss, to in pending:
            if own is not None and to is not None and to.isdisjoint(own):
                self._losses.append((loss, to))
            elif self._given_scalars.isdisjoint({"loss", name}):
                sample.scalar(name, loss)

    def _after_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        started, recorder = time.perf_counter(), self._recorder
        if recorder is None or not self._is_watched(optimizer) or self._is_nested(args):
            return
        self._call = None
        try:
            self._end_phase(OPTIMIZER)
            self._was_skipped |= _is_skipping(optimizer)
            if _has_closure(args, kwargs):
                # The closure ran forward and backward within the step: only now are the gradients there.
                self._closure_of = None
                self._look(recorder, optimizer)
                if self._sample is not None:
                    self._take_losses(self._sample, optimizer)
                    if not any(optimizer is one for one in self._stepped):
                        self._sample.gradients(self._chosen(optimizer))
        except Exception as error:  # noqa: BLE001 - as above
            recorder.failed(FRAMES, error)
        self._own += time.perf_counter() - started
        self._scaled = None
        self._stepped.append(optimizer)
        if self._is_last(optimizer):
            self._end_step(recorder)

    def scaler_begins(self, optimizer: Optimizer) -> None:
        """Note which optimizer a scaler may let step; see `calls.Listener`."""
        self._scaled = optimizer

    def scaler_ends(self, optimizer: Optimizer) -> None:
        """Where it did not, take in what there is, and end the step if that was the last optimizer."""
        recorder = self._recorder
        if recorder is None or self._scaled is not optimizer or not self._is_watched(optimizer):
            return
        self._scaled = None
        self._was_skipped = True
        with recorder.contained(FRAMES):
            self._measure(recorder, optimizer, gradients=True, is_skipping=True)
        if self._is_last(optimizer):
            self._end_step(recorder)

    def _end_step(self, recorder: Recorder) -> None:
        started = time.perf_counter()
        sample = self._end_sample()
        try:
            if sample is not None:
                recorder.record(self._frame(recorder, sample))
                self._sentinel.watch(self._layout.layers)
                self._is_compiled = self._may_be_compiled(sample)
            elif self._was_skipped:
                recorder.record(Frame(self._step, time.time(), scalars={"skipped": 1.0}))
            ended = time.perf_counter()
            self._own += ended - started + (0.0 if sample is None else sample.own_seconds)
            duration, self._ended = ended - self._ended, ended
            self._schedule.report(self._step, duration=duration, depth=self._depth, own=self._own)
        except Exception as error:  # noqa: BLE001 - as above
            recorder.failed(FRAMES, error)
        self._step += 1
        self._begin(recorder)

    def _may_be_compiled(self, sample: Sample) -> bool:
        """Say whether the model is compiled, or whether that cannot be told before a sample has seen it run."""
        self._is_eager = self._is_eager or sample.ran_eagerly
        return is_compiled(self._model) or (not self._is_eager and is_in_use(self._model))

    def _frame(self, recorder: Recorder, sample: Sample) -> Frame:
        """Finish the sample: its frame, with what went wrong only where that began."""
        sample.after_step()
        if self._is_compiled and self._trail is None and self._compiled.notice is not None:
            recorder.notice(self._compiled.notice)
        frame = sample.finish(self._step, self._optimizers, self._trail, was_skipped=self._was_skipped)
        if self._is_compiled and self._compiled.was_cut_short:
            frame = _without_activations(frame)  # they are of some of the step's calls only
        scalars = dict(frame.scalars)
        if not math.isnan(self._schedule.overhead):
            scalars["overhead"] = self._schedule.overhead
        if self._was_skipped:
            scalars["skipped"] = 1.0
        was_broken, self._is_broken = self._is_broken, bool(frame.anomalies)
        return dataclasses.replace(frame, scalars=scalars, anomalies=() if was_broken else frame.anomalies)

    def _is_nested(self, args: tuple[Any, ...]) -> bool:
        """Say whether a call of `step` with `args` is made by another: an optimizer's own may call its base class'."""
        outer = self._call
        if outer is None or outer is args or outer[0] is not args[0]:
            return False
        frame: FrameType | None = sys._getframe()  # noqa: SLF001 - an exception may have ended the outer one untold
        while frame is not None:
            if frame.f_code is _STEP and frame.f_locals.get("args") is outer:
                return True
            frame = frame.f_back
        return False

    def _is_last(self, optimizer: Optimizer) -> bool:
        return optimizer is self._optimizers[-1]

    def _is_watched(self, optimizer: Optimizer) -> bool:
        if not self._optimizers and not _parameters_of(optimizer).isdisjoint(map(id, self._model.parameters())):
            self._optimizers = (optimizer,)
        return any(optimizer is one for one in self._optimizers)


def _look_at(layout: Layout) -> tuple[Collection[nn.Module], Collection[nn.Module]]:
    layout.look()
    return layout.layers, layout.modules


def _without_activations(frame: Frame) -> Frame:
    def kept(of_kind: Mapping[str, Any]) -> dict[str, Any]:
        return {kind: value for kind, value in of_kind.items() if KINDS[kind].rows != "layers"}

    return dataclasses.replace(frame, matrices=kept(frame.matrices), histograms=kept(frame.histograms))


def _one_model(model: Any) -> tuple[nn.Module, str]:
    """Return what is watched as one module, and its name."""
    if isinstance(model, nn.Module):
        return model, model_class(model).__name__
    parts = [*model.values()] if isinstance(model, Mapping) else model
    if not isinstance(parts, (list, tuple)) or not parts or not all(isinstance(part, nn.Module) for part in parts):
        raise TypeError(
            f"NeuralDbg watches a torch.nn.Module, or several in a list or a dict, not {type(model).__name__}; write "
            "NeuralDbg(model)."
        )
    name = "+".join(model_class(part).__name__ for part in parts)
    return (nn.ModuleDict(dict(model)) if isinstance(model, Mapping) else nn.ModuleList(parts)), name


def _listed(optimizer: Any) -> tuple[Optimizer, ...]:
    given = (optimizer,) if isinstance(optimizer, Optimizer) else () if optimizer is None else optimizer
    for one in given if isinstance(given, (list, tuple)) else (given,):
        if not isinstance(one, Optimizer):
            raise TypeError(
                f"The optimizer is a {type(one).__name__}, not a torch.optim.Optimizer; write "
                "NeuralDbg(model, optimizer), or leave it out."
            )
    return tuple(given)


def _are_finite(losses: Iterable[Tensor | float]) -> bool:
    """Say whether the losses that are known on the host are finite."""
    return all(isinstance(loss, Tensor) or math.isfinite(loss) for loss in losses)


def _is_skipping(optimizer: Optimizer) -> bool:
    """Say whether a fused optimizer, which skips by itself, was told by its scaler to skip this step."""
    found_inf = getattr(optimizer, "found_inf", None)
    return found_inf is not None and bool(found_inf)


def _inverse_of(scale: Tensor | None) -> Tensor | None:
    return None if scale is None else scale.detach().double().reciprocal()


def _remove(handles: list[RemovableHandle]) -> None:
    while handles:
        handles.pop().remove()


def _abandon(handles: list[RemovableHandle], taps: list[RemovableHandle], recorder: Recorder) -> None:
    _remove(handles)
    _remove(taps)
    recorder.close()


def _parameters_of(optimizer: Optimizer) -> set[int]:
    """Return the ids of the parameters that an optimizer steps: a tensor's own hash takes ten times as long."""
    return {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}


def _has_closure(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    # args[0] is the optimizer itself.
    return (args[1] if len(args) > 1 else kwargs.get("closure")) is not None


def _weak(method: Callable[..., None]) -> Callable[..., None]:
    """Return a hook for torch's global lists that does not keep the object of `method` alive."""
    reference = weakref.WeakMethod(method)

    def hook(*args: Any) -> None:
        if (alive := reference()) is not None:
            alive(*args)

    return hook
