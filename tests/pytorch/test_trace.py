"""Spans are when the layers ran: to the second on a clock that only they move, and as torch's profiler sees it."""

from __future__ import annotations

import gc
import itertools
import math
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils.checkpoint import checkpoint

from neural.session.frame import BACKWARD, FORWARD, OPTIMIZER, STEP, WHOLE_MODEL
from neural_callbacks.clocks import without
from neural_callbacks.pytorch import clocks, trace
from neural_callbacks.pytorch.clocks import DeviceClock
from neural_callbacks.pytorch.memory import MemoryReader
from neural_callbacks.pytorch.structures import tensors
from neural_callbacks.pytorch.trace import Trace
from neural_callbacks.resident import Reading

CPU = torch.device("cpu")


class Handmade:
    """A clock that stands still until somebody moves it."""

    def __init__(self, *, is_host=True):
        self.now = 0.0
        self.is_host = is_host

    def mark(self):
        return self.now

    def seconds(self, marks):
        return np.array(marks)


@pytest.fixture
def clock(monkeypatch):
    clock = Handmade()
    monkeypatch.setattr(trace, "clock_of", lambda _: clock)
    Spend.clock = clock
    return clock


class Spend(torch.autograd.Function):
    """Takes time, forward and backward."""

    clock = None

    @staticmethod
    def forward(ctx, x, ahead, back):
        ctx.back = back
        Spend.clock.now += ahead
        return x * 2

    @staticmethod
    def backward(ctx, gradient):
        Spend.clock.now += ctx.back
        return gradient * 2, None, None


class Slow(nn.Module):
    """A layer that takes `ahead` seconds forward and `back` seconds backward."""

    def __init__(self, ahead, back):
        super().__init__()
        self.ahead, self.back = ahead, back
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return Spend.apply(x * self.scale, self.ahead, self.back)


class Reader:
    """Reads memory in no hurry."""

    def __init__(self):
        self.readings = 0

    def read(self):
        self.readings += 1
        if Spend.clock is not None:
            Spend.clock.now += 1000
        return Reading(self.readings, self.readings + 0.5, -self.readings)


class Watched:
    """One step of a model with its trace, as the taps and the manager drive it."""

    def __init__(self, model, reader=None, device=CPU, layers=None):
        self.model = model
        self.layers = [m for m in model.modules() if m is not model] if layers is None else layers
        self.trace = Trace(device, Reader() if reader is None else reader)

    def __enter__(self):
        self.handles = [
            handle
            for layer in self.layers
            for handle in (
                layer.register_forward_pre_hook(lambda module, _: self.trace.enter(module)),
                layer.register_forward_hook(
                    lambda module, _, output: self.trace.leave(module, tensors(output)), always_call=True
                ),
            )
        ]
        return self

    def __exit__(self, *_):
        for handle in self.handles:
            handle.remove()

    def finish(self):
        return self.trace.finish({layer: row for row, layer in enumerate(self.layers)}, len(self.layers))


def void(_):
    """What a hook gives out so as not to replace anything."""


def spans(table):
    """(layer, phase, start, duration) of each span."""
    return [tuple(row) for row in table[:, :4].tolist()]


def traced(model, x, **options):
    with Watched(model, **options) as watched:
        model(x).sum().backward()
        return watched.finish()


def test_spans_are_when_the_layers_ran(clock):
    model = nn.Sequential(Slow(1, 2), Slow(4, 8), Slow(16, 32))
    with Watched(model) as watched:
        watched.trace.open(STEP)
        clock.now += 0.5
        watched.trace.open(FORWARD)
        loss = model(torch.ones(3)).sum()
        watched.trace.close(FORWARD)
        watched.trace.open(BACKWARD)
        loss.backward()
        watched.trace.close(BACKWARD)
        watched.trace.open(OPTIMIZER)
        clock.now += 0.25
        watched.trace.close(OPTIMIZER)
        watched.trace.close(STEP)
        table, timing = watched.finish()
    assert spans(table) == [
        (WHOLE_MODEL, STEP, 0, 63.75),
        (WHOLE_MODEL, FORWARD, 0.5, 21),
        (0, FORWARD, 0.5, 1),
        (1, FORWARD, 1.5, 4),
        (2, FORWARD, 5.5, 16),
        (WHOLE_MODEL, BACKWARD, 21.5, 42),
        (2, BACKWARD, 21.5, 32),
        (1, BACKWARD, 53.5, 8),
        (0, BACKWARD, 61.5, 2),
        (WHOLE_MODEL, OPTIMIZER, 63.5, 0.25),
    ]
    assert timing.tolist() == [[1, 1, 2], [1, 4, 8], [1, 16, 32]]


