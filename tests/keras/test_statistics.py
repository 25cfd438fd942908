"""Rows and histograms equal the references, where numpy makes them and where TensorFlow does."""

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from neural.session.histogram import BINS, counts_from_codes, reference_counts, stride
from neural.session.statistics import COUNT, L2, MAX, MEAN, MIN, STD, ZEROS, reference_row
from neural_callbacks.keras.arrays import measure_arrays
from neural_callbacks.keras.statistics import measure, split

NUMBERS = np.random.default_rng(7)
NORMAL = NUMBERS.normal(size=(13, 7, 5))

VALUES = {
    "normal": NORMAL,
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
}
DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float64": np.float64}


def by_bin(rows, counts):
    return rows, np.array([counts_from_codes(row) for row in counts]).reshape(len(rows), BINS)


def on_device(tensors):
    return by_bin(*split(tf.function(measure)(tensors).numpy()))


def on_host(tensors):
    return by_bin(*measure_arrays(tensors, binned=True))


MEASURES = pytest.mark.parametrize("measured", [on_device, on_host])


@MEASURES
@pytest.mark.parametrize("dtype", DTYPES)
def test_measurements_equal_the_references(dtype, measured):
    with np.errstate(over="ignore", invalid="ignore"):
        arrays = {name: values.astype(DTYPES[dtype]) for name, values in VALUES.items()}
    tensors = [tf.constant(array) for array in arrays.values()]
    rows, counts = measured(tensors)
    for name, row, found in zip(arrays, rows, counts, strict=True):
        assert_rows_agree(row, reference_row(arrays[name]), name)
        np.testing.assert_array_equal(found, reference_counts(arrays[name]), err_msg=name)


@MEASURES
def test_measurements_of_more_values_equal_the_references(measured):
    with np.errstate(over="ignore", invalid="ignore"):
        arrays = {name: np.resize(values, 9001).astype("float32") for name, values in VALUES.items() if values.size}
    rows, counts = measured([tf.constant(array) for array in arrays.values()])
    for name, row, found in zip(arrays, rows, counts, strict=True):
        assert_rows_agree(row, reference_row(arrays[name]), name)
        np.testing.assert_array_equal(found, reference_counts(arrays[name]), err_msg=name)


@MEASURES
def test_many_small_tensors_beside_large_ones_keep_their_places(measured):
    sizes = [5000, 20_000, 1, 7000] * 20
    arrays = [NUMBERS.normal(number, size=size).astype("float32") for number, size in enumerate(sizes)]
    rows = measured([tf.constant(array) for array in arrays])[0]
    for row, array in zip(rows, arrays, strict=True):
        assert_rows_agree(row, reference_row(array), f"{array.size} values around {array.mean():.0f}")


def assert_rows_agree(row, reference, name):
    # A mean is told from zero, and a deviation too, only as finely as the size of the values allows.
    largest = np.nan_to_num(np.abs(reference[[MIN, MAX]]).max())
    blur = np.zeros_like(row)
    blur[[MEAN, STD]] = 1e-6 * largest, 1e-15 * largest
    np.testing.assert_array_equal(np.isnan(row), np.isnan(reference), err_msg=name)
    assert np.all(np.isnan(row) | (np.abs(row - reference) <= 1e-5 * np.abs(reference) + blur)), (name, row, reference)


@MEASURES
def test_every_nth_value_of_a_large_tensor_makes_its_histogram(measured):
    values = NUMBERS.normal(size=(300, 1001)).astype("float32")
    values[values < -1] = 0
    n = stride(values.size)
    assert n == 11
    rows, counts = measured([tf.constant(values)])
    np.testing.assert_array_equal(counts[0], reference_counts(values.ravel()[::n]))
    np.testing.assert_allclose(rows[0], reference_row(values), rtol=2e-5)
    assert rows[0, ZEROS] == np.count_nonzero(values == 0)


@MEASURES
def test_a_deviation_far_below_the_mean_keeps_its_digits(measured):
    values = (1000 + 1e-2 * NUMBERS.normal(size=200_000)).astype("float32")
    row = measured([tf.constant(values)])[0][0]
    reference = reference_row(values)
    np.testing.assert_allclose(row[[COUNT, MIN, MAX, MEAN, STD, L2]], reference[[COUNT, MIN, MAX, MEAN, STD, L2]], 1e-5)


@MEASURES
def test_many_values_keep_their_digits(measured):
    values = NUMBERS.random(2**22).astype("float32")
    np.testing.assert_allclose(measured([tf.constant(values)])[0][0], reference_row(values), rtol=1e-5)


@MEASURES
def test_subnormal_numbers_are_no_zeros_in_the_histogram(measured):
    values = np.array([1e-40, -1e-40, 0.0, -0.0, 1.0, np.nan, -np.nan, np.inf], "float32")
    np.testing.assert_array_equal(measured([tf.constant(values)])[1][0], reference_counts(values))


@MEASURES
def test_nothing_to_measure_is_an_empty_matrix(measured):
    rows, counts = measured([])
    assert (rows.shape, counts.shape) == ((0, 10), (0, 514))
