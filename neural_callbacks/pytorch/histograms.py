"""The histograms of torch tensors: counts by code, as `neural.session.histogram` defines codes and strides."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from neural.session import histogram
from neural.session.histogram import IntArray

# Codes of a float32 by its upper nine bits: the exponent all zero (zero and subnormal), all one (Inf and NaN).
TINY, NEGATIVE_TINY, INFINITY, NEGATIVE_INFINITY = 0, 256, 255, 511
FLOAT32_MANTISSA_BITS = 23


def sample(flat: Tensor) -> Tensor:
    """Return the values of (n,) that its histogram is of: every k-th in memory order, k by `histogram.stride`."""
    return flat[:: histogram.stride(flat.numel())]


def host_counts(values: Tensor) -> IntArray:
    """Return the (514,) counts by code of a host tensor (n,) of float32 or float64."""
    if values.dtype == torch.float64:
        return np.bincount(_codes64(values).numpy(), minlength=histogram.BINS)
    # In numpy: for the few values that a histogram is of, its fewer and lighter calls outweigh torch's threads.
    array = values.numpy()
    counts: IntArray = np.bincount(array.view(np.uint32) >> FLOAT32_MANTISSA_BITS, minlength=histogram.BINS)
    # Few tensors have values with the outermost exponents; only these need a second look at the mantissa.
    tiny = counts[TINY] + counts[NEGATIVE_TINY]
    if tiny:
        zeros = np.count_nonzero(array == 0)
        below = np.count_nonzero((array < 0) & (array > -np.finfo(np.float32).tiny)) if zeros < tiny else 0
        counts[[histogram.ZERO_CODE, TINY, NEGATIVE_TINY]] = zeros, tiny - zeros - below, below
    if counts[INFINITY] or counts[NEGATIVE_INFINITY]:
        counts[histogram.NAN_CODE] = np.count_nonzero(np.isnan(array))
        counts[INFINITY] = np.count_nonzero(np.isposinf(array))
        counts[NEGATIVE_INFINITY] = np.count_nonzero(np.isneginf(array))
    return counts


def codes(values: Tensor) -> Tensor:
    """Return the int16 code of each value of a tensor of float32 or float64, on its device, without a host wait."""
    if values.dtype == torch.float64:
        return _codes64(values)
    code = (values.view(torch.int32) >> FLOAT32_MANTISSA_BITS).to(torch.int16) & (INFINITY + NEGATIVE_TINY)
    return _with_special(code, values)


def _codes64(values: Tensor) -> Tensor:
    # Not by way of float32: what is too large for it would count as infinite.
    _, exponent = torch.frexp(values)  # |x| = m * 2^exponent with m in [0.5, 1)
    code = (exponent - 1).clamp(histogram.MIN_EXPONENT, histogram.MAX_EXPONENT) - histogram.MIN_EXPONENT
    code = code.masked_fill(torch.isinf(values), INFINITY) + NEGATIVE_TINY * (values < 0)
    return _with_special(code.to(torch.int16), values)


def _with_special(code: Tensor, values: Tensor) -> Tensor:
    return code.masked_fill(values == 0, histogram.ZERO_CODE).masked_fill(torch.isnan(values), histogram.NAN_CODE)


def host_counts_together(values: Tensor, sizes: IntArray) -> IntArray:
    """Return the (k, 514) counts by code of k small tensors that stand one after the other in `values`."""
    places = torch.from_numpy(np.repeat(np.arange(len(sizes)) * histogram.BINS, sizes))
    counts: IntArray = torch.bincount(places.add_(codes(values)), minlength=len(sizes) * histogram.BINS).numpy()
    return counts.reshape(len(sizes), histogram.BINS)


def device_counts(values: Tensor) -> Tensor:
    """Return the counts by code of a tensor (n,) as an int64 tensor (514,) on its device, without a host wait.

    By sorting: `bincount` on a device asks the host how far to count.
    """
    edges = torch.arange(histogram.BINS + 1, dtype=torch.int16, device=values.device)
    places = torch.searchsorted(codes(values).sort().values, edges)
    return places.diff()
