"""Training loops of all kinds: what is recorded is what autograd and numpy compute from the same step."""

from __future__ import annotations

import math
import threading
from contextlib import nullcontext, suppress

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules import module as module_hooks
from torch.optim import optimizer as optimizer_hooks

from neural.session.frame import FORWARD
from neural.session.statistics import COUNT, reference_row
from neural_callbacks import NeuralDbg
from neural_callbacks.pytorch import calls


def assert_row(row, values, rtol=1e-5):
    np.testing.assert_allclose(row, reference_row(np.asarray(values.detach())), rtol=rtol, atol=1e-7)


def assert_rows(rows, tensors, rtol=1e-5):
    for row, values in zip(rows, tensors, strict=True):
        assert_row(row, values, rtol)


def same(one, other):
    """Whether two trainings ended the same, to the last bit."""
    return len(one) == len(other) and all(
        torch.equal(a.contiguous().view(-1).view(torch.uint8), b.contiguous().view(-1).view(torch.uint8))
        for a, b in zip(one, other, strict=True)
    )


def global_hooks():
    """Everything that hangs in torch's global lists."""
    lists = [
        value
        for module in (module_hooks, optimizer_hooks)
        for name, value in vars(module).items()
        if name.startswith("_global_")
    ]
    return sum(len(item) for item in lists if item)


def mlp():
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


class Gan:
    """A generator and a critic, an optimizer for each, and what the loops below have in common."""

    def __init__(self):
        torch.manual_seed(1)
        self.generator = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3))
        self.critic = nn.Sequential(nn.Linear(3, 8), nn.LeakyReLU(), nn.Linear(8, 1))
        self.for_generator = torch.optim.Adam(self.generator.parameters(), 0.01)
        self.for_critic = torch.optim.SGD(self.critic.parameters(), 0.1)

    def critic_loss(self):
        fake = self.generator(torch.randn(5, 2)).detach()
        return self.critic(fake).mean() - self.critic(torch.randn(5, 3)).mean()

    def generator_loss(self):
        return -self.critic(self.generator(torch.randn(5, 2))).mean()

    def optimizers(self):
        return [self.for_critic, self.for_generator]

    def state(self):
        return [value for network in (self.generator, self.critic) for value in network.state_dict().values()]


@pytest.mark.parametrize("times", [1, 3])
def test_a_critic_that_steps_several_times_has_its_first_gradients_the_mean_of_its_losses_and_its_whole_change(
    times, tmp_path, read
):
    def train(watch):
        gan, seen = Gan(), []
        with watch(gan):
            for _ in range(3):
                before = gan.critic[0].weight.detach().clone()
                losses, first = [], None
                for _ in range(times):
                    gan.for_critic.zero_grad()
                    loss = gan.critic_loss()
                    loss.backward()
                    losses.append(loss.item())
                    first = gan.critic[0].weight.grad.clone() if first is None else first
                    gan.for_critic.step()
                gan.for_generator.zero_grad()
                loss = gan.generator_loss()
                loss.backward()
                own = gan.generator[0].weight
                step = (before, first, gan.critic[0].weight - before, own.detach().clone(), own.grad.clone())
                gan.for_generator.step()
                seen.append((*(value.detach() for value in step), np.mean(losses), loss.item()))
        return gan, seen

    watches = []

    def watched(gan):
        networks = {"generator": gan.generator, "critic": gan.critic}
        watches.append(NeuralDbg(networks, gan.optimizers(), tmp_path, every=1))
        return watches[-1]

    plain, _ = train(lambda _: nullcontext())
    gan, seen = train(watched)
    assert same(plain.state(), gan.state())
    reader = read(watches[0])
    assert reader.info().model == "Sequential+Sequential"
    table = reader.layers()
    rows = {
        (table.layers[parameter.layer].own_name, parameter.name): row for row, parameter in enumerate(table.parameters)
    }
    of_critic, of_generator = rows["critic.0", "weight"], rows["generator.0", "weight"]
    for step, (before, first, change, own, gradient, critic_loss, generator_loss) in enumerate(seen):
        frame = reader.frame(step)
        assert_row(frame.matrices["weights"][of_critic], before)
        assert_row(frame.matrices["gradients"][of_critic], first)
        assert_row(frame.matrices["updates"][of_critic], change, 1e-3)
        assert_row(frame.matrices["weights"][of_generator], own)
        assert_row(frame.matrices["gradients"][of_generator], gradient)
        assert not np.isnan(frame.matrices["updates"][of_generator]).any()
        assert frame.scalars["loss_1"] == pytest.approx(critic_loss, rel=1e-5)
        assert frame.scalars["loss_2"] == pytest.approx(generator_loss, rel=1e-5)
        assert "loss" not in frame.scalars
        # Both passes of each critic's step, and the generator's one through it, of five values each; a generator's
        # output that nobody went back from does not count.
        layer = {layer.own_name: number for number, layer in enumerate(table.layers)}
        assert frame.matrices["activations"][layer["critic.2"], COUNT] == (2 * times + 1) * 5
        assert frame.matrices["activations"][layer["generator.2"], COUNT] == 15


