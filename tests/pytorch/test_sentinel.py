"""The first value that is not finite is recorded at its step, with the layer and the way where it arose first."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from neural.session.reader import SessionReader
from neural_callbacks import NeuralDbg
from neural_callbacks.pytorch.sentinel import Sentinel, is_finite

STEPS, EVERY, PLANTED = 150, 100, 137


class Faulty(nn.Module):
    """Gives out what it is given, and in one step one value that is not, on the way forward or back."""

    def __init__(self, inner, value, *, backward=False):
        super().__init__()
        self.inner = inner
        self.value = value
        self.backward = backward
        self.now = False
        self.neural_type = type(inner).__name__  # so that it is a layer, with what is inside

    def forward(self, x):
        y = self.inner(x)
        if self.now and self.backward:
            y.register_hook(self._spoil)
        elif self.now:
            y = self._spoil(y)
        return y

    def _spoil(self, values):
        spoiled = values.clone()
        spoiled.view(-1)[3] = self.value
        return spoiled


class Net(nn.Module):
    """Convolutions with a shortcut, normalization, in-place rectifiers, and a head."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(4)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(4)
        self.side = nn.Conv2d(4, 4, 1)
        self.relu2 = nn.ReLU(inplace=True)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(4 * 16, 3)

    def forward(self, x):
        x = self.relu1(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(x))
        y += self.side(x)
        return self.head(self.flatten(self.relu2(y)))


LAYERS = ["conv1", "norm1", "relu1", "conv2", "norm2", "side", "relu2", "flatten", "head"]
# Between relu2 and norm2 (or side) on the way back stands the flattening, which torch brings and which has no
# parameters: what its gradient is like is not looked at in steps that are not sampled.
BACKWARD = ["conv1", "norm1", "conv2", "norm2", "side", "head"]


def train(model, tmp_path, *, steps=STEPS, plant=PLANTED, after=None, **options):
    faulty = next(module for module in model.modules() if isinstance(module, Faulty))
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with NeuralDbg(model, optimizer, tmp_path, **options) as watch:
        for step in range(steps):
            faulty.now = step == plant
            before = {name: value.clone() for name, value in model.state_dict().items()}
            optimizer.zero_grad()
            functional.cross_entropy(model(torch.randn(4, 1, 4, 4)), torch.randint(3, (4,))).backward()
            optimizer.step()
            if step == plant:
                model.load_state_dict(before)  # so that training can go on
                if after is not None:
                    after(model)
    reader = SessionReader(watch.directory)
    reader.refresh()
    assert reader.problems == ()
    return reader


def planted(name, value=math.nan, *, backward=False):
    model = Net()
    setattr(model, name, Faulty(getattr(model, name), value, backward=backward))
    return model


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", LAYERS)
def test_what_a_layer_gives_out_is_found_in_that_layer_on_the_way_forward(name, value, tmp_path):
    reader = train(planted(name, value), tmp_path, every=EVERY)
    assert list(reader.anomalies()) == [PLANTED]
    first = reader.anomalies()[PLANTED][0]
    assert (first.place, reader.layers().layers[first.layer].own_name) == ("forward", name)
    frame = reader.frame(PLANTED)
    assert {"activations", "gradients", "weights", "updates"} <= frame.matrices.keys()
    assert not math.isfinite(frame.scalars["loss"])


@pytest.mark.parametrize("name", BACKWARD)
def test_what_comes_back_to_a_layer_is_found_in_that_layer_on_the_way_back(name, tmp_path):
    reader = train(planted(name, backward=True), tmp_path, every=EVERY)
    assert list(reader.anomalies()) == [PLANTED]
    first = reader.anomalies()[PLANTED][0]
    assert (first.place, reader.layers().layers[first.layer].own_name) == ("backward", name)
    assert {"gradients", "weights", "updates"} <= reader.frame(PLANTED).matrices.keys()
    assert math.isfinite(reader.frame(PLANTED).scalars["loss"])


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_a_sampled_step_counts_what_is_not_finite_of_any_layer(name, backward, tmp_path):
    reader = train(planted(name, backward=backward), tmp_path, every=1, steps=4, plant=2)
    assert list(reader.anomalies()) == [2]
    first = reader.anomalies()[2][0]
    assert (first.place, reader.layers().layers[first.layer].own_name) == ("backward" if backward else "forward", name)
    assert first.nan == 1


