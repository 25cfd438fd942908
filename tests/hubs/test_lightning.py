"""A LightningModule that Lightning trains: what is recorded is what a plain loop computes from the same batches."""

from __future__ import annotations

import copy
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins import MixedPrecision
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from neural.session import statistics
from neural.session.statistics import reference_row
from neural_callbacks.lightning import NeuralDbgCallback

pytestmark = [
    # Lightning asks torch's tree functions in their old way.
    pytest.mark.filterwarnings("ignore:`isinstance\\(treespec, LeafSpec\\)` is deprecated:FutureWarning"),
    # Worker processes do nothing for forty images; Lightning says so on machines with more than two cores.
    pytest.mark.filterwarnings("ignore:The '\\w+' does not have many workers"),
]

BATCH = 8


class Classifier(pl.LightningModule):
    """A small network with dropout; `seen` keeps the losses that training_step computed."""

    def __init__(self, dropout=0.0):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 10))
        self.seen = []

    def training_step(self, batch, _index):
        images, labels = batch
        loss = nn.functional.cross_entropy(self.net(images), labels)
        self.seen.append(loss.item())
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)


class Validated(Classifier):
    """Looks at the digits between its steps too."""

    def validation_step(self, batch, _index):
        self.net(batch[0])


def fit(module, digits, *callbacks, **options):
    """Train on the digits in batches of eight, in their order; return the trainer."""
    batches = DataLoader(TensorDataset(*digits), BATCH)
    trainer = pl.Trainer(
        **{
            "accelerator": "cpu",
            "max_epochs": 1,
            "logger": False,
            "log_every_n_steps": 1,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            **options,
        },
        callbacks=list(callbacks),
    )
    trainer.fit(module, batches, batches if isinstance(module, Validated) else None)
    return trainer


def plain_steps(module, digits, accumulate):
    """Train a copy without Lightning; yield the loss and the values by kind of each step."""
    model = copy.deepcopy(module).train()
    optimizer = model.configure_optimizers()
    batches = list(zip(*(part.split(BATCH) for part in digits), strict=True))
    for first in range(0, len(batches), accumulate):
        optimizer.zero_grad()
        losses = []
        for images, labels in batches[first : first + accumulate]:
            losses.append(nn.functional.cross_entropy(model.net(images), labels))
            (losses[-1] / accumulate).backward()
        before = [parameter.detach().clone() for parameter in model.parameters()]
        optimizer.step()
        yield (
            np.mean([loss.item() for loss in losses]),
            {
                "weights": before,
                "gradients": [parameter.grad for parameter in model.parameters()],
                "updates": [now.detach() - was for now, was in zip(model.parameters(), before, strict=True)],
            },
        )


