"""Queries: what the viewer asks of one session, answered as a head and arrays (see `http_api.md`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neural.session import histogram, statistics
from neural.session.frame import KINDS
from neural.session.layers import LayerTable
from neural.session.statistics import COLUMNS, FloatArray
from tensorboard_plugin_neuraldbg.decimation import Window
from tensorboard_plugin_neuraldbg.encoding import float32_array, json_number, steps_array
from tensorboard_plugin_neuraldbg.history import Arrays, HistoryCache, Indices
from tensorboard_plugin_neuraldbg.merging import LayerGroups
from tensorboard_plugin_neuraldbg.requests import NOT_FOUND, RequestError
from tensorboard_plugin_neuraldbg.sessions import Session

Answer = tuple[dict[str, Any], dict[str, NDArray[Any]]]

NOT_MEASURED, MEASURED, NOT_FINITE = 0, 1, 2
_FLOAT_BYTES = 8


@dataclass(frozen=True)
class Selection:
    """Which matrices, merged by layer or not, over which steps."""

    kind: str
    by_layer: bool
    window: Window


def layers(session: Session) -> dict[str, Any]:
    """Return the answer of the route `layers`."""
    table = _table(session)
    counts = [0] * len(table.layers)
    for parameter in table.parameters:
        counts[parameter.layer] += parameter.size
    return {
        "layers": [asdict(layer) | {"parameters": count} for layer, count in zip(table.layers, counts, strict=True)],
        "parameters": [asdict(parameter) for parameter in table.parameters],
    }


def steps(session: Session) -> Answer:
    """Return the steps that have a frame."""
    return {}, {"steps": steps_array(session.reader.steps())}


def matrix(session: Session, cache: HistoryCache, chosen: Selection, statistic: str) -> Answer:
    """Return the least and the greatest of one statistic, of every row, in each column."""
    with session.lock:
        numbers, places = _frames(session, chosen.kind)
        groups = _groups(session, chosen)

        def read(wanted: Indices) -> Arrays:
            if groups is None:
                names = (statistic, "count", "nonfinite")
                values, count, nonfinite = session.reader.column_block(chosen.kind, names, numbers[wanted])
            else:
                values, count, nonfinite = groups.merged(session.reader, chosen.kind, statistic, numbers[wanted])
            return float32_array(values), _state(count, nonfinite)

        rows = _row_count(session, chosen.kind)
        history = cache.take((session.directory, chosen.kind, groups, statistic))
        values, state = history.update(places, read, rows * len(COLUMNS) * _FLOAT_BYTES)
        decimation = chosen.window.decimation(numbers)
        arrays = decimation.column_steps(numbers) | {
            "minimum": decimation.reduce(np.fmin, values).T,
            "maximum": decimation.reduce(np.fmax, values).T,
            "state": decimation.reduce(np.maximum, state).T,
        }
    cache.settle()
    head = {
        "rows": list(range(values.shape[1])) if groups is None else list(groups.layers),
        "by": "layer" if chosen.by_layer else "row",
        "frames": decimation.last - decimation.first,
    }
    return head, arrays


def series(session: Session, cache: HistoryCache, chosen: Selection, row: int, names: Sequence[str]) -> Answer:
    """Return the least and the greatest of several statistics, of one row, in each column."""
    with session.lock:
        numbers, rows = _row_history(session, cache, chosen, row)
        decimation = chosen.window.decimation(numbers)
        values = np.stack([float32_array(statistics.select(rows, name)) for name in names], axis=1)
        state = _state(rows[:, statistics.COUNT], statistics.select(rows, "nonfinite"))
        arrays = decimation.column_steps(numbers) | {
            "minimum": decimation.reduce(np.fmin, values).T,
            "maximum": decimation.reduce(np.fmax, values).T,
            "state": decimation.reduce(np.maximum, state),
        }
    cache.settle()
    return {"row": row, "statistics": list(names), "frames": decimation.last - decimation.first}, arrays


def frame(session: Session, step: int | None) -> Answer:
    """Return all that was measured at the newest step up to `step`."""
    with session.lock:
        known = session.reader.steps()
        if not len(known):
            raise RequestError(NOT_FOUND, f"The run {session.name!r} has no frame yet.")
        at = len(known) if step is None else int(np.searchsorted(known, step, side="right"))
        if at == 0:
            raise RequestError(NOT_FOUND, f"There is no frame at or before step {step}; the first is {known[0]}.")
        found = session.reader.frame(int(known[at - 1]))
        table = session.table()
    arrays: dict[str, NDArray[Any]] = {}
    for kind, rows in found.matrices.items():
        arrays[kind] = rows
        if KINDS[kind].rows == "parameters" and table is not None and table.parameters:
            groups = LayerGroups.of(table)
            by_layer = statistics.unmeasured(len(table.layers))
            by_layer[list(groups.layers)] = groups.merge(rows)
            arrays[f"{kind}_by_layer"] = by_layer
    head = {
        "step": found.step,
        "wall_time": found.wall_time,
        "columns": COLUMNS,
        "scalars": {name: json_number(value) for name, value in found.scalars.items()},
    }
    return head, arrays


def histograms(session: Session, cache: HistoryCache, chosen: Selection, row: int) -> Answer:
    """Return the distribution of one row in each column, its frames added up."""
    with session.lock:
        numbers = session.reader.histogram_steps(chosen.kind)
        if not len(numbers):
            raise RequestError(NOT_FOUND, f"The run {session.name!r} has no histograms of {chosen.kind!r} yet.")
        members, sizes = _members(session, chosen, row)

        def read(wanted: Indices) -> Arrays:
            counts = np.zeros((len(wanted), histogram.BINS), np.float32)
            seen = np.zeros(len(wanted))
            for number, step in enumerate(numbers[wanted]):
                found = session.reader.histograms(chosen.kind, int(step))
                for member, size in zip(members, sizes, strict=True):
                    counted = found.row(member)
                    seen[number] += counted.sum()
                    # A histogram of a large tensor is taken of fewer values: without this a bias would outweigh it.
                    counts[number] += counted * (size / max(1, counted.sum())) if size else counted
            return counts, seen

        history = cache.take((session.directory, chosen.kind, "histograms", tuple(members), tuple(sizes)))
        counts, seen = history.update(
            session.reader.places(chosen.kind, histograms=True), read, histogram.BINS * _FLOAT_BYTES
        )
        decimation = chosen.window.decimation(numbers)
        summed = decimation.reduce(np.add, counts.astype(np.float64))
        measured_at, rows = _row_history(session, cache, chosen, row)
        total = np.zeros(len(numbers))
        _, here, there = np.intersect1d(numbers, measured_at, assume_unique=True, return_indices=True)
        total[here] = np.nan_to_num(rows[there, statistics.COUNT])
        (occupied,) = np.nonzero(summed.any(axis=0))
        span = slice(occupied[0], occupied[-1] + 1) if len(occupied) else slice(0, 0)
        arrays = decimation.column_steps(numbers) | {
            "counts": summed[:, span],
            "bins": np.arange(histogram.BINS, dtype=np.int32)[span],
            "counted": decimation.reduce(np.add, seen),
            "total": decimation.reduce(np.add, total),
        }
    cache.settle()
    return {"row": row, "frames": decimation.last - decimation.first}, arrays


def _table(session: Session) -> LayerTable:
    table = session.table()
    if table is None:
        raise RequestError(NOT_FOUND, f"The run {session.name!r} has no layer table yet.")
    return table


def _frames(session: Session, kind: str) -> tuple[Indices, Indices]:
    """Return the steps of a kind, and the place of each one's matrix."""
    numbers = session.reader.steps(kind)
    if not len(numbers):
        there = ", ".join(session.reader.kinds()) or "nothing"
        raise RequestError(NOT_FOUND, f"The run {session.name!r} has no {kind!r} yet; it has {there}.")
    return numbers, session.reader.places(kind)


