"""MirroredStrategy: what two replicas compute is one row, parameters count once, and training stays as it is."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from neural.session.anomaly import Anomaly
from neural.session.histogram import reference_counts
from neural.session.reader import SessionReader
from neural.session.statistics import COUNT, NAN, reference_row
from neural_callbacks.keras.replicas import NO_PROFILE


def reader_of(folder, run):
    reader = SessionReader(folder / "runs" / run / "neuraldbg")
    reader.refresh()
    assert reader.problems == ()
    return reader


def by_hand(kept, step, parts):
    """Compute a step on one device: the loss is the mean of those of the replicas, whose rows are `parts`."""
    weights = [tf.constant(kept[f"{step}/{place}"]) for place in range(4)]
    with tf.GradientTape() as tape:
        tape.watch(weights)
        hidden = [tf.tanh(kept["x"][part] @ weights[0] + weights[1]) for part in parts]
        outputs = [part @ weights[2] + weights[3] for part in hidden]
        errors = [tf.square(output - kept["y"][part]) for output, part in zip(outputs, parts, strict=True)]
        loss = tf.add_n([tf.reduce_mean(error) for error in errors]) / len(parts)
    found = tape.gradient(loss, [weights, hidden, outputs])
    gradients, of_hidden, of_outputs = ([x.numpy() for x in of_kind] for of_kind in found)
    after = [kept[f"{step + 1}/{place}"] for place in range(4)]
    arrays = {
        "activations": [np.concatenate(hidden), np.concatenate(outputs)],
        "activation_gradients": [np.concatenate(of_hidden), np.concatenate(of_outputs)],
        "weights": [weight.numpy() for weight in weights],
        "gradients": gradients,
        "updates": [one - weight.numpy() for one, weight in zip(after, weights, strict=True)],
    }
    return arrays, float(loss)


def assert_measured(reader, step, arrays):
    frame = reader.frame(step)
    assert set(frame.histograms) == (set() if step else set(arrays))  # these come rarely
    for kind, of_kind in arrays.items():
        rows, histograms = frame.matrices[kind], frame.histograms.get(kind)
        assert len(rows) == len(of_kind)
        for number, array in enumerate(of_kind):
            row = reference_row(array)
            np.testing.assert_allclose(rows[number], row, rtol=1e-4, atol=1e-6, err_msg=f"{kind} {number} {step}")
            if histograms is not None:
                moved = np.abs(histograms.row(number) - reference_counts(array)).sum()
                assert moved <= 0.02 * array.size + 4, (kind, number, step)


def test_replicas_are_measured_as_the_whole_batch_by_hand(launch, tmp_path):
    launch("mirrored.py", "values")
    for name in ("sgd", "on_devices", "loss_scaled", "loss_scaling"):
        reader = reader_of(tmp_path, name)
        kept = np.load(tmp_path / f"{name}.npz")
        assert NO_PROFILE in reader.info().notices
        assert reader.steps("activations").tolist() == [0, 1]
        for step, parts in enumerate(([slice(0, 4), slice(4, 8)], [slice(8, 11), slice(11, 13)])):
            arrays, loss = by_hand(kept, step, parts)
            assert_measured(reader, step, arrays)
            assert reader.frame(step).scalars["loss"] == pytest.approx(loss, rel=1e-5)
        # What Keras shows of the first step is of that step alone.
        assert reader.frame(0).scalars["loss"] == pytest.approx(kept["losses"][0], rel=1e-6)
    assert reader.matrix("activations", 0)[0, COUNT] == 8 * 4
    assert reader.matrix("activations", 1)[0, COUNT] == 5 * 4


def test_what_is_not_finite_on_one_replica_is_found(launch, tmp_path):
    launch("mirrored.py", "broken")
    measured, looked_at = reader_of(tmp_path, "measured"), reader_of(tmp_path, "looked_at")
    assert measured.frame(0).anomalies == ()
    np.testing.assert_array_equal(measured.matrix("activations", 1)[:, [COUNT, NAN]], [[20, 4], [10, 2]])
    assert measured.frame(1).anomalies[:3] == (
        Anomaly("forward", 0, None, 4, 0, 0),
        Anomaly("forward", 1, None, 2, 0, 0),
        Anomaly("loss"),
    )
    assert list(looked_at.anomalies()) == [1]
    assert [(found.place, found.layer, found.parameter) for found in looked_at.anomalies()[1]] == [
        ("forward", 0, None),
        ("forward", 1, None),
        ("loss", None, None),
        ("backward", 1, None),
        ("backward", 0, None),
        *(("parameter", parameter // 2, parameter) for parameter in range(4)),
    ]


@pytest.mark.parametrize(
    ("model", "intervals"), [("normalized", [1, 3]), ("mixed_precision", [3]), ("eager", [3])], ids=str
)
def test_training_is_the_same_to_the_last_bit(model, intervals, launch, tmp_path):
    launch("mirrored.py", model, *map(str, intervals))
    without = np.load(tmp_path / "without.npz")
    for every in intervals:
        trained = np.load(tmp_path / f"every_{every}.npz")
        assert trained.files == without.files
        for name in without.files:
            np.testing.assert_array_equal(trained[name], without[name], err_msg=f"{name}, every={every}")
        reader = reader_of(tmp_path, f"every_{every}")
        assert reader.steps("activations").tolist() == list(range(0, 8, every))
        assert not [notice for notice in reader.info().notices if "switched" in notice]
