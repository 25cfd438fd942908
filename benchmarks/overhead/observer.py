"""NeuralDbg on PyTorch as a gear."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from neural.session.reader import SessionReader
from neural_callbacks import NeuralDbg
from overhead.sessions import require_whole
from overhead.training import Training
from overhead.watching import Watch


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
        require_whole(session)
        watch.sampled, watch.full = session.steps().tolist(), session.profile_steps("trace").tolist()


def _flush_of(observer: NeuralDbg) -> Callable[[], None]:
    """Return what waits for the observer's thread; only who asks what writing costs needs that."""
    return observer._recorder._live_writer().flush  # noqa: SLF001
