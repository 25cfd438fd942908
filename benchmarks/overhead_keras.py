"""What watching a Keras training costs on this machine, as ratios to plain training, to about a percent.

    python benchmarks/overhead_keras.py [--workload dense ...] [--gears idle ...] [--minutes 12] [--busy]
    python benchmarks/overhead_keras.py --profile

Two things are measured, in two ways.

The gears of NeuralDbg: one `model.fit` without end is held and let go in short blocks, a block with one of the gears,
some plain steps, a block with the next gear, all in turn in an order that is drawn anew each turn. How a ratio is made
of that, and its 95 % interval, `overhead/turns.py` and `overhead/estimate.py` say. Each block is a training of its own,
with its session; but the default, which finds its interval by itself, is one long training that goes on from block to
block, and is timed from when it has paid for the samples that it begins with. What is traced is traced before.
"plain again" watches nothing: it shows how far to trust the others, and must come out at 1.

What others watch a training with, and what NeuralDbg traces: these change a process for good, or are done once in it.
So each is a process of its own, with plain processes between, and a ratio is the median over the turns of its usual
step to that of the plain processes before and after it.

With `--busy` all is done on one thread and measured in processor time, that of our threads included: for a machine that
others use too, where the time that passes says little.
"""

from __future__ import annotations

import argparse
import logging
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf

from overhead.keras.first_steps import Comparison
from overhead.keras.observer import NeuralDbgGear
from overhead.keras.process import use_one_thread
from overhead.keras.processes import measure_processes
from overhead.keras.profile import profiled
from overhead.keras.training import Training
from overhead.keras.workloads import WORKLOADS, Workload
from overhead.report import print_functions, print_ratios, processor
from overhead.shares import profiled_shares_at
from overhead.turns import measure
from overhead.watching import Gear, plain

# The most that watching may cost: the ratio for the convolutional network and for the dense one, by gear.
AIMS = {"default": (1.02, 1.03), "10": (1.03, 1.08), "10-rows": (1.03, 1.08), "1": (1.2, 1.45), "1-rows": (1.2, 1.45)}
AIMS_OF = tuple(workload.name for workload in WORKLOADS)
TRACING_AIM = 1.0
# With a sample on each tenth step, the second one with histograms is at step 100: some steps earlier the clock starts.
TO_FULL = 95
OURS = ("nothing", "idle", "default", "10-rows", "10", "1-rows", "1")
# The kinds of `overhead.keras.process`, and what they are called in the table.
PROCESSES = {
    "tracing": ("neuraldbg", "NeuralDbgCallback(every=10)"),
    "dump-curt": ("dump-CURT_HEALTH", "enable_dump_debug_info, CURT_HEALTH"),
    "dump-concise": ("dump-CONCISE_HEALTH", "enable_dump_debug_info, CONCISE_HEALTH"),
    "dump-full": ("dump-FULL_HEALTH", "enable_dump_debug_info, FULL_HEALTH"),
    "check-numerics": ("check-numerics", "enable_check_numerics"),
    "tensorboard": ("tensorboard", "TensorBoard(histogram_freq=1)"),
}
# Of the time for a workload, what the gears in one process get where processes are measured too.
OURS_SHARE = 0.55
SHORT_SECONDS = 0.0  # the fewest turns there may be
PROFILED = {
    "sentinel only": {"steps": []},
    "every step, all but histograms": {"every": 1, "histograms": False},
    "every step": {"every": 1},
}


def gears(stack: ExitStack) -> dict[str, Gear]:
    """Return what is compared in one process, for one training, to be closed with `stack`."""

    def ours(**options: Any) -> NeuralDbgGear:
        return stack.enter_context(NeuralDbgGear(**options))

    found = {
        "control": Gear("plain again", plain),
        "nothing": Gear("attached, nothing", ours(steps=[], sentinel=False)),
        "idle": Gear("attached, sentinel only", ours(steps=[])),
        "default": Gear("default: a budget of 2 %", ours(keeps_on=True), blocks=3),
    }
    for every, title in ((10, "every 10 steps"), (1, "every step")):
        for key, histograms in ((f"{every}-rows", False), (str(every), True)):
            found[key] = Gear(
                title if histograms else f"{title}, all but histograms",
                ours(every=every, histograms=histograms),
                deep=TO_FULL if histograms and every > 1 else 0,
                shares=profiled_shares_at(every, histograms=histograms),
            )
    return found


