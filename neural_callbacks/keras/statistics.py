"""The statistics and histogram of a tensor as TensorFlow computes them, on a device with memory of its own.

A tensor becomes one *measurement*: a float64 vector of length 524, the row of `neural.session.statistics` followed by
the counts of `neural.session.histogram` by code. Measurements of a step are stacked, so that they reach the host in
one transfer.

Three ways lead to a row, each for what the one before it does not get right; branches in the graph choose. Measured in
processor time on 2^20 float32 values, without histogram: one pass of sums 2.1 ms, sums about the mean 3.5 ms, float64
with masks for what is not finite 14 ms. Small tensors of one size are measured together, as what they cost is the
number of operations.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from neural.session import histogram
from neural.session.statistics import COLUMNS, FloatArray

WIDTH = len(COLUMNS) + histogram.BINS

# Between these magnitudes, squares of float32 values neither overflow nor vanish beside the largest of them.
_LEAST, _GREATEST = 1e-8, 1e15
# Where mean^2 is less than this share of mean(x^2), their difference in float32 keeps five digits.
_MEAN_SHARE = 0.9
# A sum of ones is exact in float32 up to here.
_COUNTABLE = 2**24
# Copying a tensor of more values, to measure it beside others, costs more than another set of operations.
_STACKABLE = 2**15


def measure(tensors: Sequence[Any]) -> Any:
    """Return the (len(tensors), 524) float64 measurements of floating-point tensors of any shapes.

    Of two in the place of one, that of what the first has more than the second.
    """
    if not tensors:
        return tf.zeros([0, WIDTH], tf.float64)
    tensors = [_difference(*x) if isinstance(x, tuple) else x for x in tensors]
    together: dict[Hashable, list[int]] = defaultdict(list)
    for number, tensor in enumerate(tensors):
        size = tensor.shape.num_elements()
        alone = size is None or size > _STACKABLE or tensor.dtype == tf.float64
        together[("alone", number) if alone else size].append(number)
    parts = [_measured([tensors[number] for number in numbers]) for numbers in together.values()]
    order = np.argsort([number for numbers in together.values() for number in numbers])
    return tf.gather(tf.concat(parts, 0), order)


def _difference(more: Any, less: Any) -> Any:
    if more.dtype == tf.float64:
        return more - less
    return tf.cast(more, tf.float32) - tf.cast(less, tf.float32)


def split(measurements: FloatArray) -> tuple[FloatArray, NDArray[np.int64]]:
    """Take (n, 524) measurements apart, on the host: rows (n, 10) and counts by code (n, 514)."""
    return measurements[:, : len(COLUMNS)], measurements[:, len(COLUMNS) :].astype(np.int64)


def measured(measurements: Any, *, binned: bool) -> tuple[FloatArray, NDArray[np.int64] | None]:
    """Return the rows (n, 10) and, if `binned`, counts by code (n, 514) of the measurements (n, 524) of a step."""
    rows, counts = split(measurements.numpy())
    return rows, counts if binned else None


def _measured(tensors: Sequence[Any]) -> Any:
    if tensors[0].dtype == tf.float64:
        return _wide(tf.reshape(tensors[0], [1, -1]))
    flat = [tf.cast(tf.reshape(tensor, [-1]), tf.float32) for tensor in tensors]
    return _single(flat[0][None]) if len(flat) == 1 else _several(tf.stack(flat))


# Traced once, called for each tensor, and kept out of line: TensorFlow's optimizer would else work through a copy for
# each tensor, which takes longer than the model's own first step.
def _apart(function: Any, dtype: Any) -> Any:
    attributes = {"_noinline": True}
    signature = [tf.TensorSpec([None, None], dtype)]
    return tf.function(function, input_signature=signature, autograph=False, experimental_attributes=attributes)


def _rows(x: Any, squares: Any) -> Any:
    """Return the (k, 524) measurements of float32 `x`, (k, n), whose sums of squares by row are `squares`, (k,)."""
    size = tf.size(x[0], tf.int64)
    number = tf.cast(size, tf.float32)
    least, greatest, total = tf.reduce_min(x, 1), tf.reduce_max(x, 1), tf.reduce_sum(x, 1)
    largest = tf.maximum(tf.abs(least), tf.abs(greatest))
    # A NaN or an infinity anywhere makes the sum of squares one; an empty tensor has no largest value.
    scaled = tf.equal(largest, 0) | ((largest >= _LEAST) & (largest <= _GREATEST))
    ordinary = tf.reduce_all(tf.math.is_finite(squares) & scaled)
    centred = tf.reduce_all(number * squares * _MEAN_SHARE >= total * total)

    def from_sums() -> Any:
        n, sum1, sum2 = (tf.cast(value, tf.float64) for value in (size, total, squares))
        mean = sum1 / n
        std = tf.sqrt(sum2 / n - tf.square(mean))
        return _finite(x, least, greatest, mean, std, tf.sqrt(sum2))

    def from_sums_about_the_mean() -> Any:
        shift = total / number
        shifted = x - shift[:, None]
        off, around = tf.reduce_sum(shifted, 1), tf.reduce_sum(tf.square(shifted), 1)
        n, off, around = (tf.cast(value, tf.float64) for value in (size, off, around))
        mean = tf.cast(shift, tf.float64) + off / n
        std = tf.sqrt(tf.maximum(around / n - tf.square(off / n), 0.0))
        return _finite(x, least, greatest, mean, std, tf.sqrt(tf.cast(squares, tf.float64)))

    return tf.cond(
        ordinary & centred,
        from_sums,
        lambda: tf.cond(ordinary, from_sums_about_the_mean, lambda: _any_single(x)),
    )


def _finite(x: Any, *moments: Any) -> Any:
    """Return the measurements of finite float32 `x`, (k, n), from its moments, each (k,)."""
    size = tf.size(x[0], tf.int64)
    counts = _counts(_codes(_every_nth(x)))

    def by_comparing() -> Any:
        return tf.cond(
            size <= _COUNTABLE,
            lambda: tf.cast(tf.reduce_sum(tf.cast(tf.equal(x, 0), tf.float32), 1), tf.float64),
            lambda: tf.cast(size - tf.math.count_nonzero(x, 1), tf.float64),
        )

    zeros = tf.cond(size <= histogram.MAX_VALUES, lambda: counts[:, histogram.ZERO_CODE], by_comparing)
    none = tf.zeros_like(zeros)
    return _join((none + tf.cast(size, tf.float64), none, none, none, zeros, *moments), counts)


def _join(columns: Sequence[Any], counts: Any) -> Any:
    return tf.concat([tf.stack([tf.cast(column, tf.float64) for column in columns], 1), counts], 1)


def _thorough(x: Any, codes: Any) -> Any:
    """Return the measurements of `x`, (k, n), any values, scaled so that no square overflows or vanishes in float64."""
    finite = tf.math.is_finite(x)
    size = tf.size(x[0], tf.int64)
    nan = tf.math.count_nonzero(tf.math.is_nan(x), 1)
    positive, negative = (tf.math.count_nonzero(tf.equal(x, limit), 1) for limit in (np.inf, -np.inf))
    number = tf.cast(size - nan - positive - negative, tf.float64)
    nothing = tf.constant(np.nan, tf.float64)

    values = tf.where(finite, tf.cast(x, tf.float64), 0.0)
    least = tf.reduce_min(tf.where(finite, values, np.inf), 1)
    greatest = tf.reduce_max(tf.where(finite, values, -np.inf), 1)
    largest = tf.reduce_max(tf.abs(values), 1)
    scale = tf.where((largest > 0) & tf.math.is_finite(largest), largest, 1.0)
    scaled = values / scale[:, None]
    mean = tf.reduce_sum(scaled, 1) / number
    deviation = tf.where(finite, scaled - mean[:, None], 0.0)
    some = number > 0
    return _join(
        (
            tf.zeros_like(nan) + size,
            nan,
            positive,
            negative,
            size - tf.math.count_nonzero(x, 1),
            tf.where(some, least, nothing),
            tf.where(some, greatest, nothing),
            tf.where(some, mean * scale, nothing),
            tf.where(some, tf.sqrt(tf.reduce_sum(tf.square(deviation), 1) / number) * scale, nothing),
            tf.sqrt(tf.reduce_sum(tf.square(scaled), 1)) * scale,
        ),
        _counts(codes),
    )


def _every_nth(x: Any) -> Any:
    """Take every n-th column, n = `histogram.stride(columns)`, whose number may be known only when the step runs."""
    limits = [n * histogram.MAX_VALUES for n in histogram.STRIDES[:-1]]
    exceeded = tf.reduce_sum(tf.cast(tf.size(x[0], tf.int64) > tf.constant(limits, tf.int64), tf.int32))
    return x[:, :: tf.gather(tf.constant(histogram.STRIDES), exceeded)]


def _codes(x: Any) -> Any:
    bits = tf.bitcast(x, tf.uint32)
    upper = tf.cast(tf.bitwise.right_shift(bits, tf.constant(23, tf.uint32)), tf.int32)
    # Compared as bits: the processor may take float32's subnormal numbers for zero.
    zero = tf.equal(tf.bitwise.left_shift(bits, tf.constant(1, tf.uint32)), 0)
    return tf.where(zero, histogram.ZERO_CODE, upper)


def _wide_codes(x: Any) -> Any:
    bits = tf.bitcast(x, tf.int64)
    magnitude = tf.bitwise.bitwise_and(bits, tf.constant(np.iinfo(np.int64).max, tf.int64))
    # float64's exponent, moved into float32's range; what lies beyond goes into the outermost bins.
    exponent = tf.bitwise.right_shift(magnitude, tf.constant(52, tf.int64)) - 1023
    exponent = tf.clip_by_value(exponent, histogram.MIN_EXPONENT, histogram.MAX_EXPONENT) - histogram.MIN_EXPONENT
    upper = tf.where(tf.math.is_inf(x), tf.constant(255, tf.int64), exponent)
    upper += tf.where(bits < 0, tf.constant(256, tf.int64), 0)
    return tf.cast(tf.where(tf.equal(magnitude, 0), tf.constant(histogram.ZERO_CODE, tf.int64), upper), tf.int32)


def _or_not_a_number(codes: Any, x: Any) -> Any:
    return tf.where(tf.math.is_nan(x), histogram.NAN_CODE, codes)


def _counts(codes: Any) -> Any:
    counts = tf.raw_ops.DenseBincount(input=codes, size=histogram.BINS, weights=tf.zeros([0], tf.int32))
    return tf.cast(counts, tf.float64)


def _of_any_single(x: Any) -> Any:
    sampled = _every_nth(x)
    return _thorough(x, _or_not_a_number(_codes(sampled), sampled))


def _of_any_wide(x: Any) -> Any:
    sampled = _every_nth(x)
    return _thorough(x, _or_not_a_number(_wide_codes(sampled), sampled))


_any_single = _apart(_of_any_single, tf.float32)
_wide = _apart(_of_any_wide, tf.float64)
_single = _apart(lambda x: _rows(x, 2 * tf.nn.l2_loss(x)[None]), tf.float32)
_several = _apart(lambda x: _rows(x, tf.reduce_sum(tf.square(x), 1)), tf.float32)