@pytest.mark.usefixtures("clock")
def test_each_span_has_the_memory_in_use_at_its_end():
    table, _ = traced(nn.Sequential(Slow(1, 2), Slow(4, 8)), torch.ones(3))
    assert table[:, 4:].tolist() == [[n, n + 0.5, -n] for n in (1, 2, 3, 4)]


def test_what_the_taps_do_takes_no_time(clock):
    outer = nn.Sequential(Slow(1, 2), Slow(4, 8))
    model = nn.Sequential(outer, Slow(16, 32))
    layers = [outer, outer[0], outer[1], model[1]]
    with Watched(model, layers=layers) as watched:

        def measure(*_):
            mark = watched.trace.mark()
            clock.now += 100
            watched.trace.own_since(mark)

        def tap(_module, _inputs, output):
            measure()
            output.register_hook(measure)

        for layer in layers:
            layer.register_forward_hook(tap)
        model(torch.ones(3)).sum().backward()
        table, timing = watched.finish()
    assert spans(table) == [
        (0, FORWARD, 0, 5),
        (1, FORWARD, 0, 1),
        (2, FORWARD, 1, 4),
        (3, FORWARD, 5, 16),
        (3, BACKWARD, 21, 32),
        (0, BACKWARD, 53, 10),
        (2, BACKWARD, 53, 8),
        (1, BACKWARD, 61, 2),
    ]
    assert timing.tolist() == [[1, 5, 10], [1, 1, 2], [1, 4, 8], [1, 16, 32]]


def test_hooks_of_tensors_run_before_the_span_begins(clock):
    """Where the taps measure the gradient of an output."""
    model = nn.Sequential(Slow(1, 2), Slow(4, 8))

    def late(_gradient):
        clock.now += 100

    for layer in model:
        layer.register_forward_hook(lambda _module, _inputs, output: void(output.register_hook(late)))
    table, _ = traced(model, torch.ones(3))
    assert [duration for _, phase, _, duration in spans(table) if phase == BACKWARD] == [8, 2]


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)).map(sorted), max_size=6),
    st.lists(st.integers(0, 22), max_size=5),
)
def test_time_without_intervals_is_that_of_the_seconds_outside(intervals, times):
    outside = np.ones(22)
    for begin, end in intervals:
        outside[begin:end] = 0
    found = without(np.array(times, float), np.array(intervals, float).reshape(-1, 2))
    assert found.tolist() == [outside[:time].sum() for time in times]


@pytest.mark.usefixtures("clock")
def test_a_layer_that_is_called_twice_has_a_span_for_each_call():
    layer = Slow(1, 2)
    table, timing = traced(nn.Sequential(layer, Slow(4, 8), layer), torch.ones(3))
    assert [row[:2] for row in spans(table)] == [
        *[(0, FORWARD), (1, FORWARD), (0, FORWARD)],
        *[(0, BACKWARD), (1, BACKWARD), (0, BACKWARD)],
    ]
    assert timing.tolist() == [[2, 2, 4], [1, 4, 8]]


@pytest.mark.usefixtures("clock")
def test_a_layer_that_calls_itself_has_its_time_once():
    class Recursive(Slow):
        def forward(self, x, times=3):
            x = super().forward(x)
            return self(x, times - 1) if times > 1 else x

    table, timing = traced(nn.Sequential(Recursive(1, 2)), torch.ones(3))
    assert spans(table) == [
        *[(0, FORWARD, 0, 3), (0, FORWARD, 1, 2), (0, FORWARD, 2, 1)],
        *[(0, BACKWARD, 3, 6), (0, BACKWARD, 3, 4), (0, BACKWARD, 3, 2)],
    ]
    assert timing.tolist() == [[3, 3, 6]]


