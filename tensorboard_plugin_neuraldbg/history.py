"""Histories: what was read of many frames, kept so that the next question reads only the new ones."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
Arrays = tuple[NDArray[Any], ...]

# Kept for all sessions together; what was not asked for the longest goes first.
BUDGET_BYTES = 256 * 2**20
# Frames are read in blocks of about this many bytes: enough to vectorise, little enough for the processor's cache.
BLOCK_BYTES = 4 * 2**20
# A history is made this much longer than it must be, so that a growing one is not copied at each new frame.
SPARE = 1.25


def _fill_value(dtype: np.dtype[Any]) -> Any:
    return np.nan if dtype.kind == "f" else 0


class History:
    """Some arrays with one entry per frame: (frames, ...) each, read once and extended as frames arrive.

    A frame is known by its place, a number that no other recorded value has; where a step was recorded again, its
    place differs, and it is read again. Where later frames have more rows, the earlier ones are filled up with NaN
    (0 for whole numbers).
    """

    def __init__(self) -> None:
        self._places: Indices = np.empty(0, np.int64)
        self._arrays: list[NDArray[Any]] = []

    @property
    def nbytes(self) -> int:
        """How much memory it takes."""
        return self._places.nbytes + sum(array.nbytes for array in self._arrays)

    def update(self, places: Indices, read: Callable[[Indices], Arrays], frame_bytes: int) -> Arrays:
        """Return the arrays for the frames at `places`, ascending by step.

        `read` gives them for some frames, named by their numbers in `places`; it is asked for those alone that are
        not known yet. `frame_bytes` is about what it needs for one frame.
        """
        try:
            self._extend(places, read, max(1, BLOCK_BYTES // max(1, frame_bytes)))
        except BaseException:
            self._places, self._arrays = np.empty(0, np.int64), []  # half of it may have moved
            raise
        return tuple(array[: len(places)] for array in self._arrays)

    def _extend(self, places: Indices, read: Callable[[Indices], Arrays], block: int) -> None:
        count = len(self._places)
        if not np.array_equal(places[:count], self._places):
            self._keep(places)
            (missing,) = np.nonzero(~np.isin(places, self._places, assume_unique=True))
        else:
            missing = np.arange(count, len(places))
        for start in range(0, len(missing), block):
            numbers = missing[start : start + block]
            self._store(numbers, read(numbers), len(places))
        self._places = places

    def _keep(self, places: Indices) -> None:
        """Bring the known frames to where they stand among `places`."""
        _, to, here = np.intersect1d(places, self._places, assume_unique=True, return_indices=True)
        for number, array in enumerate(self._arrays):
            moved = np.full((len(places), *array.shape[1:]), _fill_value(array.dtype), array.dtype)
            moved[to] = array[here]
            self._arrays[number] = moved

    def _store(self, numbers: Indices, entries: Arrays, frames: int) -> None:
        if not self._arrays:
            self._arrays = [np.empty((0, *entry.shape[1:]), entry.dtype) for entry in entries]
        for position, entry in enumerate(entries):
            array = self._arrays[position]
            rows = tuple(int(extent) for extent in np.maximum(array.shape[1:], entry.shape[1:]))
            if frames > len(array) or rows != array.shape[1:]:
                length = len(array)
                if frames > length:
                    length = frames if length == 0 else int(frames * SPARE)
                larger = np.full((length, *rows), _fill_value(array.dtype), array.dtype)
                larger[(slice(len(array)), *(slice(extent) for extent in array.shape[1:]))] = array
                self._arrays[position] = array = larger
            part: tuple[Any, ...] = (numbers, *(slice(extent) for extent in entry.shape[1:]))
            array[part] = entry


class HistoryCache:
    """The histories of all sessions, within a budget of bytes."""

    def __init__(self, budget: int = BUDGET_BYTES) -> None:
        self._budget = budget
        self._histories: OrderedDict[Hashable, History] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, key: Hashable) -> History:
        """Return the history under `key`, or a new one. Whoever takes it holds its session's lock."""
        with self._lock:
            history = self._histories.pop(key, None) or History()
            self._histories[key] = history
            return history

    def settle(self) -> None:
        """Forget what was not asked for the longest until the rest is within the budget."""
        with self._lock:
            total = sum(history.nbytes for history in self._histories.values())
            while total > self._budget and self._histories:
                _, forgotten = self._histories.popitem(last=False)
                total -= forgotten.nbytes
