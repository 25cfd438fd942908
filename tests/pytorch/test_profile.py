"""Times, memory and FLOPs as a session has them are those that torch, its profiler and its tensors give."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils.flop_counter import FlopCounterMode

from neural.session.frame import BACKWARD, FORWARD, OPTIMIZER, PHASES, PROFILES, STEP
from neural_callbacks import NeuralDbg

PARAMETERS, GRADIENTS, OPTIMIZER_STATE = 1, 2, 3  # columns of "memory"


def steps_of(model, optimizer, inputs, count=1):
    for _ in range(count):
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs()), torch.randint(3, (16,))).backward()
        optimizer.step()


def own_parameters(model, name):
    return list(model.get_submodule(name).parameters(recurse=False))


def test_flops_of_a_step_are_those_that_torch_counts(problem, tmp_path, read):
    model = problem.model()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with NeuralDbg(model, optimizer, tmp_path, steps=[0, 2]) as watch:
        steps_of(model, optimizer, problem.inputs, 2)
        with FlopCounterMode(display=False) as counter:
            steps_of(model, optimizer, problem.inputs)
    reader = read(watch)
    frame = reader.frame(2)
    table, flops = reader.layers(), frame.profiles["flops"]
    counted = {kind: np.array(flops[:, column]) for column, kind in enumerate(PROFILES["flops"].columns)}
    ran = ~np.isnan(frame.profiles["timing"][:, 0])
    uncounted = {table.layers[row].type for row in np.flatnonzero(np.isnan(counted["forward"]) & ran)}
    # No formula tells what torch's fused recurrent kernels do; torch counts them as nothing.
    assert uncounted <= {"LSTM", "GRU"}
    total = sum(np.nansum(values) for values in counted.values()) + frame.scalars.get("flops_between_layers", 0.0)
    if not uncounted:
        assert total == counter.get_total_flops()
    by_module = counter.get_flop_counts()
    for row, layer in enumerate(table.layers):
        if layer.type in {"Linear", "Conv2d"}:
            expected = sum(by_module.get(f"{type(model).__name__}.{layer.own_name}", {}).values())
            assert counted["forward"][row] + counted["backward"][row] == expected > 0
    np.testing.assert_array_equal(reader.profile("flops", 0), flops)


def test_bytes_are_those_of_the_tensors(problem, tmp_path, read):
    model = problem.model()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    sizes = {}
    handles = [
        module.register_forward_hook(
            lambda module, _inputs, output: sizes.setdefault(module, []).append(
                (output if isinstance(output, torch.Tensor) else output[0]).nbytes
            )
        )
        for module in model.modules()
    ]
    with NeuralDbg(model, optimizer, tmp_path, every=1) as watch:
        steps_of(model, optimizer, problem.inputs)
    for handle in handles:
        handle.remove()
    reader = read(watch)
    memory = reader.profile("memory", 0)
    assert len(memory) == len(reader.layers().layers)
    for row, layer in zip(memory, reader.layers().layers, strict=True):
        own = own_parameters(model, layer.own_name)
        assert row[PARAMETERS] == sum(parameter.nbytes for parameter in own)
        assert row[GRADIENTS] == sum(parameter.grad.nbytes for parameter in own)
        state = [value.nbytes for parameter in own for value in optimizer.state[parameter].values()]
        assert row[OPTIMIZER_STATE] == sum(state)
        if layer.type in {"Linear", "Conv2d", "BatchNorm2d", "MaxPool2d", "Embedding", "LayerNorm"}:
            given = sizes[model.get_submodule(layer.own_name)]
            assert row[0] == sum(given) > 0
        if layer.type in {"ReLU", "Flatten"} and isinstance(model, nn.Sequential) and len(model) > 3:
            assert row[0] == 0  # in place, and a view
    assert reader.frame(0).scalars["memory_peak"] > memory[:, PARAMETERS].sum()


class Product(nn.Module):
    """A layer that the profiler sees by its name."""

    def __init__(self, name, width):
        super().__init__()
        self.name = name
        self.weight = nn.Parameter(torch.randn(256, width) / 16)

    def forward(self, x):
        with record_function(self.name):
            return (x @ self.weight @ self.weight.t()).tanh()


def test_layers_have_the_shares_of_the_time_that_the_profiler_gives_them(tmp_path, read):
    """Both look at the same steps: how fast these were, and what else the machine did, is in both."""
    model = nn.Sequential(Product("small", 64), Product("large", 2048), Product("medium", 512))
    optimizer = torch.optim.SGD(model.parameters(), 1e-6)
    x = torch.randn(128, 256)
    expected = {FORWARD: [], BACKWARD: []}
    with NeuralDbg(model, optimizer, tmp_path, steps=range(1, 6)) as watch:
        for _ in range(6):
            optimizer.zero_grad()
            with profile(activities=[ProfilerActivity.CPU]) as profiled:
                model(x).sum().backward()
            events = profiled.events()
            forward = [next(e for e in events if e.name == layer.name).time_range.elapsed_us() for layer in model]
            # Of the way back the profiler has each node by itself: two products and one tanh a layer, the last first.
            nodes = [e for e in events if e.name.startswith("autograd::engine::evaluate_function: ")]
            nodes.sort(key=lambda event: event.time_range.start)
            starts = [i for i, e in enumerate(nodes) if e.name.endswith("TanhBackward0")] + [len(nodes)]
            backward = [
                sum(e.time_range.elapsed_us() for e in nodes[first:after])
                for first, after in itertools.pairwise(starts)
            ][::-1]
            for phase, times in ((FORWARD, forward), (BACKWARD, backward)):
                expected[phase].append(np.array(times) / sum(times))
            optimizer.step()
    reader = read(watch)
    for phase, shares in expected.items():
        times = [reader.profile("timing", step)[:, 1 + phase] for step in range(1, 6)]
        found = np.median([of_step / of_step.sum() for of_step in times], axis=0)
        # Within a tenth of the whole; the layers' times are clearly unequal, about 1 to 8 to 32.
        np.testing.assert_allclose(found, np.median(shares[1:], axis=0), atol=0.1)
        assert found[0] < found[2] < found[1]


@pytest.mark.parametrize("options", [{"every": 2}, {"every": 1, "histograms": False}])
def test_the_first_sample_and_each_tenth_after_it_carry_profiles(options, tmp_path, read):
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    every = options["every"]
    with NeuralDbg(model, optimizer, tmp_path, **options) as watch:
        for _ in range(20 * every + 1):
            optimizer.zero_grad()
            model(torch.randn(4, 3)).sum().backward()
            optimizer.step()
    reader = read(watch)
    assert reader.steps().tolist() == list(range(0, 20 * every + 1, every))
    full = [0, 10 * every, 20 * every]
    for kind in ("trace", "timing", "memory", "flops"):
        assert reader.profile_steps(kind).tolist() == full
    assert reader.profile_steps("activity").tolist() == reader.steps().tolist()
    assert reader.histogram_steps("activations").tolist() == ([] if "histograms" in options else full)


def test_the_trace_of_a_step_has_each_layer_both_ways_within_its_phase(tmp_path, read):
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))
    optimizer = torch.optim.Adam(model.parameters())
    with NeuralDbg(model, optimizer, tmp_path, every=1) as watch:
        for _ in range(2):  # gradients of two batches, accumulated
            model(torch.randn(4, 3)).sum().backward()
        optimizer.step()
    reader = read(watch)
    layer, phase, start, duration = reader.profile("trace", 0)[:, :4].T
    assert [PHASES[int(one)] for one in phase[layer < 0]] == ["step", *["forward", "backward"] * 2, "optimizer"]
    assert [(int(row), int(way)) for row, way in zip(layer, phase, strict=True) if row >= 0] == [
        *((row, FORWARD) for row in range(3)),
        *((row, BACKWARD) for row in reversed(range(3))),
    ] * 2
    ends = start + duration
    wholes = [
        (int(way), first, last) for row, way, first, last in zip(layer, phase, start, ends, strict=True) if row < 0
    ]
    assert [way for way, _, _ in wholes].count(STEP) == [way for way, _, _ in wholes].count(OPTIMIZER) == 1
    for row, way, first, last in zip(layer, phase, start, ends, strict=True):
        around = [whole for whole in wholes if (row >= 0 and whole[0] == way) or whole[0] == STEP]
        assert any(begin <= first <= last <= end + 1e-9 for _, begin, end in around)
    assert reader.profile("timing", 0)[:, 0].tolist() == [2, 2, 2]


def test_a_step_that_the_sentinel_stopped_at_has_no_profile_of_its_rest(tmp_path, read):
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    with NeuralDbg(model, optimizer, tmp_path, steps=[0]) as watch:
        for step in range(3):
            optimizer.zero_grad()
            (model(torch.randn(4, 3)).sum() * (float("nan") if step == 1 else 1)).backward()
            optimizer.step()
            with torch.no_grad():
                model.weight.fill_(1)
                model.bias.fill_(0)
    reader = read(watch)
    assert list(reader.anomalies()) == [1]
    assert reader.steps().tolist() == [0, 1]
    assert reader.profile_steps("trace").tolist() == [0]
