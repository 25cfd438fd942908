"""What a training loop reports, and where a session of it goes; known to both backends, and knows neither."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Observation:
    """Where the session of an observed training goes, `<log_dir>/<run_name>/neuraldbg`, and which steps it has.

    `run_name` None lets the observer make one of the network's name and the time. Every `every`-th step is measured, or
    as many as `overhead_budget` allows, a share of the training time; where both are None, what the observer has as its
    default.
    """

    log_dir: str | Path
    run_name: str | None = None
    every: int | None = None
    overhead_budget: float | None = None


class Progress:
    """Hears how training goes; every method does nothing until it is overridden.

    Epochs and batches count from 1. Metrics are by name, validation figures under `val_` names; shares are 0..1.
    """

    def on_notice(self, sentence: str) -> None:
        """Hear something that the user should know, such as a data set that stands in for another."""

    def on_start(self, epochs: int, batches: int) -> None:
        """Hear, before the first batch, how many epochs there will be and how many batches each has."""

    def on_batch(self, epoch: int, batch: int) -> None:
        """Hear that a batch is done."""

    def on_epoch(self, epoch: int, epochs: int, loss: float, metrics: Mapping[str, float]) -> None:
        """Hear that an epoch is done; `loss` is the mean over its samples."""

    def on_test(self, loss: float, metrics: Mapping[str, float]) -> None:
        """Hear how the trained network does on the test images."""
