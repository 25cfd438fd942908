"""Train in this process and print its times: `python -m overhead.keras.process WORKLOAD KIND EPOCHS wall|busy`.

One line of JSON comes out, `Times` as an object. The kinds are "plain", those of others ("dump-CURT_HEALTH" and so on,
"check-numerics", "tensorboard") and "neuraldbg", sampled on every tenth step: its instrumented function is traced in
step 0, and the sentinel's in step 1.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf

from overhead.keras.first_steps import WARM_UP, times_of
from overhead.keras.workloads import WORKLOADS


class _Marks(keras.callbacks.Callback):  # type: ignore[misc]
    """Takes the time at the begin of each step, by epoch."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self._clock = clock
        self.epochs: list[list[float]] = []

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Take the time."""
        del logs
        if batch == 0:
            self.epochs.append([])
        self.epochs[-1].append(self._clock())


def use_one_thread() -> None:
    """Have TensorFlow compute on one thread, so that processor time is the time of a step."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def main() -> None:
    """Train, and print."""
    name, kind, epochs, how = sys.argv[1:]
    (workload,) = (workload for workload in WORKLOADS if workload.name == name)
    if how == "busy":
        use_one_thread()
    marks = _Marks(time.process_time if how == "busy" else time.perf_counter)
    with tempfile.TemporaryDirectory() as folder:
        watching = _watching(kind, folder)
        workload.compiled().fit(
            workload.data(),
            steps_per_epoch=workload.steps,
            epochs=int(epochs),
            verbose=0,
            shuffle=False,
            callbacks=[marks, *watching],
        )
        tracing = _tracing(watching[0].directory) if kind == "neuraldbg" else None
    print(json.dumps(asdict(times_of(marks.epochs, tracing))))


def _watching(kind: str, folder: str) -> list[Any]:
    """Put `kind` on, for the models that are made after that; return its callbacks."""
    if kind.startswith("dump-"):
        tf.debugging.experimental.enable_dump_debug_info(folder, kind.removeprefix("dump-"))
    elif kind == "check-numerics":
        tf.debugging.enable_check_numerics()
    elif kind == "tensorboard":
        return [keras.callbacks.TensorBoard(folder, histogram_freq=1)]
    elif kind == "neuraldbg":
        # A training without must not carry what it does not use.
        from neural_callbacks import NeuralDbgCallback  # noqa: PLC0415

        return [NeuralDbgCallback(folder, every=WARM_UP)]
    return []


def _tracing(directory: Path) -> float | None:
    from neural.session.reader import SessionReader  # noqa: PLC0415 - as above

    session = SessionReader(directory)
    session.refresh()
    return session.newest_scalar("tracing_seconds")


if __name__ == "__main__":
    main()
