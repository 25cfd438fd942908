"""What distributed training puts around a model is not what the session calls it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.distributed.fsdp import fully_shard

from neural_callbacks import NeuralDbg
from neural_callbacks.pytorch.distributed import model_class, own_class
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
