"""Train in this process and print its peaks: `python -m overhead.peak WORKLOAD DEVICE STEPS plain|default`.

One line comes out: the most host memory that was resident, and the most device memory that was allocated, in bytes.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

from overhead.training import Training
from overhead.watching import plain
from overhead.workloads import workloads

KIBIBYTE = 1024


def main() -> None:
    """Train, and print."""
    name, device, steps, gear = sys.argv[1:]
    watch = plain
    if gear == "default":
        # A plain training must not carry what it does not use.
        from overhead.observer import neuraldbg as watch  # noqa: PLC0415
    (workload,) = (workload for workload in workloads(device) if workload.name == name)
    training = Training(workload, device, time.perf_counter)
    with watch(training) as watched:
        training.run(int(steps), watched.observe)
        # Of this program alone, unlike getrusage, which starts from what the parent had when it forked.
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        on_device = torch.cuda.max_memory_allocated() if device == "cuda" else 0
        print(int(status["VmHWM"].split()[0]) * KIBIBYTE, on_device)


if __name__ == "__main__":
    main()
