"""What watching takes in memory: the peaks of fresh processes, with the default and without."""

from __future__ import annotations

import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from overhead.workloads import Workload

MEGABYTE = 1e6
# Blocks that a process trains for: the default must have come to its interval, and its buffers to their size.
BLOCKS = 12


@dataclass(frozen=True)
class Memory:
    """Bytes: of the plain process, and what watching adds, on the host and on the device; medians over pairs.

    `least` and `most` are those of what it adds on the host; `added_on_device` is 0 where there is no device.
    """

    plain: float
    added: float
    least: float
    most: float
    added_on_device: float


def measure_memory(workload: Workload, device: str, pairs: int, blocks: int = BLOCKS) -> Memory:
    """Train `workload` in `pairs` of fresh processes, one plain and one watched."""
    peaks = np.array(
        [
            [_peaks(workload, device, blocks * workload.block, gear) for gear in ("plain", "default")]
            for _ in range(pairs)
        ]
    )
    added = peaks[:, 1] - peaks[:, 0]
    return Memory(
        plain=statistics.median(peaks[:, 0, 0]),
        added=statistics.median(added[:, 0]),
        least=min(added[:, 0]),
        most=max(added[:, 0]),
        added_on_device=statistics.median(added[:, 1]),
    )


def _peaks(workload: Workload, device: str, steps: int, gear: str) -> list[float]:
    command = [sys.executable, "-m", "overhead.peak", workload.name, device, str(steps), gear]
    folder = Path(__file__).resolve().parent.parent
    answer = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True)
    return [float(number) for number in answer.stdout.split()]
