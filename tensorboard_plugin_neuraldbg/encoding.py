"""Binary answers: a JSON head and the arrays that it lists, as `http_api.md` lays them out."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

CONTENT_TYPE = "application/octet-stream"
# Arrays begin at multiples of this many bytes, so that a browser can view them in place.
ALIGNMENT = 8
DTYPES = ("float32", "float64", "int32", "uint8")


def _padding(length: int) -> int:
    return -length % ALIGNMENT


def pack(head: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return `head` (JSON values, no NaN) and `arrays` (of `DTYPES`) as the body of a binary answer.

    Raises:
        ValueError: an array has another dtype, or `head` a number that JSON does not have.
    """
    listed = []
    for name, array in arrays.items():
        if array.dtype.name not in DTYPES:
            raise ValueError(f"The array {name!r} is {array.dtype.name}; a binary answer holds {', '.join(DTYPES)}.")
        listed.append({"name": name, "dtype": array.dtype.name, "shape": array.shape})
    text = json.dumps({**head, "arrays": listed}, allow_nan=False).encode()
    text += b" " * _padding(struct.calcsize("<I") + len(text))
    parts: list[Any] = [struct.pack("<I", len(text)), text]
    for array in arrays.values():
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        parts += [little.tobytes() if little.size == 0 else little.data, bytes(_padding(little.nbytes))]
    return b"".join(parts)


def steps_array(steps: NDArray[np.int64]) -> NDArray[Any]:
    """Return steps as int32 where they fit, else as float64: a browser has no array of int64 that it can draw."""
    fits = not steps.size or int(steps.max()) <= np.iinfo(np.int32).max
    return steps.astype(np.int32 if fits else np.float64)


def float32_array(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return `values` as float32; what is too large for it becomes the greatest that it holds."""
    greatest = float(np.finfo(np.float32).max)
    return np.clip(values, -greatest, greatest).astype(np.float32)


def json_number(value: float) -> float | str:
    """Return `value`, or its name where JSON has no number for it: "NaN", "Infinity", "-Infinity"."""
    if np.isfinite(value):
        return float(value)
    if np.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"
