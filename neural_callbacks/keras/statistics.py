"""The statistics and histogram of a tensor as TensorFlow computes them, on the tensor's own device.

A tensor becomes one *measurement*: a float64 vector of length 524, the row of `neural.session.statistics` followed by
the counts of `neural.session.histogram` by code. Measurements of a step are stacked, so that they reach the host in
one transfer.

Measured on 2 cores, 2^20 float32 values: the row in float64 with masks for what is not finite 14 ms, in float32 with
a mean-shifted second pass 2.5 ms, from one pass of sums less. So each is used where the one before it is not exact
enough, chosen by branches in the graph.
"""

from __future__ import annotations

from collections.abc import Sequence
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
# Column b of the counts by bin is column _CODE_OF_BIN[b] of the counts by code.
_CODE_OF_BIN = histogram.counts_from_codes(np.arange(histogram.BINS))


def measure(tensors: Sequence[Any]) -> Any:
    """Return the (len(tensors), 524) float64 measurements of floating-point tensors of any shapes."""
    if not tensors:
        return tf.zeros([0, WIDTH], tf.float64)
    return tf.stack([_wide(_flat(x)) if x.dtype == tf.float64 else _single(_flat(x)) for x in tensors])


def split(measurements: FloatArray) -> tuple[FloatArray, NDArray[np.int64]]:
    """Take (n, 524) measurements apart, on the host: rows (n, 10) and counts by bin (n, 514)."""
    counts = measurements[:, len(COLUMNS) :].astype(np.int64)
    return measurements[:, : len(COLUMNS)], counts[:, _CODE_OF_BIN]


def _flat(tensor: Any) -> Any:
    flat = tf.reshape(tensor, [-1])
    return flat if flat.dtype in (tf.float32, tf.float64) else tf.cast(flat, tf.float32)


# Traced once per precision and called for each tensor, and kept out of line: TensorFlow's optimizer would else work
# through a copy for each tensor, which takes longer than the model's own first step.
_APART = {"autograph": False, "experimental_attributes": {"_noinline": True}}


@tf.function(input_signature=[tf.TensorSpec([None], tf.float32)], **_APART)  # type: ignore[untyped-decorator]
def _single(x: Any) -> Any:
    size = tf.size(x, tf.int64)
    number = tf.cast(size, tf.float32)
    least, greatest, total, squares = tf.reduce_min(x), tf.reduce_max(x), tf.reduce_sum(x), 2 * tf.nn.l2_loss(x)
    largest = tf.maximum(tf.abs(least), tf.abs(greatest))
    # A NaN or an infinity anywhere makes the sum of squares one; an empty tensor has no largest value.
    ordinary = tf.math.is_finite(squares) & (largest >= _LEAST) & (largest <= _GREATEST)
    centred = number * squares * _MEAN_SHARE > total * total
    counts = _counts(_codes(_every_nth(x)))

    def zeros() -> Any:
        return tf.cond(
            size <= histogram.MAX_VALUES,
            lambda: tf.cast(counts[histogram.ZERO_CODE], tf.int64),
            lambda: size - tf.math.count_nonzero(x),
        )

    def from_sums() -> Any:
        n, sum1, sum2 = (tf.cast(value, tf.float64) for value in (size, total, squares))
        mean = sum1 / n
        std = tf.sqrt(sum2 / n - tf.square(mean))
        return _row((size, 0, 0, 0, zeros()), (least, greatest, mean, std, tf.sqrt(sum2)))

    def from_shifted_sums() -> Any:
        shift = total / number
        shifted = x - shift
        n, off, around = (tf.cast(v, tf.float64) for v in (size, tf.reduce_sum(shifted), 2 * tf.nn.l2_loss(shifted)))
        mean = tf.cast(shift, tf.float64) + off / n
        std = tf.sqrt(tf.maximum(around / n - tf.square(off / n), 0.0))
        return _row((size, 0, 0, 0, zeros()), (least, greatest, mean, std, tf.sqrt(tf.cast(squares, tf.float64))))

    row = tf.cond(
        ordinary & centred,
        from_sums,
        lambda: tf.cond(ordinary, from_shifted_sums, lambda: _thorough(x)),
    )
    return tf.concat([row, counts], 0)


