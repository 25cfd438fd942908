"""Signed log2 histograms: one bin per power of two and sign, one for zero, and three for what is not finite.

There is no range to choose, two histograms merge by addition, and what would underflow in a narrower float type
can be read off. Bins ascend by value:

    0           -Inf
    1 .. 255    negative, 2^e <= |x| < 2^(e+1) for e = 127 down to -127
    256         zero
    257 .. 511  positive, e = -127 up to 127
    512         +Inf
    513         NaN

The exponents are those of float32 (and bfloat16). The bin of e = -127 also holds everything smaller (float32's
subnormal numbers), the bin of e = 127 everything larger (float64 only).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

MIN_EXPONENT, MAX_EXPONENT = -127, 127
EXPONENTS = MAX_EXPONENT - MIN_EXPONENT + 1
NEGATIVE_INFINITY = 0
ZERO = 1 + EXPONENTS
POSITIVE_INFINITY = ZERO + EXPONENTS + 1
NOT_A_NUMBER = POSITIVE_INFINITY + 1
BINS = NOT_A_NUMBER + 1

COLUMNS = ("row", "bin", "count")

IntArray = NDArray[np.int64]


def reference_counts(values: Any) -> IntArray:
    """Return the (514,) counts of `values`: the obvious definition that faster versions are tested against."""
    flat = np.asarray(values).astype(np.float64).ravel()
    bins = np.full(flat.shape, NOT_A_NUMBER)
    bins[flat == 0] = ZERO
    bins[np.isposinf(flat)] = POSITIVE_INFINITY
    bins[np.isneginf(flat)] = NEGATIVE_INFINITY
    ordinary = np.isfinite(flat) & (flat != 0)
    _, exponents = np.frexp(flat[ordinary])  # |x| = m * 2^exponent with m in [0.5, 1)
    offset = np.clip(exponents - 1, MIN_EXPONENT, MAX_EXPONENT) - MIN_EXPONENT + 1
    bins[ordinary] = ZERO + np.sign(flat[ordinary]).astype(np.int64) * offset
    return np.bincount(bins, minlength=BINS)


def _bin_of_code() -> IntArray:
    bins = np.empty(BINS, np.int64)
    bins[:EXPONENTS] = np.arange(ZERO + 1, POSITIVE_INFINITY)
    bins[EXPONENTS] = POSITIVE_INFINITY
    bins[EXPONENTS + 1 : 2 * EXPONENTS + 1] = np.arange(ZERO - 1, NEGATIVE_INFINITY, -1)
    bins[2 * EXPONENTS + 1] = NEGATIVE_INFINITY
    bins[ZERO_CODE], bins[NAN_CODE] = ZERO, NOT_A_NUMBER
    return bins


# What observers count on the device: the code of a float32 is its upper nine bits (sign, biased exponent) as an
# unsigned number, except that zero of either sign is 512 and NaN is 513. Codes and bins are in bijection.
ZERO_CODE, NAN_CODE = 512, 513
_BIN_OF_CODE = _bin_of_code()


def counts_from_codes(counts: Any) -> IntArray:
    """Turn (514,) counts by code, as `bincount(codes, minlength=514)` gives them, into (514,) counts by bin."""
    bins = np.empty(BINS, np.int64)
    bins[_BIN_OF_CODE] = counts
    return bins


# A histogram of more values than this is taken of every n-th value in memory order, so that its cost is bounded. The
# share of a bin is then within 2.8 % (three standard errors of a share of 1/2 over 2^15 / 11 values, the fewest).
MAX_VALUES = 2**15
# n is a prime that is no usual channel count or image width, so that the values taken walk through every channel.
STRIDES = (1, 11, 23, 47, 97, 197, 397, 797, 1597, 3203, 6421, 12853, 25717, 51437, 102877, 205759)


def stride(size: int) -> int:
    """Return n: the histogram of a tensor of `size` values is that of every n-th value."""
    return next((n for n in STRIDES if size <= n * MAX_VALUES), STRIDES[-1])


@dataclass(frozen=True)
class Histograms:
    """The histograms of one step for some rows of a matrix, kept sparsely.

    `entries` is (n, 3) int64: row, bin, count; sorted by row, then bin; a (row, bin) stands once, counts are
    positive. A row without entries was not measured.
    """

    entries: IntArray

    @classmethod
    def from_rows(cls, rows: Mapping[int, Any]) -> Self:
        """Collect (514,) counts by row number."""
        parts = [np.empty((0, len(COLUMNS)), np.int64)]
        for row in sorted(rows):
            counts = np.asarray(rows[row], np.int64)
            (occupied,) = np.nonzero(counts)
            parts.append(np.stack([np.full_like(occupied, row), occupied, counts[occupied]], axis=1))
        return cls(np.concatenate(parts))

    def row(self, row: int) -> IntArray:
        """Return the (514,) counts of one row; all zero where it was not measured."""
        first, last = np.searchsorted(self.entries[:, 0], [row, row + 1])
        counts = np.zeros(BINS, np.int64)
        counts[self.entries[first:last, 1]] = self.entries[first:last, 2]
        return counts

    def __add__(self, other: Histograms) -> Histograms:
        both = np.concatenate([self.entries, other.entries])
        keys, where = np.unique(both[:, 0] * BINS + both[:, 1], return_inverse=True)
        counts = np.zeros(len(keys), np.int64)
        np.add.at(counts, where, both[:, 2])
        return Histograms(np.stack([keys // BINS, keys % BINS, counts], axis=1))
