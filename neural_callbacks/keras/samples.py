"""What a sampled step left, and the frame that is made of it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from neural.session.frame import KINDS, Frame
from neural.session.histogram import Histograms, IntArray
from neural.session.layers import LayerTable
from neural.session.statistics import FloatArray, global_norm, merge, unmeasured
from neural_callbacks.keras.arrays import measure_arrays
from neural_callbacks.keras.statistics import split

Keys = tuple[tuple[tuple[str, int], ...], ...]


@dataclass(frozen=True)
class Sample:
    """What one sampled step left.

    `taken` are n tensors of the step; or their measurements, (n, 524), where the step itself took these. `keys[i]`
    lists the kinds and rows that number i stands for. `loss` is the step's own, a scalar tensor, or None. `wall_time`
    is in seconds since the epoch.
    """

    step: int
    wall_time: float
    taken: Any
    keys: Keys
    loss: Any

    def frame(self, table: LayerTable) -> Frame:
        """Return the frame, its rows numbered as in `table`; waits for the step to end."""
        rows, counts = measure_arrays(self.taken) if isinstance(self.taken, list) else split(self.taken.numpy())
        found: dict[str, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
        for number, keys in enumerate(self.keys):
            for kind, row in keys:
                found[kind][row].append(number)
        matrices = {kind: _matrix(rows, of_row, _height(kind, table)) for kind, of_row in found.items()}
        scalars = {} if self.loss is None else {"loss": float(self.loss)}
        if "gradients" in matrices:
            scalars["gradient_norm"] = global_norm(matrices["gradients"])
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
