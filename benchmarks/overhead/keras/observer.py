"""NeuralDbgCallback as a gear."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import numpy as np

from neural.session.frame import KINDS
from neural.session.reader import SessionReader
from neural_callbacks import NeuralDbgCallback
from neural_callbacks.governor import RAREST_WAIT, WARM_UP_STEPS
from overhead.keras.training import Training
from overhead.sessions import require_whole
from overhead.turns import RUN_IN
from overhead.watching import Watch

# A training with a budget is timed when it has paid for the samples that it begins with: from its next one on, or after
# so many steps where it affords none.
MOST_SETTLING_STEPS = 2 * RAREST_WAIT


class NeuralDbgGear:
    """Watches a training with one `NeuralDbgCallback(**options)`, which traces its functions once, the first time.

    With `keeps_on`, what it watches from block to block is one long training, as a budget is kept over; else each block
    is a training of its own. Everything is called while `fit` stands between two steps. What is kept on disk is gone
    at the end of the `with` block that it is used in.
    """

    def __init__(self, *, keeps_on: bool = False, **options: Any) -> None:
        self._keeps_on = keeps_on
        self._folder = tempfile.TemporaryDirectory(prefix="neuraldbg-")
        self._callback = NeuralDbgCallback(self._folder.name, **options)
        self._session: SessionReader | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        if self._keeps_on and self._session is not None:
            self._end()
        self._folder.cleanup()

    @contextmanager
    def __call__(self, training: Training) -> Iterator[Watch]:
        """Watch; which steps were sampled is read from the session that was written.

        Raises:
            SwitchedOffError: something failed in there.
        """
        if self._session is None:
            self._prepare(training)
        if not self._keeps_on:
            self._begin(training)
        begun = _watch_of(self._callback).step
        watch = Watch(self._observe, self.flush)
        yield watch
        if not self._keeps_on:
            self._end()
        session = self._refreshed()
        full = np.unique(np.concatenate([session.histogram_steps(kind) for kind in KINDS]))
        watch.sampled, watch.full = (session.steps() - begun).tolist(), (full - begun).tolist()

    def flush(self) -> None:
        """Return when all that was sampled is on disk."""
        self.in_frame_thread(lambda: None)
        _watch_of(self._callback).recorder._live_writer().flush()  # noqa: SLF001 - only who asks what writing costs

    def in_frame_thread(self, call: Callable[[], Any]) -> None:
        """Have `call` made in the thread that makes frames, after those that wait there."""
        _watch_of(self._callback)._thread.submit(call).result()  # noqa: SLF001 - the same

    def _observe(self, loss: None) -> None:
        del loss
        self._callback.on_train_batch_begin(0)

    def _begin(self, training: Training) -> None:
        self._callback.set_model(training.model)
        self._callback.set_params({"steps": None})
        self._callback.on_train_begin()
        self._session = SessionReader(self._callback.directory)

    def _end(self) -> None:
        self._callback.on_train_end()
        self._callback._step = 0  # noqa: SLF001 - the next block is not the same training going on

    def _refreshed(self) -> SessionReader:
        self._session.refresh()
        require_whole(self._session)
        return self._session

    def _prepare(self, training: Training) -> None:
        """Have the functions traced, and a budget pay for the beginning."""
        self._begin(training)
        training.run(RUN_IN, self._observe)
        if not self._keeps_on:
            self._end()
            return
        for _ in range(MOST_SETTLING_STEPS // training.workload.block):
            training.run(training.workload.block, self._observe)
            self.flush()
            if len(self._refreshed().steps()) > WARM_UP_STEPS:
                break


def _watch_of(callback: NeuralDbgCallback) -> Any:
    return callback._watch  # noqa: SLF001 - there is no other way to the threads of what watches
