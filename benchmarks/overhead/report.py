"""The tables that are printed, in the form that docs/performance.md has them."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

from overhead.estimate import Estimate, estimate
from overhead.functions import Function
from overhead.turns import Measured
from overhead.watching import Gear


def processor() -> str:
    """Return the processor's name and the number of its cores."""
    cpu = Path("/proc/cpuinfo")
    models = [line for line in cpu.read_text().splitlines() if line.startswith("model name")] if cpu.exists() else []
    name = models[0].partition(": ")[2] if models else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"


def print_ratios(
    measured: Mapping[str, Measured],
    gears: Mapping[str, Gear],
    aims: Mapping[str, Sequence[float]],
    aims_of: Sequence[str],
) -> None:
    """Print the ratios of `gears`, by key, on each workload, beside the `aims` by key, for what `aims_of` says."""
    estimates = {
        name: {gear.title: estimate(of_one.blocks[gear.title], gear.shares) for gear in gears.values()}
        for name, of_one in measured.items()
    }
    print("| | " + " | ".join(f"{name}, {1e3 * m.plain:.2f} ms" for name, m in measured.items()), end="")
    print(" | " + " | ".join(f"aim: {name}" for name in aims_of) + " |")
    print("|---" * (len(measured) + 1 + len(aims_of)) + "|")
    for key, gear in gears.items():
        cells = [_cell(of_one[gear.title]) for of_one in estimates.values()]
        of_gear = [f"{aim:.3f}" for aim in aims.get(key, ())] or [""] * len(aims_of)
        print(f"| {gear.title} | " + " | ".join([*cells, *of_gear]) + " |")
    print(
        "\nHow sure: turns, samples in 100 steps, what of the ratio is writing, and the plain mean with all hiccups.\n"
    )
    print("| | " + " | ".join(f"{name}: turns, samples, writing, mean" for name in estimates) + " |")
    print("|---" * (len(measured) + 1) + "|")
    for gear in gears.values():
        found = [of_one[gear.title] for of_one in estimates.values()]
        cells = [f"{e.turns}, {e.samples:.1f}, {e.writing:.4f}, {e.mean:.3f}" for e in found]
        print(f"| {gear.title} | " + " | ".join(cells) + " |")
    print(flush=True)


def _cell(of_gear: Estimate) -> str:
    return f"{of_gear.ratio:.3f} [{of_gear.low:.3f}, {of_gear.high:.3f}]"


def print_functions(functions: Sequence[Function]) -> None:
    """Print functions, per step."""
    print("| function | calls | own, ms | with what it calls, ms |")
    print("|---|---|---|---|")
    for function in functions:
        print(f"| {function.name} | {function.calls:.1f} | {function.own:.3f} | {function.cumulative:.3f} |")
    print(flush=True)
