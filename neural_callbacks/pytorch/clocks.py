"""Clocks: marks are made while a step runs, and read when it is over."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch

from neural.session.statistics import FloatArray


class Clock(Protocol):
    """Tells when something happened where the layers run: on the host, or on a device that works behind its back."""

    is_host: bool

    def mark(self) -> Any:
        """Note this moment, without waiting."""

    def seconds(self, marks: Sequence[Any]) -> FloatArray:
        """Return the times (n,) of marks, in seconds from any moment; waits until a device has come to all of them."""


class HostClock:
    """The clock of the host."""

    is_host = True
    mark = staticmethod(time.perf_counter)

    def seconds(self, marks: Sequence[float]) -> FloatArray:
        """See `Clock`."""
        return np.array(marks)


class DeviceClock:
    """The clock of a CUDA device: a mark is when its current stream gets there."""

    is_host = False

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def mark(self) -> torch.cuda.Event:
        """See `Clock`."""
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def seconds(self, marks: Sequence[torch.cuda.Event]) -> FloatArray:
        """See `Clock`."""
        for mark in marks:
            mark.synchronize()
        return np.array([marks[0].elapsed_time(mark) for mark in marks]) / 1e3


def clock_of(device: torch.device) -> Clock:
    """Return the clock by which what runs on `device` is timed."""
    return DeviceClock(device) if device.type == "cuda" else HostClock()
