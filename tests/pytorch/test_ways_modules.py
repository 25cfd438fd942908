"""Modules of all kinds: what is recorded of their tensors is what autograd and numpy compute from the same step."""

from __future__ import annotations

import collections
import copy
import dataclasses
import functools
import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from torch.utils.checkpoint import checkpoint

from neural.session.statistics import COUNT, reference_row
from neural_callbacks import NeuralDbg


def assert_row(row, values, rtol=1e-5):
    tensors = values if isinstance(values, list) else [values]
    flat = torch.cat([tensor.detach().reshape(-1).double() for tensor in tensors])
    np.testing.assert_allclose(row, reference_row(flat.numpy()), rtol=rtol, atol=1e-7)


def same(one, other):
    return len(one) == len(other) and all(
        torch.equal(a.contiguous().view(-1).view(torch.uint8), b.contiguous().view(-1).view(torch.uint8))
        for a, b in zip(one, other, strict=True)
    )


def rows_of(reader):
    """Return the row of each layer by its own name."""
    return {layer.own_name: row for row, layer in enumerate(reader.layers().layers)}


class Pair(NamedTuple):
    first: torch.Tensor
    second: object


class Mixed(nn.Module):
    """Gives out what `form` makes of two tensors, one of which is not used, and one of whole numbers."""

    def __init__(self, form):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3))
        self.form = form

    def forward(self, x):
        return self.form(x * self.weight, x + self.weight, torch.arange(4))


@dataclasses.dataclass
class Output:
    value: torch.Tensor
    extra: object


FORMS = {
    "tuple": (lambda a, b, n: (a, b, n), lambda out: out[0]),
    "named tuple": (lambda a, b, n: Pair(a, (b, n)), lambda out: out.first),
    "dict": (lambda a, b, n: {"a": a, "b": {"deep": [b, n]}}, lambda out: out["a"]),
    "ordered dict": (lambda a, b, n: collections.OrderedDict(a=a, b=b, n=n, none=None), lambda out: out["a"]),
    "dataclass": (lambda a, b, n: Output(a, [b, Output(n, "text")]), lambda out: out.value),
    "list": (lambda a, b, n: [[a], b, n, 3.0], lambda out: out[0][0]),
}


class Uses(nn.Module):
    """A layer, and what picks from its output what is used."""

    def __init__(self, inner, pick):
        super().__init__()
        self.inner = inner
        self.pick = pick

    def forward(self, x):
        return self.pick(self.inner(x))


