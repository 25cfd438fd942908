"""What distributed training puts around a model and its tensors: what a session says of it, in one process."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard

from neural_callbacks import NeuralDbg
from neural_callbacks.pytorch.distributed import SHARDED, local, model_class, own_class, whole
from neural_callbacks.pytorch.layout import layer_type


class Net(nn.Sequential):
    pass


class Mixed(type("Mixin", (), {"__module__": "torch.distributed.elsewhere"}), nn.Linear):
    """A class of the user's own, with a part of it from torch.distributed."""


@pytest.fixture
def alone(tmp_path):
    """A process group of this process alone."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("alone")
def test_a_layer_keeps_its_type_when_it_is_sharded():
    model = Net(nn.Linear(2, 3), nn.ReLU())
    fully_shard(model[0])
    fully_shard(model)
    assert [type(module).__name__ for module in (model, *model)] == ["FSDPNet", "FSDPLinear", "ReLU"]
    assert [layer_type(module) for module in (model, *model)] == ["Net", "Linear", "ReLU"]
    assert model_class(model) is Net
    assert own_class(Mixed(2, 3)) is Mixed


@pytest.mark.usefixtures("alone")
def test_a_run_is_named_after_the_model_within(tmp_path):
    model = Net(nn.Linear(2, 3))
    for wrapped in (
        nn.parallel.DistributedDataParallel(copy.deepcopy(model)),
        nn.DataParallel(model),
        model,
    ):
        with NeuralDbg(wrapped, log_dir=tmp_path) as watch:
            assert watch.directory.parent.name.startswith("Net-")


@pytest.mark.usefixtures("alone")
def test_only_what_every_process_has_as_a_whole_is_one_number():
    mesh = init_device_mesh("cpu", (1,))
    values = torch.arange(3.0)
    for placement in (Shard(0), Partial(), Replicate()):
        spread = DTensor.from_local(values, mesh, [placement])
        assert type(local(spread)) is torch.Tensor
        assert torch.equal(local(spread), values)
        if placement == Replicate():
            assert type(whole("norm", spread)) is torch.Tensor
        else:
            with pytest.raises(ValueError, match="norm") as caught:
                whole("norm", spread)
            assert str(caught.value) == "norm is spread over several processes; give norm.full_tensor()"
    assert local(values) is whole("norm", values) is values


@pytest.mark.usefixtures("alone")
def test_a_figure_that_is_spread_is_said_and_left_out(tmp_path, read, heard):
    model = Net(nn.Linear(2, 3))
    fully_shard(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    spread = DTensor.from_local(torch.ones(()), init_device_mesh("cpu", (1,)), [Partial()])
    with NeuralDbg(model, optimizer, tmp_path, every=1) as watch:
        model(torch.ones(4, 2)).sum().backward()
        watch.record_scalars(norm=spread)
        optimizer.step()
    switched_off, sharded = heard()
    assert switched_off == (
        "NeuralDbg switched scalars off after an error, training goes on: "
        "ValueError: norm is spread over several processes; give norm.full_tensor()."
    )
    assert sharded == SHARDED
    assert read(watch).steps("gradients").tolist() == [0]
