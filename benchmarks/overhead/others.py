"""What else people watch a training with: wandb.watch, torch's anomaly detection, and a script of hooks."""

from __future__ import annotations

import functools
import importlib.util
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from overhead.training import Training
from overhead.watching import Watch


class MissingPackageError(Exception):
    """A gear needs a package that is not installed; the message says which, and how to get it."""


def require_wandb() -> None:
    """Raise where the wandb gears cannot run; loads nothing.

    Raises:
        MissingPackageError: wandb is not installed.
    """
    if importlib.util.find_spec("wandb") is None:
        raise MissingPackageError(
            "wandb is not installed, and the gears wandb-10 and wandb-100 need it; write pip install wandb, or name "
            "other gears, as --gears idle default."
        )


@functools.cache
def _wandb() -> tuple[Any, tempfile.TemporaryDirectory[str]]:
    """Return the one run of this process, offline, and its folder, which is there for as long as it is kept."""
    import wandb  # noqa: PLC0415 - only who compares with it needs it

    folder = tempfile.TemporaryDirectory(prefix="wandb-")
    return wandb.init(mode="offline", dir=folder.name, settings=wandb.Settings(console="off", silent=True)), folder


@contextmanager
def wandb_watch(training: Training, log_freq: int) -> Iterator[Watch]:
    """Watch with `wandb.watch(model, log="all")`, and log the loss as often as it looks, as its documentation does."""
    run, _ = _wandb()
    steps = 0

    def observe(loss: Tensor) -> None:
        nonlocal steps
        steps += 1
        if steps % log_freq == 0:
            run.log({"loss": loss.item()})

    watch = Watch(observe)
    # With a number of its own it does not give the model's parameters new names each time.
    run.watch(training.model, log="all", log_freq=log_freq, idx=0)
    yield watch
    run.unwatch(training.model)
    watch.sampled = range(log_freq - 1, steps, log_freq)


@contextmanager
def detect_anomaly(training: Training) -> Iterator[Watch]:
    """Watch with `torch.autograd.detect_anomaly`."""
    del training
    with warnings.catch_warnings(action="ignore"), torch.autograd.detect_anomaly():
        yield Watch()


@contextmanager
def hook_script(training: Training, every: int) -> Iterator[Watch]:
    """Watch as a script that one writes in an hour: hooks, and `.item()` for each number, in every `every`-th step.

    The numbers are mean, std, min, max and norm of each layer's output, and of each parameter and its gradient.
    """
    steps = 0
    numbers: dict[str, tuple[float, ...]] = {}

    def look(name: str, values: Tensor) -> None:
        values = values.detach()
        read = (values.mean(), values.std(correction=0), values.min(), values.max(), values.norm())
        numbers[name] = tuple(number.item() for number in read)

    def forward(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        del module, inputs
        if steps % every == 0:
            look(name, output)

    def observe(loss: Tensor) -> None:
        nonlocal steps
        if steps % every == 0:
            numbers["loss"] = (loss.item(),)
            for name, parameter in training.model.named_parameters():
                look(name, parameter)
                look(f"{name}.grad", parameter.grad)
        steps += 1

    leaves = [(name, module) for name, module in training.model.named_modules() if not [*module.children()]]
    handles = [module.register_forward_hook(functools.partial(forward, name)) for name, module in leaves]
    watch = Watch(observe)
    yield watch
    for handle in handles:
        handle.remove()
    if every > 1:
        watch.sampled = range(0, steps, every)