def test_losses_that_all_go_back_before_any_optimizer_steps_count_for_those_that_they_reach(tmp_path, read):
    first, second = mlp(), mlp()
    optimizers = [torch.optim.SGD(model.parameters(), 0.1) for model in (first, second)]
    with NeuralDbg([first, second], optimizers, tmp_path, every=1) as watch:
        for _ in range(2):
            losses = [model(torch.randn(5, 3)).square().sum() for model in (first, second)]
            for loss in losses:
                loss.backward()
            for optimizer in optimizers:
                optimizer.step()
    scalars = read(watch).frame(1).scalars
    assert [scalars["loss_1"], scalars["loss_2"]] == pytest.approx([loss.item() for loss in losses])


def test_models_that_are_watched_apart_and_train_in_turn_have_their_own_losses(tmp_path, read):
    teacher, student = mlp(), mlp()
    watches, optimizers = {}, {}
    for name, model in (("teacher", teacher), ("student", student)):
        optimizers[name] = torch.optim.SGD(model.parameters(), 0.01)
        watches[name] = NeuralDbg(model, optimizers[name], tmp_path / name, steps=[0, 1]).attach()
    losses = {"teacher": [], "student": []}
    for step in range(4):
        x = torch.randn(5, 3)
        known, guess = teacher(x), student(x)
        both = {"teacher": known.square().sum(), "student": (guess - known.detach()).square().sum() + 100}
        for name, loss in both.items():
            if step == 3 and name == "teacher":
                loss = loss * math.nan  # noqa: PLW2901 - the last step of one goes wrong, which is not the other's affair
            loss.backward()
            losses[name].append(loss.item())
        for optimizer in optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
    for watch in watches.values():
        watch.close()
    for name, expected in losses.items():
        found = [read(watches[name]).frame(step).scalars["loss"] for step in (0, 1)]
        assert found == pytest.approx(expected[:2])
    assert read(watches["teacher"]).anomalies()[3][0].place == "loss"
    assert read(watches["student"]).anomalies() == {}


def test_a_loss_that_is_recorded_counts_in_place_of_that_which_goes_back(tmp_path, read):
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    x = torch.randn(4, 3)
    with NeuralDbg(model, optimizer, tmp_path, every=1) as watch:
        for _ in range(2):  # once before, once after it has gone back
            optimizer.zero_grad()
            watch.record_scalars(loss=3.0)
            (model(x).sum() / 2).backward()
            watch.record_scalars(loss=4.0, accuracy=0.5)
            optimizer.step()
        sums = [model(part).sum() for part in (x[:1], x[1:])]
        for part in sums:
            part.backward()
        optimizer.step()
    reader = read(watch)
    assert [reader.frame(step).scalars["loss"] for step in (0, 1)] == [3.5, 3.5]
    assert reader.frame(1).scalars["accuracy"] == 0.5
    assert reader.frame(2).scalars["loss"] == pytest.approx(np.mean([part.item() for part in sums]))


