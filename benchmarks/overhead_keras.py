"""What watching costs a Keras training on this machine: fits of a watched and a plain model in turn.

    python benchmarks/overhead_keras.py [--steps 60] [--rounds 9] [--every 10] [--workload dense] [--short] [--busy]

For each workload, one model without the callback and one with it are trained in turn, `--steps` steps a fit. A ratio is
the median over the rounds of the ratio of a watched fit to the plain one before it, so that a machine that gets slower
in between does not count. The first fit of each, which traces and compiles, is no round; its time until the steps are
as fast as later ones stands in a column of its own, beside what the plain model takes for the same. On a machine that
others use too, `--busy` measures one thread's work in processor time in place of the time that passes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from neural_callbacks import NeuralDbgCallback

WARM_UP = 10  # steps of a fit before the clock starts: its own overhead, and the sample at its first step
CLASSES = 10


@dataclass(frozen=True)
class Workload:
    """A model, the shape of one batch for it, and how many times more steps it runs than `--steps` says."""

    name: str
    model: Callable[[], Any]
    batch: tuple[int, ...]
    repeat: int = 1


def cnn() -> Any:
    """Return a convolutional network on 32x32 images: 4 convolutions with batch normalization, 17 layers."""
    stack: list[Any] = [keras.Input((32, 32, 3))]
    for filters, strides in ((16, 1), (16, 1), (32, 2), (32, 1)):
        stack += [layers.Conv2D(filters, 3, strides, padding="same", use_bias=False), layers.BatchNormalization()]
        stack += [layers.Activation("relu")]
    stack += [layers.GlobalAveragePooling2D(), layers.Dropout(0.1), layers.Dense(CLASSES, activation="softmax")]
    return keras.Sequential(stack)


def dense() -> Any:
    """Return three dense layers, 784-256-256-10."""
    return keras.Sequential(
        [
            keras.Input((784,)),
            layers.Dense(256, activation="relu"),
            layers.Dense(256, activation="relu"),
            layers.Dense(CLASSES, activation="softmax"),
        ]
    )


WORKLOADS = (Workload("cnn", cnn, (32, 32, 32, 3)), Workload("dense", dense, (64, 784), repeat=10))


class Clock(keras.callbacks.Callback):
    """Times the steps of each fit from `WARM_UP` on, and all of them."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self.clock = clock
        self.begun = self.warm = self.ended = 0.0

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Start the clocks."""
        del logs
        if batch == 0:
            self.begun = self.clock()
        if batch == WARM_UP:
            self.warm = self.clock()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Read them."""
        del batch, logs
        self.ended = self.clock()


class Training:
    """One model, its data, and the callbacks it is trained with."""

    def __init__(self, workload: Workload, steps: int, clock: Callable[[], float], *watching: Any) -> None:
        keras.utils.set_random_seed(0)
        self.model = workload.model()
        self.model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        numbers = np.random.default_rng(0)
        x = numbers.normal(size=(4 * workload.batch[0], *workload.batch[1:])).astype("float32")
        y = numbers.integers(0, CLASSES, size=len(x))
        self.data = tf.data.Dataset.from_tensor_slices((x, y)).batch(workload.batch[0]).cache().repeat()
        self.steps = WARM_UP + steps
        self.clock = Clock(clock)
        self.callbacks = [self.clock, *watching]
        self.fit()
        self.starting = self.clock.warm - self.clock.begun

    def fit(self) -> float:
        """Train; return the seconds of one step."""
        self.model.fit(self.data, steps_per_epoch=self.steps, verbose=0, callbacks=self.callbacks)
        return (self.clock.ended - self.clock.warm) / (self.steps - WARM_UP)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description="What NeuralDbg costs a Keras training, as ratios to plain fits.")
    parser.add_argument("--steps", type=int, default=60, help="steps a fit (ten times as many for the dense net)")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--every", type=int, default=10, help="the sampling interval, in steps")
    parser.add_argument("--workload", choices=[workload.name for workload in WORKLOADS])
    parser.add_argument("--short", action="store_true", help="20 steps, 3 rounds: to see that it runs")
    parser.add_argument("--busy", action="store_true", help="one thread, processor time: for a machine in use")
    options = parser.parse_args()
    clock = time.process_time if options.busy else time.perf_counter
    if options.busy:
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    steps, rounds = (20, 3) if options.short else (options.steps, options.rounds)
    print(f"tensorflow {tf.__version__}, keras {keras.__version__}, {os.cpu_count()} cores, {rounds} rounds")
    print(f"{'workload':10}{'plain':>12}   every {options.every}: median [min, max]     first steps: plain, watched")
    for workload in WORKLOADS:
        if options.workload not in (None, workload.name):
            continue
        with tempfile.TemporaryDirectory() as logdir:
            plain = Training(workload, steps * workload.repeat, clock)
            watched = Training(workload, steps * workload.repeat, clock, NeuralDbgCallback(logdir, every=options.every))
            times = [(plain.fit(), watched.fit()) for _ in range(rounds)]
        ratios = [with_us / without for without, with_us in times]
        milliseconds = 1e3 * statistics.median(without for without, _ in times)
        print(
            f"{workload.name:10}{milliseconds:9.2f} ms{statistics.median(ratios):12.3f}"
            f" [{min(ratios):.3f}, {max(ratios):.3f}]{plain.starting:19.1f} s,{watched.starting:6.1f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
