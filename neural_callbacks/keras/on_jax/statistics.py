"""The statistics and histogram of arrays as JAX computes them, on a device with memory of its own.

They are computed after the train step, by functions that are compiled once for each shape: inside the step XLA would
compile them anew for each tensor, which takes several times as long as the model's own step.

JAX computes in float32 unless a user asks for more, so moments are of values scaled by a power of two, which is exact,
and are scaled back on the host: no square overflows or vanishes. A device sums by parts, which keeps float32's digits
in large sums.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from neural.session import histogram
from neural.session.histogram import IntArray
from neural.session.statistics import FloatArray

# Copying a tensor of more values, to measure it beside others, costs more than another set of operations.
_STACKABLE = 2**15
# The counts of a row come first: count, nan, posinf, neginf and zeros.
_COUNTED = 5
_EXPONENT, _DIGITS = 0x7F800000, 23
_WIDE_EXPONENT, _WIDE_DIGITS, _WIDE_BIAS = 0x7FF << 52, 52, 1023
_NEGATIVE, _INFINITY_CODE = 256, 255


@dataclass(frozen=True)
class Measurements:
    """The measurements of n tensors, on the device.

    `groups` are those of tensors measured together: counts (k, 5 + 514) of int32, and moments (k, 6): a scale, min, max
    and, by the scale, mean, std and l2. `order` (n,) leads from the groups' rows to the tensors.
    """

    groups: Sequence[tuple[Any, Any]]
    order: IntArray


def measure(tensors: Sequence[Any]) -> Measurements:
    """Return the measurements of floating tensors of any shapes, without waiting for the device."""
    together: dict[Hashable, list[int]] = defaultdict(list)
    for number, tensor in enumerate(tensors):
        key = ("alone", number) if tensor.size > _STACKABLE else (tensor.size, tensor.dtype == jnp.float64)
        together[key].append(number)
    groups = [_measured([tensors[number] for number in numbers]) for numbers in together.values()]
    order = np.argsort([number for numbers in together.values() for number in numbers])
    return Measurements(groups, order)


def measured(measurements: Measurements, *, binned: bool) -> tuple[FloatArray, IntArray | None]:
    """Return the rows (n, 10) and, if `binned`, counts by code (n, 514) of n tensors; waits for the device."""
    counts, moments = np.zeros((0, _COUNTED + histogram.BINS), np.int64), np.zeros((0, 6))
    if measurements.groups:
        counts, moments = (np.concatenate(part)[measurements.order] for part in zip(*measurements.groups, strict=True))
    scale, least, greatest, mean, std, l2 = moments.astype(np.float64).T
    rows = np.column_stack([counts[:, :_COUNTED], least, greatest, mean * scale, std * scale, l2 * scale])
    return rows, counts[:, _COUNTED:].astype(np.int64) if binned else None


def _of_one_size(tensors: Sequence[Any]) -> tuple[Any, Any]:
    """Return the counts and moments of k tensors of one size."""
    flat = [tensor.reshape(-1) for tensor in tensors]
    x = jnp.stack([values if values.dtype == jnp.float64 else values.astype(jnp.float32) for values in flat])
    if not x.size:
        nothing = [1.0, np.nan, np.nan, np.nan, np.nan, 0.0]
        counts = jnp.zeros((len(x), _COUNTED + histogram.BINS), jnp.int32)
        return counts, jnp.tile(jnp.array(nothing, x.dtype), (len(x), 1))
    finite = jnp.isfinite(x)
    values = jnp.where(finite, x, 0)
    number = finite.sum(1)
    least = jnp.where(finite, x, jnp.inf).min(1)
    greatest = jnp.where(finite, x, -jnp.inf).max(1)
    scale = _power_of_two(jnp.abs(values).max(1))
    scaled = values / scale[:, None]
    mean = scaled.sum(1) / number
    off = jnp.where(finite, scaled - mean[:, None], 0)
    shift = off.sum(1) / number
    std = jnp.sqrt(jnp.maximum(jnp.square(off).sum(1) / number - jnp.square(shift), 0))
    some = [jnp.where(number > 0, column, jnp.nan) for column in (least, greatest, mean + shift, std)]
    moments = jnp.stack([scale, *some, jnp.sqrt(jnp.square(scaled).sum(1))], 1)
    counted = [jnp.ones_like(x, bool), jnp.isnan(x), jnp.isposinf(x), jnp.isneginf(x), _is_zero(x)]
    first = jnp.stack([column.sum(1, dtype=jnp.int32) for column in counted], 1)
    return jnp.concatenate([first, _counts(x[:, :: histogram.stride(x.shape[1])])], 1), moments


_measured = jax.jit(_of_one_size)


def _bits(x: Any) -> Any:
    return jax.lax.bitcast_convert_type(x, jnp.uint64 if x.dtype == jnp.float64 else jnp.uint32)


def _power_of_two(x: Any) -> Any:
    """Return the largest power of two that is not above `x` and has a reciprocal; 1 for zero and nearly zero."""
    power = jax.lax.bitcast_convert_type(_bits(x) & (_WIDE_EXPONENT if x.dtype == jnp.float64 else _EXPONENT), x.dtype)
    return jnp.where(power == 0, 1, jnp.minimum(power, 1 / jnp.finfo(x.dtype).smallest_normal))


def _is_zero(x: Any) -> Any:
    # Compared as bits: a device may take subnormal numbers for zero.
    return (_bits(x) << 1) == 0


def _counts(x: Any) -> Any:
    """Return the (k, 514) counts by code of (k, n) values."""
    bits = _bits(x)
    if x.dtype == jnp.float64:
        # float64's exponent, moved into float32's range; what lies beyond goes into the outermost bins.
        exponent = ((bits & _WIDE_EXPONENT) >> _WIDE_DIGITS).astype(jnp.int32) - _WIDE_BIAS
        exponent = exponent.clip(histogram.MIN_EXPONENT, histogram.MAX_EXPONENT) - histogram.MIN_EXPONENT
        codes = jnp.where(jnp.isinf(x), _INFINITY_CODE, exponent) + jnp.where(x < 0, _NEGATIVE, 0)
    else:
        codes = (bits >> _DIGITS).astype(jnp.int32)
    codes = jnp.where(_is_zero(x), histogram.ZERO_CODE, jnp.where(jnp.isnan(x), histogram.NAN_CODE, codes))
    place = codes + histogram.BINS * jnp.arange(len(x))[:, None]
    counts = jnp.zeros(len(x) * histogram.BINS, jnp.int32).at[place.reshape(-1)].add(1)
    return counts.reshape(len(x), histogram.BINS)
