"""Bytes are those that the tensors, the allocator and the system have when they are asked one by one."""

from __future__ import annotations

import gc
import math
import os
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor, Replicate, init_device_mesh

from neural_callbacks import resident
from neural_callbacks.pytorch.memory import LayerMemory, MemoryReader, parts, size
from neural_callbacks.pytorch.structures import tensors

FLOAT = 4


def measured(model, inputs, *optimizers, steps=1):
    """Train a few steps; return the memory of the last, by the names of the layers."""
    layers = {module: row for row, module in enumerate(model.children())}
    owners = {}
    for module, row in layers.items():
        for parameter in module.parameters():
            owners.setdefault(parameter, row)
    for _ in range(steps):
        held = LayerMemory()
        held.given([inputs])
        handles = [
            module.register_forward_hook(
                lambda module, _, output, held=held: held.output(module, list(tensors(output)))
            )
            for module in layers
        ]
        for optimizer in optimizers:
            optimizer.zero_grad()

        def loss():
            value = model(inputs).square().mean()
            value.backward()
            return value

        if optimizers:
            for optimizer in optimizers:
                optimizer.step(loss)
        else:
            loss()
        for handle in handles:
            handle.remove()
    return held.matrix(layers, owners, len(layers), [optimizer.state for optimizer in optimizers])


def test_outputs_parameters_and_gradients_are_those_of_the_tensors():
    model = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 3, bias=False))
    model[0].bias.requires_grad_(False)
    matrix = measured(model, torch.randn(5, 6))
    first, last = (6 * 12 + 12) * FLOAT, 12 * 3 * FLOAT
    np.testing.assert_array_equal(
        matrix,
        [
            [5 * 12 * FLOAT, first, 6 * 12 * FLOAT, 0],
            [5 * 12 * FLOAT, 0, 0, 0],
            [5 * 3 * FLOAT, last, last, 0],
        ],
    )


def test_storage_that_layers_share_counts_with_the_first():
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Identity(), nn.Dropout(0.5), nn.Linear(4 * 36, 2)
    )
    matrix = measured(model, torch.randn(2, 1, 8, 8))
    convolution = 2 * 4 * 36 * FLOAT
    assert matrix[:, 0].tolist() == [convolution, 0, 0, 0, convolution, 2 * 2 * FLOAT]


def test_what_was_there_before_is_no_output():
    class Weight(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(1, 4))

        def forward(self, x):
            return self.weight.expand(len(x), 4), self.weight, x.t(), x + self.weight

    layer, x = Weight(), torch.randn(3, 4)
    held = LayerMemory()
    held.given([x])
    held.output(layer, layer(x))
    assert held.matrix({layer: 0}, {}, 1, []).tolist() == [[3 * 4 * FLOAT, 0, 0, 0]]


def test_an_output_counts_with_all_of_its_storage():
    layer, whole = nn.Identity(), torch.zeros(10, 4)
    held = LayerMemory()
    held.output(layer, [whole[:2], whole[2:4]])
    assert held.matrix({layer: 0}, {}, 1, [])[0, 0] == 10 * 4 * FLOAT


def test_calls_of_a_layer_add_up_and_places_that_are_used_again_count_again():
    layer = nn.Identity()
    held = LayerMemory()
    for _ in range(5):
        held.output(layer, [torch.zeros(1000)])  # freed at once: the next one most likely comes to lie there
    assert held.matrix({layer: 0}, {}, 1, [])[0, 0] == 5 * 1000 * FLOAT


def test_nothing_is_kept_alive():
    layer, output = nn.Identity(), torch.zeros(1000)
    held = LayerMemory()
    held.output(layer, [output])
    storage = weakref.ref(output.untyped_storage())
    gone = weakref.ref(output)
    del output
    gc.collect()
    assert gone() is None
    assert storage() is None
    assert all(reference.expired() for reference in held._seen)


def test_layers_that_gave_out_nothing_have_no_activations():
    ran, spare, gone = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)
    held = LayerMemory()
    for layer in (ran, gone):
        held.output(layer, [layer(torch.zeros(1, 2))])
    matrix = held.matrix({ran: 0, spare: 1}, {}, 2, [])
    np.testing.assert_array_equal(matrix[:, 0], [2 * FLOAT, math.nan])
    assert not matrix[:, 1:].any()


def numbers(optimizer, parameters):
    """The bytes of an optimizer's state, by hand."""
    total = 0
    for parameter in parameters:
        for value in optimizer.state[parameter].values():
            for tensor in value if isinstance(value, list) else [value]:
                if isinstance(tensor, torch.Tensor):
                    total += tensor.numel() * tensor.element_size()
    return total


OPTIMIZERS = {
    "plain SGD": (lambda p: torch.optim.SGD(p, 0.1), 0),
    "SGD": (lambda p: torch.optim.SGD(p, 0.1, momentum=0.9), 1),
    "Adam": (lambda p: torch.optim.Adam(p, amsgrad=True), 3),
    "Adadelta": (torch.optim.Adadelta, 2),
    "LBFGS": (lambda p: torch.optim.LBFGS(p, history_size=3), None),
    "Rprop": (torch.optim.Rprop, 2),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_state_is_what_the_optimizer_keeps(name):
    make, copies = OPTIMIZERS[name]
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))
    optimizer = make(model.parameters())
    matrix = measured(model, torch.randn(5, 6), optimizer, steps=3)
    assert matrix[:, 3].tolist() == [numbers(optimizer, layer.parameters()) for layer in model]
    values = sum(parameter.numel() for parameter in model.parameters())
    if copies is None:
        assert matrix[0, 3] >= 3 * values * FLOAT > matrix[2, 3] == 0  # all of it is kept with the first parameter
    else:
        counters = matrix[:, 3].sum() - copies * values * FLOAT
        assert 0 <= counters <= 4 * FLOAT  # of steps, one for each parameter


