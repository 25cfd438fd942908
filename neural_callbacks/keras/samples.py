"""What a sampled step left on the device, and the frame that is made of it on the host."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np

from neural.session.frame import KINDS, Frame
from neural.session.histogram import Histograms, IntArray
from neural.session.layers import LayerTable
from neural.session.statistics import L2, FloatArray, merge, unmeasured
from neural_callbacks.keras.statistics import split

Keys = tuple[tuple[tuple[str, int], ...], ...]


@dataclass(frozen=True)
class Sample:
    """What one sampled step left on the device.

    `measurements` is a (n + 1, 524) float64 tensor, and `keys[i]` lists the kinds and rows that measurement i stands
    for. The last one is the step's loss throughout where `has_loss` is true. `wall_time` is in seconds since the epoch.
    """

    step: int
    wall_time: float
    measurements: Any
    keys: Keys
    has_loss: bool

    def frame(self, table: LayerTable) -> Frame:
        """Copy the sample to the host, which waits for the step to end, and number its rows as in `table`."""
        values = self.measurements.numpy()
        rows, counts = split(values[:-1])
        found: dict[str, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
        for number, keys in enumerate(self.keys):
            for kind, row in keys:
                found[kind][row].append(number)
        matrices = {kind: _matrix(rows, of_row, _height(kind, table)) for kind, of_row in found.items()}
        scalars = {"loss": float(values[-1, 0])} if self.has_loss else {}
        if "gradients" in matrices:
            scalars["gradient_norm"] = _norm(matrices["gradients"])
        return Frame(
            step=self.step,
            wall_time=self.wall_time,
            matrices=matrices,
            histograms={kind: _histograms(counts, of_row) for kind, of_row in found.items()},
            scalars=scalars,
        )


def _height(kind: str, table: LayerTable) -> int:
    return len(table.layers if KINDS[kind].rows == "layers" else table.parameters)


def _matrix(rows: FloatArray, of_row: dict[int, list[int]], height: int) -> FloatArray:
    """Return (height, 10): a row met several times (a shared layer, several outputs) is one over all its values."""
    matrix = unmeasured(height)
    for row, numbers in of_row.items():
        matrix[row] = rows[numbers[0]] if len(numbers) == 1 else merge(rows[numbers])[0]
    return matrix


def _histograms(counts: IntArray, of_row: dict[int, list[int]]) -> Histograms:
    return Histograms.from_rows({row: counts[numbers].sum(axis=0) for row, numbers in of_row.items()})


def _norm(gradients: FloatArray) -> float:
    """Return the l2 norm over all parameters' finite gradients."""
    return float(np.linalg.norm(np.nan_to_num(gradients[:, L2])))
