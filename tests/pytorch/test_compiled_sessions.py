"""Compiled models: what is seen of their layers, that nothing else is compiled, and that training stays the same."""

from __future__ import annotations

import shutil
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from neural.session.reader import SessionReader
from neural_callbacks import NeuralDbg
from neural_callbacks.pytorch.compiled import UNGATED, WITHHELD

# Inductor's own imports still use what torch has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")

# Inductor, the default, needs a C++ compiler; the others show that graphs and hooks are as they were.
BACKENDS = ["aot_eager", *(["inductor"] if shutil.which("c++") else [])]
STEPS = 6


class Block(nn.Module):
    """Attention without parameters of its own between linear layers, with dropout and a shortcut."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.qkv = nn.Linear(8, 24)
        self.out = nn.Linear(8, 8)
        self.drop = nn.Dropout(0.1)

    def forward(self, x):
        query, key, value = (part.unsqueeze(1) for part in self.qkv(self.norm(x)).chunk(3, -1))
        attended = functional.scaled_dot_product_attention(query, key, value, is_causal=True).squeeze(1)
        return x + self.drop(self.out(attended))


MODELS = {
    "mlp": (
        lambda: nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3)),
        lambda: torch.randn(8, 6),
    ),
    "cnn": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)
        ),
        lambda: torch.randn(8, 1, 6, 6),
    ),
    "transformer": (
        lambda: nn.Sequential(Block(), Block(), nn.Flatten(), nn.Linear(5 * 8, 3)),
        lambda: torch.randn(8, 5, 8),
    ),
}


@pytest.fixture(autouse=True)
def forgotten():
    """What one test compiled, another does not find."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def train(name, tmp_path, *, compiled, every=None, **options):
    """Train from seed 1 in the given way; return losses and weights, the observer, and how often was compiled."""
    torch.manual_seed(1)
    make, inputs = MODELS[name]
    model = make()
    call = compiled(model)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    watched = call if isinstance(call, nn.Module) else model
    watch = nullcontext() if every is None else NeuralDbg(watched, optimizer, tmp_path, every=every, **options)
    losses = []
    with watch:
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss = functional.cross_entropy(call(inputs()), torch.randint(3, (8,)))
            loss.backward()
            optimizer.step()
            losses.append(loss.detach().clone())
    return [*losses, *(parameter.detach() for parameter in model.parameters())], watch


def read(watch):
    reader = SessionReader(watch.directory)
    reader.refresh()
    assert reader.problems == ()
    return reader


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_training_is_the_same_to_the_last_bit_and_products_are_seen(name, backend, tmp_path, heard):
    def compiled(model):
        return torch.compile(model, backend=backend, fullgraph=True)

    plain, _ = train(name, tmp_path, compiled=compiled)
    torch.compiler.reset()
    watched, watch = train(name, tmp_path, compiled=compiled, every=3)
    assert all(torch.equal(one, other) for one, other in zip(plain, watched, strict=True))
    assert heard() == [WITHHELD]
    reader = read(watch)
    layers = reader.layers().layers
    for kind in ("activations", "activation_gradients"):
        measured = ~np.isnan(reader.matrix(kind, 3)[:, 0])
        assert [layer.type for layer, seen in zip(layers, measured, strict=True) if seen] == [
            layer.type for layer in layers if layer.type in {"Linear", "Conv2d"}
        ]


@pytest.mark.parametrize("name", MODELS)
def test_rows_are_those_of_a_training_that_is_not_compiled(name, tmp_path, heard):
    _, eager = train(name, tmp_path, compiled=lambda model: model, every=3)
    _, watch = train(name, tmp_path, compiled=lambda model: torch.compile(model, backend="aot_eager"), every=3)
    heard()
    by_name = {layer.own_name: row for row, layer in enumerate(read(eager).layers().layers)}
    for kind in ("activations", "activation_gradients"):
        expected, found = (read(one).matrix(kind, 3) for one in (eager, watch))
        for row, layer in enumerate(read(watch).layers().layers):
            if not np.isnan(found[row, 0]):
                np.testing.assert_allclose(
                    found[row], expected[by_name[layer.own_name.removeprefix("_orig_mod.")]], rtol=1e-4, atol=1e-6
                )


