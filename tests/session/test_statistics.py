from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from neural.session import statistics
from neural.session.statistics import COLUMNS, merge, reference_row, select

any_float = st.floats(width=32, allow_nan=True, allow_infinity=True)


def column(row: np.ndarray, name: str) -> float:
    return float(row[COLUMNS.index(name)])


def test_the_columns_are_the_ones_of_the_format() -> None:
    assert COLUMNS == ("count", "nan", "posinf", "neginf", "zeros", "min", "max", "mean", "std", "l2")


def test_a_row_counted_by_hand() -> None:
    row = reference_row([[3.0, -4.0, 0.0], [math.nan, math.inf, -math.inf]])
    expected = [6, 1, 1, 1, 1, -4, 3, -1 / 3, math.sqrt((9 + 16) / 3 - 1 / 9), 5]
    np.testing.assert_allclose(row, expected, rtol=1e-15)


def test_an_empty_tensor_is_measured_and_has_no_moments() -> None:
    row = reference_row(np.empty((0, 3), np.float32))
    np.testing.assert_array_equal(row, [0, 0, 0, 0, 0, math.nan, math.nan, math.nan, math.nan, 0])


def test_nothing_finite_leaves_the_counts() -> None:
    row = reference_row([math.nan, math.nan])
    np.testing.assert_array_equal(row, [2, 2, 0, 0, 0, math.nan, math.nan, math.nan, math.nan, 0])


@pytest.mark.parametrize("scale", [1e-320, 1e-200, 1e-30, 1e30, 1e200, 1e300])
def test_l2_neither_overflows_nor_vanishes(scale: float) -> None:
    assert column(reference_row([3 * scale, 4 * scale]), "l2") == pytest.approx(5 * scale, rel=1e-3)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_every_dtype_is_measured_in_double_precision(dtype: type) -> None:
    values = np.full(70_000, 2, dtype)
    assert column(reference_row(values), "l2") == pytest.approx(2 * math.sqrt(70_000))


@given(st.lists(arrays(np.float64, array_shapes(max_dims=2, min_side=0), elements=any_float), min_size=1, max_size=5))
def test_merged_rows_are_the_row_of_the_whole(parts: list[np.ndarray]) -> None:
    merged = merge(np.stack([reference_row(part) for part in parts]))
    whole = reference_row(np.concatenate([part.ravel() for part in parts]))
    scale = np.nanmax(np.abs(whole[5:]), initial=0)
    np.testing.assert_allclose(merged[0], whole, rtol=1e-9, atol=1e-7 * scale)


def test_groups_are_merged_apart_and_unmeasured_rows_count_for_nothing() -> None:
    first, second = reference_row([1.0, 2.0]), reference_row([5.0])
    rows = np.stack([first, *statistics.unmeasured(1), second, *statistics.unmeasured(2)])
    merged = merge(np.stack([rows, rows]), starts=(0, 2, 3))
    assert merged.shape == (2, 3, 10)
    for step in merged:
        np.testing.assert_allclose(step[0], first)
        np.testing.assert_allclose(step[1], second)
        assert np.isnan(step[2]).all()


@given(arrays(np.float64, st.integers(0, 20), elements=any_float))
def test_derived_statistics(values: np.ndarray) -> None:
    rows = reference_row(values)[None]
    finite = values[np.isfinite(values)]
    if finite.size:
        largest = np.abs(finite).max()
        scaled = finite / largest if largest else finite
        expected_rms = largest * math.sqrt(np.mean(scaled**2))
        assert select(rows, "rms")[0] == pytest.approx(expected_rms, rel=1e-12)
        assert select(rows, "absmax")[0] == largest
    else:
        assert np.isnan(select(rows, "rms")[0])
        assert np.isnan(select(rows, "absmax")[0])
    assert select(rows, "nonfinite")[0] == values.size - finite.size
    if values.size:
        assert select(rows, "zero_share")[0] == np.mean(values == 0)
    assert select(rows, "mean").shape == (1,)


def test_what_was_not_measured_stays_so() -> None:
    for name in statistics.NAMES:
        assert np.isnan(select(statistics.unmeasured(3), name)).all()


def test_the_norm_over_several_tensors_hides_nothing_that_is_not_finite() -> None:
    rows = np.stack([reference_row([3.0]), statistics.unmeasured(1)[0], reference_row([0.0, -4.0])])
    assert statistics.global_norm(rows) == pytest.approx(5)
    assert statistics.global_norm(statistics.unmeasured(2)) == 0
    assert statistics.global_norm(np.stack([*rows, reference_row([math.inf])])) == math.inf
    assert math.isnan(statistics.global_norm(np.stack([*rows, reference_row([-math.inf, math.nan])])))


def test_an_unknown_statistic_is_named() -> None:
    with pytest.raises(ValueError, match="There is no statistic 'median'; write one of count, nan, "):
        select(statistics.unmeasured(1), "median")
