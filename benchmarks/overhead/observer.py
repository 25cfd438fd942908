"""NeuralDbg as a gear."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from neural.session.reader import SessionReader
from neural_callbacks import NeuralDbg
from neural_callbacks.schedule import HISTOGRAMS_EVERY
from overhead.estimate import Shares, kinds_of, shares_of
from overhead.training import Training
from overhead.watching import Watch


class SwitchedOffError(Exception):
    """A part of the observer failed and was switched off: what was timed is not what it costs."""


@contextmanager
def neuraldbg(training: Training, **options: Any) -> Iterator[Watch]:
    """Watch with NeuralDbg and its `options`; which steps were sampled is read from the session that it wrote.

    Raises:
        SwitchedOffError: something failed in there.
    """
    with tempfile.TemporaryDirectory() as log_dir:
        observer = NeuralDbg(training.model, training.optimizer, log_dir, **options)
        with observer:
            watch = Watch(flush=_flush_of(observer))
            yield watch
        session = SessionReader(observer.directory)
        session.refresh()
        for notice in session.info().notices:
            if "switched" in notice:
                raise SwitchedOffError(notice)
        watch.sampled, watch.full = session.steps().tolist(), session.profile_steps("trace").tolist()


def shares_at(every: int) -> Shares:
    """Return the kinds of steps in a long training that is sampled on every `every`-th."""
    period = every * HISTOGRAMS_EVERY
    return shares_of(kinds_of(np.arange(period, 2 * period), range(0, 2 * period, every), [period]))


def _flush_of(observer: NeuralDbg) -> Callable[[], None]:
    """Return what waits for the observer's thread; only who asks what writing costs needs that."""
    return observer._recorder._live_writer().flush  # noqa: SLF001
