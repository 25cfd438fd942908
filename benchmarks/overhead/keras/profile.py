"""Where the time goes, in the training's thread and in the one that makes frames."""

from __future__ import annotations

import cProfile
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from overhead.functions import Function, functions_of
from overhead.keras.observer import NeuralDbgGear
from overhead.keras.training import Training
from overhead.turns import RUN_IN
from overhead.watching import nothing

TOP = 16


@dataclass(frozen=True)
class Profile:
    """The dearest functions of each thread, and in milliseconds a step what watching adds unprofiled, at the median."""

    training: list[Function]
    frames: list[Function]
    added: float


def profiled(training: Training, **options: Any) -> Profile:
    """Profile a block of steps that NeuralDbg watches with `options`.

    The profilers see Python functions alone, so that the time of TensorFlow and numpy counts where they are called
    from; it is each thread's own processor time, so that what TensorFlow computes on other threads is in neither.
    """
    steps = training.workload.block
    of_training, of_frames = (cProfile.Profile(time.thread_time, builtins=False) for _ in range(2))
    with NeuralDbgGear(**options) as gear:
        with gear(training) as watch:
            training.run(RUN_IN, watch.observe)
            times = training.run(steps, watch.observe)
        training.reset()
        without = training.run(RUN_IN + steps, nothing)[RUN_IN:]
        training.reset()
        with gear(training) as watch:
            training.run(RUN_IN, watch.observe)
            gear.in_frame_thread(of_frames.enable)
            training.run(1, lambda _: (of_training.enable(), watch.observe(None)))
            training.run(steps - 1, watch.observe)
            training.run(1, lambda _: of_training.disable())
            gear.in_frame_thread(of_frames.disable)
    return Profile(
        functions_of(of_training, steps)[:TOP],
        functions_of(of_frames, steps)[:TOP],
        added=1e3 * float(np.median(times) - np.median(without)),
    )
