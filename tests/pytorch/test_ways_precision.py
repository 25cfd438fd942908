"""Mixed and half precision: what a scaler multiplies is shown unscaled, what it skips is marked, nothing overflows."""

from __future__ import annotations

import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn
from torch.amp import GradScaler
from torch.utils.checkpoint import checkpoint

from neural.session.statistics import COUNT, reference_row
from neural_callbacks import NeuralDbg

SCALE = 1024.0


def assert_row(row, values, rtol=1e-5):
    wide = values.detach().double()
    np.testing.assert_allclose(row, reference_row(wide.numpy()), rtol=rtol, atol=1e-7)


def same(one, other):
    return all(
        torch.equal(a.contiguous().view(-1).view(torch.uint8), b.contiguous().view(-1).view(torch.uint8))
        for a, b in zip(one, other, strict=True)
    )


class Net(nn.Module):
    """Three layers, of which the middle one may be checkpointed."""

    def __init__(self, around=None):
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(3, 8), nn.Sequential(nn.Linear(8, 8), nn.Tanh()), nn.Linear(8, 1)
        self.around = around

    def forward(self, x):
        hidden = self.first(x)
        hidden = self.middle(hidden) if self.around is None else self.around(self.middle, hidden)
        return self.last(hidden)


def directly(scaler, loss, _model, optimizer):
    scaler.scale(loss).backward()
    scaler.step(optimizer)


def unscaled_and_clipped(scaler, loss, model, optimizer):
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_(model.parameters(), 0.01)
    scaler.step(optimizer)


def accumulated(scaler, loss, _model, optimizer):
    (scaler.scale(loss) / 2).backward(retain_graph=True)
    (scaler.scale(loss) / 2).backward()
    scaler.step(optimizer)


def in_a_list(scaler, loss, _model, optimizer):
    for part in scaler.scale([loss]):
        part.backward()
    scaler.step(optimizer)


# A scaler that is not enabled makes of each of them the same without scaling.
WAYS = [directly, unscaled_and_clipped, accumulated, in_a_list]


def train(way, *, scale, watch=lambda *_: nullcontext(), autocast=False, fused=False, around=None, steps=4):
    torch.manual_seed(1)
    model = Net(around)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, fused=fused)
    scaler = GradScaler("cpu", init_scale=SCALE, growth_interval=2, enabled=scale)
    with watch(model, optimizer):
        for _ in range(steps):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                loss = model(torch.randn(5, 3)).float().square().mean()
            way(scaler, loss, model, optimizer)
            scaler.update()
    return [value.detach() for value in model.parameters()]


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_a_scaled_training_shows_what_an_unscaled_one_does(way, autocast, fused, tmp_path, read):
    frames, ends = {}, {}
    for scale in (False, True):
        watches = []

        def watch(model, optimizer, scale=scale, watches=watches):
            watches.append(NeuralDbg(model, optimizer, tmp_path / str(scale), every=1))
            return watches[-1]

        plain = train(way, scale=scale, autocast=autocast, fused=fused)
        ends[scale] = train(way, scale=scale, watch=watch, autocast=autocast, fused=fused)
        assert same(plain, ends[scale])
        assert read(watches[0]).steps().tolist() == [0, 1, 2, 3]
        frames[scale] = [read(watches[0]).frame(step) for step in range(4)]
    # The scales are powers of two, and nothing here leaves float32: what differs is rounding.
    for plain, scaled in zip(frames[False], frames[True], strict=True):
        assert set(scaled.matrices) == set(plain.matrices)
        for kind, matrix in plain.matrices.items():
            np.testing.assert_allclose(scaled.matrices[kind], matrix, rtol=1e-3, atol=1e-6, err_msg=kind)
        assert scaled.scalars["loss"] == pytest.approx(plain.scalars["loss"], rel=1e-5)
        assert scaled.scalars["gradient_norm"] == pytest.approx(plain.scalars["gradient_norm"], rel=1e-5)
        assert scaled.anomalies == plain.anomalies == ()
    assert (frames[True][0].scalars["gradient_norm"] < 0.0101) == (way is unscaled_and_clipped)


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpoint_within_a_scaled_backward_changes_nothing(reentrant, tmp_path, read):
    def around(part, hidden):
        return checkpoint(part, hidden, use_reentrant=reentrant)

    frames = []
    for number, wrap in enumerate((None, around)):
        watches = []

        def watch(model, optimizer, number=number, watches=watches):
            watches.append(NeuralDbg(model, optimizer, tmp_path / str(number), every=1))
            return watches[-1]

        plain = train(directly, scale=True, around=wrap)
        assert same(plain, train(directly, scale=True, around=wrap, watch=watch))
        reader = read(watches[0])
        rows = {layer.own_name: row for row, layer in enumerate(reader.layers().layers)}
        frames.append((reader.frame(1), [rows[name] for name in ("first", "middle.0", "middle.1", "last")]))
    (plain, order), (wrapped, other) = frames
    for kind in ("activations", "activation_gradients"):
        np.testing.assert_allclose(wrapped.matrices[kind][other], plain.matrices[kind][order], rtol=1e-6)
    assert wrapped.scalars["loss"] == plain.scalars["loss"]