@pytest.mark.parametrize("accumulate", [1, 2])
def test_it_records_what_a_plain_loop_computes(accumulate, digits, tmp_path, read, hooks):
    module = Classifier()
    expected = list(plain_steps(module, digits, accumulate))
    watch = NeuralDbgCallback(tmp_path, every=1)
    trainer = fit(module, digits, watch, accumulate_grad_batches=accumulate)
    reader = read(watch)
    # The last of five batches, when two are accumulated, makes a step of its own.
    assert reader.steps().tolist() == list(range(len(expected))) == list(range(-(-5 // accumulate)))
    for step, (loss, values) in enumerate(expected):
        frame = reader.frame(step)
        assert frame.scalars["loss"] == pytest.approx(loss, rel=1e-6)
        for kind, tensors in values.items():
            rows = [reference_row(tensor) for tensor in tensors]
            np.testing.assert_allclose(frame.matrices[kind], rows, rtol=1e-4, atol=1e-7)
    assert reader.info().status == "finished"
    assert reader.info().model == "Classifier"
    assert [layer.own_name for layer in reader.layers().layers][:2] == ["net.0", "net.1"]
    assert hooks(module, *trainer.optimizers) == 0


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_training_is_bitwise_the_same(precision, digits, tmp_path):
    def trained(*callbacks):
        module = Validated(dropout=0.5)
        fit(module, digits, *callbacks, precision=precision, max_epochs=2)
        return module.state_dict()

    watched, alone = trained(NeuralDbgCallback(tmp_path, every=2)), trained()
    assert all(torch.equal(watched[name], alone[name]) for name in alone)


def test_a_scaled_loss_is_recorded_unscaled(digits, tmp_path, read):
    module = Classifier()
    precision = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=1024.0))
    watch = NeuralDbgCallback(tmp_path, every=1)
    fit(module, digits, watch, plugins=[precision])
    reader = read(watch)
    assert [reader.frame(step).scalars["loss"] for step in reader.steps()] == pytest.approx(module.seen)
    assert len(module.seen) == 5


def test_validation_is_not_training(digits, tmp_path, read):
    watch = NeuralDbgCallback(tmp_path, every=1)
    fit(Validated(), digits, watch, num_sanity_val_steps=2, val_check_interval=1)
    reader = read(watch)
    assert reader.steps().tolist() == list(range(5))
    for step in reader.steps():
        counts = reader.matrix("activations", step)[:, statistics.COUNT]
        assert counts.tolist() == [BATCH * size for size in (64, 16, 16, 16, 10)]


def test_steps_are_those_of_the_optimizer_that_lightning_runs(digits, tmp_path, read):
    class Another(Classifier):
        def on_train_batch_start(self, _batch, _index):
            torch.optim.SGD(self.parameters(), 0.0).step()

    watch = NeuralDbgCallback(tmp_path, every=1)
    fit(Another(), digits, watch)
    assert read(watch).steps().tolist() == list(range(5))


class Adversaries(pl.LightningModule):
    """Two networks that train in turn, each with an optimizer of its own; `seen` keeps the losses of each."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.automatic_optimization = False
        self.generator, self.critic = nn.Linear(4, 64), nn.Linear(64, 1)
        self.seen = {"loss_1": [], "loss_2": []}

    def training_step(self, batch, _index):
        real = batch[0].flatten(1)
        fake = self.generator(torch.ones(len(real), 4))
        for name, optimizer in zip(self.seen, self.optimizers(), strict=True):
            critic = self.critic(fake if name == "loss_1" else fake.detach()).mean()
            loss = -critic if name == "loss_1" else critic - self.critic(real).mean()
            self.seen[name].append(loss.item())
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()

    def configure_optimizers(self):
        return [torch.optim.SGD(network.parameters(), 0.1) for network in (self.generator, self.critic)]


def test_of_several_optimizers_each_has_its_own_loss(digits, tmp_path, read, hooks):
    module = Adversaries()
    watch = NeuralDbgCallback(tmp_path, every=1)
    trainer = fit(module, digits, watch)
    reader = read(watch)
    assert reader.steps().tolist() == list(range(5))
    scalars = [reader.frame(step).scalars for step in reader.steps()]
    for name, losses in module.seen.items():
        assert [frame[name] for frame in scalars] == pytest.approx(losses)
    assert hooks(module, *trainer.optimizers) == 0


def test_an_error_in_the_loop_comes_out_untouched_and_the_session_says_failed(digits, tmp_path, read, hooks):
    class Mistaken(Classifier):
        def training_step(self, batch, index):
            if index == 2:
                raise mistake
            return super().training_step(batch, index)

    mistake = RuntimeError("no such batch")
    module = Mistaken()
    watch = NeuralDbgCallback(tmp_path, every=1)
    with pytest.raises(RuntimeError) as caught:
        fit(module, digits, watch)
    assert caught.value is mistake
    info = read(watch).info()
    assert (info.status, info.ended_because) == ("failed", "RuntimeError: no such batch")
    assert read(watch).steps().tolist() == [0, 1]
    assert hooks(module) == 0


def test_each_fit_is_a_session(digits, tmp_path, read):
    watch = NeuralDbgCallback(tmp_path, "digits", every=2)
    assert watch.directory is None
    for name in ("digits", "digits-2"):
        fit(Classifier(), digits, watch)
        assert watch.directory == tmp_path / name / "neuraldbg"
        assert read(watch).steps().tolist() == [0, 2, 4]


def test_the_session_lies_beside_the_logs(digits, tmp_path):
    watch = NeuralDbgCallback()
    fit(Classifier(), digits, watch, logger=CSVLogger(tmp_path, "logs"))
    assert watch.directory == tmp_path / "logs" / "version_0" / "neuraldbg"
    watch = NeuralDbgCallback(run_name="digits")
    fit(Classifier(), digits, watch, logger=CSVLogger(tmp_path, "logs"))
    assert watch.directory == tmp_path / "logs" / "digits" / "neuraldbg"


def test_without_logs_it_lies_in_runs(digits):
    watch = NeuralDbgCallback(run_name="digits")
    fit(Classifier(), digits, watch)
    assert watch.directory == Path("runs/digits/neuraldbg")


def test_an_optimizer_of_another_kind_is_said(digits, tmp_path, heard, read):
    class Engine:
        def __init__(self, optimizer):
            self.optimizer = optimizer

        def __getattr__(self, name):
            return getattr(self.optimizer, name)

        def step(self, closure=None):
            if closure is not None:
                closure()

    class Engined(Classifier):
        def configure_optimizers(self):
            return Engine(super().configure_optimizers())

    watch = NeuralDbgCallback(tmp_path, notices=["Only forty images."])
    fit(Engined(), digits, watch)
    notices = (
        "Only forty images.",
        "Nothing is recorded of Engine: it is not a torch.optim.Optimizer, whose steps can be watched.",
    )
    assert read(watch).info().notices == notices
    assert heard() == list(notices)


def test_an_option_that_cannot_be_used_is_said_before_training():
    with pytest.raises(ValueError, match=r"^every=0 is not a number of steps; write a whole number from 1"):
        NeuralDbgCallback(every=0)
    with pytest.raises(TypeError, match="evry"):
        NeuralDbgCallback(evry=10)