class Sentences(nn.Module):
    """A recurrent layer over sequences of several lengths, packed."""

    def __init__(self, kind):
        super().__init__()
        self.recurrent = kind(3, 5, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(10, 1)

    def forward(self, x):
        packed = pack_padded_sequence(x, torch.tensor([6, 4, 1]), batch_first=True)
        sequence, _ = self.recurrent(packed)
        padded, _ = pad_packed_sequence(sequence, batch_first=True)
        return self.head(padded)


class InPlace(nn.Module):
    """Operations that overwrite what they are given."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.act, self.drop, self.bend = nn.ReLU(inplace=True), nn.Dropout(0.5, inplace=True), nn.ELU(inplace=True)
        self.middle, self.last = nn.Linear(4, 4), nn.Linear(4, 1)

    def forward(self, x):
        hidden = self.middle(self.act(self.first(x)))
        return self.last(self.bend(self.drop(hidden))).mul_(2)


class Checkpointed(nn.Module):
    """Two parts under checkpoints, with dropout inside."""

    def __init__(self, reentrant):
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.parts = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.3), nn.Tanh()) for _ in range(2))
        self.last = nn.Linear(4, 1)
        self.reentrant = reentrant

    def forward(self, x):
        x = self.first(x)
        for part in self.parts:
            x = part(x) if self.reentrant is None else checkpoint(part, x, use_reentrant=self.reentrant)
        return self.last(x)


class Tied(nn.Module):
    """An embedding whose weights are the last layer's too, and a layer that runs three times."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.again = nn.Linear(4, 4)
        self.last = nn.Linear(4, 7, bias=False)
        self.last.weight = self.embedding.weight

    def forward(self, x):
        hidden = self.embedding(x.abs().mul(10).long() % 7).flatten(1, 1)
        for _ in range(3):
            hidden = torch.tanh(self.again(hidden))
        return self.last(hidden)


class Spectral(nn.Module):
    """Layers whose weights are computed; spectral_norm's change a buffer whenever they are, in training."""

    def __init__(self):
        super().__init__()
        self.first = parametrizations.weight_norm(nn.Linear(3, 4))
        self.second = parametrizations.spectral_norm(nn.Linear(4, 4))
        self.third = nn.utils.spectral_norm(nn.Linear(4, 1))

    def forward(self, x):
        return self.third(torch.tanh(self.second(torch.tanh(self.first(x)))))


class Waves(nn.Module):
    """Complex weights, and an output that is complex."""

    def __init__(self):
        super().__init__()
        self.waves = nn.Linear(3, 4, dtype=torch.complex64)
        self.last = nn.Linear(4, 1)
        self.unused = nn.Parameter(torch.ones(2))

    def forward(self, x):
        return self.last(self.waves(x.to(torch.complex64)).abs())


MODELS: dict[str, Callable[[], nn.Module]] = {
    **{f"outputs in a {name}": (lambda form=form: Uses(Mixed(form[0]), form[1])) for name, form in FORMS.items()},
    **{f"packed {kind.__name__}": (lambda kind=kind: Sentences(kind)) for kind in (nn.RNN, nn.LSTM, nn.GRU)},
    "in place": InPlace,
    **{f"checkpointed {way}": (lambda way=way: Checkpointed(way)) for way in (None, False, True)},
    "tied": Tied,
    "computed weights": Spectral,
    "complex": Waves,
    "data parallel": lambda: nn.DataParallel(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))),
}


def train(model, optimizer, steps=4):
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(3, 6, 3)).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("name", MODELS)
def test_training_is_the_same_to_the_last_bit(name, every, tmp_path, read):
    def run(watch):
        torch.manual_seed(1)
        model = MODELS[name]()
        optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
        with watch(model, optimizer):
            train(model, optimizer)
        gradients = [torch.zeros(()) if p.grad is None else p.grad for p in model.parameters()]
        return [*model.state_dict().values(), *gradients, torch.get_rng_state()]

    watches = []

    def watched(model, optimizer):
        watches.append(NeuralDbg(model, optimizer, tmp_path, every=every))
        return watches[-1]

    assert same(run(lambda *_: nullcontext()), run(watched))
    reader = read(watches[0])
    assert reader.steps("activation_gradients").tolist() == list(range(0, 4, every))
    assert reader.info().notices == ()


def floats(value):
    """Return the tensors of real numbers in an output of one of the models above."""
    if isinstance(value, torch.Tensor):
        return [value] if value.is_floating_point() else []
    if isinstance(value, PackedSequence):
        return [value.data]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (tuple, list)) else []
    if isinstance(value, Output):
        parts = [value.value, value.extra]
    return [tensor for part in parts for tensor in floats(part)]


def captured(model, x):
    """Run a forward and backward pass by hand; return each layer's outputs and their gradients, by its name."""
    outputs, gradients = collections.defaultdict(list), collections.defaultdict(list)

    def hook(name, module, _inputs, output):
        name = name or type(module).__name__
        for tensor in floats(output):
            outputs[name].append(tensor.detach().clone())
            if tensor.requires_grad:
                tensor.register_hook(lambda gradient: gradients[name].append(gradient.clone()))

    handles = [module.register_forward_hook(functools.partial(hook, name)) for name, module in model.named_modules()]
    model(x).square().mean().backward()
    for handle in handles:
        handle.remove()
    return outputs, gradients