@pytest.mark.parametrize("fused", [False, True])
def test_a_skipped_step_counts_and_is_marked_whether_it_is_sampled_or_not(fused, tmp_path, read):
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, fused=fused)
    scaler = GradScaler("cpu", init_scale=SCALE)
    overflows = (1, 2, 5)
    gradients = {}
    with NeuralDbg(model, optimizer, tmp_path, steps=[0, 1, 3, 6]) as watch:
        for step in range(7):
            optimizer.zero_grad()
            scaled = scaler.scale(model(torch.randn(4, 3)).sum())
            if step in overflows:
                scaled.register_hook(lambda gradient: gradient * math.inf)
            scale = scaler.get_scale()
            scaled.backward()
            gradients[step] = model.weight.grad / scale
            before = model.weight.detach().clone()
            scaler.step(optimizer)
            scaler.update()
            assert torch.equal(before, model.weight) == (step in overflows)
    reader = read(watch)
    assert reader.steps().tolist() == [0, 1, 3, 6]
    assert reader.scalar_steps("skipped").tolist() == list(overflows)
    assert reader.steps("updates").tolist() == [0, 3, 6]
    # A scaler tries large scales until gradients overflow: that is how it works, and nothing went wrong.
    assert reader.anomalies() == {}
    for step in (0, 3, 6):
        assert_row(reader.matrix("gradients", step)[0], gradients[step])
    assert reader.matrix("gradients", 1)[0, COUNT] == 3
    assert math.isnan(reader.frame(1).scalars["gradient_norm"]) or math.isinf(reader.frame(1).scalars["gradient_norm"])


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("skipped", [0, 1])
def test_of_two_optimizers_one_may_be_skipped(skipped, fused, tmp_path, read):
    models = [nn.Linear(3, 1), nn.Linear(3, 1)]
    optimizers = [torch.optim.SGD(model.parameters(), 0.1, fused=fused) for model in models]
    scaler = GradScaler("cpu", init_scale=SCALE)
    x = torch.randn(4, 3)
    with NeuralDbg(models, optimizers, tmp_path, every=1) as watch:
        for step in range(2):
            for optimizer in optimizers:
                optimizer.zero_grad()
            losses = [model(x).square().sum() for model in models]
            for number, loss in enumerate(losses):
                scaled = scaler.scale(loss)
                if step == 1 and number == skipped:
                    scaled.register_hook(lambda gradient: gradient * math.inf)
                scaled.backward()
            gradients = [model.weight.grad / scaler.get_scale() for model in models]
            before = [model.weight.detach().clone() for model in models]
            for optimizer in optimizers:
                scaler.step(optimizer)
            scaler.update()
    reader = read(watch)
    assert reader.steps().tolist() == [0, 1]
    assert reader.scalar_steps("skipped").tolist() == [1]
    frame, stepped = reader.frame(1), 1 - skipped
    assert_row(frame.matrices["gradients"][2 * stepped], gradients[stepped])
    assert_row(frame.matrices["updates"][2 * stepped], models[stepped].weight - before[stepped], rtol=1e-4)
    assert np.isnan(frame.matrices["updates"][2 * skipped]).all()
    assert [frame.scalars["loss_1"], frame.scalars["loss_2"]] == pytest.approx([loss.item() for loss in losses])