def wrapped(model, backend):
    return torch.compile(model, backend=backend, fullgraph=True)


def a_function_around_it(model, backend):
    def forward(x):
        return model(x)

    return torch.compile(forward, backend=backend, fullgraph=True)


@pytest.mark.parametrize("way", [wrapped, a_function_around_it])
def test_a_sampled_step_is_compiled_once_and_plain_ones_as_without(way, tmp_path, heard):
    graphs = []

    def backend(graph, _inputs):
        graphs.append(len(graph.graph.nodes))
        return graph.forward

    train("mlp", tmp_path, compiled=lambda model: way(model, backend))
    (alone,) = graphs
    graphs.clear()
    torch.compiler.reset()
    _, watch = train("mlp", tmp_path, compiled=lambda model: way(model, backend), every=2)
    assert len(graphs) <= 3
    assert graphs.count(alone) >= 1
    seen = way is wrapped
    assert heard() == [WITHHELD if seen else UNGATED]
    assert ("activation_gradients" in read(watch).kinds()) == seen


def test_a_model_beside_one_that_is_compiled_is_seen_whole_once_it_has_run(tmp_path):
    torch.compile(nn.Linear(2, 2), backend="eager")(torch.randn(1, 2))
    _, watch = train("mlp", tmp_path, compiled=lambda model: model, every=1)
    reader = read(watch)
    assert reader.info().notices == ()
    assert not np.isnan(reader.matrix("activations", 0)[:, 0]).any()


def test_a_model_that_was_compiled_and_called_before_is_seen_too(tmp_path, heard):
    def compiled(model):
        call = torch.compile(model, backend="aot_eager")
        call(torch.randn(8, 6))
        return call

    _, watch = train("mlp", tmp_path, compiled=compiled, every=2)
    heard()
    assert "activation_gradients" in read(watch).kinds()


def test_nothing_is_left_on_the_modules(tmp_path, heard):
    models = []

    def compiled(model):
        models.append(model)
        return torch.compile(model, backend="aot_eager")

    train("mlp", tmp_path, compiled=compiled, every=1)
    heard()
    assert not any("forward" in vars(module) for module in models[0].modules())


def test_a_loss_that_is_not_finite_is_noticed_at_its_step(tmp_path, heard):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    call = torch.compile(model, backend="aot_eager")
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with NeuralDbg(call, optimizer, tmp_path, every=100) as watch:
        for step in range(6):
            inputs = torch.randn(8, 6)
            inputs[0, 0] = torch.nan if step == 4 else 0.0
            before = {name: value.clone() for name, value in model.state_dict().items()}
            optimizer.zero_grad()
            functional.cross_entropy(call(inputs), torch.randint(3, (8,))).backward()
            optimizer.step()
            model.load_state_dict(before)
    heard()
    anomalies = read(watch).anomalies()
    assert list(anomalies) == [4]
    assert anomalies[4][0].place == "loss"


def test_a_step_of_which_some_calls_alone_could_be_seen_has_no_activations(tmp_path, heard):
    torch.manual_seed(0)
    model = torch.compile(nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)), backend="aot_eager")
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with NeuralDbg(model, optimizer, tmp_path, every=1) as watch:
        for step in range(6):
            optimizer.zero_grad()
            for size in (8, 5 if step == 3 else 8):
                model(torch.randn(size, 6)).sum().backward()
            optimizer.step()
    assert len(heard()) == 2  # of what is withheld, and of other shapes than before
    reader = read(watch)
    assert reader.steps("gradients").tolist() == list(range(6))
    assert reader.steps("activations").tolist() == [1, 2]
