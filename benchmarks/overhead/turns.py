"""Turns: all gears of one workload one after the other, in short blocks, over and over.

A machine's speed wanders within seconds by more than what is looked for. So a block is compared only with the plain
steps right before and right after it, all gears come in each turn, and their order is drawn anew.

Blocks are short, but whole. A gear is put on for its block alone and taken off again, both outside the time: what it
leaves behind in between its steps, hooks for all modules of the process among them, never runs in another's block. The
first steps are not part of it, for it may do then what it does once; the very first one counts where it is told that
in a long training there are more like it. What a thread of its own would write in the background,
at its leisure and perhaps after the block, is waited for twice a block, and that time counts in full, but for what
waiting for nothing takes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from overhead.estimate import Block, FloatArray, kinds_of
from overhead.watching import Gear, Training, Watch, nothing

# Steps of any block before the clock runs: the first one of a gear, which is sampled, and one to recover.
RUN_IN = 2
# In a round all gears take part, the rare ones once, and each kind of step is timed.
ROUND = 4


@dataclass(frozen=True)
class Measured:
    """What the turns gave: the blocks by the gear's title, and the seconds of a plain step."""

    blocks: dict[str, list[Block]]
    plain: float


def measure(training: Training, gears: Sequence[Gear], seconds: float) -> Measured:
    """Run turns of `gears` for about so many `seconds`, and at least one round of them."""
    draw = np.random.default_rng(0)
    blocks: dict[str, list[Block]] = {gear.title: [] for gear in gears}
    flank = _plain(training)
    plain = [flank]
    turns, begun = 0, time.monotonic()
    took = [0.0] * ROUND
    while turns < ROUND or time.monotonic() - begun + took[turns % ROUND] < seconds:
        turn_begun = time.monotonic()
        for index in draw.permutation(len(gears)):
            gear = gears[index]
            if turns % gear.turns == 0:
                block = _block(training, gear, gear.deep if turns % ROUND == 0 else 0, draw)
                before, flank = flank, _plain(training)
                plain.append(flank)
                blocks[gear.title].append(_compared(block, float(np.median(np.concatenate([before, flank])))))
        took[turns % ROUND] = time.monotonic() - turn_begun
        turns += 1
    return Measured(blocks, float(np.median(np.concatenate(plain))))


def _plain(training: Training) -> FloatArray:
    """Return the seconds of half a block of plain steps."""
    training.reset()
    training.run(RUN_IN, nothing)
    times = training.run(training.workload.block // 2, nothing)
    training.typical = float(np.median(times))
    return times


def _block(training: Training, gear: Gear, later: int, draw: np.random.Generator) -> Block:
    """Run one block of `gear`, whose clock starts so many steps `later`; its times are in seconds."""
    size = training.workload.block
    stretch = size // 2
    stretches = -(-max(gear.blocks * size, gear.steps) // stretch)
    first = RUN_IN + later
    if gear.settling:
        # Who finds an interval by itself may find the same each time: its samples must not fall always, or never, just
        # before the clock starts.
        first += gear.settling * size + int(draw.integers(size))
    times, writing = [], []
    training.reset()
    with gear.watch(training) as watch:
        begun = training.run(first, watch.observe)
        watch.flush()
        for _ in range(stretches):
            times.append(training.run(stretch, watch.observe))
            writing.append(_seconds(training, watch) - _seconds(training, watch))
    kinds = kinds_of(np.arange(first, first + stretches * stretch), watch.sampled, watch.full)
    return Block(np.concatenate(times), kinds, np.array(writing), float(begun[0]))


def _seconds(training: Training, watch: Watch) -> float:
    """Return how long a flush takes: of the second in a row, that is what waiting for nothing takes."""
    started = training.clock()
    watch.flush()
    return training.clock() - started


def _compared(block: Block, plain: float) -> Block:
    return Block(block.steps / plain, block.kinds, block.writing / plain, block.first / plain)