@pytest.mark.parametrize(
    "name", [name for name in MODELS if not name.startswith("checkpointed") and name != "computed weights"]
)
def test_rows_are_those_of_the_tensors_by_hand(name, tmp_path, read):
    model = MODELS[name]()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    x = torch.randn(3, 6, 3)
    state = torch.get_rng_state()
    twin = copy.deepcopy(model)
    outputs, gradients = captured(twin, x)
    torch.set_rng_state(state)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    with NeuralDbg(model, optimizer, tmp_path) as watch:
        model(x).square().mean().backward()
        optimizer.step()
    reader = read(watch)
    frame, rows = reader.frame(0), rows_of(reader)
    for layer, row in rows.items():
        if outputs[layer]:
            assert_row(frame.matrices["activations"][row], outputs[layer])
        if gradients[layer]:
            assert_row(frame.matrices["activation_gradients"][row], gradients[layer])
    measured = {layer for layer, row in rows.items() if not np.isnan(frame.matrices["activations"][row, COUNT])}
    assert measured == {layer for layer in rows if outputs[layer]}
    for number, (parameter, twin_s, was) in enumerate(zip(model.parameters(), twin.parameters(), before, strict=True)):
        row = parameter_row(reader, model, number)
        if parameter.is_complex():
            for kind in ("weights", "gradients", "updates"):
                assert np.isnan(frame.matrices[kind][row]).all()
            continue
        assert_row(frame.matrices["weights"][row], was)
        assert_row(frame.matrices["updates"][row], parameter.double() - was, rtol=1e-3)
        if twin_s.grad is None:
            assert np.isnan(frame.matrices["gradients"][row]).all()
        else:
            assert_row(frame.matrices["gradients"][row], twin_s.grad)


def parameter_row(reader, model, number):
    """Return the row of a parameter, by the names of its layer and its own."""
    name = [name for name, _ in model.named_parameters()][number]
    table = reader.layers()
    for row, parameter in enumerate(table.parameters):
        layer = table.layers[parameter.layer].own_name
        if name in {f"{layer}.{parameter.name}", parameter.name if layer == type(model).__name__ else None}:
            return row
    raise AssertionError(name)


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpoint_s_layers_are_recorded_as_without(reentrant, every, tmp_path, read):
    readers = []
    for way in (None, reentrant):
        torch.manual_seed(1)
        model = Checkpointed(way)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        with NeuralDbg(model, optimizer, tmp_path / str(way), every=every) as watch:
            train(model, optimizer, 3)
        readers.append(read(watch))
    plain, wrapped = ([reader.frame(step) for step in reader.steps()] for reader in readers)
    old, new = map(rows_of, readers)
    order = [new[name] for name in old]
    for one, other in zip(plain, wrapped, strict=True):
        for kind in ("activations", "activation_gradients"):
            np.testing.assert_allclose(other.matrices[kind][order], one.matrices[kind], rtol=1e-5, err_msg=kind)
    for kind in ("memory", "flops"):
        np.testing.assert_array_equal(wrapped[0].profiles[kind][order], plain[0].profiles[kind], err_msg=kind)
    assert wrapped[0].profiles["timing"][order, 0].tolist() == [1] * len(old)


def test_parameters_unfrozen_later_have_gradients_from_then_on(tmp_path, read):
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    model[0].requires_grad_(False)
    optimizer = torch.optim.SGD(model[2].parameters(), 0.1)
    gradients = {}
    with NeuralDbg(model, optimizer, tmp_path, every=1) as watch:
        for step in range(4):
            if step == 2:
                model[0].requires_grad_()
                optimizer.add_param_group({"params": list(model[0].parameters()), "lr": 0.01})
            optimizer.zero_grad()
            before = model[0].weight.detach().clone()
            model(torch.randn(5, 3)).square().sum().backward()
            gradients[step] = model[0].weight.grad
            gradients[step] = None if gradients[step] is None else gradients[step].clone()
            optimizer.step()
    reader = read(watch)
    for step, gradient in gradients.items():
        frame = reader.frame(step)
        assert not np.isnan(frame.matrices["weights"]).any()
        assert not np.isnan(frame.matrices["activations"]).any()
        for kind in ("gradients", "updates"):
            assert np.isnan(frame.matrices[kind][:2]).all() == (step < 2)
        assert np.isnan(frame.matrices["activation_gradients"][:2]).all() == (step < 2)
        if gradient is not None:
            assert_row(frame.matrices["gradients"][0], gradient)
    assert_row(reader.matrix("updates", 3)[0], model[0].weight.double() - before, rtol=1e-3)
    assert [layer.trainable for layer in reader.layers().layers] == [True, True, True]


