"""Recorder: what the observers of all frameworks share. Frames go in; a session on disk comes out."""

from __future__ import annotations

import atexit
import itertools
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from neural.session.frame import Frame
from neural.session.info import Profiled, SessionInfo
from neural.session.layers import LayerTable
from neural.session.rank_folders import has_events, rank_folder
from neural.session.reader import SESSION_FOLDER
from neural.session.writer import SessionWriter
from neural_callbacks import ranks
from neural_callbacks.flight import FlightRecorder

logger = logging.getLogger("neuraldbg")

RECORDING = "recording"  # the part that hands frames to the writer
# What an observer says where the loss looks past a layer's output at what that was made from.
BY_LOGITS = (
    "The activation gradient of {} is that by the input of its softmax or sigmoid: the loss is computed from there."
)
# An exception's text may hold a whole tensor; a session's header has room for a few lines.
LONGEST_REASON = 1000


class Recorder:
    """Writes the session of one training run to `<log_dir>/<run_name>/neuraldbg/`.

    In a distributed job each rank has a recorder of its own: rank 1 writes to `rank_00001/` in there, and so on; the
    module `ranks` says how all of them find the same run.

    `model` is the model's name, `framework` its framework with the version; `every`, `steps` and `overhead_budget` say
    which steps are sampled and `profiled` how profiles are taken, as in `SessionInfo`.
    Without a `run_name` the run is called `MODEL-YYYYmmdd-HHMMSS`; a name that already holds a session gets -2, -3, ...
    appended. Nothing here raises into training: what fails is logged once, kept as a notice, and left off.

    Raises:
        ValueError: `run_name` does not name a folder below `log_dir`.
    """

    def __init__(
        self,
        *,
        model: str,
        framework: str,
        log_dir: str | Path,
        run_name: str | None,
        every: int | None = None,
        steps: tuple[int, ...] | None = None,
        overhead_budget: float | None = None,
        notices: Sequence[str] = (),
        profiled: Profiled = "in training",
    ) -> None:
        started = time.time()
        wanted = checked_run_name(run_name) if run_name is not None else _run_name(model, started)
        rank = ranks.find()
        # The ranks' clocks differ, and with them the names that they would make.
        topic = run_name if run_name is not None else model
        self.run_name, is_shared = _find_run(Path(log_dir), wanted, topic, rank)
        self.directory = rank_folder(Path(log_dir) / self.run_name / SESSION_FOLDER, rank.number)
        self.switched_off: set[str] = set()
        self.flight = FlightRecorder()
        self._info = SessionInfo(
            model,
            framework,
            started,
            every,
            steps=steps,
            overhead_budget=overhead_budget,
            rank=rank.number,
            world_size=rank.world_size,
            profiled=profiled,
        )
        self._step = 0
        self._process = os.getpid()
        self._lock = threading.RLock()
        self._writer: SessionWriter | None = SessionWriter(self.directory)
        self._write_info()
        # Whoever attached without a `with` block, or was thrown out of one, still gets a closed session.
        atexit.register(self._close_at_exit)
        if not is_shared:
            self.notice(ranks.NOT_AGREED.format(rank.number, rank.world_size))
        for sentence in notices:
            self.notice(sentence)

    def write_layers(self, table: LayerTable, step: int) -> None:
        """Write the layer table that frames from `step` on are numbered by; a table only grows."""
        with self.contained(RECORDING):
            if (writer := self._live_writer()) is not None:
                writer.write_layers(table, step)

    def record(self, frame: Frame) -> None:
        """Hand `frame` to the writer's thread; waits only when the writer is several frames behind."""
        with self.contained(RECORDING):
            self._step = max(self._step, frame.step)
            self.flight.add(frame)
            if (writer := self._live_writer()) is not None:
                writer.write(frame)

    def notice(self, sentence: str) -> None:
        """Log `sentence` and keep it in the session, once."""
        with self._lock:
            if sentence in self._info.notices:
                return
            self._info = replace(self._info, notices=(*self._info.notices, sentence))
        logger.warning("%s", sentence)
        self._write_info()

    @contextmanager
    def contained(self, part: str) -> Iterator[None]:
        """Keep an exception inside from reaching training: log it once, keep it as a notice, switch `part` off.

        The caller asks `part in recorder.switched_off` before it tries again.
        """
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not reach training
            self.failed(part, error)

    def failed(self, part: str, error: Exception) -> None:
        """Log once that `part` failed with `error`, keep that as a notice, and switch `part` off."""
        if part in self.switched_off:
            return
        self.switched_off.add(part)
        logger.debug("What failed in %s:", part, exc_info=error)
        self.notice(f"NeuralDbg switched {part} off after an error, training goes on: {_reason(error)}.")

    def close(self, error: BaseException | None = None) -> None:
        """Write how the run ended (finished, or failed with `error`) and everything pending; safe to call again."""
        with self._lock:
            writer, self._writer = self._writer, None
        if writer is None:
            return
        atexit.unregister(self._close_at_exit)
        if os.getpid() != self._process:
            return  # a forked worker leaves the session to the process that opened it
        with self._lock:
            if error is None or (isinstance(error, SystemExit) and not error.code):
                self._info = replace(self._info, status="finished")
            else:
                self._info = replace(self._info, status="failed", ended_because=_reason(error))
        with self.contained(RECORDING):
            writer.write_info(self._info, self._step)
            writer.close()

    def _close_at_exit(self) -> None:
        # sys.last_value is what ended the script; an interactive session keeps there what failed long before.
        self.close(None if hasattr(sys, "ps1") else getattr(sys, "last_value", None))

    def _write_info(self) -> None:
        with self.contained(RECORDING):
            if (writer := self._live_writer()) is not None:
                writer.write_info(self._info, self._step)

    def _live_writer(self) -> SessionWriter | None:
        return None if RECORDING in self.switched_off else self._writer


