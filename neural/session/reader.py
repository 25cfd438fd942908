"""SessionReader: an index of a session that grows with its files, and its frames on demand."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neural.session import statistics, summaries
from neural.session.anomaly import Anomaly
from neural.session.event_file import EventFile
from neural.session.frame import KINDS, PROFILES, Frame
from neural.session.histogram import Histograms
from neural.session.info import SessionInfo
from neural.session.layers import LayerTable
from neural.session.rank_folders import ranks
from neural.session.statistics import FloatArray

Steps = NDArray[np.int64]

SESSION_FOLDER = summaries.PLUGIN_NAME
# A place is a file's serial number and an offset in it, of at most so many bits (16 TiB).
_OFFSET_BITS = 44
# Statistics are computed over so many frames at once: enough to vectorise, little enough for the cache.
BLOCK_FRAMES = 128


@dataclass(frozen=True)
class _Index:
    """One tag over all files, by step: the newest value of each."""

    steps: Steps
    wall_times: FloatArray
    files: NDArray[np.int64]
    offsets: NDArray[np.int64]
    lengths: NDArray[np.int64]
    contents: NDArray[np.int64]
    heights: NDArray[np.int64]

    @property
    def newest(self) -> int:
        """The number of the value that was written last; the steps of a training may start anew."""
        return len(self.steps) - 1 - int(np.argmax(self.wall_times[::-1]))


_EMPTY = _Index(np.empty(0, np.int64), np.empty(0), *(np.empty(0, np.int64) for _ in range(5)))


class SessionReader:
    """Reads the session in `directory` (…/RUN/neuraldbg), while it is being written or afterwards.

    Keeps an index, a few numbers per value, and reads values when asked: its memory grows with the number of frames,
    not with their size. Damaged records are passed over and counted in `problems`; everything else stays readable.
    Where several files or records give the same step, the one written last counts. Safe to use from several threads.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lock = threading.RLock()
        self._files: dict[str, EventFile] = {}
        self._order: list[EventFile] = []
        self._unreadable: dict[str, str] = {}
        self._indices: dict[str, _Index] = {}
        self._all_steps: Steps | None = None
        self._token = f"{time.time_ns():x}"
        self._changes = 0

    @property
    def revision(self) -> str:
        """A text that changes whenever something that can be read from here does."""
        return f"{self._token}-{self._changes}"

    @property
    def problems(self) -> tuple[str, ...]:
        """Sentences about what could not be read."""
        with self._lock:
            unreadable = (f"{name} cannot be read: {why}." for name, why in self._unreadable.items())
            return (*unreadable, *(problem for file in self._order for problem in file.problems()))

    @property
    def last_written(self) -> float | None:
        """When a file was last written to, in seconds since the epoch; None while there is none."""
        with self._lock:
            return max((os.fstat(file.descriptor).st_mtime for file in self._order), default=None)

    def refresh(self) -> bool:
        """Take in what was written since the last call; return whether there was anything new."""
        with self._lock:
            changed = self._find_files()
            for file in self._order:
                changed |= file.grow()
            if changed:
                self._indices.clear()
                self._all_steps = None
                self._changes += 1
            return changed

    def _find_files(self) -> bool:
        """Bring `_files` up to date with the directory: new files, vanished ones, replaced or shortened ones."""
        names = {entry.name for entry in os.scandir(self.directory)} if self.directory.is_dir() else set()
        before = (self._order, self._unreadable)
        kept: dict[str, EventFile] = {}
        unreadable: dict[str, str] = {}
        for name in sorted(name for name in names if "tfevents" in name):
            path = self.directory / name
            known = self._files.get(name)
            try:
                status = path.stat()
                if not stat.S_ISREG(status.st_mode):
                    continue  # opening a pipe would wait for whoever writes to it
                is_same = (
                    known is not None and status.st_ino == known.identity and status.st_size >= known.scanner.position
                )
                kept[name] = known if known is not None and is_same else EventFile(path)
            except FileNotFoundError:
                continue  # it vanished between the listing and here
            except OSError as error:
                unreadable[name] = error.strerror or str(error)
        self._files, self._unreadable = kept, unreadable
        self._order = list(kept.values())
        return (self._order, self._unreadable) != before

    def _index(self, tag: str) -> _Index:
        with self._lock:
            if tag not in self._indices:
                self._indices[tag] = self._make_index(tag)
            return self._indices[tag]

    def _make_index(self, tag: str) -> _Index:
        found = [(number, file.entries[tag]) for number, file in enumerate(self._order) if tag in file.entries]
        if not found:
            return _EMPTY

        def joined(name: str) -> NDArray[np.int64]:
            return np.concatenate([np.array(getattr(entries, name), np.int64) for _, entries in found])

        steps = joined("steps")
        wall_times = np.concatenate([np.array(entries.wall_times) for _, entries in found])
        files = np.repeat([number for number, _ in found], [len(entries.steps) for _, entries in found])
        order = np.lexsort((wall_times, steps))
        is_last = np.append(np.diff(steps[order]) > 0, True)
        chosen = order[is_last]
        rest = ("offsets", "lengths", "contents", "heights")
        return _Index(steps[chosen], wall_times[chosen], files[chosen], *(joined(name)[chosen] for name in rest))

    def _value(self, tag: str, step: int) -> summaries.Value:
        with self._lock:
            index = self._index(tag)
            at = int(np.searchsorted(index.steps, step))
            if at == len(index.steps) or index.steps[at] != step:
                raise LookupError(f"The session has no {tag} at step {step}.")
            return self._value_at(index, at, tag)

    def _value_at(self, index: _Index, at: int, tag: str) -> summaries.Value:
        file = self._order[index.files[at]]
        data = file.read(int(index.offsets[at]), int(index.lengths[at]))
        return next(value for value in summaries.parse(data) if value.tag == tag)

    def _newest_text(self, tag: str) -> str | None:
        index = self._index(tag)
        return summaries.text_of(self._value_at(index, index.newest, tag)) if len(index.steps) else None

    def info(self) -> SessionInfo | None:
        """Return what the session last said of itself; None while it has not."""
        with self._lock:
            text = self._newest_text(summaries.INFO_TAG)
            return None if text is None else SessionInfo.from_json(text)

    def layers(self) -> LayerTable | None:
        """Return the newest layer table; None while there is none."""
        with self._lock:
            text = self._newest_text(summaries.LAYERS_TAG)
            return None if text is None else LayerTable.from_json(text)

    def table_revision(self) -> str | None:
        """Return a text that changes whenever `layers` does; None while there is no table."""
        with self._lock:
            index = self._index(summaries.LAYERS_TAG)
            return f"{self._token}-{self._places(index)[index.newest]}" if len(index.steps) else None

    def anomalies(self) -> dict[int, tuple[Anomaly, ...]]:
        """Return what went wrong, by step, ascending; within a step in the order in which it arose."""
        with self._lock:
            index = self._index(summaries.ANOMALIES_TAG)
            return {
                int(step): summaries.anomalies_of(self._value_at(index, at, summaries.ANOMALIES_TAG))
                for at, step in enumerate(index.steps)
            }

    def anomaly_steps(self) -> Steps:
        """Return the steps, ascending, in which something went wrong."""
        return self._index(summaries.ANOMALIES_TAG).steps

    def anomalies_at(self, step: int) -> tuple[Anomaly, ...]:
        """Return what went wrong at `step`, in the order in which it arose; nothing where nothing is recorded."""
        with self._lock:
            there = _hold(self.anomaly_steps(), step)
            return summaries.anomalies_of(self._value(summaries.ANOMALIES_TAG, step)) if there else ()

    def scalar(self, name: str, step: int) -> float | None:
        """Return the headline figure `name` at `step`; None where it was not recorded."""
        with self._lock:
            return summaries.scalar_of(self._value(name, step)) if _hold(self._index(name).steps, step) else None

    def newest_scalar(self, name: str) -> float | None:
        """Return the headline figure `name` that was recorded last; None where it never was."""
        with self._lock:
            index = self._index(name)
            return summaries.scalar_of(self._value_at(index, index.newest, name)) if len(index.steps) else None

    def profile_steps(self, kind: str) -> Steps:
        """Return the steps, ascending, that have a matrix of `kind`, one of `frame.PROFILES`."""
        return self._index(summaries.PREFIX + kind).steps

    def profile(self, kind: str, step: int) -> FloatArray:
        """Return the matrix of `kind`, one of `frame.PROFILES`, at `step`: (rows, columns of the kind).

        Raises:
            LookupError: nothing was recorded there.
        """
        return summaries.matrix_of(self._value(summaries.PREFIX + kind, step), PROFILES[kind].columns)

    def kinds(self) -> tuple[str, ...]:
        """Return the kinds of matrices that the session holds, in the order of `frame.KINDS`."""
        return tuple(kind for kind in KINDS if len(self._index(summaries.PREFIX + kind).steps))

    def steps(self, kind: str | None = None) -> Steps:
        """Return the steps, ascending, that have a matrix of `kind`; None: of any kind."""
        if kind is not None:
            return self._index(summaries.PREFIX + kind).steps
        with self._lock:
            if self._all_steps is None:
                parts = [self._index(summaries.PREFIX + name).steps for name in KINDS]
                self._all_steps = np.unique(np.concatenate(parts))
            return self._all_steps

    def scalar_names(self) -> tuple[str, ...]:
        """Return the names of the headline figures that the session holds, in the order in which they came."""
        with self._lock:
            tags = (tag for file in self._order for tag in file.entries if not tag.startswith(summaries.PREFIX))
            return tuple(dict.fromkeys(tags))

    def scalar_steps(self, name: str) -> Steps:
        """Return the steps, ascending, that have the headline figure `name`."""
        return self._index(name).steps

    def scalar_places(self, name: str) -> NDArray[np.int64]:
        """Return a number for each of `scalar_steps(name)`; see `places`."""
        with self._lock:
            return self._places(self._index(name))

    def scalar_values(self, name: str, steps: Steps) -> FloatArray:
        """Return the headline figure `name` at each of `steps`, of `scalar_steps(name)`: (steps,) float64."""
        with self._lock:
            return np.array([summaries.scalar_of(self._value(name, int(step))) for step in steps], np.float64)

    def histogram_steps(self, kind: str) -> Steps:
        """Return the steps, ascending, that have histograms of `kind`."""
        return self._index(summaries.HISTOGRAMS_PREFIX + kind).steps

    def places(self, kind: str, *, histograms: bool = False) -> NDArray[np.int64]:
        """Return a number for each of `steps(kind)`, or of `histogram_steps(kind)`: where its value is recorded.

        A step that is recorded again, be it in a file of its own after the first was removed, has another place from
        then on; who keeps what was read can tell by it.
        """
        prefix = summaries.HISTOGRAMS_PREFIX if histograms else summaries.PREFIX
        with self._lock:
            return self._places(self._index(prefix + kind))

    def _places(self, index: _Index) -> NDArray[np.int64]:
        serials = np.array([file.serial for file in self._order], np.int64)
        return (serials[index.files] << _OFFSET_BITS) + index.offsets

    def matrix(self, kind: str, step: int) -> FloatArray:
        """Return the matrix of `kind` at `step`, (rows, columns of the kind).

        Raises:
            LookupError: nothing was recorded there.
        """
        return summaries.matrix_of(self._value(summaries.PREFIX + kind, step), KINDS[kind].columns)

    def histograms(self, kind: str, step: int) -> Histograms:
        """Return the histograms of `kind` at `step`.

        Raises:
            LookupError: none were recorded there.
        """
        return summaries.histograms_of(self._value(summaries.HISTOGRAMS_PREFIX + kind, step))

    def column_block(self, kind: str, names: Sequence[str], steps: Steps) -> FloatArray:
        """Return statistics (`statistics.NAMES`) of every row over `steps`: (names, steps, rows) float64.

        A frame with fewer rows than the largest, or with none at all at a step, is NaN there.
        """
        wanted = sorted({column for name in names for column in statistics.needs(name)})
        with self._lock:
            index = self._index(summaries.PREFIX + kind)
            rows = int(index.heights.max(initial=0))
            result = np.empty((len(names), len(steps), rows))
            for first in range(0, len(steps), BLOCK_FRAMES):
                part = slice(first, first + BLOCK_FRAMES)
                recorded = dict(zip(wanted, self._recorded_columns(kind, wanted, steps[part], rows), strict=True))
                for number, name in enumerate(names):
                    needed = [recorded[column] for column in statistics.needs(name)]
                    result[number, part] = statistics.compute(name, needed)
            return result

    def _recorded_columns(self, kind: str, columns: Sequence[int], steps: Steps, rows: int) -> FloatArray:
        """Return (columns, steps, rows) of the recorded columns with these numbers."""
        index = self._index(summaries.PREFIX + kind)
        result = np.full((len(columns), len(steps), rows), np.nan)
        octets = result.reshape(-1).view(np.uint8).data
        line, cell = rows * result.itemsize, result.itemsize
        # Per run of neighbouring columns: its first, and where each of them begins in `octets`.
        runs = [
            (run[0], [(position + k) * len(steps) * line for k in range(len(run))]) for position, run in _runs(columns)
        ]
        numbers = np.flatnonzero(_hold(index.steps, steps))
        at = np.searchsorted(index.steps, steps[numbers])
        found = (numbers, index.heights[at], index.contents[at], index.files[at])
        for number, height, content, file in zip(*(part.tolist() for part in found), strict=True):
            if content < 0:
                matrix = self.matrix(kind, int(steps[number]))[:rows]
                result[:, number, : len(matrix)] = matrix[:, columns].T
                continue
            descriptor, size, shift = self._order[file].descriptor, height * cell, number * line
            for first, begins in runs:
                places = [octets[begin + shift : begin + shift + size] for begin in begins]
                os.preadv(descriptor, places, content + first * size)
        return result

    def frame(self, step: int) -> Frame:
        """Return all that was measured at `step`.

        Raises:
            LookupError: nothing was recorded there.
        """
        with self._lock:
            present = [kind for kind in self.kinds() if _hold(self.steps(kind), step)]
            if not present:
                raise LookupError(f"The session has no frame at step {step}.")
            values = {kind: self._value(summaries.PREFIX + kind, step) for kind in present}
            binned = [kind for kind in KINDS if _hold(self.histogram_steps(kind), step)]
            return Frame(
                step,
                max(value.wall_time for value in values.values()),
                {kind: summaries.matrix_of(value, KINDS[kind].columns) for kind, value in values.items()},
                {kind: self.histograms(kind, step) for kind in binned},
                {
                    tag: summaries.scalar_of(self._value(tag, step))
                    for tag in self.scalar_names()
                    if _hold(self._index(tag).steps, step)
                },
                {kind: self.profile(kind, step) for kind in PROFILES if _hold(self.profile_steps(kind), step)},
                self.anomalies_at(step),
            )