class Spoils(nn.Linear):
    """A linear layer that goes wrong."""

    neural_type = "Spoils"

    def forward(self, x):
        return super().forward(x) * math.nan


@pytest.mark.parametrize("how", ["added", "replaced"])
def test_the_sentinel_sees_layers_that_came_after_the_last_sample(how, tmp_path, read):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 1))
    stranger = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with NeuralDbg(model, optimizer, tmp_path, steps=[0]) as watch:
        for step in range(6):
            stranger(torch.randn(5, 4))
            if step == 3 and how == "added":
                model.insert(1, Spoils(4, 4))
            elif step == 3:
                model[1] = Spoils(4, 4)
            optimizer.zero_grad()
            model(torch.randn(5, 4)).sum().backward()
            before = copy.deepcopy(model.state_dict())
            optimizer.step()
            model.load_state_dict(before)
    reader = read(watch)
    (step,) = reader.anomalies()
    first = reader.anomalies()[step][0]
    assert (step, first.place) == (3, "forward")
    layer = reader.layers().layers[first.layer]
    assert (layer.type, layer.own_name) == ("Spoils", "1")
    assert first.nan == 20


def test_a_model_that_is_converted_in_mid_run_is_measured_as_it_is(tmp_path, read):
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    types = [torch.float32, torch.float64, torch.bfloat16]
    shown, expected = [], []
    for kept in range(1, 4):  # what the session says when training ends with the first type, the second, the third
        torch.manual_seed(1)
        model.float()
        with NeuralDbg(model, optimizer, tmp_path / str(kept), every=1) as watch:
            for dtype in types[:kept]:
                model.to(dtype)
                optimizer.zero_grad()
                output = model(torch.randn(5, 3).to(dtype))
                output.sum().backward()
                expected.append((output, model[0].weight.grad.clone()))
                optimizer.step()
        reader = read(watch)
        for step, (output, gradient) in enumerate(expected[-kept:]):
            assert_row(reader.matrix("activations", step)[2], output, rtol=1e-4)
            assert_row(reader.matrix("gradients", step)[0], gradient, rtol=1e-4)
        table = reader.layers()
        assert len(table.layers) == 3
        shown.append([{layer.dtype for layer in table.layers}, {entry.dtype for entry in table.parameters}])
    names = [str(dtype).removeprefix("torch.") for dtype in types]
    assert shown == [[{name}, {name}] for name in names]


def test_layers_without_data_are_no_hindrance(tmp_path, read):
    model = nn.Sequential(nn.Linear(3, 1))
    model.register_module("later", nn.Linear(3, 3, device="meta"))
    model.forward = model[0].__call__
    optimizer = torch.optim.SGD(model[0].parameters(), 0.1)
    with NeuralDbg(model, optimizer, tmp_path, every=1) as watch:
        train(model, optimizer, 2)
    reader = read(watch)
    assert reader.info().notices == ()
    rows = rows_of(reader)
    assert np.isnan(reader.matrix("activations", 1)[rows["later"]]).all()
    assert np.isnan(reader.matrix("weights", 1)[2:]).all()
    assert reader.frame(0).profiles["memory"][rows["later"], 1] == 0