@pytest.mark.parametrize("name", ["loss", "loss_1"])
def test_of_several_optimizers_too_what_is_recorded_counts(name, tmp_path, read):
    gan = Gan()
    with NeuralDbg([gan.critic, gan.generator], gan.optimizers(), tmp_path, every=1) as watch:
        watch.record_scalars(**{name: 7.0})
        gan.critic_loss().backward()
        gan.for_critic.step()
        loss = gan.generator_loss()
        loss.backward()
        gan.for_generator.step()
    scalars = read(watch).frame(0).scalars
    found = {name: value for name, value in scalars.items() if name.startswith("loss")}
    assert found == pytest.approx({"loss": 7.0} if name == "loss" else {"loss_1": 7.0, "loss_2": loss.item()})


@pytest.mark.parametrize("with_gradients", [False, True])
def test_evaluation_is_not_mixed_into_any_statistic(with_gradients, tmp_path, read):
    model = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 4), nn.Sigmoid(), nn.Linear(4, 1))
    with torch.no_grad():
        model[0].bias[:3] = -5.0  # so that these units do not fire in training, but in evaluation
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    x, far = torch.randn(5, 3), torch.randn(200, 3) * 100

    def evaluate():
        model.eval()
        with nullcontext() if with_gradients else torch.no_grad():
            model(far)
        model.train()

    def train(watch):
        with watch:
            for _ in range(2):
                evaluate()
                optimizer.zero_grad()
                model(x).sum().backward()
                evaluate()
                optimizer.step()
            evaluate()

    alone = NeuralDbg(model, optimizer, tmp_path / "alone", every=1)
    with alone:
        model(x).sum().backward()
        optimizer.step()
    mixed = NeuralDbg(model, optimizer, tmp_path / "mixed", every=1)
    train(mixed)
    expected, frames = read(alone).frame(0), [read(mixed).frame(step) for step in (0, 1)]
    assert expected.profiles["silent_units"][:, 1].tolist() == [0, 1, 2]
    for frame in frames:
        for kind, matrix in expected.matrices.items():
            np.testing.assert_array_equal(frame.matrices[kind], matrix, err_msg=kind)
        for kind in ("activity", "silent_units"):
            np.testing.assert_array_equal(frame.profiles[kind], expected.profiles[kind])
        assert frame.scalars["loss"] == expected.scalars["loss"]
    assert expected.histograms["activations"].row(0).sum() == 30
    assert frames[0].histograms["activations"].row(0).sum() == 30


def test_evaluation_without_gradients_takes_no_part_in_times_memory_and_flops(tmp_path, read):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with NeuralDbg(model, optimizer, tmp_path) as watch:
        with torch.no_grad():
            model(torch.randn(100, 3))
            model[0](torch.randn(100, 3))
        model(torch.randn(5, 3)).sum().backward()
        with torch.inference_mode():
            model(torch.randn(100, 3))
        optimizer.step()
    profiles = read(watch).frame(0).profiles
    assert profiles["timing"][:, 0].tolist() == [1, 1, 1]
    assert profiles["memory"][:, 0].tolist() == [80, 80, 20]
    assert profiles["flops"][:, 0].tolist() == [2 * 5 * 3 * 4, 0, 2 * 5 * 4]
    assert np.count_nonzero(profiles["trace"][:, 1] == FORWARD) == 4  # the model and its layers


