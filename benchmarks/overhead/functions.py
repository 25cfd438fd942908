"""The functions of NeuralDbg that a profiler saw, by their own time."""

from __future__ import annotations

import cProfile
import pstats
from dataclasses import dataclass
from pathlib import Path

import neural
import neural_callbacks

OURS = tuple(str(Path(str(package.__file__)).parent) for package in (neural, neural_callbacks))


@dataclass(frozen=True)
class Function:
    """A function of ours, per step: its calls, its own milliseconds with C functions, and those with all it calls."""

    name: str
    calls: float
    own: float
    cumulative: float


def functions_of(profiler: cProfile.Profile, steps: int) -> list[Function]:
    """Return the functions of ours that `profiler` saw in so many `steps`, the dearest first."""
    functions = [
        Function(f"{_short(file)}:{name}", calls / steps, 1e3 * own / steps, 1e3 * cumulative / steps)
        for (file, _, name), (_, calls, own, cumulative, _) in pstats.Stats(profiler).stats.items()
        if file.startswith(OURS)
    ]
    return sorted(functions, key=lambda function: -function.own)


def _short(file: str) -> str:
    return "/".join(Path(file).parts[-2:]).removesuffix(".py")