def test_lazy_layers_have_parameters_from_their_first_run_on(tmp_path, read):
    class Late(nn.Module):
        """Two layers whose sizes are known when they run, one from the second step on."""

        late = False

        def __init__(self):
            super().__init__()
            self.first, self.second = nn.LazyLinear(4), nn.LazyLinear(1)

        def forward(self, x):
            hidden = self.first(x)
            return self.second(hidden) if self.late else hidden.sum(-1)

    model = Late()
    model(torch.randn(3, 6, 3))
    optimizer = torch.optim.SGD(model.first.parameters(), 0.1)
    with NeuralDbg(model, optimizer, tmp_path, every=1) as watch:
        train(model, optimizer, 2)
        model.late = True
        train(model, optimizer, 1)
        optimizer.add_param_group({"params": list(model.second.parameters())})
        weights = model.second.weight.detach().clone()
        train(model, optimizer, 1)
    reader = read(watch)
    assert reader.info().notices == ()
    table = reader.layers()
    assert [len(reader.matrix("weights", step)) for step in range(4)] == [2, 2, 4, 4]
    assert [(table.layers[entry.layer].type, entry.name) for entry in table.parameters] == [
        ("Linear", "weight"),
        ("Linear", "bias"),
    ] * 2
    assert_row(reader.matrix("weights", 3)[2], weights)


def test_a_part_that_lives_elsewhere_is_measured_where_it_is(tmp_path, read):
    # Where tensors go when a model is moved, only its device tells: here to a device without data and back.
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    values = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with NeuralDbg(model, optimizer, tmp_path, every=1) as watch:
        train(model, optimizer, 1)
        model.to("meta")
        model.to_empty(device="cpu")
        model.load_state_dict(values)
        optimizer.param_groups[0]["params"] = list(model.parameters())
        train(model, optimizer, 1)
    frame = read(watch).frame(1)
    assert_row(frame.matrices["weights"][0], values["0.weight"])
    assert not any(np.isnan(matrix).any() for matrix in frame.matrices.values())


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.SparseAdam])
def test_sparse_gradients_are_measured_and_looked_at(kind, tmp_path, read):
    def run(watch):
        torch.manual_seed(1)
        model = nn.Sequential(nn.EmbeddingBag(50, 4, sparse=True))
        optimizer = kind(model.parameters(), 0.1)
        gradients = []
        with watch(model, optimizer):
            for step in range(5):
                optimizer.zero_grad()
                output = model(torch.tensor([[1, 2, 1], [7, 2, 3]]))
                (output.square().sum() * (math.inf if step == 3 else 1.0)).backward()
                gradients.append(model[0].weight.grad.coalesce().values().clone())
                before = model[0].weight.detach().clone()
                optimizer.step()
                if step == 3:
                    model[0].weight.data.copy_(before)
                    optimizer.state.clear()
        return [model[0].weight.detach()], gradients

    watches = []

    def watched(model, optimizer):
        watches.append(NeuralDbg(model, optimizer, tmp_path, steps=[0, 4]))
        return watches[-1]

    plain, _ = run(lambda *_: nullcontext())
    weights, gradients = run(watched)
    assert same(plain, weights)
    reader = read(watches[0])
    assert reader.info().notices == ()
    for step in (0, 4):
        assert_row(reader.matrix("gradients", step)[0], gradients[step])
    assert list(reader.anomalies()) == [3]