def test_what_autograd_grad_computes_on_its_way_is_no_gradient_of_the_loss(tmp_path, read):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    x = torch.randn(5, 3, requires_grad=True)

    def penalty():
        (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        return (slope.norm(dim=1) - 1).square().mean()

    expected = []
    out = model(x)
    out.retain_grad()
    (out.square().mean() + penalty()).backward()
    expected.append(out.grad)
    model.zero_grad()
    with NeuralDbg(model, optimizer, tmp_path, every=1) as watch:
        torch.autograd.grad(model(torch.randn(50, 3)).sum() * 1000, model[0].weight)  # as one looks at a model
        (model(x).square().mean() + penalty()).backward()
        optimizer.step()
    frame = read(watch).frame(0)
    # The model ran for the loss and for the penalty, which does not depend on the last layer's outputs.
    assert frame.matrices["activations"][:, COUNT].tolist() == [40, 40, 10]
    assert frame.matrices["activation_gradients"][2, COUNT] == 5
    assert_row(frame.matrices["activation_gradients"][2], expected[0])


def test_a_backward_for_some_inputs_alone_is_training(tmp_path, read):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with NeuralDbg(model, optimizer, tmp_path, every=1) as watch:
        loss = model(torch.randn(5, 3)).sum()
        loss.backward(inputs=list(model.parameters()))
        optimizer.step()
    frame = read(watch).frame(0)
    assert frame.matrices["activation_gradients"][:, COUNT].tolist() == [20, 20, 5]
    assert_row(frame.matrices["activation_gradients"][2], torch.ones(5))
    assert frame.scalars["loss"] == pytest.approx(loss.item())


@pytest.mark.parametrize("kind", ["sgd", "adam", "lbfgs"])
def test_the_update_ratio_is_measured_from_the_weights_before_and_after(kind, tmp_path, read):
    model = mlp()
    optimizer = {
        "sgd": lambda: torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.1),
        "adam": lambda: torch.optim.Adam(model.parameters(), 0.05),
        "lbfgs": lambda: torch.optim.LBFGS(model.parameters(), max_iter=4, line_search_fn="strong_wolfe"),
    }[kind]()
    x, y = torch.randn(16, 3), torch.randn(16, 1)
    evaluations = []

    def closure():
        optimizer.zero_grad()
        loss = functional.mse_loss(model(x), y)
        loss.backward()
        gradients = [parameter.grad.clone() for parameter in model.parameters()]
        evaluations[-1].append((loss.item(), gradients))
        return loss

    weights = [[parameter.detach().clone() for parameter in model.parameters()]]
    with NeuralDbg(model, optimizer, tmp_path, every=1) as watch:
        for _ in range(3):
            evaluations.append([])
            if kind == "lbfgs":
                optimizer.step(closure)
            else:
                closure()
                optimizer.step()
            weights.append([parameter.detach().clone() for parameter in model.parameters()])
    assert (len(evaluations[0]) > 1) == (kind == "lbfgs")
    for step, done in enumerate(evaluations):
        frame = read(watch).frame(step)
        changes = [after.double() - before for after, before in zip(weights[step + 1], weights[step], strict=True)]
        assert_rows(frame.matrices["weights"], weights[step])
        assert_rows(frame.matrices["updates"], changes, 1e-3)
        assert_rows(frame.matrices["gradients"], done[-1][1])
        norms = [torch.cat([value.reshape(-1) for value in of]).norm().item() for of in (changes, weights[step])]
        assert frame.scalars["update_ratio"] == pytest.approx(norms[0] / norms[1], rel=1e-4)
        assert frame.scalars["loss"] == pytest.approx(done[0][0])
        assert frame.matrices["activations"][2, COUNT] == 16 * len(done)


def test_a_closure_beside_another_optimizer_measures_each_parameter_once(tmp_path, read):
    first, second = nn.Linear(3, 1), nn.Linear(3, 1)
    plain, by_closure = torch.optim.SGD(first.parameters(), 0.1), torch.optim.LBFGS(second.parameters(), max_iter=3)
    x, gradients = torch.randn(4, 3), {}

    def closure():
        by_closure.zero_grad()
        loss = second(x).square().sum()
        loss.backward()
        gradients["second"] = second.weight.grad.clone()
        return loss

    with NeuralDbg([first, second], [plain, by_closure], tmp_path, every=1) as watch:
        loss = first(x).sum()
        loss.backward()
        gradients["first"] = first.weight.grad.clone()
        plain.step()
        by_closure.step(closure)
    frame = read(watch).frame(0)
    assert_row(frame.matrices["gradients"][0], gradients["first"])
    assert_row(frame.matrices["gradients"][2], gradients["second"])
    assert frame.scalars["loss_1"] == pytest.approx(loss.item())


