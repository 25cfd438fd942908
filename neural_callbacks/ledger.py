"""Ledger: what watching has cost a training so far, and what one more sample would cost."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field

# Medians are over so many plain steps, and so many samples of one depth: noise of 10 % of a step moves such a median by
# 2 %, and a training whose steps grow longer is followed within some seconds.
RECENT = 32
# So many plain steps make a level that samples can be compared with; it is found anew after each so many more.
ENOUGH_STEPS = 8
# A plain step that took longer than so many usual ones had a validation before it, or a stall: it counts as a usual
# one. Nor is a sample believed to cost more than so many beyond what the host saw, until there are enough for a median.
OUTLIER = 5.0
ENOUGH_SAMPLES = 3
# A device works through a queue. What a sample costs it may show only in the steps after, when the host waits for room
# in the queue; a sample that waits for the device pays for work queued before, and makes the steps after short. So many
# plain steps after a sample are compared with as many after those. The difference counts where it is more than noise:
# more than so many standard errors, over enough samples to know these.
ECHO_STEPS = 8
ECHO_ERRORS = 2.0
ECHO_SAMPLES = 5


@dataclass
class _Sample:
    """A sampled step, in seconds, and the plain steps right after it; `duration` None does not count."""

    depth: int
    duration: float | None
    after: list[float] = field(default_factory=list)


class _Account:
    """What the samples of one depth cost: `own` seconds on the host and `hidden` ones besides, of a typical sample."""

    def __init__(self) -> None:
        self.own = 0.0
        self.hidden = 0.0
        self._owns: deque[float] = deque(maxlen=RECENT)
        self._excesses: deque[float] = deque(maxlen=RECENT)
        self._echoes: deque[float] = deque(maxlen=RECENT)
        self._settled = 0.0

    @property
    def hidden_in_all(self) -> float:
        """The hidden seconds of all samples; of the recent ones by what is known now."""
        return self._settled + len(self._owns) * self.hidden

    def add(self, own: float) -> None:
        """Count a sample."""
        if len(self._owns) == RECENT:
            self._settled += self.hidden
        self._owns.append(own)
        self.own = _median(self._owns)

    def compare(self, sample: _Sample, step_seconds: float) -> None:
        """Take in what `sample` added to a step that takes `step_seconds` without."""
        if sample.duration is None:
            return
        self._excesses.append(sample.duration - step_seconds)
        half = len(sample.after) // 2
        self._echoes.append(sum(sample.after[:half]) - sum(sample.after[half : 2 * half]))
        excess = _median(self._excesses) + self._echo()
        if len(self._excesses) < ENOUGH_SAMPLES:
            excess = min(excess, self.own + OUTLIER * step_seconds)
        self.hidden = max(0.0, excess - self.own)

    def _echo(self) -> float:
        if len(self._echoes) < ECHO_SAMPLES:
            return 0.0
        middle = _median(self._echoes)
        # Of normal noise: its deviation by the median's, and the standard error of a median.
        deviation = 1.4826 * _median([abs(echo - middle) for echo in self._echoes])
        error = 1.2533 * deviation / math.sqrt(len(self._echoes))
        return middle if abs(middle) > ECHO_ERRORS * error else 0.0


class Ledger:
    """Keeps account of a training's time; it is told of each step, once, in order.

    Times are in seconds. The duration of a step is from the end of the step before to its own end; `own` is what
    NeuralDbg's own code took of it, without waiting for a device, which is exact for the host. What a sample costs
    besides (a device's time) is seen in the durations: the median of what recent samples took longer than the plain
    steps around them. The larger of both counts. The duration of the very first step is left aside: it starts before
    training does.

    `step_seconds` is what a step takes without NeuralDbg, the median of the recent past; NaN before a plain one.
    """

    def __init__(self) -> None:
        self.plain_steps = 0
        self.step_seconds = math.nan
        self._plain: deque[float] = deque(maxlen=RECENT)
        self._accounts: dict[int, _Account] = {}
        self._latest: _Sample | None = None
        # Every step may be sampled, and none ever compared.
        self._to_compare: deque[_Sample] = deque(maxlen=RECENT)
        self._own = 0.0
        self._settled = 0.0
        self._unsettled_samples = 0

    @property
    def added(self) -> float:
        """The seconds that watching has added to training so far."""
        return self._own + sum(account.hidden_in_all for account in self._accounts.values())

    @property
    def plain_seconds(self) -> float:
        """The seconds that training took so far without what was added, pauses left out; NaN before a plain step."""
        return self._settled + (len(self._plain) + self._unsettled_samples) * self.step_seconds

    @property
    def overhead(self) -> float:
        """The share of plain training time that watching has cost so far; NaN while no plain step was seen."""
        return self.added / self.plain_seconds if self.plain_seconds > 0 else math.nan

    def price(self, depth: int) -> float:
        """Return the seconds that a sample of `depth` adds, by the recent ones; 0 where there was none yet."""
        account = self._accounts.get(depth)
        return 0.0 if account is None else account.own + account.hidden

    def plain(self, duration: float, own: float) -> None:
        """Count a step that was not sampled."""
        seconds = duration - own
        if len(self._plain) == RECENT:
            oldest = self._plain[0]
            self._settled += oldest if oldest <= OUTLIER * self.step_seconds else self.step_seconds
        self._plain.append(seconds)
        self._own += own
        self.plain_steps += 1
        if self.plain_steps < ENOUGH_STEPS or self.plain_steps % ENOUGH_STEPS == 0:
            self.step_seconds = _median(self._plain)
            if self.plain_steps == ENOUGH_STEPS:
                self._settled += self._unsettled_samples * self.step_seconds
                self._unsettled_samples = 0
        if self._latest is not None:
            self._latest.after.append(seconds)
            if len(self._latest.after) == 2 * ECHO_STEPS:
                self._compare()

    def sampled(self, duration: float, own: float, depth: int) -> None:
        """Count a step that was sampled; samples of each `depth` have an account of their own."""
        self._compare()
        is_first = not self.plain_steps and not self._accounts
        self._latest = _Sample(depth, None if is_first else duration)
        self._accounts.setdefault(depth, _Account()).add(own)
        self._own += own
        if self.plain_steps < ENOUGH_STEPS:
            self._unsettled_samples += 1
        else:
            self._settled += self.step_seconds

    def background(self, seconds: float) -> None:
        """Count what NeuralDbg's other threads took."""
        self._own += seconds

    def _compare(self) -> None:
        if self._latest is not None:
            self._to_compare.append(self._latest)
            self._latest = None
        if self.plain_steps >= ENOUGH_STEPS:
            while self._to_compare:
                sample = self._to_compare.popleft()
                self._accounts[sample.depth].compare(sample, self.step_seconds)


def _median(values: Collection[float]) -> float:
    """Return the median; of an even number the lower one, so that of two the outlier does not count."""
    return sorted(values)[(len(values) - 1) // 2]
