"""What a session on JAX holds of a step is what numpy makes of tensors that were computed by hand."""

import numpy as np
import pytest

from neural.session.histogram import reference_counts
from neural.session.reader import SessionReader
from neural.session.statistics import reference_row

KINDS = {"activations": 3, "activation_gradients": 3, "gradients": 4, "weights": 4, "updates": 4}


@pytest.mark.parametrize("measured", ["host", "device"])
def test_a_step_is_measured_as_by_hand(measured, on_jax, tmp_path):
    on_jax("train_by_hand.py", measured)
    by_hand = np.load(tmp_path / "by_hand.npz")
    for name in ("plain", "scaled"):
        reader = SessionReader(tmp_path / "runs" / name / "neuraldbg")
        reader.refresh()
        for kind, height in KINDS.items():
            rows, histograms = reader.matrix(kind, 0), reader.histograms(kind, 0)
            assert len(rows) == height
            for number, row in enumerate(rows):
                array = by_hand[f"{name}/{kind}/{number}"]
                message = f"{name} {kind} {number}"
                np.testing.assert_allclose(row, reference_row(array), rtol=2e-4, atol=1e-6, err_msg=message)
                # Two ways to compute a value may leave it on either side of a bin's edge.
                moved = np.abs(histograms.row(number) - reference_counts(array)).sum()
                assert moved <= 0.02 * array.size + 4, message
        scalars = reader.frame(0).scalars
        gradients = [by_hand[f"{name}/gradients/{number}"] for number in range(4)]
        norm = np.sqrt(sum(np.sum(np.square(gradient, dtype="float64")) for gradient in gradients))
        assert scalars["loss"] == pytest.approx(by_hand[f"{name}/loss/0"], rel=1e-5)
        assert scalars["gradient_norm"] == pytest.approx(norm, rel=1e-5)
        assert reader.info().notices == ()
