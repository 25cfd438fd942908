"""Resident memory: the bytes of this process that are in memory."""

from __future__ import annotations

import math
import os
import weakref
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

# How the kernel tells of a process: its sizes in pages, of which the second is what is in memory. See proc(5).
STATM = Path("/proc/self/statm")


class Reading(NamedTuple):
    """Bytes in use: handed out by the devices' allocator, held by it, and in memory of this process; NaN is unknown."""

    allocated: float
    reserved: float
    process: float


class ResidentMemory:
    """Reads what of this process is in memory, at some microseconds each."""

    def __init__(self) -> None:
        self._statm: int | None = None
        with suppress(OSError):  # only Linux has it
            self._statm = os.open(STATM, os.O_RDONLY | os.O_CLOEXEC)
            weakref.finalize(self, os.close, self._statm)
        self._page = os.sysconf("SC_PAGE_SIZE") if self._statm is not None else 0

    def read(self) -> float:
        """Return the bytes; NaN where the system does not tell."""
        if self._statm is None:
            return math.nan
        return float(int(os.pread(self._statm, 128, 0).split()[1]) * self._page)