def test_a_loss_that_is_not_finite_is_found_although_the_scaler_skips_the_step(tmp_path, read):
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scaler = GradScaler("cpu", init_scale=SCALE)
    with NeuralDbg(model, optimizer, tmp_path, steps=[0]) as watch:
        for step in range(4):
            optimizer.zero_grad()
            output = model(torch.full((2, 3), math.inf if step == 2 else 1.0))
            scaler.scale(output.sum()).backward()
            scaler.step(optimizer)
            scaler.update()
    reader = read(watch)
    assert list(reader.anomalies()) == [2]
    assert [one.place for one in reader.anomalies()[2]] == ["forward", "loss"]
    assert reader.scalar_steps("skipped").tolist() == [2]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_in_half_precision_is_measured_in_full(dtype, tmp_path, read):
    def train(watch):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1)).to(dtype)
        optimizer = torch.optim.AdamW(model.parameters(), 0.01)
        seen = []
        with watch(model, optimizer):
            for _ in range(3):
                optimizer.zero_grad()
                x = torch.randn(8, 64).to(dtype) * 100
                outputs = []
                for layer in model:
                    outputs.append(layer(outputs[-1] if outputs else x))
                    outputs[-1].retain_grad()
                outputs[-1].float().square().mean().backward()
                before = [parameter.detach().clone() for parameter in model.parameters()]
                gradients = [parameter.grad.clone() for parameter in model.parameters()]
                optimizer.step()
                updates = [p.detach().double() - b.double() for p, b in zip(model.parameters(), before, strict=True)]
                backwards = [output.grad for output in outputs]
                seen.append((outputs, backwards, before, gradients, updates))
        return model, seen

    watches = []

    def watched(model, optimizer):
        watches.append(NeuralDbg(model, optimizer, tmp_path, every=1))
        return watches[-1]

    plain, _ = train(lambda *_: nullcontext())
    model, seen = train(watched)
    assert same([*plain.parameters()], [*model.parameters()])
    reader = read(watches[0])
    kinds = ("activations", "activation_gradients", "weights", "gradients", "updates")
    for step, of_step in enumerate(seen):
        for kind, tensors in zip(kinds, of_step, strict=True):
            for row, values in zip(reader.matrix(kind, step), tensors, strict=True):
                assert_row(row, values, rtol=1e-4)
    name = str(dtype).removeprefix("torch.")
    assert {layer.dtype for layer in reader.layers().layers} == {name}
    assert {parameter.dtype for parameter in reader.layers().parameters} == {name}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_what_overflows_in_half_precision_is_found_at_its_step(dtype, tmp_path, read):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1)).to(dtype)
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    with NeuralDbg(model, optimizer, tmp_path, steps=[0]) as watch:
        for step in range(4):
            optimizer.zero_grad()
            x = torch.ones(2, 4, dtype=dtype)
            if step == 2:
                x *= torch.finfo(dtype).max
                with torch.no_grad():
                    model[0].weight.fill_(1)
            model(x).float().sum().backward()
            optimizer.step()
            with torch.no_grad():
                model[0].weight.fill_(0.5)
    found = read(watch).anomalies()
    assert list(found) == [2]
    assert (found[2][0].place, found[2][0].layer, found[2][0].posinf) == ("forward", 0, 8)
