"""What watching a PyTorch training costs on this machine, as ratios to plain training, to half a percent.

    python benchmarks/overhead_pytorch.py [--device cuda] [--workload mlp ...] [--gears idle ...] [--minutes 11.5]
    python benchmarks/overhead_pytorch.py --memory
    python benchmarks/overhead_pytorch.py --profile

For each workload one model is trained, over and over from the same weights, in short blocks: a block with one of the
gears, some plain steps, a block with the next gear, all in turn in an order that is drawn anew each turn. Each step of
a block is divided by the median of the plain steps right before and right after the block. A gear's ratio is made of
the medians of that over all turns: of sampled steps, of those right after them and of the rest, which count by their
number in a long training. What is left to the writer's thread is waited for, and counts in full (`overhead/turns.py`,
`overhead/estimate.py`). Beside the ratio stands its 95 % interval, from a bootstrap over blocks.

"plain again" watches nothing: it shows how far to trust the others, and must come out at 1. With `--check` there are
two more gears, which do nothing but spend 1 % of a step's time, in each step or at once in each tenth: 1.010. Where
others use the machine the latter costs more, and shows it: a longer pause leaves them the processor's cache.

The default finds its interval by itself, and first pays for the samples that it begins with: twelve of its blocks go by
before the clock starts, and ten are timed. The second table tells how often it sampled; with no sample there, its ratio
is not that of a long training. On a GPU the steps are timed by events, and the host waits for it at the ends of half
blocks alone. With `--busy` all is done on one thread and measured in processor time, that of the writer's thread
included: for a machine that others use too, where the time that passes says little.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from overhead.memory import MEGABYTE, measure_memory
from overhead.observer import neuraldbg
from overhead.others import MissingPackageError, detect_anomaly, hook_script, require_wandb, wandb_watch
from overhead.profile import profiled
from overhead.report import print_functions, print_ratios, processor
from overhead.shares import shares_at
from overhead.training import Training
from overhead.turns import measure
from overhead.watching import Gear, plain, spin
from overhead.workloads import Workload, workloads

# The most that watching may cost: the ratio for the ResNet and the GPT, and for the MLP, by gear.
AIMS = {"idle": (1.005, 1.03), "default": (1.02, 1.03), "10": (1.03, 1.08), "1": (1.12, 1.45)}
MEMORY_AIM = 30  # MB
CONTROL = Gear("plain again", plain)
# With a sample on each tenth step, the second full one is at step 100: some steps earlier the clock starts for it.
TO_FULL = 95
CHECKS = {
    "spin-1": Gear("1 % of a step in each step", partial(spin, share=0.01, every=1)),
    "spin-10": Gear("10 % of a step in each tenth", partial(spin, share=0.01, every=10)),
}
OURS = {
    "idle": Gear("attached, nothing sampled", partial(neuraldbg, steps=[])),
    "default": Gear("default: a budget of 2 %", neuraldbg, blocks=10, settling=12, turns=4),
    "10": Gear(
        "every 10 steps, all but histograms",
        partial(neuraldbg, every=10, histograms=False),
        deep=TO_FULL,
        shares=shares_at(10),
    ),
    "1": Gear("every step, all but histograms", partial(neuraldbg, every=1, histograms=False), shares=shares_at(1)),
    "10-all": Gear("every 10 steps, everything", partial(neuraldbg, every=10), deep=TO_FULL, shares=shares_at(10)),
}
OTHERS = {
    "wandb-10": Gear('wandb.watch(log="all", log_freq=10)', partial(wandb_watch, log_freq=10)),
    "wandb-100": Gear('wandb.watch(log="all", log_freq=100)', partial(wandb_watch, log_freq=100), steps=100, turns=4),
    "anomaly": Gear("torch.autograd.detect_anomaly", detect_anomaly),
    "hooks-10": Gear("hooks and .item(), every 10 steps", partial(hook_script, every=10)),
    "hooks-1": Gear("hooks and .item(), every step", partial(hook_script, every=1)),
}
# Of the time for a workload, what our own gears get where the others are measured too: those need no half percent.
OURS_SHARE = 0.75
SHORT_SECONDS = 0.0  # the fewest turns there may be
PAIRS = 3
PROFILED: dict[str, dict[str, Any]] = {
    OURS["idle"].title: {"steps": []},
    OURS["1"].title: {"every": 1, "histograms": False},
    "every step, everything": {"every": 1},
}


def main() -> None:
    """Measure and print."""
    options = _options()
    if options.busy:
        torch.set_num_threads(1)
    clock = time.process_time if options.busy else time.perf_counter
    chosen = [workload for workload in workloads(options.device) if workload.name in options.workload]
    print(_machine(options.device, busy=options.busy))
    if options.memory:
        _print_memory(chosen, options.device, short=options.short)
    elif options.profile:
        _print_profiles(chosen, options.device, clock)
    else:
        _print_ratios(chosen, options, clock)


def _options() -> argparse.Namespace:
    names = [workload.name for workload in workloads("cpu")]
    parser = argparse.ArgumentParser(description="What watching a PyTorch training costs, as ratios to plain training.")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="cuda takes larger workloads")
    parser.add_argument("--workload", choices=names, nargs="+", default=names)
    parser.add_argument("--gears", choices=[*OURS, *OTHERS], nargs="+", default=[*OURS, *OTHERS])
    parser.add_argument("--minutes", type=float, default=11.5, help="for all workloads together")
    parser.add_argument("--check", action="store_true", help="see that known costs are found, too")
    parser.add_argument("--busy", action="store_true", help="one thread, processor time: for a machine in use")
    parser.add_argument("--short", action="store_true", help="as few turns as there may be: to see that it runs")
    parser.add_argument("--memory", action="store_true", help="peaks of fresh processes in place of times")
    parser.add_argument("--profile", action="store_true", help="where the time goes, by function")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda needs a CUDA device, and torch sees none; write --device cpu.")
    if options.device == "cuda" and (options.busy or options.check):
        parser.error("--busy and --check spend and count the processor's time, not a GPU's; write --device cpu.")
    return options


def _machine(device: str, *, busy: bool) -> str:
    where = processor()
    if device == "cuda":
        where += f", {torch.cuda.get_device_name()}"
    threads = torch.get_num_threads()
    how = ", processor time" if busy else ""
    return (
        f"{where}; Python {platform.python_version()}, torch {torch.__version__}, "
        f"{threads} thread{'s' if threads > 1 else ''}{how}; {time.strftime('%Y-%m-%d')}\n"
    )


def _print_ratios(chosen: Sequence[Workload], options: argparse.Namespace, clock: Callable[[], float]) -> None:
    """Measure our gears on all workloads, then the others: what these leave in the process comes after ours."""
    checks = CHECKS if options.check else {}
    ours = {key: gear for key, gear in OURS.items() if key in options.gears}
    others = {key: gear for key, gear in OTHERS.items() if key in options.gears}
    if not others.keys().isdisjoint({"wandb-10", "wandb-100"}):
        require_wandb()
    of_all = 60 * options.minutes / sum(workload.share for workload in chosen)
    for gears, share in ((checks | ours, OURS_SHARE if others else 1.0), (others, 1 - OURS_SHARE if ours else 1.0)):
        if gears:
            measured = {}
            for workload in chosen:
                print(f"measuring {workload.name} ...", file=sys.stderr, flush=True)
                training = Training(workload, options.device, clock)
                seconds = SHORT_SECONDS if options.short else of_all * workload.share * share
                measured[workload.name] = measure(training, [CONTROL, *gears.values()], seconds)
            print_ratios(measured, {"control": CONTROL} | gears, AIMS, ("resnet, gpt", "mlp"))


def _print_memory(chosen: Sequence[Workload], device: str, *, short: bool) -> None:
    print("| peak memory, MB | plain | added by the default: median [least, most] | aim | added on the GPU |")
    print("|---|---|---|---|---|")
    for workload in chosen:
        memory = measure_memory(workload, device, pairs=1 if short else PAIRS)
        plain_, added, least, most, on_device = (
            f"{number / MEGABYTE:.1f}"
            for number in (memory.plain, memory.added, memory.least, memory.most, memory.added_on_device)
        )
        on_device = on_device if device == "cuda" else "n/a"
        print(f"| {workload.name} | {plain_} | {added} [{least}, {most}] | {MEMORY_AIM} | {on_device} |", flush=True)


def _print_profiles(chosen: Sequence[Workload], device: str, clock: Callable[[], float]) -> None:
    for workload in chosen:
        training = Training(workload, device, clock)
        for title, options in PROFILED.items():
            profile = profiled(training, **options)
            print(
                f"{workload.name}, {title}: a step is {profile.added:.2f} ms longer than a plain one; profiled, "
                f"our functions took {profile.total:.2f} ms of the training's thread.\n"
            )
            print_functions(profile.functions)


if __name__ == "__main__":
    try:
        main()
    except MissingPackageError as error:
        sys.exit(f"error: {error}")
