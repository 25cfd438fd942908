"""Each route's answer, against plain Python over the values that were recorded."""

import threading
from itertools import chain

import numpy as np
import pytest

from neural.session.frame import Frame
from neural.session.histogram import Histograms, reference_counts
from neural.session.layers import Layer, LayerTable, Parameter
from neural.session.reader import SessionReader
from neural.session.writer import SessionWriter

STEPS = tuple(range(0, 370, 10))
GROWN, SILENT, BROKEN = 120, 200, 210
RUN = "net/first"

MEASURES = {
    "count": lambda x: x.size,
    "nonfinite": lambda x: np.sum(~np.isfinite(x)),
    "zeros": lambda x: np.sum(x == 0),
    "zero_share": lambda x: np.mean(x == 0),
    "min": lambda x: x[np.isfinite(x)].min(),
    "max": lambda x: x[np.isfinite(x)].max(),
    "absmax": lambda x: np.abs(x[np.isfinite(x)]).max(),
    "mean": lambda x: x[np.isfinite(x)].mean(),
    "std": lambda x: x[np.isfinite(x)].std(),
    "rms": lambda x: np.sqrt(np.mean(x[np.isfinite(x)] ** 2)),
    "l2": lambda x: np.sqrt(np.sum(x[np.isfinite(x)] ** 2)),
}


def columns_of(answer):
    """Return the recorded steps that each column covers."""
    pairs = zip(answer.arrays["first_step"], answer.arrays["last_step"], strict=True)
    return [[step for step in STEPS if first <= step <= last] for first, last in pairs]


def check_cells(answer, values_at, rows, measure, position=None):
    """Compare every cell with the values behind it; `values_at(step, row)` is empty where nothing was measured."""
    at = slice(None) if position is None else position
    minimum, maximum = answer.arrays["minimum"][at], answer.arrays["maximum"][at]
    state = np.atleast_2d(answer.arrays["state"])
    for number, row in enumerate(rows):
        for column, steps in enumerate(columns_of(answer)):
            tensors = [x for x in (values_at(step, row) for step in steps) if x.size]
            found = [measure(x) for x in tensors]
            cell = (np.atleast_2d(minimum)[number, column], np.atleast_2d(maximum)[number, column])
            np.testing.assert_allclose(cell, (min(found), max(found)) if found else (np.nan, np.nan), rtol=1e-6)
            worst = 2 if any(not np.isfinite(x).all() for x in tensors) else int(bool(tensors))
            assert state[number, column] == worst


def activation(recording):
    return lambda step, row: recording.activations[step][row] if row < len(recording.activations[step]) else np.empty(0)


def gradient(recording):
    return lambda step, row: recording.gradients[step][row] if row < len(recording.gradients[step]) else np.empty(0)


@pytest.mark.parametrize("statistic", MEASURES)
@pytest.mark.parametrize("width", [8, 4096])
def test_matrix_of_layers(server, recording, statistic, width):
    answer = server.ask("matrix", run=RUN, kind="activations", statistic=statistic, width=width)
    assert answer.status == 200
    assert {k: answer.document[k] for k in ("rows", "by", "frames")} == {"rows": [0, 1, 2], "by": "row", "frames": 37}
    assert list(chain(*columns_of(answer))) == list(STEPS)
    assert len(columns_of(answer)) == (8 if width == 8 else 37)
    check_cells(answer, activation(recording), range(3), MEASURES[statistic])


@pytest.mark.parametrize("statistic", MEASURES)
def test_matrix_of_parameters_by_layer(server, recording, statistic):
    answer = server.ask("matrix", run=RUN, kind="gradients", statistic=statistic, width=9, by="layer")
    assert (answer.document["rows"], answer.document["by"]) == ([0, 2], "layer")
    check_cells(answer, recording.layer_gradients, (0, 2), MEASURES[statistic])


def test_matrix_of_parameters_by_row(server, recording):
    answer = server.ask("matrix", run=RUN, kind="gradients", statistic="l2", width=100)
    assert answer.document["rows"] == [0, 1, 2, 3]
    check_cells(answer, gradient(recording), range(4), MEASURES["l2"])