def _find_run(log_dir: Path, wanted: str, topic: str, rank: ranks.Rank) -> tuple[str, bool]:
    """Return the name of the run that this rank writes to, and whether the job's other ranks have the same."""
    agreed = ranks.agree(topic, lambda: _free_name(log_dir, wanted), rank, log_dir)
    # On a disk of its own, a machine may hold a run of that name which the others know nothing of.
    if agreed is not None and not has_events(rank_folder(log_dir / agreed / SESSION_FOLDER, rank.number)):
        return agreed, True
    return _free_name(log_dir, f"{wanted}-rank{rank.number}"), False


def _free_name(log_dir: Path, wanted: str) -> str:
    """Return the first of `wanted`, `wanted`-2, ... that holds no session, and make its folder."""
    names = itertools.chain([wanted], (f"{wanted}-{number}" for number in itertools.count(2)))
    return next(name for name in names if _makes(log_dir / name / SESSION_FOLDER))


def _makes(folder: Path) -> bool:
    """Make a folder; return False where it was there before. Where the disk refuses, the writer tells, once, why."""
    try:
        folder.mkdir(parents=True)
    except OSError:
        return not os.path.isdir(folder)  # noqa: PTH112 - Path.is_dir raises where one may not look
    return True


def checked_run_name(run_name: str) -> str:
    """Return `run_name`.

    Raises:
        ValueError: it does not name a folder below the log directory.
    """
    path = Path(run_name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError(
            f"run_name={run_name!r} is not a folder below log_dir; write a plain name, as run_name='mnist-1'."
        )
    return run_name


def _run_name(model: str, started: float) -> str:
    moment = datetime.fromtimestamp(started).astimezone()
    return f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', model) or 'model'}-{moment:%Y%m%d-%H%M%S}"


def _reason(error: BaseException) -> str:
    text = f"{type(error).__name__}: {error}".removesuffix(": ")
    return text if len(text) <= LONGEST_REASON else text[:LONGEST_REASON] + " ..."
