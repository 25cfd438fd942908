"""Frame: what was measured at one step, as matrices whose rows are layers or parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from neural.session import statistics
from neural.session.histogram import Histograms
from neural.session.statistics import FloatArray


@dataclass(frozen=True)
class MatrixKind:
    """One kind of matrix: its name, what a row of it stands for, its columns, and what it measures."""

    name: str
    rows: Literal["layers", "parameters"]
    columns: tuple[str, ...]
    description: str


KINDS: Mapping[str, MatrixKind] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            MatrixKind("activations", "layers", statistics.COLUMNS, "the outputs of a layer's forward pass"),
            MatrixKind(
                "activation_gradients", "layers", statistics.COLUMNS, "the gradient of the loss by a layer's outputs"
            ),
            MatrixKind("gradients", "parameters", statistics.COLUMNS, "the gradient of the loss by a parameter"),
            MatrixKind("weights", "parameters", statistics.COLUMNS, "a parameter before the step"),
            MatrixKind("updates", "parameters", statistics.COLUMNS, "a parameter after the step minus before it"),
        )
    }
)


@dataclass(frozen=True)
class Frame:
    """What was measured at one step.

    `step` counts optimizer steps from 0; `wall_time` is in seconds since the epoch. `matrices` maps a kind of
    `KINDS` to (rows, columns) float64, rows numbered as in the layer table; rows of NaN were not measured.
    `histograms` maps the same kinds; `scalars` holds headline figures ("loss", "gradient_norm") that the Time Series
    tab shows too.
    """

    step: int
    wall_time: float
    matrices: Mapping[str, FloatArray] = field(default_factory=dict)
    histograms: Mapping[str, Histograms] = field(default_factory=dict)
    scalars: Mapping[str, float] = field(default_factory=dict)