class Several(nn.Module):
    """Gives out two tensors that took different ways, and one without a gradient."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x):
        x = x * self.scale
        return {"first": Spend.apply(x, 1, 2), "second": [Spend.apply(x, 4, 8)], "third": x.detach()}


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(("used", "back"), [("first", 2), ("second", 8), ("both", 10)])
def test_a_layer_of_several_outputs_has_one_span_on_the_way_back(used, back):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Several()

        def forward(self, x):
            out = self.inner(x)
            return {"first": out["first"], "second": out["second"][0], "both": out["first"] + out["second"][0]}[used]

    table, timing = traced(Model(), torch.ones(3))
    assert spans(table) == [(0, FORWARD, 0, 5), (0, BACKWARD, 5, back)]
    assert timing.tolist() == [[1, 5, back]]


class Views(nn.Module):
    def forward(self, x):
        return Spend.apply(x, 1, 2).view(-1)[1:]


class InPlace(nn.Module):
    def forward(self, x):
        return Spend.apply(x, 1, 2).mul_(2)


class Named(nn.Module):
    """Gets its gradient through what it was not given by position."""

    def forward(self, x):
        return self.inside(x=x)

    def inside(self, *, x):
        return Spend.apply(x, 1, 2) + 0


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("layer", [Views, InPlace, Named, lambda: Slow(1, 2)])
@pytest.mark.parametrize("needs", [False, True])
def test_outputs_of_all_kinds_have_a_way_back(layer, needs):
    model = nn.Sequential(layer(), nn.ReLU(inplace=True), nn.Identity())
    if not needs:
        model.insert(0, Slow(0, 0))
    _, timing = traced(model, torch.ones(3, requires_grad=needs))
    kind = 0 if needs else 1
    assert timing[kind].tolist() == [1, 1, 2]
    assert timing[kind + 1].tolist() == [1, 0, 0]  # it works in place
    np.testing.assert_array_equal(timing[kind + 2], [1, 0, math.nan])  # it hands on its input


@pytest.mark.usefixtures("clock")
def test_a_layer_without_a_gradient_has_no_way_back():
    model = nn.Sequential(Slow(4, 8), Slow(1, 2))
    model[0].requires_grad_(False)
    table, timing = traced(model, torch.ones(3))
    assert [row[:2] for row in spans(table)] == [(0, FORWARD), (1, FORWARD), (1, BACKWARD)]
    np.testing.assert_array_equal(timing, [[1, 4, math.nan], [1, 1, 2]])


@pytest.mark.usefixtures("clock")
def test_layers_that_did_not_run_are_not_a_number():
    model = nn.ModuleList([Slow(1, 2), Slow(4, 8)])
    with Watched(model) as watched:
        model[1](torch.ones(3)).sum().backward()
        _, timing = watched.finish()
    np.testing.assert_array_equal(timing, [[math.nan] * 3, [1, 4, 8]])


def test_a_step_without_any_span_has_empty_matrices():
    table, timing = Trace(CPU, Reader()).finish({}, 2)
    assert table.shape == (0, 7)
    assert np.isnan(timing).all()


class Checkpointed(nn.Module):
    def __init__(self, *, reentrant):
        super().__init__()
        self.reentrant = reentrant
        self.first, self.second, self.third, self.last = Slow(1, 2), Slow(4, 8), Slow(16, 32), Slow(64, 128)

    def forward(self, x):
        def inside(x):
            return self.third(self.second(x))

        return self.last(checkpoint(inside, self.first(x), use_reentrant=self.reentrant))


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("reentrant", [False, True])
def test_what_a_checkpoint_runs_again_is_on_the_trace_and_in_no_layers_time(reentrant):
    table, timing = traced(Checkpointed(reentrant=reentrant), torch.ones(3))
    assert timing.tolist() == [[1, 1, 2], [1, 4, 8], [1, 16, 32], [1, 64, 128]]
    again = [(layer, start) for layer, phase, start, _ in spans(table) if phase == FORWARD and start >= 85]
    assert [layer for layer, _ in again] == [1, 2]


@pytest.mark.usefixtures("clock")
def test_each_pass_through_a_graph_that_is_kept_has_a_span():
    model = nn.Sequential(Slow(1, 2), Slow(4, 8))
    with Watched(model) as watched:
        loss = model(torch.ones(3)).sum()
        loss.backward(retain_graph=True)
        loss.backward()
        table, timing = watched.finish()
    assert [row[:2] for row in spans(table)][2:] == [(1, BACKWARD), (0, BACKWARD)] * 2
    assert timing.tolist() == [[1, 1, 4], [1, 4, 16]]


@pytest.mark.usefixtures("clock")
def test_only_what_autograd_runs_is_on_the_way_back():
    model = nn.Sequential(Slow(1, 2), Slow(4, 8))
    with Watched(model) as watched:
        torch.autograd.grad(model(torch.ones(3)).sum(), [model[1].scale])
        _, timing = watched.finish()
    np.testing.assert_array_equal(timing, [[1, 1, math.nan], [1, 4, 8]])


@pytest.mark.usefixtures("clock")
def test_a_finished_trace_hears_nothing_and_a_kept_graph_does_not_keep_it():
    model = nn.Sequential(Slow(1, 2), Slow(4, 8))
    with Watched(model) as watched:
        loss = model(torch.ones(3)).sum()
        loss.backward(retain_graph=True)
        watched.finish()
        ended = watched.trace
        loss.backward(retain_graph=True)
        model(torch.ones(3)).sum().backward()
        ended.open(STEP)
        ended.close(STEP)
        ended.own_since(ended.mark())
        assert [ended._spans, ended._calls, ended._own, ended._running, ended._open] == [[], [], [], {}, []]
        gone = weakref.ref(ended), weakref.ref(model[0])
        del ended, watched.trace, watched.layers, watched.handles[:], model, watched.model
        gc.collect()
        assert [reference() for reference in gone] == [None, None]
    loss.backward()


def test_a_trace_keeps_no_activation_alive():
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    outputs = []
    model[1].register_forward_hook(
        lambda _module, _inputs, output: outputs.append(StorageWeakRef(output.untyped_storage()))
    )
    Spend.clock = None
    with Watched(model) as watched:
        loss = model(torch.ones(3, 4)).sum()
        assert not outputs[0].expired()  # the graph has it
        loss.backward()
        assert outputs[0].expired()
        watched.finish()


def test_a_layer_that_is_broken_off_does_not_disturb_the_next(clock):
    class Failing(Slow):
        is_broken = True

        def forward(self, x):
            if self.is_broken:
                clock.now += 0.5
                raise ValueError
            return super().forward(x)

    failing = Failing(4, 8)
    model = nn.Sequential(Slow(1, 2), nn.Sequential(failing))
    with Watched(model) as watched:
        with pytest.raises(ValueError, match=r"^$"):
            model(torch.ones(3))
        failing.is_broken = False
        model(torch.ones(3)).sum().backward()
        table, timing = watched.finish()
    assert timing.tolist() == [[2, 2, 2], [2, 4.5, 8], [2, 4.5, 8]]
    assert len(table) == 9


@pytest.mark.usefixtures("clock")
def test_a_call_that_was_never_left_is_dropped():
    model = nn.Sequential(nn.Sequential(Slow(1, 2)), Slow(4, 8))
    outer, inner, other = model[0], model[0][0], model[1]
    with Watched(model, layers=[]) as watched:
        for module in (outer, inner, other):
            watched.trace.enter(module)
        watched.trace.leave(inner, [])  # `other` was broken off
        watched.trace.leave(other, [])  # and is running no more
        watched.trace.close(STEP)  # neither does this
        table, timing = watched.trace.finish({outer: 0, inner: 1, other: 2}, 3)
    assert spans(table) == [(1, FORWARD, 0, 0)]
    np.testing.assert_array_equal(timing[:, 0], [math.nan, 1, math.nan])


@pytest.mark.usefixtures("clock")
def test_layers_elsewhere_are_left_out():
    class Elsewhere(nn.Module):
        def forward(self, x):
            return Spend.apply(x, 1, 2), torch.zeros(3, device="meta")

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.elsewhere = Slow(4, 8), Elsewhere()

        def forward(self, x):
            return self.elsewhere(self.layer(x))[0]

    table, timing = traced(Model(), torch.ones(3))
    assert spans(table) == [(0, FORWARD, 0, 4), (0, BACKWARD, 7, 8)]
    np.testing.assert_array_equal(timing, [[1, 4, 8], [math.nan] * 3])


@pytest.mark.usefixtures("clock")
def test_layers_that_are_gone_are_left_out():
    model = nn.Sequential(Slow(1, 2), Slow(4, 8))
    with Watched(model) as watched:
        model(torch.ones(3)).sum().backward()
        table, timing = watched.trace.finish({model[1]: 0}, 1)
    assert [row[0] for row in spans(table)] == [0, 0]
    assert timing.tolist() == [[1, 4, 8]]


@pytest.mark.usefixtures("clock")
def test_the_walk_through_a_layer_has_an_end(monkeypatch):
    class Long(nn.Module):
        def forward(self, x):
            for _ in range(10):
                x = Spend.apply(x, 1, 2)
            return x

    monkeypatch.setattr(trace, "LONGEST_WALK", 10)
    model = nn.Sequential(Slow(0, 0), Long())
    assert traced(model, torch.ones(3))[1][1].tolist() == [1, 10, 20]
    monkeypatch.setattr(trace, "LONGEST_WALK", 9)
    np.testing.assert_array_equal(traced(model, torch.ones(3))[1][1], [1, 10, math.nan])


def test_an_error_on_the_way_back_is_told_at_the_end_and_training_goes_on():
    class Broken(Reader):
        def read(self):
            if torch._C._current_graph_task_id() != -1:
                raise OSError("no such file")
            return super().read()

    Spend.clock = None
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    with Watched(model, Broken()) as watched:
        model(torch.ones(3)).sum().backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        with pytest.raises(OSError, match=r"^no such file$"):
            watched.finish()


class Event:
    """An event of a device that has its own time; none is at hand."""

    now = 0.0
    waited = 0

    def __init__(self, *, enable_timing):
        assert enable_timing
        self.time = None

    def record(self, stream):
        assert stream == "current stream of cuda:1"
        self.time = Event.now

    def synchronize(self):
        Event.waited += 1

    def elapsed_time(self, other):
        assert Event.waited > 0
        return (other.time - self.time) * 1e3


def test_a_device_has_a_clock_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"current stream of {device}")
    clock = clocks.clock_of(torch.device("cuda", 1))
    assert isinstance(clock, DeviceClock)
    marks = []
    for Event.now in (5.0, 7.5, 6.0):
        marks.append(clock.mark())
    assert Event.waited == 0
    assert clock.seconds(marks).tolist() == [0, 2.5, 1]


def test_work_of_the_host_does_not_hold_up_a_device(clock):
    clock.is_host = False
    with Watched(nn.Sequential(Slow(1, 2))) as watched:
        watched.model(torch.ones(3)).sum().backward()
        table, _ = watched.finish()
    # As if the device had been busy while memory was read: nobody asked to leave that out.
    assert spans(table) == [(0, FORWARD, 0, 1), (0, BACKWARD, 1001, 2)]


class Product(nn.Module):
    """A layer that the profiler sees by its name."""

    def __init__(self, name, width):
        super().__init__()
        self.name = name
        self.weight = nn.Parameter(torch.randn(256, width) / 16)

    def forward(self, x):
        with record_function(self.name):
            return (x @ self.weight @ self.weight.t()).tanh()


def test_layers_have_the_shares_of_the_time_that_the_profiler_gives_them():
    """Both look at the same steps: how fast these were, and what else the machine did, is in both."""
    model = nn.Sequential(Product("small", 64), Product("large", 2048), Product("medium", 512))
    x = torch.randn(128, 256)
    Spend.clock = None
    model(x).sum().backward()
    shares = {FORWARD: [], BACKWARD: []}
    for _ in range(5):
        with profile(activities=[ProfilerActivity.CPU]) as profiled, Watched(model, MemoryReader([])) as watched:
            model(x).sum().backward()
            _, timing = watched.finish()
        events = profiled.events()
        forward = [next(e for e in events if e.name == layer.name).time_range.elapsed_us() for layer in model]
        # Of the way back the profiler has each node by itself: two products and one tanh a layer, the last one first.
        nodes = [e for e in events if e.name.startswith("autograd::engine::evaluate_function: ")]
        nodes.sort(key=lambda event: event.time_range.start)
        starts = [i for i, e in enumerate(nodes) if e.name.endswith("TanhBackward0")] + [len(nodes)]
        backward = [
            sum(e.time_range.elapsed_us() for e in nodes[first:after]) for first, after in itertools.pairwise(starts)
        ][::-1]
        for phase, expected in ((FORWARD, forward), (BACKWARD, backward)):
            found = timing[:, 1 + phase]
            shares[phase].append((found / found.sum(), np.array(expected) / sum(expected)))
    for pairs in shares.values():
        found, expected = np.median(pairs, axis=0)
        np.testing.assert_allclose(found, expected, atol=0.1)
        assert found[0] < found[2] < found[1]


def test_spans_nest_and_come_in_order(problem):
    model = problem.model()
    layers = [module for module in model.modules() if module is not model and not isinstance(module, nn.ModuleList)]
    Spend.clock = None
    with Watched(model, MemoryReader([]), layers=layers) as watched:
        watched.trace.open(STEP)
        watched.trace.open(FORWARD)
        loss = functional.cross_entropy(model(problem.inputs()), torch.randint(3, (16,)))
        watched.trace.close(FORWARD)
        watched.trace.open(BACKWARD)
        loss.backward()
        watched.trace.close(BACKWARD)
        watched.trace.close(STEP)
        table, timing = watched.finish()
    starts, ends = table[:, 2], table[:, 2] + table[:, 3]
    assert (np.diff(starts) >= 0).all()
    assert (table[:, 3] >= 0).all()
    for phase in (FORWARD, BACKWARD):
        own = (table[:, 1] == phase) & (table[:, 0] != WHOLE_MODEL)
        whole = (table[:, 1] == phase) & (table[:, 0] == WHOLE_MODEL)
        assert own.any()
        assert (starts[own] >= starts[whole]).all()
        assert (ends[own] <= ends[whole]).all()
    ran = [row for row in range(len(layers)) if timing[row, 0] == 1]
    for row, child in itertools.product(ran, ran):
        if layers[child] in set(layers[row].modules()):
            for phase in (FORWARD, BACKWARD):
                outer, inner = ((table[:, 0] == layer) & (table[:, 1] == phase) for layer in (row, child))
                if inner.any():
                    assert starts[outer] <= starts[inner]
                    assert ends[outer] >= ends[inner]


def test_training_is_the_same_to_the_last_bit(problem):
    Spend.clock = None

    def train(*, watched):
        torch.manual_seed(1)
        model = problem.model()
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        losses = []
        for _ in range(5):
            optimizer.zero_grad()
            layers = list(model.modules()) if watched else []
            with Watched(model, MemoryReader([]), layers=layers) as step:
                loss = functional.cross_entropy(model(problem.inputs()), torch.randint(3, (16,)))
                loss.backward()
                assert (len(step.finish()[0]) > 0) is watched
            optimizer.step()
            losses.append(loss.detach())
        return [*losses, *model.state_dict().values(), *(p.grad for p in model.parameters()), torch.get_rng_state()]

    assert all(torch.equal(a, b) for a, b in zip(train(watched=False), train(watched=True), strict=True))