def test_a_value_that_is_not_finite_within_a_closure_is_found_at_its_step(tmp_path, read):
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    factors = iter([1.0, 1.0, math.inf, 1.0])

    def closure():
        optimizer.zero_grad()
        loss = (model(torch.ones(2, 3)) * next(factors)).sum()
        loss.backward()
        return loss

    with NeuralDbg(model, optimizer, tmp_path, steps=[0]) as watch:
        for _ in range(4):
            kept = [parameter.detach().clone() for parameter in model.parameters()]
            optimizer.step(closure)
            for parameter, value in zip(model.parameters(), kept, strict=True):
                parameter.data.copy_(value)
    found = read(watch).anomalies()
    assert list(found) == [2]
    assert found[2][0].place == "loss"
    assert "gradients" in read(watch).frame(2).matrices


class Breaks(nn.Module):
    """Hands on its input; or fails, on the way forward or back."""

    where = ""

    def forward(self, x):
        if self.where == "forward":
            raise ArithmeticError("forward")
        y = x * 1
        if self.where == "backward":
            y.register_hook(self._fail)
        return y

    def _fail(self, _gradient):
        raise ArithmeticError("backward")


class Unsteady(torch.optim.SGD):
    """Steps, or fails before it does."""

    fails = False

    @torch.no_grad()
    def step(self, closure=None):
        if self.fails:
            raise ArithmeticError("optimizer")
        return super().step(closure)


@pytest.mark.parametrize("every", [1, 100])
@pytest.mark.parametrize("where", ["loop", "forward", "backward", "optimizer"])
def test_an_error_anywhere_comes_out_as_it_is_and_leaves_nothing_behind(where, every, tmp_path, read):
    model = nn.Sequential(nn.Linear(3, 4), Breaks(), nn.Linear(4, 1))
    optimizer = Unsteady(model.parameters(), 0.1)
    backward, hooks = torch.autograd.backward, global_hooks()
    watch = NeuralDbg(model, optimizer, tmp_path, every=every)

    def loop():
        with watch:
            for step in range(6):
                if step == 4:
                    model[1].where, optimizer.fails = where, where == "optimizer"
                optimizer.zero_grad()
                model(torch.randn(5, 3)).sum().backward()
                if step == 4 and where == "loop":
                    raise ArithmeticError("loop")
                optimizer.step()

    with pytest.raises(ArithmeticError, match=where) as caught:
        loop()
    assert caught.value.__cause__ is caught.value.__context__ is None
    assert torch.autograd.backward is backward
    assert global_hooks() == hooks
    assert not [name for name in vars(model[0]) if "hooks" in name and vars(model[0])[name]]
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    reader = read(watch)
    assert reader.steps().tolist() == ([0, 1, 2, 3] if every == 1 else [0])
    info = reader.info()
    assert (info.status, info.ended_because) == ("failed", f"ArithmeticError: {where}")


