"""How long a heat map of 500 layers x 5000 steps takes, from the session's files to the answer's bytes.

    python benchmarks/query.py [--layers 500] [--steps 5000] [--width 1000]

Cold: the session is opened and indexed for this question. Next: it is open, and another statistic is asked for.
Warm: the same question again, with one new frame since.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from neural.session import statistics
from neural.session.frame import Frame
from neural.session.info import SessionInfo
from neural.session.layers import Layer, LayerTable, Parameter
from neural.session.writer import SessionWriter
from tensorboard_plugin_neuraldbg import encoding, queries
from tensorboard_plugin_neuraldbg.history import HistoryCache
from tensorboard_plugin_neuraldbg.sessions import Session

PARAMETERS_PER_LAYER = 2
REPEATS = 5
QUESTIONS = (
    ("activations", False, "std", "rms"),
    ("gradients", False, "std", "rms"),
    ("gradients", True, "l2", "rms"),
    ("gradients", True, "rms", "std"),
)


def _rows(rows: int, random: np.random.Generator) -> statistics.FloatArray:
    matrix = np.abs(random.normal(size=(rows, len(statistics.COLUMNS))))
    matrix[:, statistics.COUNT] = 4096
    matrix[:, statistics.NAN : statistics.ZEROS + 1] = 0
    return matrix


def record(directory: Path, layers: int, steps: int, kind: str) -> tuple[SessionWriter, Callable[[int], None]]:
    """Write a session of one kind of matrix; return its writer, and what writes one more frame."""
    random = np.random.default_rng(0)
    parameters = PARAMETERS_PER_LAYER * layers
    writer = SessionWriter(directory)
    writer.write_info(SessionInfo("benchmark", "none", 0.0, 1), 0)
    table = LayerTable(
        tuple(Layer(f"Dense_{n}", "Dense", f"dense.{n}") for n in range(layers)),
        tuple(Parameter("kernel", n // PARAMETERS_PER_LAYER, (64, 64)) for n in range(parameters)),
    )
    writer.write_layers(table, 0)
    samples = [_rows(layers if kind == "activations" else parameters, random) for _ in range(16)]

    def write(step: int) -> None:
        writer.write(Frame(step, float(step), {kind: samples[step % len(samples)]}))
        writer.flush()

    for step in range(steps - 1):
        writer.write(Frame(step, float(step), {kind: samples[step % len(samples)]}))
    write(steps - 1)
    return writer, write


def _milliseconds(question: Callable[[], object]) -> float:
    start = time.perf_counter()
    question()
    return (time.perf_counter() - start) * 1000


def measure(
    directory: Path,
    chosen: queries.Selection,
    names: tuple[str, str],
    write: Callable[[int], None],
    later: Iterator[int],
) -> list[float]:
    """Return the cold, the next and the warm time of one question, in milliseconds, and the answer's MB."""
    cache = HistoryCache()
    session = Session("benchmark", directory)
    first, second = names

    def ask(statistic: str) -> bytes:
        session.refresh(rest=0.0)
        return encoding.pack(*queries.matrix(session, cache, chosen, statistic))

    cold = _milliseconds(lambda: ask(first))
    following = _milliseconds(lambda: ask(second))
    write(next(later))
    warm = _milliseconds(lambda: ask(first))
    return [cold, following, warm, len(ask(first)) / 1e6]


def main() -> None:
    """Print the table: the least of some repeats."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--layers", type=int, default=500)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--width", type=int, default=1000)
    given = parser.parse_args()
    print(f"{given.layers} layers x {given.steps} steps -> {given.width} columns; least of {REPEATS}, milliseconds")
    print(f"{'kind':<12} {'by':<6} {'statistic':<10} {'cold':>7} {'next':>7} {'warm':>7} {'MB sent':>8}")
    with tempfile.TemporaryDirectory() as folder:
        for kind in dict.fromkeys(kind for kind, *_ in QUESTIONS):
            directory = Path(folder, kind, "neuraldbg")
            writer, write = record(directory, given.layers, given.steps, kind)
            later = itertools.count(given.steps)
            for asked, by_layer, *names in QUESTIONS:
                if asked != kind:
                    continue
                chosen = queries.Selection(kind, given.width, by_layer, None, None)
                taken = [measure(directory, chosen, (names[0], names[1]), write, later) for _ in range(REPEATS)]
                cold, following, warm, sent = np.min(taken, axis=0)
                by = "layer" if by_layer else "row"
                print(f"{kind:<12} {by:<6} {names[0]:<10} {cold:7.0f} {following:7.0f} {warm:7.1f} {sent:8.1f}")
            writer.close()


if __name__ == "__main__":
    main()
