"""What the command says while it works: plain lines, and on a terminal a bar for the epoch at hand."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text

from neural.cli.interruption import Interruption
from neural.cli.server import TensorBoardProcess
from neural.training.progress import Progress

# Of what a line is about, in characters: "epoch 100/100" and a space.
LABEL_WIDTH = 14


class ConsoleProgress(Progress):
    """Says how training goes; a context manager around it, for the bar and for what is logged meanwhile.

    After each batch it lets a lost `interruption` through again, and sees whether `server` is still there. What
    NeuralDbg logs appears here too, each sentence once.
    """

    def __init__(self, interruption: Interruption, server: TensorBoardProcess | None = None) -> None:
        self._console = Console()
        self._interruption = interruption
        self._server = server
        self._said: set[str] = set()
        self._log = _LogToConsole(self)
        self._epoch_started = time.monotonic()
        self._epoch = 0
        self._epochs = 0
        self._batches = 0
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        logging.getLogger("neuraldbg").addHandler(self._log)
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_interactive:
            self._bars.stop()
        logging.getLogger("neuraldbg").removeHandler(self._log)

    def say(self, what: str, sentence: str) -> None:
        """Print one line: what it is about, and it."""
        # Nothing in a sentence is markup, and a terminal's width does not cut an address or a path in two.
        self._console.print(Text.assemble((f"{what:<{LABEL_WIDTH}}", "bold"), sentence), soft_wrap=True)

    def on_notice(self, sentence: str) -> None:
        """Say it, once."""
        if sentence not in self._said:
            self._said.add(sentence)
            self.say("notice", sentence)

    def on_start(self, epochs: int, batches: int) -> None:
        """Show the bar of the first epoch."""
        self._epochs, self._batches = epochs, batches
        # Where nobody watches the bar move, rich would leave empty lines in its place.
        if self._console.is_interactive:
            self._bars.start()

    def on_batch(self, epoch: int, batch: int) -> None:
        """Move the bar."""
        if epoch != self._epoch:
            self._epoch = epoch
            self._epoch_started = time.monotonic()
            self._remove_bar()
            self._task = self._bars.add_task(f"epoch {epoch}/{self._epochs}", total=self._batches)
        if self._task is not None:
            self._bars.update(self._task, completed=batch)
        self._interruption.check()
        if self._server is not None and not self._server.alive():
            self.on_notice(
                f"TensorBoard has ended; training goes on and is recorded. Its last words: {self._server.last_words()}"
            )

    def on_epoch(self, epoch: int, epochs: int, loss: float, metrics: Mapping[str, float]) -> None:
        """Say the epoch's figures."""
        self._remove_bar()
        seconds = time.monotonic() - self._epoch_started
        self.say(f"epoch {epoch}/{epochs}", f"{_figures(loss, metrics)}  ({seconds:.1f} s)")

    def on_test(self, loss: float, metrics: Mapping[str, float]) -> None:
        """Say the figures of the test."""
        self.say("test", _figures(loss, metrics))

    def _remove_bar(self) -> None:
        if self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None


def _figures(loss: float, metrics: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in {"loss": loss, **metrics}.items())


class _LogToConsole(logging.Handler):
    def __init__(self, progress: ConsoleProgress) -> None:
        super().__init__(logging.WARNING)
        self._progress = progress

    def emit(self, record: logging.LogRecord) -> None:
        self._progress.on_notice(record.getMessage())
