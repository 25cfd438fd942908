"""Watching a training leaves it the same to the last bit, and these tests would see it if it did not."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch.nn import functional

from neural_callbacks import NeuralDbg
from neural_callbacks.pytorch.taps import Sample

OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, 0.05, momentum=0.9, weight_decay=0.01),
    "adam": lambda parameters: torch.optim.Adam(parameters, 0.01),
}
STEPS = 15


def train(problem, optimizer, *, accumulate=1, watch=lambda _model, _optimizer: nullcontext()):
    """Train from seed 1; return everything in which two trainings can differ."""
    torch.manual_seed(1)
    model = problem.model()
    optimizer = OPTIMIZERS[optimizer](model.parameters())
    losses = []
    with watch(model, optimizer) as dbg:
        for _ in range(STEPS):
            optimizer.zero_grad()
            for _ in range(accumulate):
                inputs, targets = problem.inputs(), torch.randint(3, (16,))
                loss = functional.cross_entropy(model(inputs), targets)
                loss.backward()
                losses.append(loss.detach().clone())
                if dbg is not None:
                    dbg.record_scalars(loss=loss)
            optimizer.step()
            model.eval()
            with torch.no_grad():
                losses.append(model(problem.inputs()).sum())
            model.train()
    gradients = [parameter.grad for parameter in model.parameters()]
    return [*losses, *model.state_dict().values(), *gradients, torch.get_rng_state()]


def same(one, other):
    return len(one) == len(other) and all(
        torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))
        if a.dim()
        else a.item() == b.item()
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("every", [1, 7])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_training_is_the_same_with_and_without(problem, optimizer, every, tmp_path, read):
    plain = train(problem, optimizer)
    watches = []

    def watch(model, optimizer):
        watches.append(NeuralDbg(model, optimizer, tmp_path, every=every))
        return watches[-1]

    assert same(plain, train(problem, optimizer, watch=watch))
    assert read(watches[0]).steps("updates").tolist() == list(range(0, STEPS, every))


def test_training_with_accumulated_gradients_is_the_same(problem, tmp_path):
    plain = train(problem, "sgd", accumulate=3)
    watched = train(problem, "sgd", accumulate=3, watch=lambda m, o: NeuralDbg(m, o, tmp_path, every=2))
    assert same(plain, watched)


def test_training_without_an_optimizer_given_is_the_same(problem, tmp_path):
    plain = train(problem, "adam")
    assert same(plain, train(problem, "adam", watch=lambda m, _: NeuralDbg(m, None, tmp_path, every=1)))


def test_a_tap_that_disturbs_is_seen(problem, tmp_path, monkeypatch):
    measure = Sample._forward

    def disturb(self, module, inputs, output, of):
        measure(self, module, inputs, output, of)
        if isinstance(output, torch.Tensor) and output.is_floating_point():
            output.data.mul_(1 + torch.finfo(torch.float32).eps)

    plain = train(problem, "sgd")
    monkeypatch.setattr(Sample, "_forward", disturb)
    assert not same(plain, train(problem, "sgd", watch=lambda m, o: NeuralDbg(m, o, tmp_path, every=7)))


def test_a_tap_that_draws_a_random_number_is_seen(problem, tmp_path, monkeypatch):
    measure = Sample.after_step

    def draw(self):
        measure(self)
        torch.rand(1)

    plain = train(problem, "sgd")
    monkeypatch.setattr(Sample, "after_step", draw)
    assert not same(plain, train(problem, "sgd", watch=lambda m, o: NeuralDbg(m, o, tmp_path, every=7)))
