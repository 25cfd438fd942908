"""The thread that makes frames of samples, so that training need not wait for the host's arithmetic or a device."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from neural.session.frame import Frame
from neural.session.layers import LayerTable
from neural_callbacks.recorder import Recorder

FRAMES = "frames"  # the part that makes a frame of what was measured


class Frameable(Protocol):
    """What a sampled step left."""

    @property
    def step(self) -> int:
        """Which step, from 0."""

    def frame(self, table: LayerTable) -> Frame:
        """Return the frame, its rows numbered as in `table`."""


class FrameThread:
    """Makes and records frames, in the order of their steps, beside training.

    It holds the samples of two executions at most, the one that it works on and the next: `take` waits for the first
    of them, so that no more of a step's tensors stay in memory.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._thread = ThreadPoolExecutor(1, "neuraldbg-frames")
        self._latest: Future[None] | None = None
        self._table: LayerTable | None = None

    def take(self, samples: Sequence[Frameable], table: LayerTable) -> None:
        """Record `samples`, their rows numbered as in `table`."""
        if FRAMES in self._recorder.switched_off:
            return
        with self._recorder.contained(FRAMES):
            if self._latest is not None:
                self._latest.result()
            self._latest = self._thread.submit(self._record, samples, table)

    def _record(self, samples: Sequence[Frameable], table: LayerTable) -> None:
        with self._recorder.contained(FRAMES):
            if table != self._table:
                self._table = table
                self._recorder.write_layers(table, samples[0].step)
            for sample in samples:
                self._recorder.record(sample.frame(table))

    def close(self) -> None:
        """Wait for what was taken, and end the thread; safe to call again."""
        self._thread.shutdown(wait=True)
