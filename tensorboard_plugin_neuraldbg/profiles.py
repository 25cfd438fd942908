"""Profiles: what the viewer asks of traces, times, memory and FLOPs, answered as a head and arrays.

A profile's columns are quantities of their own, in seconds, bytes or operations, not statistics of a tensor: nothing
here goes through `neural.session.statistics`. `http_api.md` says what the answers look like.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neural.session.frame import PHASES, PROFILES, WHOLE_MODEL
from neural.session.statistics import FloatArray
from tensorboard_plugin_neuraldbg.decimation import Window
from tensorboard_plugin_neuraldbg.encoding import float32_array
from tensorboard_plugin_neuraldbg.history import Arrays, HistoryCache, Indices
from tensorboard_plugin_neuraldbg.queries import Answer
from tensorboard_plugin_neuraldbg.requests import NOT_FOUND, RequestError
from tensorboard_plugin_neuraldbg.sessions import Session

# The kinds that have a row per layer, so that one layer can be followed over the steps.
LAYER_PROFILES = tuple(kind for kind, profile in PROFILES.items() if profile.rows == "layers")
# The memory columns of a trace; the greatest of a step is its peak.
MEMORY = ("allocated", "reserved", "process")
# What a whole trace comes down to: the time of each phase of the whole model, and the peaks.
TRACE_FIGURES = (*PHASES, *MEMORY)
_FLOAT_BYTES = 8
# About how many spans a trace has, for the size of the blocks in which traces are read.
_TYPICAL_SPANS = 500


def profile(session: Session, kinds: Sequence[str], step: int | None) -> Answer:
    """Return of each kind the newest matrix up to `step`; kinds need not be recorded at the same steps."""
    head: dict[str, Any] = {}
    arrays: dict[str, NDArray[Any]] = {}
    with session.lock:
        for kind in kinds:
            known, columns = session.reader.profile_steps(kind), PROFILES[kind].columns
            at = len(known) if step is None else int(np.searchsorted(known, step, side="right"))
            head[kind] = {
                "step": int(known[at - 1]) if at else None,
                "first_step": int(known[0]) if len(known) else None,
                "columns": columns,
            }
            arrays[kind] = session.reader.profile(kind, int(known[at - 1])) if at else np.empty((0, len(columns)))
    return {"profiles": head, "phases": PHASES}, arrays


def profile_series(session: Session, cache: HistoryCache, kind: str, row: int, window: Window) -> Answer:
    """Return the least and the greatest of every column of a kind, of one layer, in each column of steps."""
    columns = PROFILES[kind].columns
    with session.lock:
        steps = _steps(session, kind)
        rows = len(session.reader.profile(kind, int(steps[-1])))
        if row >= rows:
            raise RequestError(NOT_FOUND, f"There is no row {row} in {kind!r}; its rows are 0 to {rows - 1}.")

        def read(wanted: Indices) -> Arrays:
            found = [session.reader.profile(kind, int(step)) for step in steps[wanted]]
            block = np.full((len(found), max(map(len, found)), len(columns)), np.nan)
            for number, matrix in enumerate(found):
                block[number, : len(matrix)] = matrix
            return (float32_array(block),)

        history = cache.take((session.directory, "profile", kind))
        (values,) = history.update(session.reader.places(kind), read, rows * len(columns) * _FLOAT_BYTES)
        head, arrays = _decimated(steps, values[:, row], window)
    cache.settle()
    return {"row": row, "columns": columns} | head, arrays


def trace_series(session: Session, cache: HistoryCache, window: Window) -> Answer:
    """Return the least and the greatest of `TRACE_FIGURES` in each column of steps."""
    with session.lock:
        steps = _steps(session, "trace")

        def read(wanted: Indices) -> Arrays:
            figures = [_trace_figures(session.reader.profile("trace", int(step))) for step in steps[wanted]]
            return (float32_array(np.stack(figures)),)

        history = cache.take((session.directory, "trace"))
        size = _TYPICAL_SPANS * len(PROFILES["trace"].columns) * _FLOAT_BYTES
        (values,) = history.update(session.reader.places("trace"), read, size)
        head, arrays = _decimated(steps, values, window)
    cache.settle()
    return {"columns": TRACE_FIGURES} | head, arrays


def _trace_figures(trace: FloatArray) -> FloatArray:
    """Return `TRACE_FIGURES` of one trace, (spans, 7); NaN for what it does not hold."""
    column = dict(zip(PROFILES["trace"].columns, trace.T, strict=True))
    whole = column["layer"] == WHOLE_MODEL
    spans = [column["duration"][whole & (column["phase"] == phase)] for phase in range(len(PHASES))]
    # A phase has several spans of the whole model where gradients are accumulated over several batches.
    times = [found.sum() if len(found) else np.nan for found in spans]
    return np.array(times + [np.fmax.reduce(column[name], initial=np.nan) for name in MEMORY])


def _steps(session: Session, kind: str) -> Indices:
    steps = session.reader.profile_steps(kind)
    if not len(steps):
        raise RequestError(NOT_FOUND, f"The run {session.name!r} has no {kind!r} yet.")
    return steps


def _decimated(steps: Indices, values: NDArray[Any], window: Window) -> Answer:
    """Return what a head tells of the columns of steps, and the arrays, for `values` of (steps, columns)."""
    decimation = window.decimation(steps)
    measured = (~np.isnan(values)).any(axis=1).astype(np.uint8)
    arrays = decimation.column_steps(steps) | {
        "minimum": decimation.reduce(np.fmin, values).T,
        "maximum": decimation.reduce(np.fmax, values).T,
        "state": decimation.reduce(np.maximum, measured),
    }
    return {"frames": decimation.last - decimation.first}, arrays
