"""What watching costs a PyTorch training on this machine: whole runs, interleaved in one process, against plain ones.

    python benchmarks/overhead_pytorch.py [--steps 60] [--rounds 7] [--every 10] [--workload mlp] [--short] [--busy]

For each workload, rounds of: a plain run, a run with NeuralDbg attached that samples its first step only, and a run
with a sample every 10 steps (statistics and histograms, the defaults). Each run trains `--steps` steps; the first
sample falls before the clock starts, as the first steps do in a plain run. A ratio is the median over the rounds of
the ratio to the plain run of the same round, so that a machine that gets slower in between does not count. On a machine
that others use too, `--busy` measures one thread's work in processor time in place of the time that passes.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from neural_callbacks import NeuralDbg

WARM_UP = 10  # steps before the clock starts: allocator, caches, first samples
NEVER = 10**9


@dataclass(frozen=True)
class Workload:
    """A model, a batch to train it on, its loss, and how many times more steps it runs than `--steps` says."""

    name: str
    model: Callable[[], nn.Module]
    inputs: Tensor
    targets: Tensor
    repeat: int = 1


class Residual(nn.Module):
    """Two convolutions with batch normalization and a shortcut, as in ResNet-18."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outside)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outside)
        self.relu2 = nn.ReLU(inplace=True)
        shortcut = [nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside)]
        self.shortcut = nn.Sequential(*(shortcut if stride != 1 or inside != outside else []))

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, (N, outside, H / stride, W / stride)."""
        y = self.norm2(self.conv2(self.relu1(self.norm1(self.conv1(x)))))
        return self.relu2(y + self.shortcut(x))


def resnet() -> nn.Module:
    """Return a ResNet of six blocks on 32x32 images: 0.7 million parameters, 44 layers."""
    blocks = [Residual(16, 16, 1), Residual(16, 16, 1), Residual(16, 32, 2), Residual(32, 32, 1)]
    blocks += [Residual(32, 64, 2), Residual(64, 64, 1)]
    stem = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


class Block(nn.Module):
    """A transformer block, pre-normalized, with causal attention of 6 heads."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, of the shape of `x`, (batch, time, width)."""
        batch, length, width = x.shape
        query, key, value = (
            part.view(batch, length, 6, width // 6).transpose(1, 2) for part in self.qkv(self.norm1(x)).chunk(3, -1)
        )
        attended = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).reshape(batch, length, width))
        return x + self.mlp(self.norm2(x))


class Gpt(nn.Module):
    """A language model over 256 bytes: 6 blocks, width 192, 64 positions; 2.8 million parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Embedding(256, 192)
        self.position = nn.Embedding(64, 192)
        self.blocks = nn.Sequential(*(Block(192) for _ in range(6)))
        self.norm = nn.LayerNorm(192)
        self.head = nn.Linear(192, 256, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits, (batch * time, 256), of `tokens`, (batch, time)."""
        x = self.token(tokens) + self.position(torch.arange(tokens.shape[1]))
        return self.head(self.norm(self.blocks(x))).flatten(0, 1)


def mlp() -> nn.Module:
    """Return three linear layers, 784-256-256-10."""
    return nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))


def workloads() -> list[Workload]:
    """Return the three workloads, with batches drawn from a fixed seed."""
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(256, (16, 65), generator=draw)
    images = torch.randn(32, 3, 32, 32, generator=draw)
    vectors = torch.randn(64, 784, generator=draw)
    return [
        Workload("resnet", resnet, images, torch.randint(10, (32,), generator=draw)),
        Workload("gpt", Gpt, tokens[:, :-1].contiguous(), tokens[:, 1:].flatten()),
        Workload("mlp", mlp, vectors, torch.randint(10, (64,), generator=draw), repeat=10),
    ]


def run(workload: Workload, steps: int, every: int | None, logdir: str, clock: Callable[[], float]) -> float:
    """Train for `steps` steps; return the seconds of one by `clock`. `every` None: without NeuralDbg."""
    torch.manual_seed(0)
    model = workload.model()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    watch: AbstractContextManager[object] = nullcontext()
    if every is not None:
        watch = NeuralDbg(model, optimizer, logdir, every=every)
    started = 0.0
    with watch:
        for step in range(WARM_UP + steps):
            if step == WARM_UP:
                started = clock()
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(workload.inputs), workload.targets)
            loss.backward()
            if isinstance(watch, NeuralDbg):
                watch.record_scalars(loss=loss)
            optimizer.step()
        return (clock() - started) / steps


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description="What NeuralDbg costs a PyTorch training, as ratios to plain runs.")
    parser.add_argument("--steps", type=int, default=60, help="steps a run (ten times as many for the MLP)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--every", type=int, default=10, help="the sampling interval, in steps")
    parser.add_argument("--workload", choices=[workload.name for workload in workloads()])
    parser.add_argument("--short", action="store_true", help="20 steps, 3 rounds: to see that it runs")
    parser.add_argument("--busy", action="store_true", help="one thread, processor time: for a machine in use")
    options = parser.parse_args()
    clock = time.process_time if options.busy else time.perf_counter
    if options.busy:
        torch.set_num_threads(1)
    steps, rounds = (20, 3) if options.short else (options.steps, options.rounds)
    gears = {"attached": NEVER, f"every {options.every}": options.every}
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {steps} steps, {rounds} rounds")
    print(f"{'workload':10}{'plain':>12}" + "".join(f"{name:>12}" for name in gears) + "   (ratios: median [min, max])")
    for workload in workloads():
        if options.workload not in (None, workload.name):
            continue
        plain: list[float] = []
        ratios: dict[str, list[float]] = {name: [] for name in gears}
        with tempfile.TemporaryDirectory() as logdir:
            for _ in range(rounds):
                plain.append(run(workload, steps * workload.repeat, None, logdir, clock))
                for name, every in gears.items():
                    ratios[name].append(run(workload, steps * workload.repeat, every, logdir, clock) / plain[-1])
        cells = (f"{statistics.median(r):8.3f} [{min(r):.3f}, {max(r):.3f}]" for r in ratios.values())
        print(f"{workload.name:10}{1e3 * statistics.median(plain):9.2f} ms" + "".join(cells), flush=True)


if __name__ == "__main__":
    main()
