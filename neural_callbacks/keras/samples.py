"""What a sampled step left, and the frame that is made of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from neural.session import statistics
from neural.session.frame import Frame
from neural.session.histogram import IntArray
from neural.session.layers import LayerTable
from neural.session.statistics import FloatArray
from neural_callbacks import anomalies
from neural_callbacks.gathering import figures_of, gather
from neural_callbacks.keras.activity import Squashing, look

# The figure that marks a step which an optimizer that scales the loss left out.
SKIPPED = "skipped"

Keys = tuple[tuple[tuple[str, int], ...], ...]


@dataclass(frozen=True)
class Sample:
    """What one sampled step left.

    `taken` are n tensors of the step, or what the step itself measured of them; `reading(taken, binned=...)` makes of
    that rows (n, 10) and counts by code (n, 514), None where these are not asked for, and waits for the step to end.
    `keys[i]` lists the kinds and rows that number i stands for. `scalars` are the step's own figures, scalar tensors.
    `wall_time` is in seconds since the epoch. `profiles` are those of the frame, to which the activity of the layers is
    added; `squashed` tells those whose outputs are kept within bounds, None where outputs are not in the host's memory.
    """

    step: int
    wall_time: float
    taken: Any
    keys: Keys
    scalars: Mapping[str, Any]
    reading: Callable[..., tuple[FloatArray, IntArray | None]]
    binned: bool = True
    profiles: Mapping[str, FloatArray] = field(default_factory=dict)
    squashed: Mapping[int, Squashing] | None = None

    def frame(self, table: LayerTable) -> Frame:
        """Return the frame, its rows numbered as in `table`; waits for the step to end."""
        rows, counts = self.reading(self.taken, binned=self.binned)
        profiles = dict(self.profiles)
        if self.squashed is not None:
            profiles |= look(self.taken, rows, self.keys, self.squashed, len(table.layers))
        scalars = {name: float(value) for name, value in self.scalars.items()}
        was_skipped = bool(scalars.pop(SKIPPED, 0.0))
        entries: list[tuple[str, int | None]] = [key for keys in self.keys for key in keys]
        numbers = [number for number, keys in enumerate(self.keys) for _ in keys]
        if was_skipped:  # what it left as it was has no update
            stayed = rows[numbers, statistics.ZEROS] == rows[numbers, statistics.COUNT]
            entries = [
                (kind, None if kind == "updates" and is_same else number)
                for (kind, number), is_same in zip(entries, stayed, strict=True)
            ]
        heights = {"layers": len(table.layers), "parameters": len(table.parameters)}
        spread = None if counts is None else counts[numbers]
        matrices, histograms = gather(entries, rows[numbers], spread, heights)
        losses = [value for name, value in scalars.items() if name == "loss" or name.startswith("loss_")]
        found = anomalies.find(entries, rows[numbers], table, loss_is_finite=all(map(math.isfinite, losses)))
        if was_skipped:  # scaling is there for gradients that are not finite
            scalars[SKIPPED] = 1.0
            found = tuple(one for one in found if one.place in {"forward", "loss"})
        return Frame(self.step, self.wall_time, matrices, histograms, scalars | figures_of(matrices), profiles, found)
