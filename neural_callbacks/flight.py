"""FlightRecorder: the newest frames, kept in memory, so that a finding can carry what happened before it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator

from neural.session.frame import Frame

# What led to a failure is in the last samples before it; a hundred fill a chart.
MAX_FRAMES = 100
# Watching may take 30 MB beyond plain training in all; buffers, queue and index need theirs. A frame of 50 layers and
# 100 parameters has 32 kB of statistics, and some 400 kB of histograms where it has any.
MAX_BYTES = 8 * 2**20


class FlightRecorder:
    """Keeps the newest frames, at most `max_frames` of at most `max_bytes` in all; iterates from the oldest on.

    Bytes are those of matrices, histograms and profiles. A frame that is larger than `max_bytes` by itself is not kept.
    Any thread may add frames and iterate; an iteration goes over the frames that were there at its start.
    """

    def __init__(self, max_frames: int = MAX_FRAMES, max_bytes: int = MAX_BYTES) -> None:
        self._max_frames = max_frames
        self._max_bytes = max_bytes
        self._frames: deque[tuple[Frame, int]] = deque()
        self._bytes = 0
        self._lock = threading.Lock()

    def add(self, frame: Frame) -> None:
        """Keep `frame`, the newest, and let go of the oldest where that takes too much."""
        size = _bytes_of(frame)
        if size > self._max_bytes:
            return
        with self._lock:
            self._frames.append((frame, size))
            self._bytes += size
            while len(self._frames) > self._max_frames or self._bytes > self._max_bytes:
                _, dropped = self._frames.popleft()
                self._bytes -= dropped

    def __len__(self) -> int:
        with self._lock:
            return len(self._frames)

    def __iter__(self) -> Iterator[Frame]:
        with self._lock:
            frames = [frame for frame, _ in self._frames]
        return iter(frames)

    @property
    def bytes(self) -> int:
        """How many bytes the frames take."""
        return self._bytes


def _bytes_of(frame: Frame) -> int:
    matrices = sum(matrix.nbytes for matrix in (*frame.matrices.values(), *frame.profiles.values()))
    return matrices + sum(histograms.entries.nbytes for histograms in frame.histograms.values())
