"""Options: what a user may ask of an observer of Keras."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import keras

from neural_callbacks import ranks
from neural_callbacks.keras.watch import Watch
from neural_callbacks.recorder import Recorder, checked_run_name
from neural_callbacks.schedule import Schedule, schedule_from


@dataclass(frozen=True)
class Options:
    """As `NeuralDbgCallback` explains them; `schedule` stands for `every`, `steps` and `overhead_budget`."""

    log_dir: str | Path
    run_name: str | None
    schedule: Schedule
    histograms: bool
    sentinel: bool
    notices: tuple[str, ...]

    @classmethod
    def checked(
        cls,
        *,
        log_dir: str | Path,
        run_name: str | None,
        every: int | None,
        steps: Iterable[int] | None,
        overhead_budget: float | None,
        histograms: bool,
        sentinel: bool,
        notices: Sequence[str],
    ) -> Self:
        """Return the options.

        Raises:
            ValueError: one of them cannot be used; the text says what can.
        """
        return cls(
            log_dir,
            None if run_name is None else checked_run_name(run_name),
            schedule_from(every=every, steps=steps, overhead_budget=overhead_budget),
            histograms,
            sentinel,
            tuple(notices),
        )

    def watch(self, model: Any, step: int = 0) -> Watch:
        """Open a session of `model`, whose next step is number `step`, in the log directory."""
        backend = keras.backend.backend()
        profiles_apart = backend == "tensorflow" and model.distribute_strategy.num_replicas_in_sync == 1
        schedule = self.schedule.anew(aligned=ranks.find().world_size > 1, profiles_apart=profiles_apart)
        recorder = Recorder(
            model=model.name,
            framework=f"{backend} {sys.modules[backend].__version__}, keras {keras.__version__}",
            log_dir=self.log_dir,
            run_name=self.run_name,
            every=schedule.every,
            steps=schedule.steps,
            overhead_budget=schedule.overhead_budget,
            notices=self.notices,
            profiled="apart" if profiles_apart and not model.run_eagerly else "in training",
        )
        return Watch(recorder, schedule, step=step, histograms=self.histograms, sentinel=self.sentinel)