def test_a_layer_of_one_s_own_that_spoils_the_way_back_is_found(tmp_path):
    class Root(nn.Module):
        def forward(self, x):
            return x.clamp_min(0).sqrt()  # its slope at 0 is infinite

    model = Net()
    model.relu1 = nn.Sequential(model.relu1, Faulty(nn.Tanh(), 1.0), Root())
    reader = train(model, tmp_path, every=EVERY, steps=102, plant=None)
    # The rectifier's zeros meet the root in the first step already.
    assert next(iter(reader.anomalies())) == 0
    first = reader.anomalies()[0][0]
    assert (first.place, reader.layers().layers[first.layer].own_name) == ("backward", "relu1.1")


def test_what_lasts_is_recorded_where_it_began_and_again_only_after_it_was_over(tmp_path):
    model = planted("conv2")
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with NeuralDbg(model, optimizer, tmp_path, every=10) as watch:
        for step in range(40):
            model.conv2.now = 13 <= step < 25 or step == 33
            before = {name: value.clone() for name, value in model.state_dict().items()}
            optimizer.zero_grad()
            functional.cross_entropy(model(torch.randn(4, 1, 4, 4)), torch.randint(3, (4,))).backward()
            optimizer.step()
            model.load_state_dict(before)
    reader = SessionReader(watch.directory)
    reader.refresh()
    assert list(reader.anomalies()) == [13, 33]
    assert reader.steps().tolist() == [0, 10, 13, 20, 30, 33]


def test_a_step_with_a_bad_weight_gradient_alone_names_the_parameter(tmp_path):
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with NeuralDbg(model, optimizer, tmp_path, steps=[0]) as watch:
        for step in range(3):
            optimizer.zero_grad()
            model(torch.randn(5, 3)).sum().backward()
            if step == 1:
                model[2].weight.grad[0, 0] = math.inf
            before = model[2].weight.detach().clone()
            optimizer.step()
            model[2].weight.data.copy_(before)
    reader = SessionReader(watch.directory)
    reader.refresh()
    (anomaly,) = reader.anomalies()[1]
    assert (anomaly.place, anomaly.layer, anomaly.parameter) == ("parameter", 2, 2)
    assert (anomaly.nan, anomaly.posinf, anomaly.neginf) == (0, 1, 0)


def test_outputs_are_let_go_when_the_way_back_begins():
    layer = nn.Linear(2, 2)
    sentinel = Sentinel([layer])
    sentinel.forward(layer, (), layer(torch.randn(3, 2)))
    assert [passed.module for passed in sentinel.passed] == [layer]
    sentinel.release()
    assert sentinel.passed == []
    assert list(sentinel.order) == [layer]


def test_evaluation_without_no_grad_holds_no_more_outputs_than_training():
    layer = nn.Linear(2, 2)
    sentinel = Sentinel([layer])

    def forward(times):
        for _ in range(times):
            sentinel.forward(layer, (), layer(torch.randn(3, 2)))

    forward(50)
    assert len(sentinel.passed) == 2
    sentinel.forget()
    forward(5)
    sentinel.release()  # five passes make a loss
    forward(50)
    assert len(sentinel.passed) == 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_value_among_many_is_seen(dtype, value):
    values = torch.ones(5, 7, dtype=dtype)
    assert is_finite([values, values.T])
    values[2, 3] = value
    assert not is_finite([torch.ones(2), values])
    assert not is_finite([values.T])


def test_squares_that_overflow_and_whole_numbers_are_finite():
    large = torch.full((9,), 3e38)
    assert is_finite([large, large.double() * 1e200, torch.arange(3), torch.ones(2) > 0, torch.empty(0)])


def test_a_training_whose_gradients_are_fine_has_no_anomalies(tmp_path):
    reader = train(planted("conv1"), tmp_path, every=EVERY, plant=None)
    assert reader.anomalies() == {}
    assert reader.steps().tolist() == [0, 100]
    assert np.isfinite(reader.frame(100).scalars["loss"])
