"""Where the time goes: the functions of NeuralDbg by their own time."""

from __future__ import annotations

import cProfile
from dataclasses import dataclass
from typing import Any

import numpy as np

from overhead.functions import Function, functions_of
from overhead.observer import neuraldbg
from overhead.training import Training
from overhead.turns import RUN_IN
from overhead.watching import nothing

TOP = 12


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
    functions = functions_of(profiler, steps)
    return Profile(
        functions[:TOP],
        total=sum(function.own for function in functions),
        added=1e3 * float(np.median(times) - np.median(without)),
    )