def _runs(numbers: Sequence[int]) -> list[tuple[int, list[int]]]:
    """Split ascending numbers into runs of neighbours, each with its position among them."""
    runs: list[tuple[int, list[int]]] = []
    for position, number in enumerate(numbers):
        if runs and runs[-1][1][-1] == number - 1:
            runs[-1][1].append(number)
        else:
            runs.append((position, [number]))
    return runs


def _hold(steps: Steps, wanted: Steps | int) -> NDArray[np.bool_]:
    """Tell which of `wanted` ascending `steps` hold."""
    if not len(steps):
        return np.zeros(np.shape(wanted), np.bool_)
    return np.asarray(steps[np.minimum(np.searchsorted(steps, wanted), len(steps) - 1)] == wanted)


def find_sessions(logdir: Path) -> dict[str, Path]:
    """Return the sessions below `logdir`: run name -> its folder (…/RUN/neuraldbg).

    A run is named by its folder below `logdir`, "." when `logdir` is that folder itself, or its …/neuraldbg. The
    sessions of a distributed job's ranks belong to their run, which is there even where rank 0 wrote nothing.
    """
    found: dict[str, Path] = {}
    if logdir.name == SESSION_FOLDER and ranks(logdir):
        found["."] = logdir
    for folder, subfolders, _ in os.walk(logdir):
        subfolders.sort()
        if SESSION_FOLDER in subfolders:
            session = Path(folder, SESSION_FOLDER)
            if ranks(session):
                subfolders.remove(SESSION_FOLDER)
                found[os.path.relpath(folder, logdir).replace(os.sep, "/")] = session
    return found
