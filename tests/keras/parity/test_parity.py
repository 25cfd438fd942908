"""One model from the same weights and data, on every backend of Keras and by hand in PyTorch: the same session."""

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from neural.session.frame import KINDS
from neural.session.reader import SessionReader
from neural.session.statistics import COLUMNS, COUNT, L2, ZEROS
from neural_callbacks.keras import backends
from neural_callbacks.recorder import BY_LOGITS

HERE = Path(__file__).parent
# No power of two: the gradient by a share that is not the label's is one over the batch, and would lie on the edge of
# two of the histogram's bins.
STEPS, BATCH = 4, 12
SILENT = 3  # a unit of the hidden layer that is never above zero
# The frameworks add up in different orders: float32 values differ by some 1e-7 of the largest terms of their sum, and
# four steps of training carry that on. What is small beside the other values of its tensor, as a mean of values of both
# signs, is known no better than these are.
RELATIVE, OF_TYPICAL = 1e-4, 1e-5
# Two ways to compute a value may leave it on either side of a histogram's edge: so many in a thousand values, and one
# value more, which counts twice.
MOVED, MOVED_AT_LEAST = 0.002, 2


def write_given(folder):
    numbers = np.random.default_rng(12)

    def uniform(*shape, limit=0.4):
        return numbers.uniform(-limit, limit, shape).astype("float32")

    np.savez(
        folder / "given.npz",
        x=numbers.normal(size=(STEPS * BATCH, 8, 8, 2)).astype("float32"),
        labels=numbers.integers(0, 5, STEPS * BATCH),
        steps=STEPS,
        batch=BATCH,
        kernel=uniform(3, 3, 2, 4),
        bias=uniform(4),
        gamma=1 + uniform(4),
        beta=uniform(4),
        hidden_kernel=uniform(36, 10),
        hidden_bias=uniform(10) - 10 * (np.arange(10) == SILENT).astype("float32"),
        kernel_out=uniform(10, 5),
        bias_out=uniform(5),
    )


@pytest.fixture(scope="module")
def sessions(tmp_path_factory):
    """Return the sessions by the name of their runs; all trainings run at once, each in a process of its own."""
    folder = tmp_path_factory.mktemp("parity")
    write_given(folder)
    with ExitStack() as logs:
        processes = {}
        for name in ("with_pytorch", *backends._MODULES):
            script = HERE / f"{'with_pytorch' if name == 'with_pytorch' else 'with_keras'}.py"
            environment = os.environ | {"KERAS_BACKEND": name, "PYTHONPATH": str(HERE.parents[2])}
            log = logs.enter_context((folder / f"{name}.txt").open("w"))
            processes[name] = subprocess.Popen([sys.executable, script], cwd=folder, env=environment, stderr=log)
        ended = {name: process.wait(300) for name, process in processes.items()}
    for name, code in ended.items():
        assert code == 0, (folder / f"{name}.txt").read_text()
    readers = {run.name: SessionReader(run / "neuraldbg") for run in (folder / "runs").iterdir()}
    for reader in readers.values():
        reader.refresh()
    return readers


@pytest.fixture(params=sorted(backends._MODULES))
def pair(request, sessions):
    """Return the session of a backend, and the one by hand whose loss starts from where the backend's does."""
    session = sessions[request.param]
    is_by_logits = BY_LOGITS.format("dense_1") in session.info().notices
    return session, sessions["from_logits" if is_by_logits else "from_shares"]


def test_layers_and_parameters_have_the_same_rows(pair):
    table, by_hand = (session.layers() for session in pair)
    types = ["Conv2D", "BatchNormalization", "AveragePooling2D", "Flatten", "Dense", "Dense"]
    assert [layer.type for layer in table.layers] == types
    assert [layer.type for layer in by_hand.layers] == [
        "Conv2D",
        "BatchNorm2d",
        "AvgPool2d",
        "Flatten",
        "Dense",
        "Dense",
    ]
    for layer, other in zip(table.layers, by_hand.layers, strict=True):
        shapes = (*layer.input_shapes, *layer.output_shapes)
        others = (*other.input_shapes, *other.output_shapes)
        assert [shape[1:] for shape in shapes] == [_channels_last(shape)[1:] for shape in others]
        assert layer.dtype == other.dtype
    names = {"weight": {"kernel", "gamma"}, "bias": {"bias", "beta"}}
    for parameter, other in zip(table.parameters, by_hand.parameters, strict=True):
        assert parameter.layer == other.layer
        assert parameter.name in names[other.name]
        assert parameter.shape == _inputs_first(other.shape)


def _channels_last(shape):
    return (shape[0], *shape[2:], shape[1]) if len(shape) == 4 else shape


def _inputs_first(shape):
    """Return the shape of a parameter as Keras has it: (height, width, inputs, outputs) or (inputs, outputs)."""
    return (*shape[2:], shape[1], shape[0]) if len(shape) > 1 else shape


@pytest.mark.parametrize("kind", KINDS)
def test_statistics_are_the_same(kind, pair):
    session, by_hand = pair
    assert session.steps().tolist() == by_hand.steps().tolist() == list(range(STEPS))
    for step in range(STEPS):
        rows, others = session.matrix(kind, step), by_hand.matrix(kind, step)
        assert rows.shape == others.shape
        typical = others[:, [L2]] / np.sqrt(others[:, [COUNT]])
        close = np.abs(rows - others) <= RELATIVE * np.abs(others) + OF_TYPICAL * typical
        close[:, COUNT : ZEROS + 1] = rows[:, COUNT : ZEROS + 1] == others[:, COUNT : ZEROS + 1]
        bad = [
            (step, int(row), COLUMNS[column], rows[row, column], others[row, column])
            for row, column in np.argwhere(~close)
        ]
        assert bad == []


@pytest.mark.parametrize("kind", KINDS)
def test_histograms_are_the_same(kind, pair):
    session, by_hand = pair
    for step in range(STEPS):
        counts = by_hand.matrix(kind, step)[:, COUNT]
        for row, count in enumerate(counts):
            found, other = session.histograms(kind, step).row(row), by_hand.histograms(kind, step).row(row)
            assert found.sum() == other.sum() > 0
            assert np.abs(found - other).sum() <= MOVED * count + MOVED_AT_LEAST, (step, row)


def test_headline_figures_are_the_same(pair):
    session, by_hand = pair
    for step in range(STEPS):
        scalars, others = session.frame(step).scalars, by_hand.frame(step).scalars
        assert scalars["loss"] == pytest.approx(others["loss"], rel=1e-5)
        assert scalars["gradient_norm"] == pytest.approx(others["gradient_norm"], rel=RELATIVE)
        assert scalars["update_ratio"] == pytest.approx(others["update_ratio"], rel=RELATIVE)


def test_the_units_that_gave_out_nothing_are_the_same(sessions):
    for step in range(STEPS):
        profiles, others = (sessions[run].frame(step).profiles for run in ("torch", "from_shares"))
        np.testing.assert_array_equal(profiles["activity"], others["activity"])
        np.testing.assert_array_equal(profiles["silent_units"], others["silent_units"])
        assert [4, SILENT] in others["silent_units"].tolist()
