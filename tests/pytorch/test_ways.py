"""The ways in which people train: what is recorded of each is what autograd and numpy compute from the same step."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.amp import GradScaler
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from neural.session import statistics
from neural.session.frame import PHASES
from neural.session.statistics import reference_row
from neural_callbacks import NeuralDbg


def assert_row(row, values, rtol=1e-5):
    np.testing.assert_allclose(row, reference_row(np.asarray(values.detach())), rtol=rtol, atol=1e-6)


class Gan(nn.Module):
    """What a test needs of an adversarial training: two networks, and what each step of either does."""

    def __init__(self):
        super().__init__()
        self.generator = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3))
        self.critic = nn.Sequential(nn.Linear(3, 8), nn.LeakyReLU(), nn.Linear(8, 1))

    def losses(self, noise, real):
        fake = self.generator(noise)
        return lambda: self.critic(fake.detach()).mean() - self.critic(real).mean(), lambda: -self.critic(fake).mean()


@pytest.mark.parametrize("form", [lambda gan: [gan.generator, gan.critic], lambda gan: dict(gan.named_children())])
def test_a_gan_has_the_gradients_and_the_loss_of_each_optimizer(form, tmp_path, read):
    torch.manual_seed(0)
    gan = Gan()
    optimizers = [torch.optim.SGD(gan.critic.parameters(), 0.1), torch.optim.SGD(gan.generator.parameters(), 0.1)]
    expected = []
    with NeuralDbg(form(gan), optimizers, tmp_path, every=1) as watch:
        for _ in range(3):
            noise, real = torch.randn(5, 2), torch.randn(5, 3)
            gradients, losses = {}, []
            for optimizer, loss_of in zip(optimizers, gan.losses(noise, real), strict=True):
                gan.zero_grad()
                loss = loss_of()
                loss.backward()
                losses.append(loss.item())
                own = {p for group in optimizer.param_groups for p in group["params"]}
                gradients |= {name: p.grad.clone() for name, p in gan.named_parameters() if p in own}
                optimizer.step()
            expected.append((gradients, losses))
    reader = read(watch)
    table = reader.layers()
    assert reader.steps().tolist() == [0, 1, 2]
    prefix = {"0": "generator", "1": "critic"}
    for step, (gradients, losses) in enumerate(expected):
        frame = reader.frame(step)
        assert [frame.scalars["loss_1"], frame.scalars["loss_2"]] == pytest.approx(losses)
        for row, parameter in enumerate(table.parameters):
            first, rest = table.layers[parameter.layer].own_name.split(".", 1)
            name = f"{prefix.get(first, first)}.{rest}.{parameter.name}"
            assert_row(frame.matrices["gradients"][row], gradients[name])


def test_several_steps_of_one_optimizer_within_a_step_have_the_whole_change(tmp_path, read):
    critic, generator = nn.Linear(3, 1), nn.Linear(2, 3)
    first, last = (torch.optim.SGD(network.parameters(), 0.1) for network in (critic, generator))
    with NeuralDbg([critic, generator], [first, last], tmp_path, every=1) as watch:
        before = critic.weight.detach().clone()
        for _ in range(3):
            first.zero_grad()
            critic(generator(torch.randn(4, 2)).detach()).sum().backward()
            first.step()
        last.zero_grad()
        critic(generator(torch.randn(4, 2))).sum().backward()
        last.step()
    row = [parameter.shape for parameter in read(watch).layers().parameters].index((1, 3))
    assert_row(read(watch).matrix("weights", 0)[row], before)
    assert_row(read(watch).matrix("updates", 0)[row], critic.weight - before, rtol=1e-4)


def test_of_a_closure_that_runs_several_times_the_first_loss_counts(tmp_path, read):
    model = nn.Linear(3, 1)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=5)
    x, losses, before = torch.randn(8, 3), [], model.weight.detach().clone()

    def closure():
        optimizer.zero_grad()
        loss = (model(x) - 1).square().mean()
        loss.backward()
        losses.append(loss.item())
        return loss

    with NeuralDbg(model, optimizer, tmp_path, every=1) as watch:
        optimizer.step(closure)
    assert len(losses) > 1
    frame = read(watch).frame(0)
    assert frame.scalars["loss"] == pytest.approx(losses[0])
    assert_row(frame.matrices["weights"][0], before)
    assert_row(frame.matrices["updates"][0], model.weight - before, rtol=1e-4)
    change, was = (np.sqrt(np.sum(frame.matrices[kind][:, statistics.L2] ** 2)) for kind in ("updates", "weights"))
    assert frame.scalars["update_ratio"] == pytest.approx(change / was)


def test_evaluation_with_gradients_is_not_mixed_in(tmp_path, read):
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
    model[0].requires_grad_(False)
    optimizer = torch.optim.SGD(model[1].parameters(), 0.1)
    x = torch.randn(5, 3)
    with NeuralDbg(model, optimizer, tmp_path, every=1) as watch:
        model(torch.randn(100, 3) * 50)  # nobody goes back from here
        loss = model(x).sum()
        loss.backward()
        optimizer.step()
        model(torch.randn(100, 3) * 50)
    activations = read(watch).matrix("activations", 0)
    assert activations[:, statistics.COUNT].tolist() == [15, 5]
    assert read(watch).frame(0).scalars["loss"] == pytest.approx(loss.item())


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpointed_layer_counts_once(reentrant, tmp_path, read):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.inner, self.last = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 1)

        def forward(self, x):
            return self.last(checkpoint(self.inner, self.first(x), use_reentrant=reentrant))

    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    x = torch.randn(5, 3)
    hidden = model.first(x).detach().requires_grad_()
    inner = model.inner(hidden)
    inner.retain_grad()
    model.last(inner).sum().backward()
    model.zero_grad()
    with NeuralDbg(model, optimizer, tmp_path, every=1) as watch:
        model(x).sum().backward()
        optimizer.step()
    reader = read(watch)
    row = [layer.own_name for layer in reader.layers().layers].index("inner")
    assert_row(reader.matrix("activations", 0)[row], inner)
    assert_row(reader.matrix("activation_gradients", 0)[row], inner.grad)


def test_a_scaler_s_scale_does_not_show(tmp_path, read):
    def train(scaler, folder):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        with NeuralDbg(model, optimizer, tmp_path / folder, every=1) as watch:
            for _ in range(2):
                optimizer.zero_grad()
                loss = model(torch.randn(5, 3)).square().mean()
                if scaler is None:
                    loss.backward()
                    optimizer.step()
                else:
                    scaler.scale(loss).backward()
                    scaler.step(optimizer)
                    scaler.update()
        return read(watch).frame(1)

    plain, scaled = train(None, "plain"), train(GradScaler("cpu", init_scale=1024.0), "scaled")
    assert scaled.scalars["loss"] == pytest.approx(plain.scalars["loss"])
    for kind, matrix in plain.matrices.items():
        np.testing.assert_allclose(scaled.matrices[kind], matrix, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_neither_overflows_nor_vanishes_in_the_statistics(dtype, tmp_path, read):
    model = nn.Linear(512, 8, bias=False).to(dtype)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    x = torch.full((64, 512), 100.0, dtype=dtype)
    with NeuralDbg(model, optimizer, tmp_path, every=1) as watch:
        model(x).float().sum().backward()
        gradient = model.weight.grad.float().clone()
        optimizer.step()
    assert_row(read(watch).matrix("gradients", 0)[0], gradient, rtol=1e-4)  # 6400 each: its square is beyond float16


def test_parameters_unfrozen_later_and_a_model_of_another_type_later(tmp_path, read):
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
    model[0].requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with NeuralDbg(model, optimizer, tmp_path, every=1) as watch:
        for step in range(3):
            if step == 1:
                model[0].requires_grad_()
            if step == 2:
                model.double()
            optimizer.zero_grad()
            model(torch.randn(4, 3, dtype=model[0].weight.dtype)).sum().backward()
            gradient = model[1].weight.grad.clone()
            optimizer.step()
    reader = read(watch)
    measured = [~np.isnan(reader.matrix("gradients", step)[:, 0]) for step in range(3)]
    assert [seen.tolist() for seen in measured] == [[False, False, True, True], [True] * 4, [True] * 4]
    assert_row(reader.matrix("gradients", 2)[2], gradient)
    assert reader.layers().parameters[0].dtype == "float64"


@pytest.mark.parametrize("where", ["forward", "backward", "between"])
def test_an_exception_takes_all_hooks_off_and_leaves_what_was_recorded(where, tmp_path, read):
    class Breaks(nn.Module):
        now = False

        def forward(self, x):
            if self.now and where == "forward":
                raise RuntimeError("broken")
            if self.now and where == "backward":
                x.register_hook(lambda _: 1 / 0)
            return x * 1

    model = nn.Sequential(nn.Linear(3, 3), Breaks(), nn.Linear(3, 1))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    watch = NeuralDbg(model, optimizer, tmp_path, every=1)

    def loop():
        with watch:
            for step in range(5):
                model[1].now = step == 3
                optimizer.zero_grad()
                loss = model(torch.randn(4, 3)).sum()
                loss.backward()
                if step == 3:
                    raise RuntimeError("between")
                optimizer.step()

    backward, scale = torch.autograd.backward, GradScaler.scale
    with pytest.raises((RuntimeError, ZeroDivisionError)):
        loop()
    assert read(watch).steps().tolist() == [0, 1, 2]
    assert read(watch).info().status == "failed"
    assert torch.autograd.backward is backward
    assert GradScaler.scale is scale


def test_observers_that_close_in_any_order_put_the_patched_calls_back(tmp_path):
    original = torch.autograd.backward
    model = nn.Linear(1, 1)
    first, second = (NeuralDbg(model, None, tmp_path / name).attach() for name in ("first", "second"))
    assert torch.autograd.backward is not original
    first.close()
    assert torch.autograd.backward is not original
    second.close()
    assert torch.autograd.backward is original


def test_two_threads_train_two_models(tmp_path, read):
    watches, expected = {}, {}

    def train(number):
        model = nn.Linear(3, 1)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        draw = torch.Generator().manual_seed(number)
        with NeuralDbg(model, optimizer, tmp_path / str(number), every=1) as watch:
            for step in range(20):
                x = torch.randn(4, 3, generator=draw)
                optimizer.zero_grad()
                loss = model(x).square().sum()
                loss.backward()
                expected[number, step] = (model.weight.grad.clone(), loss.item())
                optimizer.step()
        watches[number] = watch

    threads = [threading.Thread(target=train, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for (number, step), (gradient, loss) in expected.items():
        frame = read(watches[number]).frame(step)
        assert_row(frame.matrices["gradients"][0], gradient)
        assert frame.scalars["loss"] == pytest.approx(loss)
        assert frame.matrices["activations"][0, statistics.COUNT] == 4


def test_silent_units_and_saturation_are_those_of_the_outputs(tmp_path, read):
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.Tanh(), nn.Conv1d(1, 3, 1), nn.ReLU())
    with torch.no_grad():
        model[0].bias[[1, 4]] = -100.0  # two units that never fire
        model[2].weight *= 10
        model[4].bias[2] = -100.0
    call = lambda x: model[5](model[4](model[3](model[2](model[1](model[0](x)))).unsqueeze(1)))  # noqa: E731
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    x = torch.randn(40, 4)
    hidden, out = torch.tanh(model[2](model[1](model[0](x)))), call(x)
    with NeuralDbg(model, optimizer, tmp_path, every=1) as watch:
        call(x).sum().backward()
        optimizer.step()
    frame = read(watch).frame(0)
    own = [layer.own_name for layer in read(watch).layers().layers]
    activity = frame.profiles["activity"]
    assert activity[own.index("1"), :2].tolist() == [6, 2]
    silent = frame.profiles["silent_units"]
    assert silent[silent[:, 0] == own.index("1"), 1].tolist() == [1, 4]
    expected = [unit for unit in range(3) if (out[:, unit] <= 0).all()]
    assert silent[silent[:, 0] == own.index("5"), 1].tolist() == expected
    saturated = int((hidden.abs() > 0.95).sum())
    assert saturated > 0
    assert activity[own.index("3"), 2:].tolist() == [200, saturated]


def test_flops_bytes_and_spans_of_a_step(tmp_path, read):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10))
    optimizer = torch.optim.Adam(model.parameters())
    x, y = torch.randn(4, 3, 8, 8), torch.randint(10, (4,))
    with FlopCounterMode(display=False) as counter:
        functional.cross_entropy(model(x), y).backward()
    optimizer.zero_grad()
    with NeuralDbg(model, optimizer, tmp_path, every=1) as watch:
        for _ in range(11):
            optimizer.zero_grad()
            functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    reader = read(watch)
    assert reader.profile_steps("trace").tolist() == [0, 10]
    profiles = reader.frame(10).profiles
    assert np.nansum(profiles["flops"]) == counter.get_total_flops()
    outputs = [4 * 8 * 36 * 4, 4 * 8 * 36 * 4, 0, 4 * 10 * 4]
    sizes = [sum(p.nbytes for p in module.parameters()) for module in model]
    assert profiles["memory"][:, 0].tolist() == outputs
    assert profiles["memory"][:, 1].tolist() == sizes
    assert profiles["memory"][:, 2].tolist() == sizes
    state = [
        sum(value.nbytes for p in module.parameters() for value in optimizer.state[p].values()) for module in model
    ]
    assert profiles["memory"][:, 3].tolist() == state
    layer, phase, start, duration = profiles["trace"][:, :4].T
    assert [PHASES[int(p)] for p in phase[layer < 0]] == ["step", "forward", "backward", "optimizer"]
    ends = start + duration
    whole = {int(p): (s, e) for p, s, e in zip(phase[layer < 0], start[layer < 0], ends[layer < 0], strict=True)}
    for p, s, e in zip(phase[layer >= 0], start[layer >= 0], ends[layer >= 0], strict=True):
        assert whole[int(p)][0] <= s <= e <= whole[int(p)][1] + 1e-9
    assert layer[(layer >= 0) & (phase == 0)].tolist() == [0, 1, 2, 3]
    assert layer[(layer >= 0) & (phase == 1)].tolist() == [3, 2, 1, 0]
    assert profiles["timing"][:, 0].tolist() == [1, 1, 1, 1]


def test_the_cost_of_watching_and_the_newest_frames_are_at_hand(tmp_path, read):
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with NeuralDbg(model, optimizer, tmp_path) as watch:
        for _ in range(400):
            optimizer.zero_grad()
            model(torch.randn(4, 3)).sum().backward()
            optimizer.step()
    reader = read(watch)
    steps = reader.steps().tolist()
    assert steps[:5] == [0, 1, 2, 3, 4]
    assert len(steps) < 400
    assert reader.info().overhead_budget == 0.02
    assert reader.info().every is None
    assert [frame.step for frame in watch.recent_frames] == steps
    if len(steps) > 5:
        assert reader.frame(steps[-1]).scalars["overhead"] > 0


def test_named_steps_alone_are_sampled_and_with_histograms(tmp_path, read):
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with NeuralDbg(model, optimizer, tmp_path, steps=[2, 5]) as watch:
        for _ in range(8):
            model(torch.randn(4, 3)).sum().backward()
            optimizer.step()
    assert read(watch).steps().tolist() == [2, 5]
    assert read(watch).histogram_steps("weights").tolist() == [2, 5]
