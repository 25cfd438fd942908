"""The statistics of torch tensors: one row of `neural.session.statistics.COLUMNS` each.

There are two ways to the same row. On the host reading a result costs nothing, so the way may depend on the values:
tensors without NaN or Inf, which is nearly all, take three passes. On a device it may not, because asking would make
the host wait: `device_row` is the same sequence of kernels whatever the values are.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from neural.session import statistics
from neural.session.histogram import IntArray
from neural.session.statistics import FloatArray
from neural_callbacks.pytorch.distributed import local

# The ten numbers of `neural.session.statistics.COLUMNS`.
Row = tuple[float, ...]

# Tensors that are no subclass with a way of its own.
PLAIN = (Tensor, nn.Parameter)
# Values that are reduced at a time: 4 MB of float32, which stays in the processor's last cache for the passes. Of
# tensors that come cold from memory whole passes took 0.45 ms per million values, blocks of 2^17 values 0.65.
BLOCK = 2**20
# Below this many values numpy finds the least and the greatest faster than torch (4 us against 6), above it torch,
# whose passes run on all threads.
FEW = 2**15
# Where the largest magnitude is less, squares lose bits before they vanish; where it is more, a sum of as many squares
# as a block has values might overflow.
SMALLEST_SQUARED = {torch.float32: 1e-15, torch.float64: 1e-140}
LARGEST_SQUARED = {torch.float32: 1e13, torch.float64: 1e140}
# E[x^2] - E[x]^2 loses to cancellation what the deviation is smaller than the mean; below this share of E[x^2] the
# deviation is computed from x - mean instead. It leaves a relative error of about 1e-6 / 0.1 in the variance.
CANCELLATION = 0.1


def measurable(values: Tensor) -> Tensor | None:
    """Return what is measured of a tensor: its values in memory order (n,), as float32 or float64; None if nothing.

    Float16, bfloat16 and narrower become float32, which holds them exactly. Of a sparse tensor these are the values
    that it stores, added up where an index stands twice. Integers, complex numbers and tensors without data (the
    meta device) are not measured. Of a tensor that is spread over several processes this is the part of this one.
    Shares memory with `values` where it can.
    """
    is_plain = type(values) in PLAIN and values.dtype is torch.float32 and values.layout is torch.strided
    if is_plain and not values.is_meta and values.is_contiguous():
        return values.detach().view(-1)  # nearly all: what follows would come to the same, in five times the time
    if not values.is_floating_point() or values.is_meta:
        return None
    values = local(values.detach())
    if values.layout is not torch.strided:
        values = (values.coalesce() if values.is_sparse else values).values()
    if not values.is_contiguous():
        # A dense tensor in another memory format (channels last, transposed) is contiguous in some order of its axes.
        values = values.permute(sorted(range(values.dim()), key=values.stride, reverse=True))
    flat = values.reshape(-1)
    return flat if flat.dtype in (torch.float32, torch.float64) else flat.float()


def host_row(flat: Tensor, taken: list[Tensor] | None = None, stride: int = 1) -> Row:
    """Return the row (10 numbers) of a host tensor (n,) of float32 or float64.

    Every `stride`-th value is put into `taken` on the way, in pieces, while it is in the processor's cache. A tensor
    with NaN or Inf is left before all is taken.
    """
    size = flat.numel()
    if size == 0:
        return (0, 0, 0, 0, 0, math.nan, math.nan, math.nan, math.nan, 0)
    low, high, zeros, total, squares = math.inf, -math.inf, 0, 0.0, 0.0
    largest_squared = LARGEST_SQUARED[flat.dtype]
    for number, block in enumerate(flat.split(BLOCK) if size > BLOCK else (flat,)):
        values = block.numpy()
        if size <= FEW:
            least, most = float(values.min()), float(values.max())
        else:
            least, most = (bound.item() for bound in torch.aminmax(block))
        if not (math.isfinite(least) and math.isfinite(most)):
            return _row_with_nonfinite(flat)
        low, high = min(low, least), max(high, most)
        if least <= 0 <= most:
            # In numpy: torch's comparison and its count_nonzero take 4 and 20 times as long.
            zeros += int(np.count_nonzero(values == 0))
        total += block.sum().item()
        # BLAS through numpy: a third less than torch.dot. What would overflow there is computed by `_moments`.
        squares += float(values.dot(values)) if max(-least, most) < largest_squared else math.inf
        if taken is not None:
            taken.append(block[-number * BLOCK % stride :: stride].clone())
    mean, std, l2 = _moments(flat, low, high, total / size, squares / size)
    return (size, 0, 0, 0, zeros, low, high, mean, std, l2)


def _row_with_nonfinite(flat: Tensor) -> Row:
    _, _, _, _, *rest = host_row(flat[torch.isfinite(flat)])
    tests = (torch.isnan, torch.isposinf, torch.isneginf)
    return (flat.numel(), *(torch.count_nonzero(test(flat)).item() for test in tests), *rest)


def _moments(flat: Tensor, low: float, high: float, mean: float, mean_square: float) -> tuple[float, float, float]:
    """Return mean, standard deviation and l2 from those of a plain sum, where these are good enough."""
    size = flat.numel()
    if low == high:
        return low, 0.0, abs(low) * math.sqrt(size)
    largest = max(-low, high)
    variance = mean_square - mean * mean
    if largest > SMALLEST_SQUARED[flat.dtype] and variance > CANCELLATION * mean_square:
        return mean, math.sqrt(variance), math.sqrt(mean_square * size)
    scaled = flat.double() / largest  # a copy, which is centred in place
    l2 = torch.linalg.vector_norm(scaled).item()
    mean = scaled.sum().item() / size
    scaled.sub_(mean)
    rest = scaled.sum().item() / size  # what rounding left in the mean
    variance = torch.dot(scaled, scaled).item() / size - rest * rest
    return largest * (mean + rest), largest * math.sqrt(max(variance, 0.0)), largest * l2


def host_rows(values: Tensor, sizes: IntArray) -> FloatArray:
    """Return the rows (k, 10) of k small host tensors that stand one after the other in `values`.

    Ten numpy calls for all of them, in place of ten for each: about 10 ns a value, so that it pays for tensors of up
    to a few thousand values. None may be empty.
    """
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    wide = values.numpy().astype(np.float64)  # a copy, which the scaling and centring below need
    rows = np.zeros((len(sizes), len(statistics.COLUMNS)))
    with np.errstate(invalid="ignore", over="ignore"):
        rows[:, statistics.COUNT] = sizes
        rows[:, statistics.ZEROS] = np.add.reduceat(wide == 0, starts, dtype=np.int64)
        rows[:, statistics.MIN] = low = np.minimum.reduceat(wide, starts)
        rows[:, statistics.MAX] = high = np.maximum.reduceat(wide, starts)
        largest = np.maximum(-low, high)
        scale = np.where(largest > 0, largest, 1.0)
        wide /= np.repeat(scale, sizes)
        rows[:, statistics.L2] = scale * np.sqrt(np.add.reduceat(wide * wide, starts))
        mean = np.add.reduceat(wide, starts) / sizes
        wide -= np.repeat(mean, sizes)
        rest = np.add.reduceat(wide, starts) / sizes
        variance = np.add.reduceat(wide * wide, starts) / sizes - rest * rest
        rows[:, statistics.MEAN] = scale * (mean + rest)
        rows[:, statistics.STD] = np.where(low == high, 0.0, scale * np.sqrt(np.maximum(variance, 0.0)))
    for index in np.flatnonzero(~np.isfinite(largest)):
        rows[index] = host_row(values[starts[index] : starts[index] + sizes[index]])
    return rows


def device_row(flat: Tensor) -> Tensor:
    """Return the row of a tensor (n,) of float32 or float64 as a tensor (10,) on its device, without a host wait.

    The row is float64; float32 on the "mps" device, which has no float64 (counts above 2^24 are rounded there).
    """
    wide = torch.float32 if flat.device.type == "mps" else torch.float64
    if flat.numel() == 0:
        return flat.new_tensor([0, 0, 0, 0, 0, math.nan, math.nan, math.nan, math.nan, 0], dtype=wide)
    finite = torch.isfinite(flat)
    count = torch.count_nonzero(finite)
    low = flat.masked_fill(~finite, math.inf).amin()
    high = flat.masked_fill(~finite, -math.inf).amax()
    # Scaled by a power of two, which is exact, so that no square overflows or vanishes.
    limit = 126 if flat.dtype == torch.float32 else 1022
    exponent = torch.frexp(torch.maximum(-low, high).nan_to_num(0, 0, 0))[1].clamp(-limit, limit)
    unit = torch.ones_like(low)
    scale = torch.ldexp(unit, exponent).to(wide)
    scaled = flat.masked_fill(~finite, 0) * torch.ldexp(unit, -exponent)
    l2 = torch.linalg.vector_norm(scaled, dtype=wide)
    mean = scaled.sum(dtype=wide) / count
    centred = (scaled - mean.to(scaled.dtype)).masked_fill(~finite, 0)
    rest = centred.sum(dtype=wide) / count
    variance = torch.linalg.vector_norm(centred, dtype=wide).square() / count - rest.square()
    none = count == 0
    columns = (
        torch.full_like(count, flat.numel()),
        torch.count_nonzero(torch.isnan(flat)),
        torch.count_nonzero(torch.isposinf(flat)),
        torch.count_nonzero(torch.isneginf(flat)),
        torch.count_nonzero(flat == 0),
        low.masked_fill(none, math.nan),
        high.masked_fill(none, math.nan),
        scale * (mean.to(scaled.dtype).to(wide) + rest),
        scale * variance.clamp_min(0).sqrt(),
        scale * l2,
    )
    return torch.stack([column.to(wide) for column in columns])
