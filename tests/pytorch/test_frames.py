"""What is recorded is what numpy computes from the same step."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from neural.session import histogram, statistics
from neural.session.statistics import reference_row
from neural_callbacks import NeuralDbg


def assert_row(row, values):
    np.testing.assert_allclose(row, reference_row(np.asarray(values)), rtol=1e-5, atol=1e-7)


def test_rows_of_a_tiny_model_are_those_computed_by_hand(tmp_path, read):
    first, second = nn.Linear(3, 4), nn.Linear(4, 2)
    model = nn.Sequential(first, nn.ReLU(inplace=True), second)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    x, y = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)[:, :, :3]
    y = y[:, :2]
    w1, b1, w2, b2 = (parameter.detach().numpy().copy() for parameter in model.parameters())
    with NeuralDbg(model, optimizer, tmp_path) as dbg:
        loss = (model(torch.from_numpy(x)) - torch.from_numpy(y)).square().sum()
        loss.backward()
        dbg.record_scalars(loss=loss, learning_rate=0.1)
        optimizer.step()

    hidden = x @ w1.T + b1
    active = np.maximum(hidden, 0)
    out = active @ w2.T + b2
    d_out = 2 * (out - y)
    d_active = d_out @ w2
    d_hidden = d_active * (hidden > 0)
    d_parameters = [d_hidden.T @ x, d_hidden.sum(0), d_out.T @ active, d_out.sum(0)]
    frame = read(dbg).frame(0)
    for kind, expected in {
        "activations": [hidden, active, out],
        "activation_gradients": [d_hidden, d_active, d_out],
        "gradients": d_parameters,
        "weights": [w1, b1, w2, b2],
        "updates": [-0.1 * gradient for gradient in d_parameters],
    }.items():
        assert len(frame.matrices[kind]) == len(expected)
        for row, (found, values) in enumerate(zip(frame.matrices[kind], expected, strict=True)):
            assert_row(found, values)
            counted = frame.histograms[kind].row(row)
            if kind in ("activations", "weights"):  # the others are rounded differently at the edges of bins
                np.testing.assert_array_equal(counted, histogram.reference_counts(values))
            assert counted.sum() == np.size(values)
    assert frame.scalars["loss"] == pytest.approx(np.square(out - y).sum())
    assert frame.scalars["learning_rate"] == pytest.approx(0.1)
    norm = np.sqrt(sum(np.square(gradient).sum() for gradient in d_parameters))
    assert frame.scalars["gradient_norm"] == pytest.approx(norm)


def test_table_tells_order_shapes_and_parameters(tmp_path, read):
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.Linear(4, 2)
            self.spare = nn.Linear(7, 7)
            self.first = nn.Linear(3, 4)
            self.first.weight.requires_grad_(False)

        def forward(self, x):
            return self.last(self.first(x))

    model = Backwards()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with NeuralDbg(model, optimizer, tmp_path) as dbg:
        model(torch.randn(5, 3)).sum().backward()
        optimizer.step()
    table = read(dbg).layers()
    assert [(layer.name, layer.own_name) for layer in table.layers] == [
        ("Linear_1", "first"),
        ("Linear_2", "last"),
        ("Linear_3", "spare"),
    ]
    assert [layer.input_shapes for layer in table.layers] == [((5, 3),), ((5, 4),), ()]
    assert [layer.output_shapes for layer in table.layers] == [((5, 4),), ((5, 2),), ()]
    assert [layer.dtype for layer in table.layers] == ["float32", "float32", ""]
    assert [(p.name, p.layer, p.shape, p.trainable) for p in table.parameters] == [
        ("weight", 0, (4, 3), False),
        ("bias", 0, (4,), True),
        ("weight", 1, (2, 4), True),
        ("bias", 1, (2,), True),
        ("weight", 2, (7, 7), True),
        ("bias", 2, (7,), True),
    ]


class Several(nn.Module):
    """Outputs of every form; calls one layer twice."""

    @dataclasses.dataclass
    class Output:
        logits: torch.Tensor
        tokens: torch.Tensor

    class Forms(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(2))

        def forward(self, x):
            return {"a": x * self.scale, "b": (x + 1, [Several.Output(x - 1, torch.arange(3))])}

    def __init__(self):
        super().__init__()
        self.twice = nn.Linear(2, 2)
        self.forms = Several.Forms()

    def forward(self, x):
        out = self.forms(self.twice(self.twice(x)))
        return out["a"].sum() + out["b"][0].sum() + out["b"][1][0].logits.sum()


def test_outputs_of_every_form_and_repeated_calls_make_one_row(tmp_path, read):
    model = Several()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    x = torch.randn(4, 2)
    with torch.no_grad():
        once = model.twice(x)
        twice = model.twice(once)
    with NeuralDbg(model, optimizer, tmp_path) as dbg:
        model(x).backward()
        optimizer.step()
    reader = read(dbg)
    activations = reader.matrix("activations", 0)
    assert_row(activations[0], torch.cat([once, twice]))
    assert_row(activations[1], torch.cat([twice, twice + 1, twice - 1]))
    assert reader.histograms("activations", 0).row(1).sum() == 24
    assert reader.layers().layers[1].output_shapes == ((4, 2), (4, 2), (4, 2), (3,))


def test_accumulated_gradients_are_one_step(tmp_path, read):
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    batches = torch.randn(4, 2, 3)
    with torch.no_grad():
        outputs = [model(batch) for batch in batches[:2]]
    with NeuralDbg(model, optimizer, tmp_path, every=1) as dbg:
        for step in range(2):
            optimizer.zero_grad()
            for batch in batches[2 * step : 2 * step + 2]:
                loss = model(batch).sum()
                loss.backward()
                dbg.record_scalars(loss=loss)
            optimizer.step()
    reader = read(dbg)
    assert reader.steps().tolist() == [0, 1]
    assert_row(reader.matrix("activations", 0)[0], torch.cat(outputs))
    assert_row(reader.matrix("gradients", 0)[0], batches[:2].sum((0, 1)).numpy())
    assert reader.frame(0).scalars["loss"] == pytest.approx(np.mean([output.sum() for output in outputs]), rel=1e-5)


def test_evaluation_within_the_loop_is_left_aside(tmp_path, read):
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    x = torch.randn(2, 3)
    with NeuralDbg(model, optimizer, tmp_path) as dbg:
        with torch.no_grad():
            model(torch.randn(100, 3))
        with torch.inference_mode():
            model(torch.randn(100, 3))
        model(x).sum().backward()
        optimizer.step()
    assert read(dbg).matrix("activations", 0)[0, statistics.COUNT] == 2


def test_frozen_parameters_have_no_gradient_and_no_update(tmp_path, read):
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    model[0].requires_grad_(False)
    optimizer = torch.optim.SGD(model[1].parameters(), 0.1)
    with NeuralDbg(model, optimizer, tmp_path) as dbg:
        model(torch.randn(2, 3)).sum().backward()
        optimizer.step()
    reader = read(dbg)
    for kind in ("gradients", "updates"):
        assert np.isnan(reader.matrix(kind, 0)[:2]).all()
        assert not np.isnan(reader.matrix(kind, 0)[2:]).any()
    assert not np.isnan(reader.matrix("weights", 0)).any()
    assert [layer.trainable for layer in reader.layers().layers] == [False, True]


def test_shared_parameters_stand_once(tmp_path, read):
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    model[1].weight = model[0].weight
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with NeuralDbg(model, optimizer, tmp_path) as dbg:
        model(torch.randn(2, 3)).sum().backward()
        optimizer.step()
    assert [(p.name, p.layer) for p in read(dbg).layers().parameters] == [("weight", 0)]


def test_not_finite_values_are_counted_and_show_in_the_norm(tmp_path, read):
    model = nn.Linear(3, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with NeuralDbg(model, optimizer, tmp_path) as dbg:
        model(torch.tensor([[1.0, float("inf"), float("nan")]])).sum().backward()
        optimizer.step()
    frame = read(dbg).frame(0)
    row = frame.matrices["gradients"][0]
    assert row[[statistics.NAN, statistics.POSINF, statistics.MAX]].tolist() == [1, 1, 1]
    assert np.isnan(frame.scalars["gradient_norm"])


def test_a_module_with_a_neural_type_is_one_layer(tmp_path, read):
    class Dense(nn.Module):
        neural_type = "Dense"

        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 2)
            self.activation = nn.ReLU()

        def forward(self, x):
            return self.activation(self.linear(x))

    model = nn.Sequential(Dense(), Dense(), nn.Linear(2, 2))
    model[1] = nn.Identity()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    x = torch.randn(2, 3)
    with torch.no_grad():
        expected = model[0](x)
    with NeuralDbg(model, optimizer, tmp_path) as dbg:
        model(x).sum().backward()
        optimizer.step()
    reader = read(dbg)
    table = reader.layers()
    assert [(layer.name, layer.own_name) for layer in table.layers] == [
        ("Dense_1", "0"),
        ("Identity_1", "1"),
        ("Linear_1", "2"),
    ]
    assert [(p.name, p.layer) for p in table.parameters[:2]] == [("linear.weight", 0), ("linear.bias", 0)]
    assert_row(reader.matrix("activations", 0)[0], expected)


class Shares(nn.Module):
    """A softmax whose output carries its logits."""

    neural_type = "Output"

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 4)

    def forward(self, x):
        raw = self.linear(x)
        output = torch.softmax(raw, -1)
        output.logits = raw
        return output


@pytest.mark.parametrize("is_by_logits", [True, False])
def test_a_loss_that_starts_from_the_logits_has_its_gradient_measured_there(tmp_path, read, heard, is_by_logits):
    model = nn.Sequential(Shares())
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    x, y = torch.randn(5, 3), torch.tensor([0, 1, 2, 3, 0])
    shares = torch.softmax(model[0].linear(x), -1).detach().numpy()
    with NeuralDbg(model, optimizer, tmp_path) as dbg:
        output = model(x)
        if is_by_logits:
            nn.functional.cross_entropy(output.logits, y, reduction="sum").backward()
        else:
            output.square().sum().backward()
        optimizer.step()
    reader = read(dbg)
    expected = shares - np.eye(4)[y] if is_by_logits else 2 * shares
    assert_row(reader.matrix("activation_gradients", 0)[0], expected)
    notice = (
        "The activation gradient of 0 is that by the input of its softmax or sigmoid: the loss is computed from there."
    )
    assert heard() == list(reader.info().notices) == ([notice] if is_by_logits else [])


def test_sparse_gradients_are_those_stored(tmp_path, read):
    model = nn.Embedding(10, 2, sparse=True)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with NeuralDbg(model, optimizer, tmp_path) as dbg:
        model(torch.tensor([1, 3, 1])).sum().backward()
        optimizer.step()
    row = read(dbg).matrix("gradients", 0)[0]
    assert row[[statistics.COUNT, statistics.MIN, statistics.MAX]].tolist() == [4, 1, 2]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_models_of_other_float_types(dtype, tmp_path, read):
    model = nn.Linear(3, 2).to(dtype)
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    x = torch.randn(4, 3, dtype=dtype)
    with torch.no_grad():
        out = model(x).double()
        before = model.weight.double().clone()
    with NeuralDbg(model, optimizer, tmp_path) as dbg:
        model(x).sum().backward()
        optimizer.step()
    reader = read(dbg)
    assert_row(reader.matrix("activations", 0)[0], out)
    assert_row(reader.matrix("updates", 0)[0], model.weight.detach().double() - before)
    assert reader.layers().layers[0].dtype == str(dtype).removeprefix("torch.")
