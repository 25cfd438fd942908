"""Reducers: tensors go in as training makes them; at the end of the step their rows and histograms come out."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from neural.session import histogram
from neural.session.histogram import IntArray
from neural.session.statistics import COLUMNS, FloatArray
from neural_callbacks.pytorch import histograms, statistics

# Host tensors of up to this many values are kept until the step's end and reduced together: one by one they cost
# 25 us each, whatever their size, together 10 ns a value.
SMALL = 2048


class Reducer(Protocol):
    """Reduces the tensors of one step that live on one device."""

    def measure(self, flat: Tensor, *, lasting: bool) -> None:
        """Take in one tensor (n,) of float32 or float64; `lasting`: nobody will change its values within the step."""

    def measure_scalar(self, value: Tensor) -> None:
        """Take in one tensor that holds a single number."""

    def collect(self) -> tuple[FloatArray, IntArray, FloatArray]:
        """Return the rows (k, 10) and the counts by code (k, 514) of what was measured, in order, and the scalars."""


class HostReducer:
    """Reduces host tensors: large ones at once, small ones together at the end."""

    def __init__(self) -> None:
        self._measured: list[tuple[FloatArray, IntArray] | Tensor] = []
        self._scalars: list[Tensor] = []

    def measure(self, flat: Tensor, *, lasting: bool) -> None:
        """Take in one tensor; see `Reducer`."""
        if 0 < flat.numel() <= SMALL:
            self._measured.append(flat if lasting else flat.clone())
        else:
            self._measured.append(_row_and_counts(flat))

    def measure_scalar(self, value: Tensor) -> None:
        """Take in one number; see `Reducer`."""
        self._scalars.append(value.clone())

    def collect(self) -> tuple[FloatArray, IntArray, FloatArray]:
        """Return what was measured; see `Reducer`."""
        rows = np.empty((len(self._measured), len(COLUMNS)))
        counts = np.empty((len(self._measured), histogram.BINS), np.int64)
        small = [(index, entry) for index, entry in enumerate(self._measured) if isinstance(entry, Tensor)]
        if small:
            where = [index for index, _ in small]
            sizes = np.array([flat.numel() for _, flat in small])
            values = torch.cat([flat for _, flat in small])
            rows[where] = statistics.host_rows(values, sizes)
            counts[where] = histograms.host_counts_together(values, sizes)
        for index, entry in enumerate(self._measured):
            if not isinstance(entry, Tensor):
                rows[index], counts[index] = entry
        return rows, counts, np.array([scalar.item() for scalar in self._scalars])


def _row_and_counts(flat: Tensor) -> tuple[FloatArray, IntArray]:
    stride = histogram.stride(flat.numel())
    if stride == 1:
        return statistics.host_row(flat), histograms.host_counts(flat)
    taken: list[Tensor] = []
    row = statistics.host_row(flat, taken, stride)
    is_whole = sum(piece.numel() for piece in taken) == -(-flat.numel() // stride)
    return row, histograms.host_counts(torch.cat(taken) if is_whole else histograms.sample(flat))


class DeviceReducer:
    """Reduces tensors where they are, without making the host wait; `collect` is the one transfer of the step."""

    def __init__(self) -> None:
        self._rows: list[Tensor] = []
        self._counts: list[Tensor] = []
        self._scalars: list[Tensor] = []

    def measure(self, flat: Tensor, *, lasting: bool) -> None:  # noqa: ARG002 - the device works in order: no copies
        """Take in one tensor; see `Reducer`."""
        self._rows.append(statistics.device_row(flat))
        self._counts.append(histograms.device_counts(histograms.sample(flat)))

    def measure_scalar(self, value: Tensor) -> None:
        """Take in one number; see `Reducer`."""
        self._scalars.append(value.clone())

    def collect(self) -> tuple[FloatArray, IntArray, FloatArray]:
        """Return what was measured; see `Reducer`."""
        parts = [*self._rows, *self._counts, *self._scalars]
        if not parts:
            return np.empty((0, len(COLUMNS))), np.empty((0, histogram.BINS), np.int64), np.empty(0)
        wide = torch.float32 if parts[0].device.type == "mps" else torch.float64
        numbers = torch.cat([part.reshape(-1).to(wide) for part in parts]).cpu().numpy().astype(np.float64)
        rows, counts, scalars = np.split(
            numbers, np.cumsum([len(self._rows) * len(COLUMNS), len(self._counts) * histogram.BINS])
        )
        return rows.reshape(-1, len(COLUMNS)), counts.reshape(-1, histogram.BINS).astype(np.int64), scalars


def reducer_for(device: torch.device) -> Reducer:
    """Return the reducer for tensors on `device`."""
    return HostReducer() if device.type == "cpu" else DeviceReducer()
