from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from neural.session import statistics
from neural.session.anomaly import Anomaly
from neural.session.frame import KINDS, PROFILES, Frame
from neural.session.histogram import Histograms, reference_counts
from neural.session.info import SessionInfo
from neural.session.layers import Layer, LayerTable, Parameter
from neural.session.writer import SessionWriter

TABLE = LayerTable(
    (
        Layer("Dense_1", "Dense", "fc1", ((None, 4),), ((None, 3),), "float32"),
        Layer("Dense_2", "Dense", "fc2", ((None, 3),), ((None, 2),), "float32"),
    ),
    (
        Parameter("kernel", 0, (4, 3), "float32"),
        Parameter("bias", 0, (3,), "float32"),
        Parameter("kernel", 1, (3, 2), "float32"),
    ),
)
INFO = SessionInfo("Net", "numpy", 1.5, 10, notices=("Only a test.",))


def _make_frame(step: int) -> Frame:
    """A frame whose rows are the true statistics of arrays drawn for this step."""
    random = np.random.default_rng(step)
    tensors = {
        kind.name: [random.normal(size=7 + row) for row in range(2 if kind.rows == "layers" else 3)]
        for kind in KINDS.values()
    }
    return Frame(
        step,
        1000.0 + step,
        {name: np.stack([statistics.reference_row(x) for x in rows]) for name, rows in tensors.items()},
        {
            name: Histograms.from_rows({row: reference_counts(x) for row, x in enumerate(rows)})
            for name, rows in tensors.items()
        },
        {"loss": 1.0 / (1 + step)},
        {kind.name: random.normal(size=(3, len(kind.columns))) for kind in PROFILES.values()},
        (Anomaly("forward", 1, nan=step, posinf=2, neginf=0), Anomaly("loss"), Anomaly("parameter", 0, 1)),
    )


def _assert_same_frame(actual: Frame, expected: Frame) -> None:
    assert actual.step == expected.step
    assert actual.wall_time == expected.wall_time
    assert list(actual.matrices) == list(expected.matrices)
    for name, matrix in expected.matrices.items():
        np.testing.assert_array_equal(actual.matrices[name], matrix)
    assert list(actual.histograms) == list(expected.histograms)
    for name, histograms in expected.histograms.items():
        np.testing.assert_array_equal(actual.histograms[name].entries, histograms.entries)
    assert list(actual.profiles) == list(expected.profiles)
    for name, matrix in expected.profiles.items():
        np.testing.assert_array_equal(actual.profiles[name], matrix)
    assert actual.anomalies == expected.anomalies
    assert actual.scalars == {name: np.float32(value) for name, value in expected.scalars.items()}


@pytest.fixture
def record(tmp_path: Path) -> Callable[..., Path]:
    """Write a session of the given steps; return its event file."""

    def write(steps: range, folder: str = "run/neuraldbg") -> Path:
        writer = SessionWriter(tmp_path / folder)
        writer.write_info(INFO, steps.start)
        writer.write_layers(TABLE, steps.start)
        for step in steps:
            writer.write(_make_frame(step))
        writer.close()
        return writer.path

    return write


@pytest.fixture
def make_frame() -> Callable[[int], Frame]:
    return _make_frame


@pytest.fixture
def assert_same_frame() -> Callable[[Frame, Frame], None]:
    return _assert_same_frame


@pytest.fixture
def table() -> LayerTable:
    return TABLE


@pytest.fixture
def info() -> SessionInfo:
    return INFO