@tf.function(input_signature=[tf.TensorSpec([None], tf.float64)], **_APART)  # type: ignore[untyped-decorator]
def _wide(x: Any) -> Any:
    return tf.concat([_thorough(x), _counts(_wide_codes(_every_nth(x)))], 0)


def _row(counts: tuple[Any, ...], moments: tuple[Any, ...]) -> Any:
    return tf.stack([tf.cast(value, tf.float64) for value in counts + moments])


def _thorough(x: Any) -> Any:
    """Return the row of `x`, any values, scaled so that no square overflows or vanishes in float64."""
    finite = tf.math.is_finite(x)
    count = tf.size(x, tf.int64)
    nan = tf.math.count_nonzero(tf.math.is_nan(x))
    positive, negative = (tf.math.count_nonzero(tf.equal(x, limit)) for limit in (np.inf, -np.inf))
    number = tf.cast(count - nan - positive - negative, tf.float64)
    nothing = tf.constant(np.nan, tf.float64)

    values = tf.where(finite, tf.cast(x, tf.float64), 0.0)
    least = tf.reduce_min(tf.where(finite, values, np.inf))
    greatest = tf.reduce_max(tf.where(finite, values, -np.inf))
    largest = tf.reduce_max(tf.abs(values))
    scale = tf.where((largest > 0) & tf.math.is_finite(largest), largest, 1.0)
    scaled = values / scale
    mean = tf.reduce_sum(scaled) / number
    deviation = tf.where(finite, scaled - mean, 0.0)
    some = number > 0
    return _row(
        (count, nan, positive, negative, count - tf.math.count_nonzero(x)),
        (
            tf.where(some, least, nothing),
            tf.where(some, greatest, nothing),
            tf.where(some, mean * scale, nothing),
            tf.where(some, tf.sqrt(tf.reduce_sum(tf.square(deviation)) / number) * scale, nothing),
            tf.sqrt(tf.reduce_sum(tf.square(scaled))) * scale,
        ),
    )


def _every_nth(x: Any) -> Any:
    """Take every n-th value, n = `histogram.stride(size)`, where the size may be known only when the step runs."""
    limits = [n * histogram.MAX_VALUES for n in histogram.STRIDES[:-1]]
    exceeded = tf.reduce_sum(tf.cast(tf.size(x, tf.int64) > tf.constant(limits, tf.int64), tf.int32))
    return x[:: tf.gather(tf.constant(histogram.STRIDES), exceeded)]


def _codes(x: Any) -> Any:
    bits = tf.bitcast(x, tf.uint32)
    upper = tf.cast(tf.bitwise.right_shift(bits, tf.constant(23, tf.uint32)), tf.int32)
    # Compared as bits: the processor may take float32's subnormal numbers for zero.
    zero = tf.equal(tf.bitwise.left_shift(bits, tf.constant(1, tf.uint32)), 0)
    return tf.where(tf.math.is_nan(x), histogram.NAN_CODE, tf.where(zero, histogram.ZERO_CODE, upper))


def _wide_codes(x: Any) -> Any:
    bits = tf.bitcast(x, tf.int64)
    magnitude = tf.bitwise.bitwise_and(bits, tf.constant(np.iinfo(np.int64).max, tf.int64))
    # float64's exponent, moved into float32's range; what lies beyond goes into the outermost bins.
    exponent = tf.bitwise.right_shift(magnitude, tf.constant(52, tf.int64)) - 1023
    exponent = tf.clip_by_value(exponent, histogram.MIN_EXPONENT, histogram.MAX_EXPONENT) - histogram.MIN_EXPONENT
    upper = tf.where(tf.math.is_inf(x), tf.constant(255, tf.int64), exponent)
    upper += tf.where(bits < 0, tf.constant(256, tf.int64), 0)
    code = tf.where(tf.equal(magnitude, 0), tf.constant(histogram.ZERO_CODE, tf.int64), upper)
    return tf.cast(tf.where(tf.math.is_nan(x), tf.constant(histogram.NAN_CODE, tf.int64), code), tf.int32)


def _counts(codes: Any) -> Any:
    # tf.math.bincount does the same, but its checks do not compile under XLA.
    counts = tf.raw_ops.DenseBincount(input=codes, size=histogram.BINS, weights=tf.zeros([0], tf.int32))
    return tf.cast(counts, tf.float64)
