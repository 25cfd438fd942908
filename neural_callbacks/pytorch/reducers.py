"""Reducers: tensors go in as training makes them; at the end of the step their rows and histograms come out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from neural.session import histogram
from neural.session.histogram import IntArray
from neural.session.statistics import COLUMNS, FloatArray
from neural_callbacks.pytorch import histograms, statistics
from neural_callbacks.pytorch.statistics import Row

# Host tensors of up to this many values are kept until the step's end and reduced together: one by one they cost
# 12 us each, whatever their size, together 10 ns a value.
SMALL = 2048


@dataclass(frozen=True)
class Reduced:
    """What came out: rows (k, 10), counts by code (k, 514) or None where no histograms were wanted, and scalars."""

    rows: FloatArray
    counts: IntArray | None
    scalars: FloatArray


class Reducer(Protocol):
    """Reduces the tensors of one step that live on one device."""

    def measure(self, flat: Tensor, *, lasting: bool) -> Row | None:
        """Take in one tensor (n,) of float32 or float64; `lasting`: nobody will change its values within the step.

        Returns its row where that is known at once.
        """

    def measure_together(self, flat: Tensor, sizes: list[int]) -> None:
        """Take in several small tensors, none empty, that stand one after the other in `flat`, which lasts."""

    def measure_scalar(self, value: Tensor) -> None:
        """Take in one tensor that holds a single number."""

    def collect(self) -> Reduced:
        """Return what was measured, in order."""


class HostReducer:
    """Reduces host tensors: large ones at once, small ones together at the end; `binned`: with histograms."""

    def __init__(self, *, binned: bool) -> None:
        self._binned = binned
        self._rows: list[Row | None] = []
        self._counts: dict[int, IntArray] = {}
        self._small: list[Tensor] = []
        self._small_sizes: list[int] = []
        self._scalars: list[Tensor] = []

    def measure(self, flat: Tensor, *, lasting: bool) -> Row | None:
        """Take in one tensor; see `Reducer`."""
        size = flat.numel()
        if 0 < size <= SMALL:
            self._small.append(flat if lasting else flat.clone())
            self._small_sizes.append(size)
            self._rows.append(None)
            return None
        if self._binned:
            row, self._counts[len(self._rows)] = _row_and_counts(flat)
        else:
            row = statistics.host_row(flat)
        self._rows.append(row)
        return row

    def measure_together(self, flat: Tensor, sizes: list[int]) -> None:
        """Take in several; see `Reducer`."""
        self._small.append(flat)
        self._small_sizes += sizes
        self._rows += [None] * len(sizes)

    def measure_scalar(self, value: Tensor) -> None:
        """Take in one number; see `Reducer`."""
        self._scalars.append(value.clone())

    def collect(self) -> Reduced:
        """Return what was measured; see `Reducer`."""
        rows = np.array([row or _NOT_YET for row in self._rows]).reshape(-1, len(COLUMNS))
        counts = np.zeros((len(rows), histogram.BINS), np.int64) if self._binned else None
        if self._small:
            where = [index for index, row in enumerate(self._rows) if row is None]
            sizes = np.array(self._small_sizes)
            values = torch.cat(self._small)  # as float64 where one of them is: that holds the others exactly
            rows[where] = statistics.host_rows(values, sizes)
            if counts is not None:
                counts[where] = histograms.host_counts_together(values, sizes)
        if counts is not None:
            for index, of_one in self._counts.items():
                counts[index] = of_one
        return Reduced(rows, counts, np.array([scalar.item() for scalar in self._scalars]))


_NOT_YET: Row = (np.nan,) * len(COLUMNS)


def _row_and_counts(flat: Tensor) -> tuple[Row, IntArray]:
    stride = histogram.stride(flat.numel())
    if stride == 1:
        return statistics.host_row(flat), histograms.host_counts(flat)
    taken: list[Tensor] = []
    row = statistics.host_row(flat, taken, stride)
    is_whole = sum(piece.numel() for piece in taken) == -(-flat.numel() // stride)
    return row, histograms.host_counts(torch.cat(taken) if is_whole else histograms.sample(flat))


class DeviceReducer:
    """Reduces tensors where they are, without making the host wait; `collect` is the one transfer of the step."""

    def __init__(self, *, binned: bool) -> None:
        self._binned = binned
        self._rows: list[Tensor] = []
        self._counts: list[Tensor] = []
        self._scalars: list[Tensor] = []

    def measure(self, flat: Tensor, *, lasting: bool) -> Row | None:  # noqa: ARG002 - the device works in order: no copies
        """Take in one tensor; see `Reducer`."""
        self._rows.append(statistics.device_row(flat))
        if self._binned:
            self._counts.append(histograms.device_counts(histograms.sample(flat)))
        return None

    def measure_together(self, flat: Tensor, sizes: list[int]) -> None:
        """Take in several; see `Reducer`."""
        for part in flat.split(sizes):
            self.measure(part, lasting=True)

    def measure_scalar(self, value: Tensor) -> None:
        """Take in one number; see `Reducer`."""
        self._scalars.append(value.clone())

    def collect(self) -> Reduced:
        """Return what was measured; see `Reducer`."""
        parts = [*self._rows, *self._counts, *self._scalars]
        if not parts:
            empty = np.empty((0, histogram.BINS), np.int64) if self._binned else None
            return Reduced(np.empty((0, len(COLUMNS))), empty, np.empty(0))
        wide = torch.float32 if parts[0].device.type == "mps" else torch.float64
        numbers = torch.cat([part.reshape(-1).to(wide) for part in parts]).cpu().numpy().astype(np.float64)
        rows, counts, scalars = np.split(
            numbers, np.cumsum([len(self._rows) * len(COLUMNS), len(self._counts) * histogram.BINS])
        )
        return Reduced(
            rows.reshape(-1, len(COLUMNS)),
            counts.reshape(-1, histogram.BINS).astype(np.int64) if self._binned else None,
            scalars,
        )


def reducer_for(device: torch.device, *, binned: bool) -> Reducer:
    """Return the reducer for tensors on `device`; `binned`: with histograms."""
    return HostReducer(binned=binned) if device.type == "cpu" else DeviceReducer(binned=binned)