def test_layers_are_rows_already(server):
    by_layer = server.ask("matrix", run=RUN, kind="activations", statistic="mean", width=100, by="layer")
    by_row = server.ask("matrix", run=RUN, kind="activations", statistic="mean", width=100)
    assert by_layer.document["by"] == "layer"
    np.testing.assert_array_equal(by_layer.arrays["minimum"], by_row.arrays["minimum"])


def test_first_and_last_limit_the_steps_inclusively(server, recording):
    answer = server.ask("matrix", run=RUN, kind="activations", statistic="std", width=3, first=95, last=170)
    assert list(chain(*columns_of(answer))) == list(range(100, 180, 10))
    assert answer.document["frames"] == 8
    check_cells(answer, activation(recording), range(3), MEASURES["std"])


@pytest.mark.parametrize(("first", "last"), [(11, 19), (1000, 2000)])
def test_no_frame_between_first_and_last_is_no_column(server, first, last):
    for route, rest in (
        ("matrix", {"statistic": "l2"}),
        ("series", {"statistics": "l2,min", "row": 0}),
        ("histograms", {"row": 0}),
    ):
        answer = server.ask(route, run=RUN, kind="activations", width=9, first=first, last=last, **rest)
        assert answer.status == 200
        assert len(answer.arrays["first_step"]) == 0
        assert answer.document["frames"] == 0


def test_the_first_step_alone(server):
    answer = server.ask("matrix", run=RUN, kind="activations", statistic="l2", width=1, last=0)
    assert columns_of(answer) == [[0]]


@pytest.mark.parametrize("width", [5, 300])
def test_series_of_a_layer(server, recording, width):
    names = tuple(MEASURES)
    answer = server.ask("series", run=RUN, kind="activations", row=1, statistics=",".join(names), width=width)
    assert (answer.document["row"], answer.document["statistics"]) == (1, list(names))
    assert answer.arrays["minimum"].shape[0] == len(names)
    for position, name in enumerate(names):
        check_cells(answer, activation(recording), [1], MEASURES[name], position)


def test_series_of_a_layers_parameters_taken_together(server, recording):
    answer = server.ask("series", run=RUN, kind="gradients", row=0, statistics="std,rms", width=12, by="layer")
    for position, name in enumerate(("std", "rms")):
        check_cells(answer, recording.layer_gradients, [0], MEASURES[name], position)


def test_series_of_one_parameter(server, recording):
    answer = server.ask("series", run=RUN, kind="gradients", row=3, statistics="max", width=50)
    check_cells(answer, gradient(recording), [3], MEASURES["max"], 0)
    assert answer.arrays["state"][: STEPS.index(GROWN)].tolist() == [0] * STEPS.index(GROWN)
    assert answer.arrays["state"][[STEPS.index(SILENT), STEPS.index(BROKEN)]].tolist() == [0, 2]


def bins_of(values):
    """Count values by the bins of `http_api.md`."""
    counts = np.zeros(514)
    for value in values.ravel():
        if np.isnan(value):
            number = 513
        elif np.isinf(value):
            number = 512 if value > 0 else 0
        elif value == 0:
            number = 256
        else:
            exponent = int(np.floor(np.log2(abs(value))))
            number = 384 + exponent if value > 0 else 128 - exponent
        counts[number] += 1
    return counts


@pytest.mark.parametrize("width", [4, 100])
@pytest.mark.parametrize(
    ("kind", "row", "by"), [("activations", 1, None), ("gradients", 0, "layer"), ("gradients", 3, None)]
)
def test_histograms(server, recording, kind, row, by, width):
    asked = {"by": by} if by else {}
    answer = server.ask("histograms", run=RUN, kind=kind, row=row, width=width, **asked)
    sources = {"activations": activation(recording), "gradients": gradient(recording)}
    values_at = recording.layer_gradients if by else sources[kind]
    bins = answer.arrays["bins"]
    covered = []
    for column, steps in enumerate(columns_of(answer)):
        binned = [step for step in steps if step % 20 == 0]
        covered += binned
        counts = np.zeros(514)
        counts[bins] = answer.arrays["counts"][column]
        np.testing.assert_allclose(counts, sum(bins_of(values_at(step, row)) for step in binned))
        assert answer.arrays["total"][column] == sum(values_at(step, row).size for step in binned)
        assert answer.arrays["counted"][column] == answer.arrays["total"][column]
    assert covered == [step for step in STEPS if step % 20 == 0]
    assert answer.arrays["counts"][:, [0, -1]].any(axis=0).all(), "only the span of bins that occurs is sent"


