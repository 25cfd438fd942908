from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from neural.session import histogram
from neural.session.histogram import BINS, Histograms, counts_from_codes, reference_counts

values_of_any_size = arrays(
    np.float32, st.integers(0, 40), elements=st.floats(width=32, allow_nan=True, allow_infinity=True)
)


def codes(values: np.ndarray) -> np.ndarray:
    """The codes as the module's text defines them, for float32."""
    bits = np.asarray(values, np.float32).view(np.uint32) >> 23
    bits[values == 0] = 512
    bits[np.isnan(values)] = 513
    return bits


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (-math.inf, 0),
        (-3e38, 1),
        (-1.0, 128),
        (-1e-45, 255),
        (-0.0, 256),
        (0.0, 256),
        (1e-45, 257),
        (2.0**-126, 258),
        (0.5, 383),
        (1.0, 384),
        (1.999, 384),
        (2.0, 385),
        (3e38, 511),
        (1e300, 511),
        (math.inf, 512),
        (math.nan, 513),
    ],
)
def test_the_bin_of_a_value(value: float, expected: int) -> None:
    assert np.flatnonzero(reference_counts([value])).tolist() == [expected]


@given(values_of_any_size)
def test_counting_codes_gives_the_same_histogram(values: np.ndarray) -> None:
    counted = counts_from_codes(np.bincount(codes(values), minlength=BINS))
    np.testing.assert_array_equal(counted, reference_counts(values))


@given(values_of_any_size, values_of_any_size)
def test_histograms_merge_by_addition(first: np.ndarray, second: np.ndarray) -> None:
    merged = Histograms.from_rows({4: reference_counts(first)}) + Histograms.from_rows(
        {4: reference_counts(second), 7: reference_counts(second)}
    )
    np.testing.assert_array_equal(merged.row(4), reference_counts(np.concatenate([first, second])))
    np.testing.assert_array_equal(merged.row(7), reference_counts(second))
    assert not merged.row(5).any()
    assert (merged.entries[:, 2] > 0).all()


def test_a_large_tensor_is_thinned_to_a_bounded_number() -> None:
    for size in (1, 2**17, 2**17 + 1, 10**6, 10**8, 6 * 10**9):
        n = histogram.stride(size)
        assert size / n <= histogram.MAX_VALUES
        assert n == 1 or size / n >= histogram.MAX_VALUES / 11.5


def test_every_stride_is_a_prime() -> None:
    for n in histogram.STRIDES[1:]:
        assert all(n % factor for factor in range(2, math.isqrt(n) + 1))
