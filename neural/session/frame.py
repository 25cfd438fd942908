"""Frame: what was measured at one step, as matrices whose rows are layers or parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from neural.session import statistics
from neural.session.anomaly import Anomaly
from neural.session.histogram import Histograms
from neural.session.statistics import FloatArray


@dataclass(frozen=True)
class MatrixKind:
    """One kind of matrix: its name, what a row of it stands for, its columns, and what it measures."""

    name: str
    rows: Literal["layers", "parameters", "spans", "units"]
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


# Phases of a step, as the trace numbers them. The step itself is a span too, of the whole model.
PHASES = ("forward", "backward", "optimizer", "step")
FORWARD, BACKWARD, OPTIMIZER, STEP = range(len(PHASES))
# Where a span is of no single layer.
WHOLE_MODEL = -1

# What is recorded of a step besides statistics. Times are in seconds, sizes in bytes; NaN is "not measured".
PROFILES: Mapping[str, MatrixKind] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            # One row per call of a layer, forward and backward, and for the whole model per phase and for the step,
            # by start. `layer` is a row of the layer table or -1, `phase` an index of PHASES, `start` counted from the
            # beginning of the step. The rest is read when the span ends: what the device's allocator has handed out
            # and holds, and what of the process is in memory.
            MatrixKind(
                "trace",
                "spans",
                ("layer", "phase", "start", "duration", "allocated", "reserved", "process"),
                "when each layer ran, and the memory in use when it was done",
            ),
            MatrixKind("timing", "layers", ("calls", "forward", "backward"), "the time that a layer took"),
            MatrixKind(
                "memory",
                "layers",
                ("activations", "parameters", "gradients", "optimizer"),
                "the bytes of a layer's outputs, parameters, gradients and optimizer state",
            ),
            MatrixKind("flops", "layers", ("forward", "backward"), "the floating-point operations of a layer"),
            # `units` and `silent`: of outputs that are nowhere negative and somewhere zero, how many units there are
            # and how many gave out nothing above zero in the step. `bounded` and `saturated`: of outputs that a
            # sigmoid, tanh or softmax keeps within bounds, how many values there are and how many are near a bound.
            MatrixKind(
                "activity",
                "layers",
                ("units", "silent", "bounded", "saturated"),
                "how many units were silent and how many values saturated",
            ),
            MatrixKind("silent_units", "units", ("layer", "unit"), "which units gave out nothing in the step"),
        )
    }
)


@dataclass(frozen=True)
class Frame:
    """What was measured at one step.

    `step` counts optimizer steps from 0; `wall_time` is in seconds since the epoch. `matrices` maps a kind of
    `KINDS` to (rows, columns) float64, rows numbered as in the layer table; rows of NaN were not measured.
    `histograms` maps the same kinds; `scalars` holds headline figures ("loss", "gradient_norm") that the Time Series
    tab shows too. `profiles` maps a kind of `PROFILES` to (rows, columns) float64. `anomalies` are in the order in
    which they arose within the step.
    """

    step: int
    wall_time: float
    matrices: Mapping[str, FloatArray] = field(default_factory=dict)
    histograms: Mapping[str, Histograms] = field(default_factory=dict)
    scalars: Mapping[str, float] = field(default_factory=dict)
    profiles: Mapping[str, FloatArray] = field(default_factory=dict)
    anomalies: tuple[Anomaly, ...] = ()
