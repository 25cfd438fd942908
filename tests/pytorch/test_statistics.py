"""Each way to a row gives what the numpy reference gives."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from neural.session import statistics as reference
from neural_callbacks.pytorch import statistics
from neural_callbacks.pytorch.statistics import measurable

FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]

NAN, INF = math.nan, math.inf

CASES = {
    "empty": torch.empty(0),
    "one value": torch.tensor([-3.0]),
    "ordinary": torch.linspace(-2, 3, 1001),
    "large": torch.sin(torch.arange(300_001.0)),
    "all zero": torch.zeros(12),
    "both zeros": torch.tensor([0.0, -0.0, 1.0]),
    "all NaN": torch.full((5,), NAN),
    "all Inf": torch.tensor([INF, INF, -INF]),
    "some not finite": torch.tensor([NAN, 1.0, -2.0, INF, -INF, 0.0, INF]),
    "huge": torch.tensor([1e38, -3e38, 2e38, 0.0]),
    "tiny": torch.tensor([1e-30, -3e-30, 2e-30]),
    "with subnormal squares": 1e-21 * torch.linspace(-2, 3, 1001),
    "subnormal": torch.tensor([2e-45, -3e-42, 1e-40]),
    "huge and tiny": torch.tensor([1e38, 1e-38, 1.0]),
    "far from zero": 1000 + 1e-3 * torch.sin(torch.arange(10_000.0)),
    "far below zero": -1000 + 1e-3 * torch.sin(torch.arange(10_000.0)),
    "constant": torch.full((1000,), 0.1),
    "rectified": torch.sin(torch.arange(5000.0)).relu(),
    "matrix": torch.arange(12.0).reshape(3, 4),
}


def host_row(flat):
    return np.array(statistics.host_row(flat))


def host_rows(flat):
    """The row as one of several that are reduced together, between two others."""
    neighbour = torch.tensor([5.0, -INF, NAN], dtype=flat.dtype)
    return statistics.host_rows(torch.cat([neighbour, flat, neighbour]), np.array([3, len(flat), 3]))[1]


def device_row(flat):
    return statistics.device_row(flat).numpy()


def assert_is_row_of(row, flat):
    expected = reference.reference_row(flat.double().numpy())
    exact = [reference.COUNT, reference.NAN, reference.POSINF, reference.NEGINF, reference.ZEROS]
    np.testing.assert_array_equal(row[exact], expected[exact])
    np.testing.assert_array_equal(row[[reference.MIN, reference.MAX]], expected[[reference.MIN, reference.MAX]])
    largest = np.nanmax(np.abs(np.append(expected[[reference.MIN, reference.MAX]], 0)))
    np.testing.assert_allclose(row[reference.MEAN], expected[reference.MEAN], rtol=1e-5, atol=1e-6 * largest)
    np.testing.assert_allclose(row[reference.STD], expected[reference.STD], rtol=1e-4, atol=1e-12 * largest)
    np.testing.assert_allclose(row[reference.L2], expected[reference.L2], rtol=1e-5)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("way", [host_row, host_rows, device_row])
def test_row_is_that_of_the_reference(way, case, dtype):
    values = CASES[case].to(dtype)
    flat = measurable(values)
    if way is host_rows and not len(flat):
        return
    before = values.clone()
    assert_is_row_of(way(flat), values.reshape(-1))
    assert torch.equal(values.nan_to_num(7), before.nan_to_num(7)), "measuring wrote into the tensor"


@pytest.mark.parametrize("way", [host_row, host_rows, device_row])
@settings(max_examples=60, deadline=None)
@given(
    values=hnp.arrays(
        np.float32, st.integers(1, 40), elements=st.floats(width=32) | st.sampled_from([0.0, 1.0, 1000.0, 1000.001])
    )
)
def test_row_of_any_values_is_that_of_the_reference(way, values):
    flat = torch.from_numpy(values.copy())
    assert_is_row_of(way(flat), flat)


@pytest.mark.parametrize("way", [host_row, host_rows, device_row])
def test_deviation_is_accurate_far_from_zero(way):
    draw = np.random.default_rng(0)
    flat = torch.from_numpy(draw.normal(1000, 1e-3, 100_000).astype(np.float32))
    expected = np.std(flat.double().numpy())
    assert way(flat)[reference.STD] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("way", [host_row, host_rows, device_row])
def test_large_float64_neither_overflows_nor_vanishes(way):
    assert way(torch.tensor([3e200, -4e200], dtype=torch.float64))[reference.L2] == pytest.approx(5e200)
    assert way(torch.tensor([3e-200, -4e-200], dtype=torch.float64))[reference.L2] == pytest.approx(5e-200, abs=0)


def test_memory_order_is_taken_without_a_copy():
    image = torch.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5).to(memory_format=torch.channels_last)
    flat = measurable(image)
    assert flat.data_ptr() == image.data_ptr()
    assert_is_row_of(host_row(flat), image.reshape(-1))


def test_expanded_and_sliced_tensors_are_measured_as_they_read():
    for values in (torch.tensor([2.0]).expand(3, 4), torch.arange(24.0).reshape(4, 6)[:, ::2], torch.tensor(3.0)):
        assert_is_row_of(host_row(measurable(values)), values.reshape(-1))


def test_of_a_sparse_tensor_the_stored_values_are_measured_with_doubles_added_up():
    index, values = torch.tensor([[1, 3, 1]]), torch.tensor([[1.0], [2.0], [3.0]])
    sparse = torch.sparse_coo_tensor(index, values, (10, 1), check_invariants=True)
    assert sorted(measurable(sparse).tolist()) == [2.0, 4.0]
    assert not sparse.is_coalesced()


@pytest.mark.parametrize(
    "values", [torch.arange(3), torch.ones(3, dtype=torch.complex64), torch.empty(3, device="meta"), torch.ones(2) > 0]
)
def test_what_has_no_row_is_not_measured(values):
    assert measurable(values) is None


def test_autocast_and_deterministic_mode_change_nothing():
    flat = torch.sin(torch.arange(10_000.0))
    expected = [way(flat) for way in (host_row, host_rows, device_row)]
    torch.use_deterministic_algorithms(True)
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = [way(flat) for way in (host_row, host_rows, device_row)]
    finally:
        torch.use_deterministic_algorithms(False)
    np.testing.assert_array_equal(found, expected)