def test_a_parameter_that_was_counted_in_part_keeps_its_weight_in_its_layer(serve, tmp_path):
    random = np.random.default_rng(1)
    kernel, bias = random.normal(size=6000), np.full(30, 8.0)
    writer = SessionWriter(tmp_path / "neuraldbg")
    writer.write_layers(
        LayerTable(
            (Layer("Dense_1", "Dense", "fc"),), (Parameter("kernel", 0, (60, 100)), Parameter("bias", 0, (30,)))
        ),
        0,
    )
    rows = np.zeros((2, 10))
    rows[:, 0] = kernel.size, bias.size
    counted = Histograms.from_rows({0: reference_counts(kernel[::10]), 1: reference_counts(bias)})
    writer.write(Frame(0, 0.0, {"weights": rows}, {"weights": counted}))
    writer.close()
    server = serve("--logdir", str(tmp_path), "--load_fast", "false")
    answer = server.ask("histograms", run=".", kind="weights", row=0, width=1, by="layer")
    counts = np.zeros(514)
    counts[answer.arrays["bins"]] = answer.arrays["counts"][0]
    np.testing.assert_allclose(counts, 10 * bins_of(kernel[::10]) + bins_of(bias))
    assert answer.arrays["total"].tolist() == [6030]
    assert answer.arrays["counted"].tolist() == [630], "the rest is an estimate"
    alone = server.ask("histograms", run=".", kind="weights", row=0, width=1)
    assert (alone.arrays["counts"].sum(), alone.arrays["total"][0]) == (600, 6000)


def test_newest_frame(server, recording):
    answer = server.ask("frame", run=RUN)
    assert answer.document["step"] == 360
    assert answer.document["wall_time"] == 1795354321.0 + 360
    assert answer.document["scalars"] == {"loss": recording.losses[360]}
    assert list(answer.arrays) == ["activations", "gradients", "gradients_by_layer"]
    columns = answer.document["columns"]
    assert columns == ["count", "nan", "posinf", "neginf", "zeros", "min", "max", "mean", "std", "l2"]
    for name in ("count", "zeros", "min", "max", "mean", "std", "l2"):
        at, measure = columns.index(name), MEASURES[name]
        for row, values in enumerate(recording.activations[360]):
            assert answer.arrays["activations"][row, at] == pytest.approx(measure(values))
        for layer in (0, 2):
            expected = measure(recording.layer_gradients(360, layer))
            assert answer.arrays["gradients_by_layer"][layer, at] == pytest.approx(expected)
    assert np.isnan(answer.arrays["gradients_by_layer"][1]).all()


def test_frame_at_or_before_a_step(server):
    answer = server.ask("frame", run=RUN, step=BROKEN + 9)
    assert answer.document["step"] == BROKEN
    assert answer.document["scalars"] == {"loss": "NaN"}
    assert answer.arrays["activations"][1, 1:4].tolist() == [1, 1, 1]
    assert server.ask("frame", run=RUN, step=BROKEN).document["step"] == BROKEN
    young = server.ask("frame", run=RUN, step=5)
    assert young.arrays["activations"].shape == (2, 10)
    assert young.arrays["gradients_by_layer"].shape == (3, 10)
    assert np.isnan(young.arrays["gradients_by_layer"][2]).all()


def test_steps(server):
    assert server.ask("steps", run=RUN).arrays["steps"].tolist() == list(STEPS)