def _groups(session: Session, chosen: Selection) -> LayerGroups | None:
    """Return how rows are merged; None where they are not, or where there is a row per layer already."""
    if not chosen.by_layer or KINDS[chosen.kind].rows == "layers":
        return None
    return LayerGroups.of(_table(session))


def _row_count(session: Session, kind: str) -> int:
    """Return how many rows the newest matrix of a kind has."""
    return len(session.reader.matrix(kind, int(session.reader.steps(kind)[-1])))


def _members(session: Session, chosen: Selection, row: int) -> tuple[list[int], list[int]]:
    """Return the rows that make up one row of the answer, and, where they are merged, the size of each.

    Raises:
        RequestError: there is no such row.
    """
    groups = _groups(session, chosen)
    if groups is None:
        rows = _row_count(session, chosen.kind)
        if row >= rows:
            raise RequestError(NOT_FOUND, f"There is no row {row} in {chosen.kind!r}; its rows are 0 to {rows - 1}.")
        return [row], [0]
    members = groups.members(row)
    if not members:
        raise RequestError(
            NOT_FOUND, f"Layer {row} has no parameters; `rows` in the head of `matrix` lists those that have."
        )
    return members, [_table(session).parameters[member].size for member in members]


def _row_history(session: Session, cache: HistoryCache, chosen: Selection, row: int) -> tuple[Indices, FloatArray]:
    """Return the steps of a kind and all statistics of one row at each, (steps, 10)."""
    numbers, places = _frames(session, chosen.kind)
    members, _ = _members(session, chosen, row)

    def read(wanted: Indices) -> Arrays:
        block = session.reader.column_block(chosen.kind, COLUMNS, numbers[wanted])
        rows = statistics.unmeasured(len(wanted) * len(members)).reshape(len(wanted), len(members), len(COLUMNS))
        for position, member in enumerate(members):
            if member < block.shape[2]:
                rows[:, position] = block[:, :, member].T
        return (statistics.merge(rows)[:, 0] if len(members) > 1 else rows[:, 0],)

    history = cache.take((session.directory, chosen.kind, "row", tuple(members)))
    row_bytes = _row_count(session, chosen.kind) * len(COLUMNS) * _FLOAT_BYTES
    (rows,) = history.update(places, read, row_bytes)
    return numbers, rows


def _state(count: FloatArray, nonfinite: FloatArray) -> NDArray[np.uint8]:
    measured = ~np.isnan(count)
    return measured.astype(np.uint8) + (measured & (nonfinite > 0)).astype(np.uint8)
