"""Ranks: what the viewer asks of all the ranks of a distributed job together (see `http_api.md`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from neural.session.statistics import COUNT, FloatArray
from tensorboard_plugin_neuraldbg.decimation import Window
from tensorboard_plugin_neuraldbg.encoding import float32_array, json_number
from tensorboard_plugin_neuraldbg.history import Arrays, HistoryCache, Indices
from tensorboard_plugin_neuraldbg.queries import MEASURED, NOT_FINITE, Answer
from tensorboard_plugin_neuraldbg.rank_comparison import Flags, compare, departures
from tensorboard_plugin_neuraldbg.requests import NOT_FOUND, RequestError
from tensorboard_plugin_neuraldbg.sessions import Session

# Figures that are of a process, not of the training that the ranks do together.
NOT_COMPARED = ("overhead", "memory_peak", "step_seconds", "tracing_seconds")
# Where parameters are sharded, these are of each rank's own shard: ranks differ in them, and nothing is wrong.
OF_THE_SHARD = ("gradient_norm", "update_ratio")
_FLOAT_BYTES = 8


@dataclass(frozen=True)
class _Figure:
    """One figure of all ranks: `values` and `measured` are (ranks, S), at the steps that any of them has."""

    steps: Indices
    values: FloatArray
    measured: Flags

    def until(self, step: int | None) -> _Figure:
        """Return what was known at `step`; None: all."""
        end = len(self.steps) if step is None else int(np.searchsorted(self.steps, step, side="right"))
        return _Figure(self.steps[:end], self.values[:, :end], self.measured[:, :end])


def ranks(sessions: Mapping[int, Session], cache: HistoryCache, step: int | None) -> dict[str, Any]:
    """Return the answer of the route `ranks`: each rank, its figures at or before `step`, and who departs."""
    names = _names(sessions)
    figures = {name: _figure(sessions, cache, name).until(step) for name in names}
    world_size, is_sharded = _size(sessions), any(_is_sharded(session) for session in sessions.values())
    compared = [name for name in names if name not in NOT_COMPARED and not (is_sharded and name in OF_THE_SHARD)]
    numbers = list(sessions)
    cache.settle()
    return {
        "world_size": world_size,
        "missing": sorted(set(range(world_size)) - set(numbers)),
        "sharded": is_sharded,
        "scalars": names,
        "ranks": [
            _rank(rank, session, {name: _newest(figure, row) for name, figure in figures.items()})
            for row, (rank, session) in enumerate(sessions.items())
        ],
        "departures": [
            {
                "scalar": name,
                "rank": None if found.row is None else numbers[found.row],
                "step": int(figures[name].steps[found.column]),
                "value": json_number(found.value),
                "low": json_number(found.low),
                "high": json_number(found.high),
            }
            for name in compared
            for found in departures(figures[name].values, figures[name].measured)
        ],
    }


def rank_series(sessions: Mapping[int, Session], cache: HistoryCache, name: str, window: Window) -> Answer:
    """Return one figure of every rank, and how the ranks lie to one another, in each column of steps."""
    names = _names(sessions)
    if name not in names:
        raise RequestError(NOT_FOUND, f"No rank has the figure {name!r}; there is {', '.join(names) or 'none'}.")
    figure = _figure(sessions, cache, name)
    steps, values = figure.steps, figure.values
    together = compare(values, figure.measured)
    decimation = window.decimation(steps)
    finite = np.where(np.isfinite(values), values, np.nan)
    state = np.where(np.isfinite(values), MEASURED, NOT_FINITE) * figure.measured
    minimum, maximum = decimation.reduce(np.fmin, finite.T).T, decimation.reduce(np.fmax, finite.T).T
    # Of several steps in one column, the one at which a rank lies furthest off.
    distance = np.nan_to_num(together.distance, nan=-1.0)
    worst = np.array(
        [
            start + int(distance[start : end + 1].argmax())
            for start, end in zip(decimation.starts, decimation.ends, strict=True)
        ],
        np.int64,
    )
    arrays = decimation.column_steps(steps) | {
        "minimum": float32_array(minimum),
        "maximum": float32_array(maximum),
        "state": decimation.reduce(np.maximum, state.T.astype(np.uint8)).T,
        "low": float32_array(np.fmin.reduce(minimum, axis=0)),
        "high": float32_array(np.fmax.reduce(maximum, axis=0)),
        "median": float32_array(together.median[worst]),
        "spread": float32_array(together.spread[worst]),
        "furthest": together.furthest[worst].astype(np.int32),
    }
    cache.settle()
    return {"scalar": name, "ranks": list(sessions), "frames": decimation.last - decimation.first}, arrays


def _names(sessions: Mapping[int, Session]) -> list[str]:
    found: dict[str, None] = {}
    for session in sessions.values():
        found |= dict.fromkeys(session.reader.scalar_names())
    return list(found)


def _figure(sessions: Mapping[int, Session], cache: HistoryCache, name: str) -> _Figure:
    each = [_values(session, cache, name) for session in sessions.values()]
    steps = np.unique(np.concatenate([np.empty(0, np.int64), *(known for known, _ in each)]))
    values = np.full((len(each), len(steps)), np.nan)
    measured = np.zeros(values.shape, np.bool_)
    for row, (known, figures) in enumerate(each):
        at = np.searchsorted(steps, known)
        values[row, at] = figures
        measured[row, at] = True
    return _Figure(steps, values, measured)


def _values(session: Session, cache: HistoryCache, name: str) -> tuple[Indices, FloatArray]:
    with session.lock:
        steps = session.reader.scalar_steps(name)

        def read(wanted: Indices) -> Arrays:
            return (session.reader.scalar_values(name, steps[wanted]),)

        if not len(steps):
            return steps, np.empty(0)
        history = cache.take((session.directory, "scalar", name))
        (values,) = history.update(session.reader.scalar_places(name), read, _FLOAT_BYTES)
        return steps, values.copy()


def _rank(rank: int, session: Session, figures: Mapping[str, dict[str, Any] | None]) -> dict[str, Any]:
    with session.lock:
        steps, info = session.reader.steps(), session.info()
        return {
            "rank": rank,
            "status": session.status(),
            "last_step": int(steps[-1]) if len(steps) else None,
            "last_written": session.reader.last_written,
            "ended_because": info.ended_because if info else "",
            "figures": {name: figure for name, figure in figures.items() if figure is not None},
        }


def _newest(figure: _Figure, row: int) -> dict[str, Any] | None:
    """Return a rank's newest figure, and how far from the median of all ranks it lies where others have one too."""
    (known,) = np.nonzero(figure.measured[row])
    if not len(known):
        return None
    at = known[-1:]
    measured = figure.measured[:, at]
    value, median = float(figure.values[row, at[0]]), float(compare(figure.values[:, at], measured).median[0])
    is_shared = measured.sum() > 1
    return {
        "step": int(figure.steps[at[0]]),
        "value": json_number(value),
        "from_median": json_number(value - median) if is_shared else None,
    }


def _size(sessions: Mapping[int, Session]) -> int:
    """Return how many ranks the job has, by what its sessions say and by who is there."""
    said = [info.world_size for session in sessions.values() if (info := session.info()) is not None]
    return max([1, *said, *(rank + 1 for rank in sessions)])


def _is_sharded(session: Session) -> bool:
    """Say whether a rank measured less of its weights than the layer table says that they are."""
    with session.lock:
        steps, table = session.reader.steps("weights"), session.table()
        if not len(steps) or table is None:
            return False
        counts = session.reader.matrix("weights", int(steps[-1]))[:, COUNT]
    sizes = [parameter.size for parameter in table.parameters]
    return any(count < size for count, size in zip(counts, sizes, strict=False))