def test_layers(server):
    document = server.ask("layers", run=RUN).document
    assert document["layers"][0] == {
        "name": "Conv2D_1",
        "type": "Conv2D",
        "own_name": "conv",
        "input_shapes": [[None, 28, 28, 1]],
        "output_shapes": [[None, 26, 26, 2]],
        "dtype": "float32",
        "trainable": True,
        "flops": None,
        "input_dtypes": [],
        "output_dtypes": [],
        "parameters": 12 + 5 + 6,
    }
    assert [layer["parameters"] for layer in document["layers"]] == [23, 0, 7]
    assert document["parameters"][3] == {
        "name": "scale", "layer": 0, "shape": [2, 3], "dtype": "float32", "trainable": False
    }  # fmt: skip


@pytest.mark.usefixtures("restless")
def test_a_question_asked_again_reads_only_what_is_new(serve, write_session, tmp_path, monkeypatch):

    write_session(tmp_path / "run" / "neuraldbg")
    server = serve("--logdir", str(tmp_path), "--load_fast", "false")
    asked = []
    read = SessionReader.column_block
    monkeypatch.setattr(
        SessionReader,
        "column_block",
        lambda self, kind, names, steps: asked.extend(steps.tolist()) or read(self, kind, names, steps),
    )
    question = {"run": "run", "kind": "gradients", "statistic": "rms", "by": "layer", "width": 100}
    server.ask("matrix", **question)
    assert asked == list(STEPS)
    asked.clear()
    rows = np.full((4, 10), 0.0)
    rows[:, 0], rows[:, 9] = 100, 20
    with_more = SessionWriter(tmp_path / "run" / "neuraldbg")
    with_more.write(Frame(30, 2e9, {"gradients": rows}))
    with_more.write(Frame(370, 2e9, {"gradients": rows}))
    with_more.close()
    answer = server.ask("matrix", **question)
    assert asked == [30, 370]
    np.testing.assert_allclose(answer.arrays["minimum"][:, [3, 37]], [[np.sqrt(400 * 3 / 300)] * 2, [2.0] * 2])


def test_a_number_too_large_for_float32_becomes_its_greatest(serve, tmp_path):

    rows = np.zeros((1, 10))
    rows[0, [0, 5, 9]] = 4, -1e300, 1e300
    writer = SessionWriter(tmp_path / "neuraldbg")
    writer.write(Frame(0, 0.0, {"activations": rows}))
    writer.close()
    server = serve("--logdir", str(tmp_path), "--load_fast", "false")
    answer = server.ask("series", run=".", kind="activations", row=0, statistics="min,l2", width=1)
    greatest = np.finfo(np.float32).max
    assert answer.arrays["minimum"].tolist() == [[-greatest], [greatest]]


@pytest.mark.usefixtures("restless")
def test_answers_stay_whole_while_a_session_is_written_and_many_ask(serve, tmp_path):
    random = np.random.default_rng(0)
    norms = random.uniform(1, 100, 400)
    writer = SessionWriter(tmp_path / "neuraldbg", refresh_rate=0.01)

    def write(step):
        rows = np.zeros((3, 10))
        rows[:, 0], rows[:, 9] = 4, norms[step]
        writer.write(Frame(step, float(step), {"activations": rows}))

    write(0)
    writer.flush()
    server = serve("--logdir", str(tmp_path), "--load_fast", "false")
    wrong, is_over = [], threading.Event()

    def ask(route, **question):
        while not is_over.is_set():
            answer = server.ask(route, run=".", kind="activations", width=4096, **question)
            seen = answer.arrays["last_step"].astype(int)
            if not np.allclose(answer.arrays["maximum"][0], norms[seen]) or answer.document["frames"] != len(seen):
                wrong.append(answer)

    questions = [("matrix", {"statistic": "l2"}), ("series", {"statistics": "l2", "row": 1})] * 2
    threads = [threading.Thread(target=ask, args=(route,), kwargs=question) for route, question in questions]
    for thread in threads:
        thread.start()
    for step in range(1, 400):
        write(step)
        if step % 50 == 0:
            writer.flush()
    writer.close()
    is_over.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert server.ask("steps", run=".").arrays["steps"].tolist() == list(range(400))
