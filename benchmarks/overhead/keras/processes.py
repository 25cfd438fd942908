"""Turns of whole processes: for what changes all of a process, and for a model's first steps."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from overhead.keras.first_steps import Comparison, Times, compare
from overhead.keras.workloads import Workload

PLAIN = "plain"
# An epoch's end comes once between these.
EPOCHS = 2


def measure_processes(workload: Workload, kinds: Sequence[str], seconds: float, how: str) -> dict[str, Comparison]:
    """Train in a process for each of `kinds` and in plain ones between, in turn, for about so many `seconds`.

    There is one turn at least. `how` is "wall", or "busy": one thread, in processor time.
    """
    begun = time.monotonic()
    plain = _times(workload, PLAIN, how)
    turns: dict[str, list[tuple[Times, Times, Times]]] = {kind: [] for kind in kinds}
    took = 0.0
    while not all(turns.values()) or time.monotonic() - begun + took < seconds:
        turn_begun = time.monotonic()
        for kind, of_kind in turns.items():
            watched = _times(workload, kind, how)
            before, plain = plain, _times(workload, PLAIN, how)
            of_kind.append((before, watched, plain))
        took = time.monotonic() - turn_begun
    return {kind: compare(of_kind) for kind, of_kind in turns.items()}


def _times(workload: Workload, kind: str, how: str) -> Times:
    command = [sys.executable, "-m", "overhead.keras.process", workload.name, kind, str(EPOCHS), how]
    folder = Path(__file__).resolve().parents[2]
    answer = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return Times(**json.loads(answer.stdout))