@pytest.mark.parametrize("where", ["forward", "backward", "optimizer"])
def test_a_step_that_is_tried_again_after_an_error_is_measured_once(where, tmp_path, read):
    def train(watch):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(3, 4), Breaks(), nn.Linear(4, 1))
        optimizer = Unsteady(model.parameters(), 0.1)
        gradients = []
        with watch(model, optimizer):
            for step in range(4):
                for attempt in range(2):
                    model[1].where = where if step == attempt + 1 == 1 else ""
                    optimizer.fails = where == "optimizer" and step == attempt + 1 == 1
                    optimizer.zero_grad()
                    with suppress(ArithmeticError):
                        model(torch.randn(50 if model[1].where else 5, 3)).sum().backward()
                        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
                        optimizer.step()
                        break
        return model, gradients

    watches = []

    def watched(model, optimizer):
        watches.append(NeuralDbg(model, optimizer, tmp_path, every=1))
        return watches[-1]

    plain, _ = train(lambda *_: nullcontext())
    model, gradients = train(watched)
    assert same(list(plain.parameters()), list(model.parameters()))
    reader = read(watches[0])
    assert reader.steps().tolist() == [0, 1, 2, 3]
    frame = reader.frame(1)
    assert frame.matrices["gradients"][:, COUNT].tolist() == [12, 4, 4, 1]
    assert frame.matrices["weights"][:, COUNT].tolist() == [12, 4, 4, 1]
    assert_rows(frame.matrices["gradients"], gradients[1])
    # What went forward and did not come back does not count.
    expected = [20, 20, 5] if where == "forward" else [20 + 200, 20 + 200, 5 + 50]
    assert frame.matrices["activations"][:, COUNT].tolist() == expected
    assert reader.frame(2).matrices["activations"][:, COUNT].tolist() == [20, 20, 5]


def test_calls_are_put_back_however_the_observers_close(tmp_path):
    places = list(calls._MAKERS)
    originals = [getattr(*place) for place in places]
    model = mlp()
    for order in ([0, 1], [1, 0]):
        watches = [NeuralDbg(model, None, tmp_path / str(number)).attach() for number in range(2)]
        assert all(getattr(*place) is not was for place, was in zip(places, originals, strict=True))
        for number in order:
            assert all(getattr(*place) is not was for place, was in zip(places, originals, strict=True))
            watches[number].close()
        assert [getattr(*place) for place in places] == originals


def test_calls_that_somebody_else_replaced_meanwhile_stay_theirs(tmp_path, read, monkeypatch):
    original, scale = torch.autograd.backward, torch.amp.GradScaler.scale
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    heard = []

    def around(inner):
        def theirs(*args, **kwargs):
            heard.append(1)
            return inner(*args, **kwargs)

        return theirs

    def step():
        loss = model(torch.randn(4, 3)).sum()
        loss.backward()
        optimizer.step()
        return loss.item()

    first = NeuralDbg(model, optimizer, tmp_path / "first", every=1).attach()
    theirs = around(torch.autograd.backward)
    monkeypatch.setattr(torch.autograd, "backward", theirs)
    losses = [step()]
    first.close()
    assert torch.autograd.backward is theirs
    assert torch.amp.GradScaler.scale is scale
    with NeuralDbg(model, optimizer, tmp_path / "second", every=1) as second:
        losses.append(step())
    assert torch.autograd.backward is theirs
    step()
    assert len(heard) == 3
    third = NeuralDbg(model, optimizer, tmp_path / "third", every=1).attach()
    torch.autograd.backward = original  # they put back what they had found, and take ours away with theirs
    fourth = NeuralDbg(model, optimizer, tmp_path / "fourth", every=1).attach()
    losses.append(step())
    third.close()
    fourth.close()
    assert torch.autograd.backward is original
    for watch, loss in zip((first, second, third, fourth), (*losses, losses[-1]), strict=True):
        assert read(watch).frame(0).scalars["loss"] == pytest.approx(loss)