def test_several_optimizers_add_up_and_are_not_touched():
    model = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3))
    adam, sgd = torch.optim.Adam(model[0].parameters()), torch.optim.SGD(model[1].parameters(), 0.1, momentum=0.9)
    matrix = measured(model, torch.randn(5, 6), adam, sgd)
    assert matrix[:, 3].tolist() == [2 * (6 * 4 + 4) * FLOAT + 2 * FLOAT, (4 * 3 + 3) * FLOAT]
    assert set(adam.state) == set(model[0].parameters())
    assert set(sgd.state) == set(model[1].parameters())


def test_state_deep_inside_is_found():
    layer = nn.Linear(2, 2, bias=False)
    optimizer = torch.optim.SGD(layer.parameters(), 0.1)
    optimizer.state[layer.weight] = {"blocks": [{"left": (torch.zeros(3), torch.zeros(5, dtype=torch.int8))}], "n": 1}
    assert LayerMemory().matrix({}, {layer.weight: 0}, 1, [optimizer.state])[0, 3] == 3 * FLOAT + 5


def test_sparse_gradients_count_what_they_store():
    layer = nn.Embedding(100, 6, sparse=True)
    layer(torch.tensor([3, 5, 3])).sum().backward()
    matrix = LayerMemory().matrix({}, {layer.weight: 0}, 1, [])
    assert matrix[0, 2] == 3 * 8 + 3 * 6 * FLOAT  # indices, which are int64, and values; 3 stands there twice


@pytest.mark.parametrize("to", [torch.Tensor.to_sparse_csr, torch.Tensor.to_sparse_csc, torch.Tensor.to_sparse])
@pytest.mark.filterwarnings("ignore:Sparse CS:UserWarning")
def test_sparse_tensors_have_indices_and_values(to):
    values = torch.tensor([[1.0, 0, 2], [0, 0, 3]])
    compressed = {torch.Tensor.to_sparse_csr: (2 + 1) + 3, torch.Tensor.to_sparse_csc: (3 + 1) + 3}
    assert size(to(values)) == compressed.get(to, 2 * 3) * 8 + 3 * FLOAT


def test_what_has_no_data_counts_nothing():
    layer = nn.Linear(5, 5, device="meta")
    held = LayerMemory()
    held.output(layer, [torch.zeros(3, device="meta")])
    assert held.matrix({layer: 0}, {layer.weight: 0}, 1, []).tolist() == [[0, 0, 0, 0]]


def test_a_distributed_tensor_counts_what_lies_here(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        # As the first of four processes would hold it: 2 of 8 rows.
        shard = DTensor.from_local(torch.zeros(2, 4), mesh, [Replicate()], run_check=False, shape=(8, 4), stride=(4, 1))
        assert shard.numel() == 32
        assert size(shard) == size(nn.Parameter(shard)) == 2 * 4 * FLOAT
    finally:
        dist.destroy_process_group()


def test_bits_of_all_kinds_of_numbers_count():
    assert size(torch.zeros(7, dtype=torch.bfloat16)) == 14
    assert size(torch.zeros(3, dtype=torch.complex64)) == 24
    assert [part.dtype for part in parts(torch.zeros(2, dtype=torch.int8))] == [torch.int8]


def test_the_process_has_as_much_in_memory_as_the_system_says():
    reader = MemoryReader([torch.device("cpu")])
    before = reader.read()
    block = torch.ones(64 * 2**20 // FLOAT)
    after = reader.read()
    assert 0.9 * block.nbytes < after.process - before.process < 1.5 * block.nbytes
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    assert after.process == pytest.approx(int(status["VmRSS"].split()[0]) * 1024, rel=0.1)
    assert math.isnan(after.allocated)
    assert math.isnan(after.reserved)
    assert math.isnan(reader.peak())


def test_a_system_without_such_a_file_says_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(resident, "STATM", tmp_path / "none")
    assert all(math.isnan(value) for value in MemoryReader([]).read())


def test_the_file_is_closed_with_the_reader():
    reader = MemoryReader([])
    opened = reader._resident._statm
    os.fstat(opened)
    del reader
    gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(opened)


@pytest.fixture
def counters(monkeypatch):
    """What torch says of two devices; none is at hand."""
    counters = {}

    def nested(device):
        current, peak, reserved = counters[device.index]
        return {
            "allocated_bytes": {"all": {"current": current, "peak": peak}},
            "reserved_bytes": {"all": {"current": reserved, "peak": 10**6}},
        }

    monkeypatch.setattr(torch.cuda, "memory_stats_as_nested_dict", nested)
    return counters


def test_devices_add_up(counters):
    counters.update({0: (100, 500, 1000), 1: (10, 50, 2000)})
    reader = MemoryReader([torch.device("cuda", 0), torch.device("cuda", 1), torch.device("cuda", 0)])
    assert reader.read()[:2] == (110, 3000)


def test_the_peak_is_that_since_the_last_one(counters):
    counters[0] = (100, 500, 1000)
    reader = MemoryReader([torch.device("cuda", 0)])
    counters[0] = (300, 500, 1000)
    reader.read()
    counters[0] = (200, 500, 1000)
    reader.read()
    assert reader.peak() == 300  # 500 is from before
    counters[0] = (200, 700, 1000)
    reader.read()
    assert reader.peak() == 700
    counters[0] = (250, 400, 1000)  # the user began it anew
    reader.read()
    assert reader.peak() == 400
    counters[0] = (220, 400, 1000)
    reader.read()
    assert reader.peak() == 220
