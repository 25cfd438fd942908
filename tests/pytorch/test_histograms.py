"""Counts by code, each way they are made, are those of the numpy reference over the same values."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from neural.session import histogram
from neural.session.statistics import reference_row
from neural_callbacks.pytorch import histograms
from neural_callbacks.pytorch.reducers import HostReducer

NAN, INF = math.nan, math.inf
CASES = {
    "empty": torch.empty(0),
    "ordinary": torch.linspace(-2, 3, 1001),
    "zeros of both signs": torch.tensor([0.0, -0.0, 0.0]),
    "not finite": torch.tensor([NAN, INF, -INF, INF, -NAN, 1.0]),
    "subnormal": torch.tensor([2e-45, -2e-45, -3e-42, 0.0, -0.0, 1e-40]),
    "edges": torch.tensor([1.0, 0.5, 2.0, -1.0, -2.0, 2.0**-126, -(2.0**-126), 2.0**127, -(2.0**127), 3e38]),
}


def host(values):
    return histograms.host_counts(values)


def together(values):
    neighbour = torch.tensor([5.0, 0.0, NAN], dtype=values.dtype)
    return histograms.host_counts_together(torch.cat([neighbour, values]), np.array([3, len(values)]))[1]


def device(values):
    return histograms.device_counts(values).numpy()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("way", [host, together, device])
def test_counts_are_those_of_the_reference(way, case, dtype):
    values = CASES[case].to(dtype)
    expected = histogram.reference_counts(values.numpy())
    np.testing.assert_array_equal(histogram.counts_from_codes(way(values)), expected)


@pytest.mark.parametrize("way", [host, together, device])
@settings(max_examples=60, deadline=None)
@given(values=hnp.arrays(st.sampled_from([np.float32, np.float64]), st.integers(1, 30)))
def test_counts_of_any_values_are_those_of_the_reference(way, values):
    counts = histogram.counts_from_codes(way(torch.from_numpy(values.copy())))
    np.testing.assert_array_equal(counts, histogram.reference_counts(values))


def test_float64_beyond_float32_falls_into_the_outermost_bins():
    values = torch.tensor([1e300, -1e300, 1e-300, -1e-300], dtype=torch.float64)
    for way in (host, together, device):
        np.testing.assert_array_equal(
            histogram.counts_from_codes(way(values)), histogram.reference_counts(values.numpy())
        )


@pytest.mark.parametrize("way", [host, device])
def test_of_a_large_tensor_every_nth_value_counts(way):
    flat = torch.sin(torch.arange(1_500_000.0))
    step = histogram.stride(len(flat))
    assert step > 1
    counts = histogram.counts_from_codes(way(histograms.sample(flat)))
    np.testing.assert_array_equal(counts, histogram.reference_counts(flat.numpy()[::step]))


@pytest.mark.parametrize("broken", [None, 0, 700_000, 1_499_999])
def test_values_taken_while_a_large_tensor_is_reduced_are_every_nth(broken):
    flat = torch.sin(torch.arange(1_500_000.0))
    if broken is not None:
        flat[broken] = torch.nan
    reducer = HostReducer(binned=True)
    reducer.measure(flat, lasting=True)
    reduced = reducer.collect()
    (row,), (counts,) = reduced.rows, reduced.counts
    taken = flat.numpy()[:: histogram.stride(len(flat))]
    np.testing.assert_array_equal(histogram.counts_from_codes(counts), histogram.reference_counts(taken))
    np.testing.assert_allclose(row, reference_row(flat.numpy()), rtol=1e-5, atol=1e-7)
