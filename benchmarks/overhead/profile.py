"""Where the time goes: the functions of NeuralDbg by their own time."""

from __future__ import annotations

import cProfile
import pstats
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import neural
import neural_callbacks
from overhead.observer import neuraldbg
from overhead.training import Training, nothing
from overhead.turns import RUN_IN

OURS = tuple(str(Path(str(package.__file__)).parent) for package in (neural, neural_callbacks))
TOP = 12


@dataclass(frozen=True)
class Function:
    """A function of ours, per step: its calls, its own milliseconds with C functions, and those with all it calls."""

    name: str
    calls: float
    own: float
    cumulative: float


@dataclass(frozen=True)
class Profile:
    """In milliseconds a step: the dearest functions, all of ours together, and what watching adds unprofiled."""

    functions: list[Function]
    total: float
    added: float


def profiled(training: Training, **options: Any) -> Profile:
    """Profile a block of steps that NeuralDbg watches with `options`.

    The profiler sees Python functions alone, so that torch's own time counts where it is called from, and slows a
    step by far less than with each call into C. It sees one thread: neither the writer's, nor that in which autograd
    runs hooks on a GPU.
    """
    steps = training.workload.block
    training.reset()
    without = training.run(RUN_IN + steps, nothing)[RUN_IN:]
    training.reset()
    with neuraldbg(training, **options) as watched:
        times = training.run(RUN_IN + steps, watched.observe)[RUN_IN:]
    training.reset()
    profiler = cProfile.Profile(training.clock, builtins=False)
    with neuraldbg(training, **options) as watched:
        training.run(RUN_IN, watched.observe)
        with profiler:
            training.run(steps, watched.observe)
    functions = [
        Function(f"{_short(file)}:{name}", calls / steps, 1e3 * own / steps, 1e3 * cumulative / steps)
        for (file, _, name), (_, calls, own, cumulative, _) in pstats.Stats(profiler).stats.items()
        if file.startswith(OURS)
    ]
    functions.sort(key=lambda function: -function.own)
    return Profile(
        functions[:TOP],
        total=sum(function.own for function in functions),
        added=1e3 * float(np.median(times) - np.median(without)),
    )


def _short(file: str) -> str:
    return "/".join(Path(file).parts[-2:]).removesuffix(".py")
