"""SessionWriter: appends a session to its event file from a thread of its own."""

from __future__ import annotations

import atexit
import itertools
import logging
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from neural.session import records, summaries
from neural.session.frame import Frame
from neural.session.info import SessionInfo
from neural.session.layers import LayerTable

logger = logging.getLogger("neuraldbg")

# Training waits when this much has been handed over and is not yet on disk.
MAX_PENDING_BYTES = 16 * 2**20
# The thread writes at once when this much is waiting, else once in `refresh_rate`.
EAGER_BYTES = 2**20

_serial = itertools.count()


@dataclass(frozen=True)
class _Job:
    """Something to write. What has a name is essential: it is kept for the next try when the disk refuses it."""

    encode: Callable[[], Iterable[bytes]]
    size: int = 0
    name: str = ""

    @property
    def is_essential(self) -> bool:
        return bool(self.name)


class SessionWriter:
    """Writes one session into `directory`, which is made if need be.

    Nothing here raises into training: a directory that cannot be made and a disk that refuses are reported once,
    through the logger "neuraldbg"; frames that could not be written are counted, and writing goes on when the disk
    allows. A run that is deleted in mid-training begins anew, with its layer table. A forked child of the process
    has the object but not its thread: there, nothing is taken or written. `refresh_rate` is the longest time, in
    seconds, until what was handed over is on disk. At the same pace the file's modification time is renewed, so that
    a reader can tell a run that is slow from one that died.
    Arrays of a frame must not be changed after they were handed over.
    """

    def __init__(self, directory: Path, *, refresh_rate: float = 1.0) -> None:
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}.{next(_serial)}"
        self.path = directory / name
        self.lost_frames = 0
        self._refresh_rate = refresh_rate
        self._process = os.getpid()
        self._file: int | None = None
        self._size = 0
        self._jobs: deque[_Job] = deque()
        self._written: dict[str, _Job] = {}
        self._pending = 0
        self._changed = threading.Condition()
        self._is_closing = False
        self._is_flushing = False
        self._reported = False
        self._thread = threading.Thread(target=self._run, name="neuraldbg-writer", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def write_info(self, info: SessionInfo, step: int) -> None:
        """Write what the session says of itself; a later record replaces an earlier one."""
        now = time.time()
        self._put(_Job(lambda: [summaries.info_event(info, step, now)], name=summaries.INFO_TAG))

    def write_layers(self, table: LayerTable, step: int) -> None:
        """Write the layer table that holds from `step` on."""
        now = time.time()
        self._put(_Job(lambda: [summaries.layers_event(table, step, now)], name=summaries.LAYERS_TAG))

    def write(self, frame: Frame) -> None:
        """Hand over a frame. Waits only when more than 16 MiB are on their way to the disk already."""
        size = sum(matrix.nbytes for matrix in (*frame.matrices.values(), *frame.profiles.values()))
        size += sum(histograms.entries.nbytes for histograms in frame.histograms.values())
        self._put(_Job(lambda: summaries.frame_events(frame), size))

    def flush(self) -> None:
        """Return when everything handed over so far is on disk, or was refused by it."""
        if not self._is_alive():
            return
        with self._changed:
            self._is_flushing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._is_flushing or not self._is_alive())

    def close(self) -> None:
        """Write what is left and close the file. Further frames are not taken. May be called again."""
        if not self._is_alive():
            return
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join()
        atexit.unregister(self.close)

    def _is_alive(self) -> bool:
        return os.getpid() == self._process and self._thread.is_alive()

    def _put(self, job: _Job) -> None:
        if not self._is_alive():
            return
        with self._changed:
            self._changed.wait_for(
                lambda: not self._pending or self._pending + job.size <= MAX_PENDING_BYTES or not self._is_alive()
            )
            if self._is_closing:
                return
            self._jobs.append(job)
            self._pending += job.size
            if self._pending >= EAGER_BYTES:
                self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._is_closing or self._is_flushing or self._pending >= EAGER_BYTES, self._refresh_rate
                )
                jobs, is_closing, is_flushing = list(self._jobs), self._is_closing, self._is_flushing
                self._jobs.clear()
            kept = self._write(jobs)
            with self._changed:
                self._jobs.extendleft(reversed(kept))
                self._pending -= sum(job.size for job in jobs)
                if is_flushing:
                    self._is_flushing = False
                self._changed.notify_all()
            if is_closing:
                break
        if self._file is not None:
            os.close(self._file)
        if self.lost_frames:
            logger.warning("NeuralDbg could not record %d frames in %s.", self.lost_frames, self.path)

    def _write(self, jobs: list[_Job]) -> list[_Job]:
        """Write `jobs`; return those to try again later."""
        waiting = deque(jobs)
        try:
            file = self._open()
            if not waiting:
                os.utime(file)
            while waiting:
                self._write_batch(file, waiting)
        except OSError as error:
            self._report_once(f"cannot write {self.path}: {error.strerror or error}")
        self.lost_frames += sum(not job.is_essential for job in waiting)
        return [job for job in waiting if job.is_essential]

    def _write_batch(self, file: int, waiting: deque[_Job]) -> None:
        """Write about a megabyte of `waiting` and take off what is on disk, or cannot be encoded."""
        batch: list[tuple[_Job, list[bytes]]] = []
        size = 0
        while waiting and size < EAGER_BYTES:
            job = waiting.popleft()
            try:
                parts = [records.encode(data) for data in job.encode()]
            except Exception:  # noqa: BLE001 - a frame that cannot be encoded must not end the thread
                self._report_once("could not encode a frame", exc_info=True)
                self.lost_frames += not job.is_essential
                continue
            batch.append((job, parts))
            size += sum(map(len, parts))
        start = self._size
        try:
            self._append(file, [part for _, parts in batch for part in parts])
        except OSError:
            ends = itertools.accumulate((sum(map(len, parts)) for _, parts in batch), initial=start)
            whole = sum(end <= self._size for end in ends) - 1
            waiting.extendleft(job for job, _ in reversed(batch[whole:]))
            raise
        self._written |= {job.name: job for job, _ in batch if job.is_essential}

    def _open(self) -> int:
        if self._file is not None and not os.fstat(self._file).st_nlink:
            # The run was deleted under us: what follows is a session of its own, and begins with what it is of.
            os.close(self._file)
            self._file, self._size = None, 0
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            first = [summaries.file_version_event(time.time())]
            first += [data for job in self._written.values() for data in job.encode()]
            try:
                self._append(file, [records.encode(data) for data in first])
            except OSError:
                os.close(file)
                raise
            self._file = file
        return self._file

    def _append(self, file: int, parts: list[bytes]) -> None:
        """Append records. On an error the whole ones stay: no torn record may stand before a later one."""
        data = b"".join(parts)
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(file, view) :]
        except OSError:
            ends = itertools.accumulate(map(len, parts), initial=0)
            self._size += max(end for end in ends if end <= len(data) - len(view))
            os.ftruncate(file, self._size)
            raise
        self._size += len(data)

    def _report_once(self, what: str, *, exc_info: bool = False) -> None:
        if not self._reported:
            self._reported = True
            logger.warning(
                "NeuralDbg %s. Training goes on; what cannot be written is not recorded.", what, exc_info=exc_info
            )