def test_two_threads_that_train_two_models_record_each_its_own(tmp_path, read):
    steps, watches, expected = 12, {}, {}
    line = threading.Barrier(2)

    def train(number):
        torch.set_num_threads(1)
        draw = torch.Generator().manual_seed(number)
        model = nn.Sequential(nn.Linear(3, 4 + number), nn.ReLU(), nn.Linear(4 + number, 1))
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, generator=draw)
        optimizer = torch.optim.SGD(model.parameters(), 1e-4)
        with NeuralDbg(model, optimizer, tmp_path / str(number), every=2) as watch:
            for step in range(steps):
                optimizer.zero_grad()
                line.wait()
                output = model(torch.randn(4, 3, generator=draw))
                line.wait()  # both have run forward before either goes back
                loss = output.square().sum() + 10 * number
                loss.backward()
                expected[number, step] = [p.grad.clone() for p in model.parameters()], loss.item(), output.detach()
                optimizer.step()
        watches[number] = watch

    threads = [threading.Thread(target=train, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, watch in watches.items():
        reader = read(watch)
        assert reader.info().notices == ()
        assert reader.steps().tolist() == list(range(0, steps, 2))
        for step in reader.steps().tolist():
            gradients, loss, output = expected[number, step]
            frame = reader.frame(step)
            assert_rows(frame.matrices["gradients"], gradients)
            assert_row(frame.matrices["activations"][2], output)
            assert frame.scalars["loss"] == pytest.approx(loss)


def test_a_forward_pass_in_another_thread_belongs_to_the_step(tmp_path, read):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with NeuralDbg(model, optimizer, tmp_path, every=1) as watch:
        for _ in range(2):
            optimizer.zero_grad()
            outputs = []
            thread = threading.Thread(target=lambda outputs=outputs: outputs.append(model(torch.randn(5, 3))))
            thread.start()
            thread.join()
            outputs.append(model(torch.randn(6, 3)))
            loss = torch.cat(outputs).square().sum()
            loss.backward()
            optimizer.step()
    frame = read(watch).frame(1)
    assert_row(frame.matrices["activations"][2], torch.cat(outputs))
    assert_row(frame.matrices["activation_gradients"][2], 2 * torch.cat(outputs))
    assert frame.scalars["loss"] == pytest.approx(loss.item())


def test_passes_that_run_at_once_in_several_threads_are_kept_apart(tmp_path, read):
    class Meets(nn.Module):
        """Waits in the middle of a forward pass until the other thread is there too."""

        line = threading.Barrier(2)

        def forward(self, x):
            self.line.wait()
            return x * 1

    model = nn.Sequential(nn.Linear(3, 4), Meets(), nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with NeuralDbg(model, optimizer, tmp_path, every=1) as watch:
        outputs = {}

        def run(rows):
            torch.set_num_threads(1)
            outputs[rows] = model(torch.randn(rows, 3))

        threads = [threading.Thread(target=run, args=(rows,)) for rows in (5, 100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        outputs[5].sum().backward()  # of the other one nobody goes back: it was an evaluation
        optimizer.step()
    frame = read(watch).frame(0)
    assert frame.matrices["activations"][:, COUNT].tolist() == [20, 20, 5]
    assert_row(frame.matrices["activations"][2], outputs[5])
    assert frame.profiles["timing"][:, 0].tolist() == [2, 2, 2]


def test_named_steps_alone_are_sampled_and_the_budget_begins_with_the_first_ones(tmp_path, read):
    def train(**options):
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        with NeuralDbg(model, optimizer, tmp_path, **options) as watch:
            for _ in range(60):
                model(torch.randn(4, 3)).sum().backward()
                optimizer.step()
        return read(watch)

    named = train(steps=[0, 40, 7])
    assert named.steps().tolist() == named.histogram_steps("weights").tolist() == [0, 7, 40]
    assert named.profile_steps("trace").tolist() == [0, 7, 40]
    assert (named.info().steps, named.info().every, named.info().overhead_budget) == ((0, 7, 40), None, None)
    # Before the first plain step nothing is known to compare with.
    assert [step for step in (0, 7, 40) if "overhead" in named.frame(step).scalars] == [7, 40]
    assert named.frame(7).scalars["overhead"] > 0

    budgeted = train(overhead_budget=0.5)
    assert budgeted.steps()[:5].tolist() == [0, 1, 2, 3, 4]
    assert budgeted.info().overhead_budget == 0.5
    assert [step for step in range(5) if "overhead" in budgeted.frame(step).scalars] == []
    later = budgeted.steps()[5:].tolist()
    assert all(budgeted.frame(step).scalars["overhead"] > 0 for step in later)
