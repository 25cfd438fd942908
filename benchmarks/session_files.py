"""How fast sessions are written and indexed, against TensorBoard's own writer and loader.

    python benchmarks/session_files.py [--frames 20000] [--rounds 3]

Both sides write the same frames (128 x 10 float64, 10 KB) and read the same file, in turn, in one process that keeps
TensorBoard from using TensorFlow; the medians of the ratios are printed. Ours runs from `Frame` to the bytes in the
file after `close`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
import types
from collections.abc import Callable
from pathlib import Path

# TensorBoard then uses its own file access, as it does on a machine without TensorFlow.
sys.modules["tensorboard.compat.notf"] = types.ModuleType("tensorboard.compat.notf")

import numpy as np
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto import event_pb2
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from neural.session import summaries
from neural.session.frame import Frame
from neural.session.reader import SessionReader
from neural.session.writer import SessionWriter


def seconds(work: Callable[[], object]) -> float:
    """Return how long `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def write_ours(folder: Path, frames: list[Frame]) -> Path:
    """Write with SessionWriter."""
    writer = SessionWriter(folder)
    for frame in frames:
        writer.write(frame)
    writer.close()
    return writer.path


def write_theirs(folder: Path, frames: list[Frame]) -> None:
    """Write the same Events with EventFileWriter."""
    writer = EventFileWriter(str(folder))
    for frame in frames:
        for data in summaries.frame_events(frame):
            writer.add_event(event_pb2.Event.FromString(data))
    writer.close()


def index(folder: Path) -> SessionReader:
    """Open and index a session from cold."""
    reader = SessionReader(folder)
    reader.refresh()
    return reader


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    matrix = np.random.default_rng(0).normal(size=(128, 10))
    frames = [Frame(step, float(step), {"gradients": matrix}) for step in range(options.frames)]
    rows: dict[str, list[tuple[float, float]]] = {"write": [], "index": []}
    reads: list[float] = []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as scratch:
            ours, theirs = Path(scratch, "ours"), Path(scratch, "theirs")
            mine = seconds(lambda ours=ours: write_ours(ours, frames))
            rows["write"].append((mine, seconds(lambda theirs=theirs: write_theirs(theirs, frames))))
            (path,) = ours.iterdir()
            mine = seconds(lambda ours=ours: index(ours))
            rows["index"].append((mine, seconds(lambda path=path: list(RawEventFileLoader(str(path)).Load()))))
            reader = index(ours)
            steps = np.random.default_rng(1).integers(options.frames, size=500)
            reads += [seconds(lambda step=step: reader.matrix("gradients", int(step))) for step in steps]  # noqa: B023
    print(f"{options.frames} frames of {matrix.nbytes / 1000:.0f} KB, median of {options.rounds} rounds")
    for name, pairs in rows.items():
        mine, yours = (statistics.median(side) for side in zip(*pairs, strict=True))
        ratio = statistics.median(theirs / ours for ours, theirs in pairs)
        print(f"{name:>6}: NeuralDbg {mine:7.3f} s, TensorBoard {yours:7.2f} s, {ratio:6.1f} times")
    print(f"  read: one frame {statistics.median(reads) * 1e6:.0f} us, worst {max(reads) * 1e6:.0f} us")


if __name__ == "__main__":
    main()
