"""Shape inference: from a layer and the shape of one sample that goes in to the shape that comes out.

Shapes are channels last, without the batch axis.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from neural.dsl.errors import quoted
from neural.dsl.model import Shape

# (height, width, channels)
IMAGE_RANK = 3


class MisfitError(Exception):
    """A layer that does not fit what goes in; `parameter` is the one to change, None where it is another layer."""

    def __init__(self, sentence: str, parameter: str | None = None) -> None:
        super().__init__(sentence)
        self.parameter = parameter


def output_shape(layer_type: str, parameters: Mapping[str, Any], shape: Shape) -> Shape:
    """Return the shape that comes out of a layer of the catalog.

    Raises:
        MisfitError: the layer cannot take `shape`.
    """
    if layer_type in {"Dense", "Output"}:
        return (*shape[:-1], parameters["units"])
    if layer_type == "Conv2D":
        return (*_slid("kernel_size", parameters, shape), parameters["filters"])
    if layer_type == "MaxPooling2D":
        return (*_slid("pool_size", parameters, shape), shape[-1])
    if layer_type == "Flatten":
        return (prod(shape),)
    return shape


def strides(parameters: Mapping[str, Any]) -> tuple[int, int]:
    """Return how far a window moves; a pool without strides moves by its own size."""
    moved: tuple[int, int] = parameters["strides"] or parameters["pool_size"]
    return moved


def same_padding(size: int, window: int, stride: int) -> tuple[int, int]:
    """Return how much "same" pads before and after one axis, as Keras does: the odd one goes after."""
    total = max((-(-size // stride) - 1) * stride + window - size, 0)
    return total // 2, total - total // 2


def _slid(window_name: str, parameters: Mapping[str, Any], shape: Shape) -> Shape:
    if len(shape) != IMAGE_RANK:
        raise MisfitError(
            f"it takes images of (height, width, channels); what comes in is {quoted(shape)}. "
            f"Write it before Flatten, or write an input such as (28, 28, 1)."
        )
    window, space = parameters[window_name], shape[:2]
    if parameters["padding"] == "same":
        return tuple(-(-size // stride) for size, stride in zip(space, strides(parameters), strict=True))
    if any(extent > size for extent, size in zip(window, space, strict=True)):
        largest = tuple(min(extent, size) for extent, size in zip(window, space, strict=True))
        raise MisfitError(
            f"{window_name} {quoted(window)} is larger than its input, {quoted(space)} of "
            f'{quoted(shape)}. Write at most {window_name}={quoted(largest)}, or padding="same".',
            window_name,
        )
    return tuple(
        (size - extent) // stride + 1 for size, extent, stride in zip(space, window, strides(parameters), strict=True)
    )
