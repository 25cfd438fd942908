"""What a session holds of a step on torch is what numpy makes of tensors that were computed by hand."""

import numpy as np
import pytest

from neural.session.frame import KINDS, PROFILES
from neural.session.histogram import reference_counts
from neural.session.statistics import COUNT, reference_row


@pytest.fixture(scope="module")
def trained(run_on_torch, tmp_path_factory):
    folder = tmp_path_factory.mktemp("values")
    run_on_torch("values", folder)
    return folder


def assert_measured(reader, arrays, name):
    kind, number = name.split()
    array = arrays[name]
    row = reader.matrix(kind, 0)[int(number)]
    np.testing.assert_allclose(row, reference_row(array), rtol=1e-4, atol=1e-6, err_msg=name)
    # Two ways to compute a value may leave it on either side of a bin's edge.
    moved = np.abs(reader.histograms(kind, 0).row(int(number)) - reference_counts(array)).sum()
    assert moved <= 0.02 * array.size + 4, name


@pytest.mark.parametrize("run", ["plain", "scaled", "weighted"])
def test_a_step_is_measured_as_by_hand(run, trained, session_at):
    reader, arrays = session_at(trained / "runs" / run), np.load(trained / f"{run}.npz")
    names = [name for name in arrays if name != "loss"]
    assert {name.split()[0] for name in names} == set(KINDS)
    for name in names:
        assert_measured(reader, arrays, name)
    scalars = reader.frame(0).scalars
    assert scalars["loss"] == pytest.approx(float(arrays["loss"]), rel=1e-5)
    squares = [np.sum(np.square(arrays[name], dtype="float64")) for name in names if name.startswith("gradients")]
    assert scalars["gradient_norm"] == pytest.approx(np.sqrt(sum(squares)), rel=1e-4)
    # The losses of the torch backend start from what softmax gave out: no gradient is that by its input.
    assert reader.info().notices == ()


def test_the_layer_table_is_keras_own(trained, session_at):
    table = session_at(trained / "runs" / "plain").layers()
    assert [(layer.name, layer.type, layer.own_name, layer.dtype) for layer in table.layers] == [
        ("Conv2D_1", "Conv2D", "conv2d", "float32"),
        ("Flatten_1", "Flatten", "flatten", "float32"),
        ("Dense_1", "Dense", "dense", "float32"),
    ]
    assert [(layer.input_shapes, layer.output_shapes) for layer in table.layers] == [
        (((None, 6, 6, 2),), ((None, 4, 4, 3),)),
        (((None, 4, 4, 3),), ((None, 48),)),
        (((None, 48),), ((None, 4),)),
    ]
    assert [(parameter.name, parameter.layer, parameter.shape) for parameter in table.parameters] == [
        ("kernel", 0, (3, 3, 2, 3)),
        ("bias", 0, (3,)),
        ("kernel", 2, (48, 4)),
        ("bias", 2, (4,)),
    ]


def test_calls_of_a_shared_layer_and_several_outputs_make_one_row(trained, session_at):
    reader, arrays = session_at(trained / "runs" / "shared"), np.load(trained / "shared.npz")
    rows = reader.matrix("activations", 0)
    once, twice = arrays["once"], arrays["twice"]
    np.testing.assert_allclose(rows[0], reference_row([once, twice]), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(rows[1], reference_row([2 * twice, twice / 2]), rtol=1e-4, atol=1e-6)
    counts = reader.histograms("activations", 0).row(1)
    np.testing.assert_array_equal(counts, reference_counts([2 * twice, twice / 2]))
    assert reader.layers().layers[1].output_dtypes == ("float32", "float32", "bool")


def test_what_training_does_not_compute_is_not_measured(trained, session_at):
    reader = session_at(trained / "runs" / "frozen")
    assert [parameter.trainable for parameter in reader.layers().parameters] == [False, False, False, True]
    assert list(np.isnan(reader.matrix("gradients", 0)[:, COUNT])) == [True, True, True, False]
    assert list(np.isnan(reader.matrix("updates", 0)[:, COUNT])) == [True, True, True, False]
    assert not np.isnan(reader.matrix("weights", 0)[:, COUNT]).any()
    assert list(np.isnan(reader.matrix("activation_gradients", 0)[:, COUNT])) == [True, True, False]
    assert reader.info().notices == (
        "Training needs no gradient by the outputs of base/first, base/second, so none is recorded.",
    )


def test_units_are_on_the_last_axis_and_bounds_those_of_the_activation(trained, session_at):
    frame = session_at(trained / "runs" / "units").frame(0)
    assert frame.histograms == {}
    np.testing.assert_array_equal(frame.profiles["activity"], [[3, 1, np.nan, np.nan], [np.nan, np.nan, 8, 6]])
    assert frame.profiles["silent_units"].tolist() == [[0, 1]]


def test_times_memory_and_flops_come_with_the_steps_that_have_histograms(trained, session_at):
    reader = session_at(trained / "runs" / "adam")
    first, second = reader.frame(0), reader.frame(1)
    profiled = set(PROFILES) - {"activity", "silent_units"}
    assert (profiled <= set(first.profiles), profiled & set(second.profiles)) == (True, set())
    assert (bool(first.histograms), bool(second.histograms)) == (True, False)
    columns = PROFILES["trace"].columns
    trace = first.profiles["trace"]
    spans = [(int(row[columns.index("layer")]), int(row[columns.index("phase")])) for row in trace]
    assert spans == [(-1, 3), (-1, 0), (0, 0), (1, 0), (-1, 1), (1, 1), (0, 1), (-1, 2)]
    assert first.profiles["timing"][:, 0].tolist() == [1, 1]
    assert (first.profiles["timing"] > 0).all()
    # A product of (4, 6) and (6, 8): two operations for each of 4 x 6 x 8; the way back makes one for the kernel, and
    # one for the inputs where these come from another layer.
    assert first.profiles["flops"].tolist() == [[384, 384], [128, 256]]
    # The outputs, (4, 8) and (4, 2); parameters, as many gradients, and Adam's two momenta. Four bytes each.
    assert first.profiles["memory"].tolist() == [[128, 224, 224, 448], [32, 72, 72, 144]]