def test_what_runs_inside_of_a_transform_is_left_aside(tmp_path, read):
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))

    def run(watch):
        torch.manual_seed(1)
        net = copy.deepcopy(model)
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        with watch(net, optimizer):
            for _ in range(3):
                x = torch.randn(5, 3)
                values = {name: parameter.detach() for name, parameter in net.named_parameters()}
                each = vmap(grad(lambda values, x, net=net: functional_call(net, values, (x,)).sum()), (None, 0))
                norms = sum(gradient.square().sum() for gradient in each(values, x).values())
                optimizer.zero_grad()
                output = functional_call(net, dict(net.named_parameters()), (x,))
                (output.sum() / norms).backward()
                optimizer.step()
        return [parameter.detach() for parameter in net.parameters()], output, net[0].weight.grad

    plain, *_ = run(lambda *_: nullcontext())
    for every in (1, 2):
        watches = []

        def watched(net, optimizer, every=every, watches=watches):
            watches.append(NeuralDbg(net, optimizer, tmp_path / str(every), every=every))
            return watches[-1]

        weights, output, gradient = run(watched)
        assert same(plain, weights)
        reader = read(watches[0])
        assert reader.info().notices == ()
        assert reader.steps().tolist() == list(range(0, 3, every))
        assert_row(reader.matrix("activations", 2)[2], output)
        assert_row(reader.matrix("gradients", 2)[0], gradient)


def test_clipped_gradients_are_those_that_the_optimizer_gets(tmp_path, read):
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with NeuralDbg(model, optimizer, tmp_path, every=1) as watch:
        model(torch.randn(5, 3)).square().sum().mul(100).backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        clipped = [parameter.grad.clone() for parameter in model.parameters()]
        optimizer.step()
    frame = read(watch).frame(0)
    assert norm > 1
    assert frame.scalars["gradient_norm"] == pytest.approx(0.5, rel=1e-4)
    for row, gradient in zip(frame.matrices["gradients"], clipped, strict=True):
        assert_row(row, gradient)


def test_computed_weights_are_not_computed_once_more(tmp_path, read):
    model = Spectral()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with NeuralDbg(model, optimizer, tmp_path) as watch:
        before = {name: value.detach().clone() for name, value in model.named_parameters()}
        model(torch.randn(5, 3)).sum().backward()
        gradients = {name: value.grad.clone() for name, value in model.named_parameters()}
        optimizer.step()
    reader = read(watch)
    table = reader.layers()
    found = {f"{table.layers[entry.layer].own_name}.{entry.name}": row for row, entry in enumerate(table.parameters)}
    assert set(found) == set(before)
    for name, row in found.items():
        assert_row(reader.matrix("weights", 0)[row], before[name])
        assert_row(reader.matrix("gradients", 0)[row], gradients[name])


class Replicas(nn.DataParallel):
    """Runs two copies as nn.DataParallel makes them, one after the other, on the one device that there is."""

    def __init__(self, module):
        super().__init__(module)
        self.device_ids = [0, 1]

    def forward(self, x):
        return torch.cat([self._copy()(part) for part in x.chunk(2)])

    def _copy(self):
        copies = {module: module._replicate_for_data_parallel() for module in self.module.modules()}
        for module, replica in copies.items():
            for name, child in module._modules.items():
                setattr(replica, name, copies[child])
            for name, parameter in module._parameters.items():
                setattr(replica, name, parameter.view_as(parameter))
        return copies[self.module]


def test_of_a_model_that_runs_in_replicas_the_parameters_are_recorded_and_the_session_says_so(tmp_path, read, heard):
    model = Replicas(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1)))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    losses, gradients = [], []
    with NeuralDbg(model, optimizer, tmp_path, steps=[0, 1]) as watch:
        for step in range(4):
            optimizer.zero_grad()
            loss = (model(torch.randn(4, 3)) * (math.nan if step == 3 else 1.0)).sum()
            loss.backward()
            gradients.append(model.module[0].weight.grad.clone())
            losses.append(loss.item())
            optimizer.step()
    sentence = (
        "The model runs in replicas on several devices (nn.DataParallel): its weights, gradients and updates are "
        "recorded, its activations and their gradients not. They are too under DistributedDataParallel."
    )
    assert heard() == list(read(watch).info().notices) == [sentence]
    frame = read(watch).frame(1)
    assert_row(frame.matrices["gradients"][0], gradients[1])
    assert "activations" not in frame.matrices
    assert frame.scalars["loss"] == pytest.approx(losses[1])
    assert [one.place for one in read(watch).anomalies()[3]][:1] == ["loss"]


