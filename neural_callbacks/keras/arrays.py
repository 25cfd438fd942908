"""The statistics and histogram of arrays in the host's memory, where TensorFlow's CPU device keeps its tensors too.

Measured in processor time on 2^20 float32 values, histogram included: 0.5 ms here, 1.4 ms with TensorFlow's operations;
and a small tensor costs 0.01 ms in place of 0.07. So TensorFlow's are for devices with memory of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neural.session import histogram
from neural.session.histogram import IntArray, counts_from_codes, reference_counts, stride
from neural.session.statistics import COLUMNS, FloatArray

Float32Array = NDArray[np.float32]

# Between these magnitudes, squares of float32 values neither overflow nor vanish beside the largest of them. Others are
# summed in float64, in which none does; where a square vanishes, a processor may take a hundred times as long for it.
_LEAST, _GREATEST = 1e-8, 1e15
# Where mean^2 is less than this share of mean(x^2), their difference keeps five digits.
_MEAN_SHARE = 0.9
# Sums are taken in float32 over so many values, and of these sums in float64. A BLAS library takes the product of so
# short vectors (OpenBLAS: up to 10 000 values) in the calling thread: its own threads would contend with TensorFlow's.
_BLOCK = 2**13
_CACHED = 2**17
# Tensors of so few values are measured together, up to `_CACHED` of them: what each costs alone is the number of calls.
_FEW = 2**13
_SINGLE = np.dtype(np.float32).itemsize
_SIGN_CODE, _INFINITY_CODE = 256, 255


# Column c of counts by code is column _BIN_OF_CODE[c] of counts by bin.
_BIN_OF_CODE = np.argsort(counts_from_codes(np.arange(histogram.BINS)))


def measure_arrays(tensors: Sequence[Any], *, binned: bool) -> tuple[FloatArray, IntArray | None]:
    """Return the rows (n, 10) and, if `binned`, counts by code (n, 514) of n floating tensors in the host's memory.

    They are numpy's, or TensorFlow's; see `host_array`.
    """
    rows = np.empty((len(tensors), len(COLUMNS)))
    counts = np.empty((len(tensors), histogram.BINS), np.int64) if binned else None
    small: dict[int, Float32Array] = {}
    waiting = 0
    with np.errstate(all="ignore"):  # what is not finite is found, and done the thorough way
        for number, tensor in enumerate(tensors):
            values = host_array(tensor).reshape(-1)
            is_wide = values.dtype == np.float64
            if is_wide or not values.size:
                rows[number] = _thorough_row(values)
            elif values.size <= _FEW:
                small[number] = values
                waiting += values.size
            else:
                rows[number] = _row(values)
            if counts is not None:
                sampled = values[:: stride(values.size)]
                counts[number] = reference_counts(sampled)[_BIN_OF_CODE] if is_wide else _code_counts(sampled)
            if waiting > _CACHED:
                rows[[*small]] = _rows_together([*small.values()])
                small, waiting = {}, 0
        if small:
            rows[[*small]] = _rows_together([*small.values()])
    return rows, counts


def host_array(tensor: Any) -> NDArray[Any]:
    """Return the values of a floating tensor in the host's memory, of TensorFlow, JAX or numpy, as float32 or float64.

    Of two tensors, what the first has more than the second.
    """
    if isinstance(tensor, tuple):
        more, less = map(host_array, tensor)
        difference: NDArray[Any] = more - less
        return difference
    if isinstance(tensor.dtype, np.dtype):
        values = np.asarray(tensor)
        return values.astype(np.float32) if values.itemsize < _SINGLE else values
    # A tensor's own numpy() copies; its buffer is read where it lies, except for types that a buffer cannot name.
    half = tensor.dtype.size < _SINGLE
    return tensor.numpy().astype(np.float32) if half else np.asarray(memoryview(tensor))


def _rows_together(tensors: Sequence[Float32Array]) -> FloatArray:
    """Return the rows (n, 10) of n tensors, none of them empty."""
    sizes = np.array([x.size for x in tensors])
    starts = np.cumsum(sizes) - sizes
    x = np.concatenate(tensors)
    least, greatest = np.minimum.reduceat(x, starts), np.maximum.reduceat(x, starts)  # NaN where there is one
    zeros = np.add.reduceat(x == 0, starts, dtype=np.int64)
    wide = x.astype(np.float64)  # in which the squares of float32 values neither overflow nor vanish
    mean = np.add.reduceat(wide, starts) / sizes
    l2 = np.sqrt(np.add.reduceat(wide * wide, starts))
    wide -= np.repeat(mean, sizes)
    std = np.sqrt(np.add.reduceat(wide * wide, starts) / sizes)
    none = np.zeros_like(sizes)
    rows = np.stack([sizes, none, none, none, zeros, least, greatest, mean, std, l2], axis=1)
    for place in np.flatnonzero(~np.isfinite(least) | ~np.isfinite(greatest)).tolist():
        rows[place] = _thorough_row(tensors[place])
    return rows


def _row(x: Float32Array) -> FloatArray:
    # By parts that stay in the processor's cache from one quantity to the next.
    pieces = [x[start : start + _CACHED] for start in range(0, x.size, _CACHED)]
    parts = np.array([_part(piece) for piece in pieces])
    least, greatest, zeros = parts[:, 0].min(), parts[:, 1].max(), parts[:, 2].sum()  # NaN where there is one
    if not np.isfinite(greatest - least):
        return _thorough_row(x)
    total, squares = parts[:, 3].sum(), parts[:, 4].sum()
    mean = total / x.size
    variance = squares / x.size - mean**2
    if total**2 > _MEAN_SHARE * squares * x.size:
        off, around = np.sum([_wide_sums(piece, mean) for piece in pieces], axis=0) / x.size
        mean += off
        variance = around - off**2
    return np.array([x.size, 0, 0, 0, zeros, least, greatest, mean, max(variance, 0.0) ** 0.5, squares**0.5])


def _part(x: Float32Array) -> tuple[float, ...]:
    """Return the least and the greatest value, how many are zero, their sum, and the sum of their squares."""
    least, greatest = float(x.min()), float(x.max())
    if least == greatest == 0:
        return 0.0, 0.0, float(x.size), 0.0, 0.0
    zeros = np.count_nonzero(x == 0) if least <= 0 <= greatest else 0
    fits = _LEAST <= max(-least, greatest) <= _GREATEST
    return least, greatest, float(zeros), *(_sums(x) if fits else _wide_sums(x, 0.0))


def _sums(x: Float32Array) -> tuple[float, float]:
    """Return the sum of the values and the sum of their squares."""
    whole = x.size - x.size % _BLOCK
    blocks, rest = x[:whole].reshape(-1, _BLOCK), x[whole:]
    return (
        float(np.einsum("ij->i", blocks).sum(dtype=np.float64)) + float(np.einsum("i->", rest)),
        float((blocks[:, None] @ blocks[:, :, None]).sum(dtype=np.float64)) + float(rest @ rest),
    )


def _wide_sums(x: Float32Array, mean: float) -> tuple[float, float]:
    """Return the sums of the values less `mean` and of the squares of that, in float64."""
    wide = x.astype(np.float64)
    wide -= mean
    return float(wide.sum()), float(np.einsum("i,i->", wide, wide))


def _thorough_row(x: NDArray[Any]) -> FloatArray:
    """Return the row of any values, scaled so that no square overflows or vanishes in float64."""
    finite = x[np.isfinite(x)].astype(np.float64)
    row = np.full(len(COLUMNS), np.nan)
    row[:5] = (
        x.size,
        np.count_nonzero(np.isnan(x)),
        np.count_nonzero(x == np.inf),
        np.count_nonzero(x == -np.inf),
        x.size - np.count_nonzero(x),
    )
    row[-1] = 0
    if finite.size:
        least, greatest = finite.min(), finite.max()
        scale = max(-least, greatest) or 1.0
        finite /= scale
        mean = finite.mean()
        l2 = np.sqrt(np.dot(finite, finite))
        finite -= mean
        row[5:] = least, greatest, mean * scale, np.sqrt(np.dot(finite, finite) / finite.size) * scale, l2 * scale
    return row


def _code_counts(x: Float32Array) -> IntArray:
    """Return the (514,) counts by code: exact zeros and NaN are looked for only where their codes occur."""
    bits = np.ascontiguousarray(x).view(np.uint32)
    counts = np.bincount(bits >> 23, minlength=histogram.BINS)
    if counts[0] or counts[_SIGN_CODE]:
        zero = np.count_nonzero(bits == 0)
        negative_zero = np.count_nonzero(bits == 1 << 31)
        counts[[0, _SIGN_CODE, histogram.ZERO_CODE]] += -zero, -negative_zero, zero + negative_zero
    if counts[_INFINITY_CODE] or counts[_SIGN_CODE + _INFINITY_CODE]:
        nan = np.isnan(x)
        negative = np.count_nonzero(nan & np.signbit(x))
        positive = np.count_nonzero(nan) - negative
        places = [_INFINITY_CODE, _SIGN_CODE + _INFINITY_CODE, histogram.NAN_CODE]
        counts[places] += -positive, -negative, positive + negative
    return counts