def main() -> None:
    """Measure and print."""
    options = _options()
    logging.getLogger("neuraldbg").setLevel(logging.ERROR)  # the same notices, session by session
    if options.busy:
        use_one_thread()
    clock = time.process_time if options.busy else time.perf_counter
    chosen = [workload for workload in WORKLOADS if workload.name in options.workload]
    print(
        f"{processor()}; Python {platform.python_version()}, tensorflow {tf.__version__}, keras {keras.__version__}"
        f"{', one thread, processor time' if options.busy else ''}; {time.strftime('%Y-%m-%d')}\n"
    )
    if options.profile:
        _print_profiles(chosen, clock)
        return
    ours = [key for key in OURS if key in options.gears]
    kinds = {PROCESSES[key][0]: PROCESSES[key][1] for key in PROCESSES if key in options.gears}
    seconds = 0.0 if options.short else 60 * options.minutes / sum(workload.share for workload in chosen)
    if ours:
        share = OURS_SHARE if kinds else 1.0
        _print_gears(chosen, ours, clock, seconds * share)
    if kinds:
        share = 1 - OURS_SHARE if ours else 1.0
        how = "busy" if options.busy else "wall"
        _print_processes(chosen, kinds, how, 0.0 if options.short else 60 * options.minutes * share / len(chosen))


def _options() -> argparse.Namespace:
    names = [workload.name for workload in WORKLOADS]
    parser = argparse.ArgumentParser(description="What watching a Keras training costs, as ratios to plain training.")
    parser.add_argument("--workload", choices=names, nargs="+", default=names)
    parser.add_argument("--gears", choices=[*OURS, *PROCESSES], nargs="+", default=[*OURS, *PROCESSES])
    parser.add_argument("--minutes", type=float, default=12.0, help="for all workloads together")
    parser.add_argument("--busy", action="store_true", help="one thread, processor time: for a machine in use")
    parser.add_argument("--short", action="store_true", help="as few turns as there may be: to see that it runs")
    parser.add_argument("--profile", action="store_true", help="where the time goes, by function")
    return parser.parse_args()


def _print_gears(chosen: Sequence[Workload], keys: Sequence[str], clock: Callable[[], float], seconds: float) -> None:
    measured = {}
    for workload in chosen:
        print(f"measuring {workload.name} ...", file=sys.stderr, flush=True)
        with Training(workload, clock) as training, ExitStack() as stack:
            of_one = {key: gear for key, gear in gears(stack).items() if key in ("control", *keys)}
            measured[workload.name] = measure(training, [*of_one.values()], seconds * workload.share)
    print_ratios(measured, of_one, AIMS, AIMS_OF)


def _print_processes(chosen: Sequence[Workload], kinds: Mapping[str, str], how: str, seconds: float) -> None:
    for workload in chosen:
        print(f"measuring processes of {workload.name} ...", file=sys.stderr, flush=True)
        compared = measure_processes(workload, [*kinds], seconds, how)
        print(f"| {workload.name}, processes in turn | a usual step | an epoch's end, in steps | turns |")
        print("|---|---|---|---|")
        for kind, found in compared.items():
            step = f"{found.step:.3f} [{found.least:.3f}, {found.most:.3f}]"
            print(f"| {kinds[kind]} | {step} | {found.epoch_end:.1f} | {found.turns} |")
        print()
        if (found := compared.get(PROCESSES["tracing"][0])) is not None:
            print(_tracing(workload, found))


def _tracing(workload: Workload, found: Comparison) -> str:
    instrumented, sentinel = found.firsts
    told = "nothing" if found.tracing is None else f"{found.tracing:.2f}"
    return (
        f"Tracing, {workload.name}, in times of the model's own first step, {found.plain_first:.2f} s: the "
        f"instrumented function with its first call {instrumented:.2f}, the sentinel's {sentinel:.2f}; the session "
        f"says {told} of both. They stand in for the model's own, which is not traced. Aim: {TRACING_AIM:.2f}.\n"
    )


def _print_profiles(chosen: Sequence[Workload], clock: Callable[[], float]) -> None:
    for workload in chosen:
        with Training(workload, clock) as training:
            for title, options in PROFILED.items():
                profile = profiled(training, **options)
                print(f"{workload.name}, {title}: a step is {profile.added:.2f} ms longer. The training's thread:\n")
                print_functions(profile.training)
                print("The thread that makes frames:\n")
                print_functions(profile.frames)


if __name__ == "__main__":
    main()