WIDE = 64 * 64  # an output of more values than are kept until the step's end


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize(
    ("layers", "shape", "axis"),
    [
        (lambda: [nn.Linear(3, 6), nn.ReLU()], lambda rows: (rows, 3), 1),
        (lambda: [nn.Linear(3, 6), nn.ReLU()], lambda rows: (rows, 7, 3), 2),  # (batch, place, unit)
        (lambda: [nn.Conv1d(3, 6, 1), nn.ReLU()], lambda rows: (rows, 3, 7), 1),  # (batch, unit, place)
        (lambda: [nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6), nn.ReLU()], lambda rows: (rows, 3, 2, 3), 1),
    ],
)
def test_silent_units_are_those_that_gave_out_nothing_in_the_whole_step(layers, shape, axis, large, tmp_path, read):
    model = nn.Sequential(*layers())
    last = str(len(model) - 1)
    unit = model[-2].bias if isinstance(model[-2], nn.BatchNorm2d) else model[0].bias
    with torch.no_grad():
        model[0].weight.mul_(0.1)
        unit[[0, 4]] = -50.0
        unit[[1, 2, 3, 5]] = 0.05
        model[0].weight[1:3] = 0
        model[0].weight[1, 0], model[0].weight[2, 0] = 1, -1  # these fire in the first call alone, and in the second
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    rows = 1000 if large else 4
    batches = [torch.randn(shape(rows)), torch.randn(shape(rows))]
    for batch, sign in zip(batches, (1, -1), strict=True):
        values = batch.select(-1 if isinstance(model[0], nn.Linear) else 1, 0)
        values.abs_().add_(1).mul_(sign)
    with torch.no_grad():
        outputs = [copy.deepcopy(model)(batch) for batch in batches]
        others = [number for number in range(outputs[0].dim()) if number != axis]
        fired = torch.stack([output.amax(others) > 0 for output in outputs]).any(0)
    with NeuralDbg(model, optimizer, tmp_path, every=1) as watch:
        for batch in batches:  # two calls in one step: silent is what fired in neither
            model(batch).sum().backward()
        optimizer.step()
    assert (outputs[0].numel() > WIDE) == large
    reader = read(watch)
    row = rows_of(reader)[last]
    profiles = reader.frame(0).profiles
    expected = torch.nonzero(~fired).reshape(-1).tolist()
    assert {0, 4} <= set(expected) < set(range(6))
    assert profiles["activity"][row, :2].tolist() == [6, len(expected)]
    silent = profiles["silent_units"]
    assert silent[silent[:, 0] == row, 1].tolist() == expected
    # The layer before has values below zero: of it nothing is said.
    assert np.isnan(profiles["activity"][0, :2]).all()


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("kind", [nn.Tanh, nn.Sigmoid, nn.Softmax])
def test_saturated_values_are_those_near_their_bounds(kind, large, tmp_path, read):
    act = kind(-1) if kind is nn.Softmax else kind()
    model = nn.Sequential(nn.Linear(3, 5), act, nn.Linear(5, 1))
    with torch.no_grad():
        model[0].weight.mul_(8)
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    batches = [torch.randn(2000 if large else 6, 3) for _ in range(2)]
    with torch.no_grad():
        output = torch.cat([model[1](model[0](batch)) for batch in batches]).double()
    with NeuralDbg(model, optimizer, tmp_path, every=1) as watch:
        for batch in batches:
            model(batch).sum().backward()
        optimizer.step()
    judged, near = {
        nn.Tanh: lambda: (output.numel(), (output.abs() > 0.95).sum()),
        nn.Sigmoid: lambda: (output.numel(), ((output < 0.025) | (output > 0.975)).sum()),
        nn.Softmax: lambda: (len(output), (output.amax(1) > 0.95).sum()),
    }[kind]()
    assert 0 < near < judged
    assert read(watch).frame(0).profiles["activity"][1, 2:].tolist() == [judged, int(near)]
