"""Rows and histograms equal the references where JAX makes them."""

import ml_dtypes
import numpy as np
import pytest

from neural.session.histogram import reference_counts, stride
from neural.session.statistics import COUNT, MAX, MEAN, MIN, STD, reference_row

NUMBERS = np.random.default_rng(7)
NORMAL = NUMBERS.normal(size=(13, 7, 5))

VALUES = {
    "normal": NORMAL,
    "of the same size": NORMAL + 1,
    "mostly zeros": np.where(NORMAL > 1, NORMAL, 0),
    "scalar": np.array(-2.5),
    "empty": np.zeros((0, 4)),
    "all zero": np.zeros(9),
    "negative zero": np.array([-0.0, 0.0, 1.0]),
    "all NaN": np.full(6, np.nan),
    "infinities": np.array([np.inf, -np.inf, np.inf, np.nan, 2.0, -3.0, 0.0]),
    "only infinities": np.array([np.inf, -np.inf]),
    "huge": NORMAL * 1e38,
    "huge, one sign": np.full(1000, 3e38),
    "tiny": NORMAL * 1e-30,
    "mean beyond deviation": NORMAL + 1e4,
    "beyond float32": NORMAL * 1e300,
    "powers of two": 2.0 ** np.arange(-126, 128),
    "large": np.where(NUMBERS.random((300, 1001)) < 0.2, 0, NUMBERS.normal(size=(300, 1001))),
    "deviation far below the mean": 1000 + 1e-2 * NUMBERS.normal(size=200_000),
}
DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float64": np.float64}


@pytest.mark.parametrize("dtype", DTYPES)
def test_measurements_equal_the_references(dtype, on_jax, tmp_path):
    np.savez(tmp_path / "arrays.npz", **VALUES)
    assert on_jax("measure_arrays.py", dtype) == [[[0, 10], [0, 514]], None]
    with np.load(tmp_path / "measured.npz") as found, np.errstate(over="ignore", invalid="ignore"):
        arrays = {name: values.astype(DTYPES[dtype]) for name, values in VALUES.items()}
        for name, row, counts in zip(arrays, found["rows"], found["counts"], strict=True):
            assert_rows_agree(row, reference_row(arrays[name]), name)
            sampled = arrays[name].ravel()[:: stride(arrays[name].size)]
            np.testing.assert_array_equal(counts, reference_counts(sampled), err_msg=name)


def assert_rows_agree(row, reference, name):
    # A mean is told from zero, and a deviation too, only as finely as the size of the values allows.
    largest = np.nan_to_num(np.abs(reference[[MIN, MAX]]).max())
    blur = np.zeros_like(row)
    blur[[MEAN, STD]] = 1e-6 * largest, 1e-15 * largest
    np.testing.assert_array_equal(np.isnan(row), np.isnan(reference), err_msg=name)
    assert row[COUNT] == reference[COUNT]
    assert np.all(np.isnan(row) | (np.abs(row - reference) <= 1e-5 * np.abs(reference) + blur)), (name, row, reference)
