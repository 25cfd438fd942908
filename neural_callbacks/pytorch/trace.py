"""Trace: when each layer ran in one step, forward and backward, and the memory in use when it was done."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from neural.session.frame import BACKWARD, FORWARD, PROFILES, WHOLE_MODEL
from neural.session.statistics import FloatArray
from neural_callbacks.clocks import without
from neural_callbacks.pytorch.clocks import clock_of
from neural_callbacks.pytorch.memory import MemoryReader
from neural_callbacks.resident import Reading

# The nodes of the autograd graph that are looked at to find where a layer begins, at about 2 us each. Most layers have
# a few; a recurrent one that torch runs step by step has some ten for each step.
LONGEST_WALK = 2048
# The number that autograd gives to nodes that add up the gradient of a parameter: they run as soon as they can.
_LEAF = 2**64 - 1
CALLS, FORWARD_TIME, BACKWARD_TIME = range(len(PROFILES["timing"].columns))
_UNREAD = Reading(np.nan, np.nan, np.nan)


@dataclass(slots=True, eq=False)
class _Span:
    """Something that ran, from one mark of the clock to the other; None where it has not begun or ended."""

    owner: nn.Module | None
    phase: int
    start: Any = None
    end: Any = None
    reading: Reading = _UNREAD


@dataclass(slots=True, eq=False)
class _Call:
    """A call of a layer, and its way back, of which there are several where the user keeps the graph."""

    trace: Trace | None
    forward: _Span
    outer: _Call | None
    first_node: int  # autograd numbers its nodes: this is the first that the layer may have made
    is_repeated: bool  # a checkpoint runs it once more, within a backward pass
    exits: int = 0
    left: int = 0
    backward: dict[int, _Span] = field(default_factory=dict)

    @property
    def is_inside_itself(self) -> bool:
        """Whether the layer was running already when it was called."""
        outer = self.outer
        while outer is not None and outer.forward.owner is not self.forward.owner:
            outer = outer.outer
        return outer is not None

    def gradient_arrived(self, _gradients: Any) -> None:
        """Begin the way back; the hook of a node, before it runs."""
        if self.trace is not None:
            self.trace.begin_backward(self)

    def gradient_left(self, _inputs: Any, _outputs: Any) -> None:
        """End the way back, so far; the hook of a node, after it ran."""
        if self.trace is not None:
            self.trace.end_backward(self)


class Trace:
    """Times one step of a model whose layers run on `device`, and reads the memory with `reader`.

    The taps say `enter` last before and `leave` first after a layer's forward pass; the manager `open`s and `close`s
    the phases of the whole model. A layer's backward span is from when the gradient of its output has arrived until
    those of its inputs and parameters are computed. What the observer itself does in between takes no time: the trace
    leaves its own work out, and the taps tell of theirs with `mark` and `own_since`.

    Layers on other devices than `device` are left out, and so is the way back of a layer of more than `LONGEST_WALK`
    operations. What is not found in the graph is not on the way back: a layer that hands on its input has none.

    A finished trace hears nothing any more, and a graph that the user keeps does not keep it.
    """

    def __init__(self, device: torch.device, reader: MemoryReader) -> None:
        self._device = device
        self._clock = clock_of(device)
        self._read = reader.read
        self._spans: list[_Span] = []
        self._calls: list[_Call] = []
        self._own: list[tuple[Any, Any]] = []
        self._running: dict[int, list[_Call]] = {}
        self._open: list[_Span] = []
        self._error: Exception | None = None
        self._is_over = False
        self.mark = self._clock.mark

    def own_since(self, mark: Any) -> None:
        """Leave out of all spans what was done since `mark`, which `self.mark()` gave."""
        if not self._is_over:
            self._own.append((mark, self.mark()))

    def open(self, phase: int) -> None:
        """Begin a phase of the whole model: one of `neural.session.frame.PHASES`, by its number."""
        if not self._is_over:
            span = _Span(None, phase)
            self._spans.append(span)
            self._open.append(span)
            span.start = self.mark()

    def close(self, phase: int) -> None:
        """End the phase that was opened last; one that was not opened, or is closed, is left alone."""
        mark = self.mark()
        for span in reversed(self._open):
            if span.phase == phase:
                span.end = mark
                span.reading = self._read()
                self._open.remove(span)
                self._leave_out(mark)
                return

    def enter(self, module: nn.Module) -> None:
        """Begin a call of a layer."""
        if self._is_over:
            return
        entered = self.mark() if self._clock.is_host else None
        running = self._running.setdefault(threading.get_ident(), [])
        span = _Span(module, FORWARD)
        outer = running[-1] if running else None
        is_repeated = torch._C._current_graph_task_id() != -1  # noqa: SLF001 - as torch.utils.module_tracker does
        call = _Call(self, span, outer, torch.autograd._get_sequence_nr(), is_repeated)  # noqa: SLF001 - torch.fx uses it too
        running.append(call)
        self._spans.append(span)
        span.start = self.mark()
        if entered is not None:
            self._own.append((entered, span.start))

    def leave(self, module: nn.Module, outputs: Iterable[Tensor]) -> None:
        """End the innermost call of a layer, which gave out `outputs`; one that was broken off inside has no span."""
        mark = self.mark()
        running = self._running.get(threading.get_ident(), [])
        if all(call.forward.owner is not module for call in running):
            return
        while (call := running.pop()).forward.owner is not module:
            self._spans.remove(call.forward)
        outputs = list(outputs)
        if any(tensor.device != self._device for tensor in outputs):
            self._spans.remove(call.forward)
        else:
            call.forward.end = mark
            call.forward.reading = self._read()
            self._calls.append(call)
            self._await(call, outputs)
        self._leave_out(mark)

    def _await(self, call: _Call, outputs: list[Tensor]) -> None:
        """Have autograd tell when the gradients of a call's outputs come, and when those of its inputs are there."""
        # The gradient of a view that a later layer works on in place comes by way of what it is a view of.
        bases = [tensor._base for tensor in outputs if tensor._is_view()]  # noqa: SLF001 - nothing else tells
        nodes = (tensor.grad_fn for tensor in (*outputs, *bases))
        roots = dict.fromkeys(node for node in nodes if node is not None and _is_within(node, call.first_node))
        exits = _exits(roots, call.first_node)
        call.exits = len(exits)
        if exits:
            for node in roots:
                node.register_prehook(call.gradient_arrived)
            for node in exits:
                node.register_hook(call.gradient_left)

    def _leave_out(self, mark: Any) -> None:
        # Where a device has the clock, the host's work does not hold it up.
        if self._clock.is_host:
            self.own_since(mark)

    def begin_backward(self, call: _Call) -> None:
        """Begin the way back of a call; of several outputs, the gradient that arrives first does."""
        entered = self.mark() if self._clock.is_host else None
        try:
            task = torch._C._current_graph_task_id()  # noqa: SLF001 - see above
            if task not in call.backward:
                call.left = call.exits
                call.backward[task] = span = _Span(call.forward.owner, BACKWARD)
                self._spans.append(span)
                span.start = self.mark()
                if entered is not None:
                    self._own.append((entered, span.start))
        except Exception as error:  # noqa: BLE001 - this runs inside the user's backward; `finish` raises it
            self._fail(error)

    def end_backward(self, call: _Call) -> None:
        """End the way back of a call, for now: there may be other gradients on their way."""
        try:
            mark = self.mark()
            span = call.backward.get(torch._C._current_graph_task_id())  # noqa: SLF001 - see above
            if span is not None:
                span.end = mark
                call.left -= 1
                if call.left == 0:
                    span.reading = self._read()
                self._leave_out(mark)
        except Exception as error:  # noqa: BLE001 - see above
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self.end()
        self._error = error

    def finish(self, rows: Mapping[nn.Module, int], height: int) -> tuple[FloatArray, FloatArray]:
        """Return the matrices `trace` (spans, 7) and `timing` (height, 3) of the step; hear nothing any more.

        `rows` tells the row of each layer; others are left out, and so is what never ended. Times are in seconds. A
        span that holds others, as of a layer that calls layers, has theirs in its duration. In `timing` the time of
        what a checkpoint runs again is nobody's, and a layer that did not run, or not back, has NaN.

        Raises:
            Exception: whatever went wrong inside a backward pass.
        """
        if self._error is not None:
            raise self._error
        ended = [span for span in self._spans if span.end is not None]
        self._resolve(ended)
        self._enclose()
        spans = sorted(
            (span for span in ended if span.owner is None or span.owner in rows),
            key=lambda span: (span.start, -span.end),
        )
        table = np.empty((len(spans), len(PROFILES["trace"].columns)))
        for row, span in zip(table, spans, strict=True):
            layer = WHOLE_MODEL if span.owner is None else rows[span.owner]
            row[:] = layer, span.phase, span.start - spans[0].start, span.end - span.start, *span.reading
        timing = self._timing(rows, height)
        self.end()
        return table, timing

    def _resolve(self, spans: list[_Span]) -> None:
        """Put times in the place of marks, without those of the observer's own work."""
        marks = [mark for span in spans for mark in (span.start, span.end)] + [
            mark for pair in self._own for mark in pair
        ]
        if marks:
            times = self._clock.seconds(marks)
            ours = 2 * len(spans)
            pairs = without(times[:ours], times[ours:].reshape(-1, 2)).reshape(-1, 2).tolist()
            for span, (start, end) in zip(spans, pairs, strict=True):
                span.start, span.end = start, end

    def _enclose(self) -> None:
        # The last node of a layer that calls layers is the last of the innermost, whose hooks were there first.
        for call in self._calls:
            for task, span in call.backward.items():
                outer = call.outer.backward.get(task) if call.outer is not None else None
                if outer is not None and span.end is not None and outer.end is not None:
                    outer.start, outer.end = min(outer.start, span.start), max(outer.end, span.end)

    def _timing(self, rows: Mapping[nn.Module, int], height: int) -> FloatArray:
        timing = np.full((height, len(PROFILES["timing"].columns)), np.nan)
        calls = [call for call in self._calls if call.forward.owner in rows]
        first_time = {call.forward.owner for call in calls if not call.is_repeated}
        repeated = [
            call.forward for call in self._calls if call.is_repeated and not (call.outer and call.outer.is_repeated)
        ]
        for call in calls:
            row = timing[rows[call.forward.owner]]
            if not call.is_repeated or call.forward.owner not in first_time:
                _add(row, CALLS, 1)
                # A layer that calls itself has the time of the calls inside already.
                _add(row, FORWARD_TIME, 0 if call.is_inside_itself else call.forward.end - call.forward.start)
            for span in call.backward.values():
                if span.end is not None:
                    inside = sum(r.end - r.start for r in repeated if span.start <= r.start and r.end <= span.end)
                    _add(row, BACKWARD_TIME, 0 if call.is_inside_itself else span.end - span.start - inside)
        return timing

    def end(self) -> None:
        """Hear nothing any more."""
        self._is_over = True
        for call in self._calls:
            call.trace = call.outer = None
            call.forward.owner = None
            call.backward = {}
        self._spans, self._calls, self._own, self._running, self._open = [], [], [], {}, []


def _add(row: FloatArray, column: int, value: float) -> None:
    row[column] = value if np.isnan(row[column]) else row[column] + value


def _is_within(node: Node, first: int) -> bool:
    number: int = node._sequence_nr()  # noqa: SLF001 - part of Node's interface
    return first <= number < _LEAF


def _exits(roots: Iterable[Node], first: int) -> list[Node]:
    """Return the nodes made since number `first` that lead to older ones or to parameters; none after a long walk."""
    seen = set(roots)
    pending = list(seen)
    exits = []
    while pending and len(seen) <= LONGEST_WALK:
        node = pending.pop()
        following = [after for after, _ in node.next_functions if after is not None and after not in seen]
        within = [after for after in following if _is_within(after, first)]
        if len(within) < len(following):
            exits.append(node)
        seen.update(within)
        pending += within
    return [] if pending else exits
