"""Trace: when each layer ran in one eager train step, forward and backward, and the memory in use when it was done."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from neural.session.frame import BACKWARD, FORWARD, PROFILES, WHOLE_MODEL
from neural.session.statistics import FloatArray
from neural_callbacks.clocks import without
from neural_callbacks.keras.structure import Site
from neural_callbacks.resident import Reading

CALLS, FORWARD_TIME, BACKWARD_TIME = range(len(PROFILES["timing"].columns))
_UNREAD = Reading(np.nan, np.nan, np.nan)


@dataclass(slots=True, eq=False)
class Span:
    """Something that ran, from one mark of the clock to the other, in seconds; NaN where it has not ended."""

    call: Call | None
    phase: int
    start: float
    end: float = np.nan
    reading: Reading = _UNREAD


@dataclass(slots=True, eq=False)
class Call:
    """A call of a layer, or of a part of the model that holds layers and is none: `site` is None."""

    site: Site | None
    outer: Call | None
    number: int
    is_repeated: bool  # gradient checkpointing runs it once more, on the way back
    forward: Span = field(init=False)

    @property
    def chain(self) -> list[Call]:
        """The call and those around it, from the inside."""
        found: list[Call] = []
        call: Call | None = self
        while call is not None:
            found.append(call)
            call = call.outer
        return found

    @property
    def is_inside_itself(self) -> bool:
        """Whether the layer was running already when it was called."""
        return any(outer.site is self.site for outer in self.chain[1:])


@dataclass(slots=True, eq=False)
class WayBack:
    """The gradients of one operation of a call being computed."""

    call: Call | None
    span: Span
    first_operation: int
    next_operation: int = 0


class Trace:
    """Times one train step. `read` reads the memory; `wait` waits until a device has done its work (None: no device).

    The taps say `enter` and `leave` around a layer's forward pass, `open` and `close` around the phases of the whole
    model, and `go_back` and `went_back` around what computes the gradients of one operation. A layer's backward span is
    from when those of the first of its operations are begun until those of the last are done; where the tape computes
    another layer's gradients in between, it has a span for each part. What the observer itself does takes no time: the
    trace leaves its own work out, and others tell of theirs with `own_since`.
    """

    def __init__(self, read: Callable[[], Reading], wait: Callable[[], None] | None) -> None:
        self._read = read
        self._wait = wait
        self._calls: list[Call] = []
        self._running: list[Call | WayBack] = []
        self._phases: list[Span] = []
        self._open: list[Span] = []
        self._backward: list[WayBack] = []
        self._own: list[tuple[float, float]] = []

    def mark(self) -> float:
        """Return the time, once the device has done what came before."""
        if self._wait is not None:
            self._wait()
        return time.perf_counter()

    def own_since(self, mark: float) -> None:
        """Leave out of all spans what was done since `mark`, which `self.mark()` gave."""
        self._own.append((mark, self.mark()))

    def own_on_host_since(self, mark: float) -> None:
        """Leave out what the host alone did since `mark`, a time: where a device has work, that does not hold it up."""
        if self._wait is None:
            self._own.append((mark, time.perf_counter()))

    @property
    def running(self) -> Call | None:
        """The call that runs now, or whose gradients are computed; None where that is no layer's."""
        if not self._running:
            return None
        innermost = self._running[-1]
        return innermost if isinstance(innermost, Call) else innermost.call

    @property
    def is_going_back(self) -> bool:
        """Whether gradients are being computed, and no layer is called again for them."""
        return bool(self._running) and isinstance(self._running[-1], WayBack)

    @property
    def is_in_a_layer(self) -> bool:
        """Whether anything that `enter` was told of still runs."""
        return bool(self._running)

    def open(self, phase: int) -> None:
        """Begin a phase of the whole model: one of `neural.session.frame.PHASES`, by its number."""
        span = Span(None, phase, self.mark())
        self._phases.append(span)
        self._open.append(span)

    def close(self) -> None:
        """End the phase that was opened last."""
        span = self._open.pop()
        span.end = self.mark()
        span.reading = self._read()
        self.own_since(span.end)

    def enter(self, site: Site | None) -> Call:
        """Begin a call; the last thing that is done before it."""
        entered = self.mark()
        outer = next((each for each in reversed(self._running) if isinstance(each, Call)), None)
        is_repeated = any(isinstance(each, WayBack) for each in self._running)
        call = Call(site, outer, len(self._calls), is_repeated)
        self._calls.append(call)
        self._running.append(call)
        call.forward = Span(call, FORWARD, self.mark())
        self._own.append((entered, call.forward.start))
        return call

    def leave(self, call: Call, *, is_broken: bool) -> None:
        """End a call; the first thing that is done after it. One that was broken off by an error has no span."""
        mark = self.mark()
        del self._running[self._running.index(call) :]
        if not is_broken:
            call.forward.end = mark
            call.forward.reading = self._read()
        self.own_since(mark)

    def go_back(self, number: int | None, operation: int) -> WayBack:
        """Begin to compute the gradients of an operation that the call of a number ran; `operation` is the next."""
        entered = self.mark()
        call = None if number is None else self._calls[number]
        way = WayBack(call, Span(call, BACKWARD, self.mark()), operation)
        self._own.append((entered, way.span.start))
        self._running.append(way)
        return way

    def went_back(self, way: WayBack, operation: int) -> None:
        """End it; `operation` is the next."""
        way.span.end = mark = self.mark()
        way.span.reading = self._read()
        way.next_operation = operation
        del self._running[self._running.index(way) :]
        self._backward.append(way)
        self.own_since(mark)

    def finish(self, live: Sequence[bool], rows: Mapping[int, int], height: int) -> tuple[FloatArray, FloatArray]:
        """Return the matrices `trace` (spans, 7) and `timing` (height, 3) of the step.

        `live` says of each operation of the step whether it leads anywhere: a way back without such is left out.
        `rows` tells the row of each layer by its identity; others are left out, and so is what never ended. Times are
        in seconds. A span that holds others, as of a layer that calls layers, has theirs in its duration. In `timing`
        the time of what gradient checkpointing runs again is nobody's, and a layer that did not run, or not back, has
        NaN.
        """
        self._resolve()
        ways_back = _ways_back([way for way in self._backward if any(live[way.first_operation : way.next_operation])])
        of_layers = [*(call.forward for call in self._calls), *ways_back]
        spans = [span for span in self._phases if not np.isnan(span.end)]
        spans += [span for span in of_layers if not np.isnan(span.end) and _row(span, rows) is not None]
        spans.sort(key=lambda span: (span.start, -span.end))
        table = np.empty((len(spans), len(PROFILES["trace"].columns)))
        for line, span in zip(table, spans, strict=True):
            layer = WHOLE_MODEL if span.call is None else _row(span, rows)
            line[:] = layer, span.phase, span.start - spans[0].start, span.end - span.start, *span.reading
        return table, self._timing(ways_back, rows, height)

    def _resolve(self) -> None:
        """Take the observer's own work out of the times."""
        spans = [*self._phases, *(call.forward for call in self._calls), *(way.span for way in self._backward)]
        times = np.array([time for span in spans for time in (span.start, span.end)])
        own = np.array(self._own).reshape(-1, 2)
        for span, (start, end) in zip(spans, without(times, own).reshape(-1, 2).tolist(), strict=True):
            span.start, span.end = start, end

    def _timing(self, ways_back: Sequence[Span], rows: Mapping[int, int], height: int) -> FloatArray:
        timing = np.full((height, len(PROFILES["timing"].columns)), np.nan)
        ended = [call for call in self._calls if not np.isnan(call.forward.end)]
        first_time = {id(call.site) for call in ended if not call.is_repeated}
        repeated = [call.forward for call in ended if call.is_repeated and not (call.outer and call.outer.is_repeated)]
        for call in ended:
            row = _row(call.forward, rows)
            if row is not None and (not call.is_repeated or id(call.site) not in first_time):
                _add(timing[row], CALLS, 1)
                # A layer that calls itself has the time of the calls inside already.
                _add(timing[row], FORWARD_TIME, 0 if call.is_inside_itself else call.forward.end - call.forward.start)
        for span in ways_back:
            row = _row(span, rows)
            if row is not None and span.call is not None:
                inside = sum(r.end - r.start for r in repeated if span.start <= r.start and r.end <= span.end)
                own = 0 if span.call.is_inside_itself else span.end - span.start - inside
                _add(timing[row], BACKWARD_TIME, own)
        return timing


def _row(span: Span, rows: Mapping[int, int]) -> int | None:
    return None if span.call is None or span.call.site is None else rows.get(id(span.call.site.layer))


def _ways_back(computed: Sequence[WayBack]) -> list[Span]:
    """Put together what was computed for the same call, and for the calls inside it, without another's in between."""
    found: list[Span] = []
    going: dict[Call, Span] = {}
    for way in sorted(computed, key=lambda way: (way.span.start, -way.span.end)):
        chain = [] if way.call is None else way.call.chain
        for call, span in list(going.items()):
            if call not in chain and span.end <= way.span.start:
                del going[call]
        for call in chain:
            if call not in going:
                going[call] = Span(call, BACKWARD, way.span.start, way.span.end, way.span.reading)
                found.append(going[call])
            elif way.span.end > going[call].end:
                going[call].end, going[call].reading = way.span.end, way.span.reading
    return found


def _add(row: FloatArray, column: int, value: float) -> None:
    row[column] = value if np.isnan(row[column]) else row[column] + value
