"""Models that a Trainer trains: what is recorded is what a plain loop computes from the same batches."""

from __future__ import annotations

import copy
import functools
import gc
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    ViTConfig,
    ViTForImageClassification,
    default_data_collator,
)

from neural.session import statistics
from neural.session.reader import SessionReader
from neural.session.statistics import reference_row
from neural_callbacks.transformers import NeuralDbgCallback

BATCH = 8
UNFINISHED = "RuntimeError: Trainer.train did not come to its end"


def vit(dropout=0.0):
    """Return a small vision transformer for images of 8 by 8."""
    torch.manual_seed(0)
    return ViTForImageClassification(
        ViTConfig(
            image_size=8,
            patch_size=4,
            num_channels=1,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            hidden_dropout_prob=dropout,
            num_labels=10,
        )
    )


def gpt():
    """Return a small language model, which divides its loss by the tokens of all the batches of a step."""
    torch.manual_seed(0)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=20,
            n_positions=16,
            n_embd=16,
            n_layer=1,
            n_head=2,
            resid_pdrop=0,
            embd_pdrop=0,
            attn_pdrop=0,
            bos_token_id=0,
            eos_token_id=0,
        )
    )


@pytest.fixture
def images(digits):
    """Return the digits as a Trainer takes them."""
    return [{"pixel_values": image, "labels": int(label)} for image, label in zip(*digits, strict=True)]


@pytest.fixture
def texts():
    """Return forty texts; every third has but four tokens that count, and none has a first one to be foretold."""
    tokens = torch.randint(20, (40, 12), generator=torch.Generator().manual_seed(0))
    labels = tokens.clone()
    labels[:, 0] = labels[::3, 5:] = -100
    return [{"input_ids": row, "labels": label} for row, label in zip(tokens, labels, strict=True)]


class Seen:
    """Collates as a Trainer does, and keeps the batches."""

    def __init__(self):
        self.batches = []

    def __call__(self, features):
        self.batches.append(default_data_collator(features))
        return self.batches[-1]


def trainer_of(model, data, *callbacks, trainer=Trainer, collator=None, **options):
    """Return a Trainer that goes over `data` once, in steps of SGD."""
    options = {
        "output_dir": "out",
        "num_train_epochs": 1,
        "per_device_train_batch_size": BATCH,
        "learning_rate": 0.1,
        "lr_scheduler_type": "constant",
        "optim": "sgd",
        "use_cpu": True,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        **options,
    }
    arguments = TrainingArguments(**options)
    return trainer(model, arguments, collator, data, data, callbacks=list(callbacks))


def plain_steps(model, batches, accumulate, loss_of):
    """Train `model` without a Trainer; yield the loss and the values by kind of each step."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for first in range(0, len(batches), accumulate):
        optimizer.zero_grad()
        group = batches[first : first + accumulate]
        losses = []
        for batch in group:
            losses.append(loss_of(model, batch, group))
            losses[-1].backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        before = [parameter.detach().clone() for parameter in model.parameters()]
        optimizer.step()
        values = {
            "weights": before,
            "gradients": [parameter.grad for parameter in model.parameters()],
            "updates": [now.detach() - was for now, was in zip(model.parameters(), before, strict=True)],
        }
        yield (
            sum(losses).item(),
            {
                kind: dict(zip([name for name, _ in model.named_parameters()], tensors, strict=True))
                for kind, tensors in values.items()
            },
        )


def mean_of_batches(model, batch, group):
    return nn.functional.cross_entropy(model(batch["pixel_values"]).logits, batch["labels"]) / len(group)


def mean_of_tokens(model, batch, group):
    tokens = sum((each["labels"] != -100).sum() for each in group)
    logits, labels = model(batch["input_ids"]).logits[:, :-1], batch["labels"][:, 1:]
    return nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum") / tokens


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize(
    ("build", "data", "loss_of"), [(vit, "images", mean_of_batches), (gpt, "texts", mean_of_tokens)]
)
def test_it_records_what_a_plain_loop_computes(build, data, loss_of, accumulate, request, tmp_path, read, hooks):
    model = build()
    untrained = copy.deepcopy(model)
    seen = Seen()
    watch = NeuralDbgCallback(tmp_path, every=1)
    trainer = trainer_of(
        model,
        request.getfixturevalue(data),
        watch,
        collator=seen,
        gradient_accumulation_steps=accumulate,
    )
    trainer.train()
    reader = read(watch)
    expected = list(plain_steps(untrained, seen.batches, accumulate, loss_of))
    # The last of five batches, when two are accumulated, makes a step of its own.
    assert reader.steps().tolist() == list(range(len(expected))) == list(range(-(-5 // accumulate)))
    table = reader.layers()
    names = [f"{table.layers[parameter.layer].own_name}.{parameter.name}" for parameter in table.parameters]
    for step, (loss, values) in enumerate(expected):
        frame = reader.frame(step)
        assert frame.scalars["loss"] == pytest.approx(loss, rel=1e-5)
        for kind, by_name in values.items():
            rows = [reference_row(by_name[name].detach()) for name in names]
            np.testing.assert_allclose(frame.matrices[kind], rows, rtol=1e-3, atol=1e-6)
    assert len(names) > 10
    assert reader.info().status == "finished"
    assert reader.info().model == type(model).__name__
    assert hooks(model, trainer.optimizer.optimizer) == 0
    assert "training_step" not in vars(trainer)


@pytest.mark.parametrize("bf16", [False, True])
def test_training_is_bitwise_the_same(bf16, images, tmp_path):
    def trained(*callbacks):
        model = vit(dropout=0.5)
        options = {"num_train_epochs": 2, "bf16": bf16, "eval_strategy": "epoch"}
        trainer = trainer_of(model, images, *callbacks, **options)
        trainer.train()
        return model.state_dict(), [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    (watched, watched_logs), (alone, logs) = trained(NeuralDbgCallback(tmp_path, every=2)), trained()
    assert all(torch.equal(watched[name], alone[name]) for name in alone)
    assert watched_logs == logs


class OwnLoss(Trainer):
    """Makes its loss itself, from half of the model's, and keeps it."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.seen = []

    def compute_loss(self, model, inputs, **_kwargs):
        loss = model(**inputs).loss / 2 + 1
        self.seen.append(loss.item())
        return loss


@pytest.mark.parametrize("bf16", [False, True])
def test_a_loss_of_the_users_own_is_the_one_recorded(bf16, images, tmp_path, read):
    watch = NeuralDbgCallback(tmp_path, every=1)
    trainer = trainer_of(vit(), images, watch, trainer=OwnLoss, bf16=bf16, logging_steps=3)
    trainer.train()
    reader = read(watch)
    assert [reader.frame(step).scalars["loss"] for step in reader.steps()] == pytest.approx(trainer.seen)
    # What the Trainer logs is the mean of as many steps as it was told.
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert [float(loss) for loss in logged] == pytest.approx([np.mean(trainer.seen[:3])], abs=1e-4)


def test_evaluation_is_not_training(images, tmp_path, read):
    watch = NeuralDbgCallback(tmp_path, every=1)
    trainer = trainer_of(vit(), images, watch, eval_strategy="steps", eval_steps=1, eval_on_start=True)
    trainer.train()
    reader = read(watch)
    assert reader.steps().tolist() == list(range(5))
    classifier = [layer.own_name for layer in reader.layers().layers].index("classifier")
    for step in reader.steps():
        assert reader.matrix("activations", step)[classifier, statistics.COUNT] == BATCH * 10


def test_an_error_in_a_step_comes_out_untouched_and_the_session_says_failed(images, tmp_path, read, hooks):
    class Mistaken(OwnLoss):
        def compute_loss(self, model, inputs, **kwargs):
            if len(self.seen) == 2:
                raise mistake
            return super().compute_loss(model, inputs, **kwargs)

    mistake = RuntimeError("no such batch")
    watch = NeuralDbgCallback(tmp_path, every=1)
    trainer = trainer_of(vit(), images, watch, trainer=Mistaken)
    with pytest.raises(RuntimeError) as caught:
        trainer.train()
    assert caught.value is mistake
    info = read(watch).info()
    assert (info.status, info.ended_because) == ("failed", "RuntimeError: no such batch")
    assert read(watch).steps().tolist() == [0, 1]
    assert hooks(trainer.model, trainer.optimizer.optimizer) == 0
    assert "training_step" not in vars(trainer)


class FailsOnce(Seen):
    """A collator that fails at the fourth batch, outside of any step."""

    def __call__(self, features):
        super().__call__(features)
        if len(self.batches) == 4:
            raise ValueError("no such image")
        return self.batches[-1]


def test_what_failed_elsewhere_is_closed_when_training_begins_again(images, tmp_path, read, hooks):
    model = vit()
    watch = NeuralDbgCallback(tmp_path, "digits", every=1)
    trainer = trainer_of(model, images, watch, collator=FailsOnce())
    with pytest.raises(ValueError, match=r"^no such image$"):
        trainer.train()
    failed = read(watch)
    trainer.train()
    failed.refresh()
    assert (failed.info().status, failed.info().ended_because) == ("failed", UNFINISHED)
    assert watch.directory == tmp_path / "digits-2" / "neuraldbg"
    assert read(watch).info().status == "finished"
    assert read(watch).steps().tolist() == list(range(5))
    assert hooks(model, trainer.optimizer.optimizer) == 0
    assert "training_step" not in vars(trainer)


def test_what_failed_elsewhere_is_closed_when_the_trainer_is_dropped(images, tmp_path, read, hooks):
    model = vit()

    def fail():
        watch = NeuralDbgCallback(tmp_path)
        with pytest.raises(ValueError, match=r"^no such image$"):
            trainer_of(model, images, watch, collator=FailsOnce()).train()
        return read(watch)

    failed = fail()
    gc.collect()
    failed.refresh()
    assert (failed.info().status, failed.info().ended_because) == ("failed", UNFINISHED)
    assert hooks(model) == 0


SCRIPT = """
import sys
from neural.data import datasets
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification
from neural_callbacks.transformers import NeuralDbgCallback

def collate(features):
    raise ValueError("no such image")

model = ViTForImageClassification(ViTConfig(
    image_size=8, patch_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
))
args = TrainingArguments("out", report_to="none", disable_tqdm=True, use_cpu=True)
trainer = Trainer(model, args, collate, [1, 2], callbacks=[NeuralDbgCallback("runs", "digits")])
try:
    trainer.train()
except ValueError:
    if "caught" in sys.argv:
        sys.exit()
    raise
"""


@pytest.mark.parametrize(("how", "why"), [("caught", UNFINISHED), ("uncaught", "ValueError: no such image")])
def test_what_failed_elsewhere_is_closed_when_the_process_ends(how, why, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, how], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == (how == "uncaught"), done.stderr
    reader = SessionReader(tmp_path / "runs" / "digits" / "neuraldbg")
    reader.refresh()
    assert (reader.info().status, reader.info().ended_because) == ("failed", why)


def test_the_session_lies_where_the_logs_do(images, monkeypatch, tmp_path):
    watch = NeuralDbgCallback(run_name="digits")
    trainer = trainer_of(vit(), images, watch)
    trainer.train()
    assert watch.directory == Path("out/runs/digits/neuraldbg")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "logs"))
    trainer.train()
    assert watch.directory == tmp_path / "logs" / "digits" / "neuraldbg"


def test_a_training_step_that_somebody_put_in_place_stays(images, tmp_path, read):
    watch = NeuralDbgCallback(tmp_path, every=1)
    trainer = trainer_of(vit(), images, watch)
    original = trainer.training_step
    losses = []

    def own(*args):
        losses.append(original(*args))
        return losses[-1]

    trainer.training_step = own
    trainer.train()
    assert trainer.training_step is own
    reader = read(watch)
    assert [reader.frame(step).scalars["loss"] for step in reader.steps()] == pytest.approx([*map(float, losses)])


def test_a_training_step_that_somebody_put_around_ours_stays(images, tmp_path, read):
    watch = NeuralDbgCallback(tmp_path, every=1)
    trainer = trainer_of(vit(), images, watch, trainer=OwnLoss)

    class Wrapper(TrainerCallback):
        def on_train_begin(self, *_args, **_kwargs):
            self.around = trainer.training_step = functools.partial(trainer.training_step)

    wrapper = Wrapper()
    trainer.add_callback(wrapper)
    for _ in range(2):
        trainer.seen = []
        trainer.train()
        assert trainer.training_step is wrapper.around
        reader = read(watch)
        assert [reader.frame(step).scalars["loss"] for step in reader.steps()] == pytest.approx(trainer.seen)


def test_what_is_not_recorded_is_said(tmp_path, heard, read):
    watch = NeuralDbgCallback(tmp_path, notices=["Only forty images."])
    arguments = TrainingArguments("out", report_to="none")
    watch.on_train_begin(arguments, None, None, model=nn.Linear(2, 2), optimizer=object())
    watch.on_train_end(arguments, None, None)
    notices = (
        "Only forty images.",
        "Nothing is recorded of object: it is not a torch.optim.Optimizer, whose steps can be watched.",
        "The loss is not recorded: training is not run by transformers.Trainer, whose training_step returns it.",
    )
    assert read(watch).info().notices == notices
    assert heard() == list(notices)


def test_an_option_that_cannot_be_used_is_said_before_training():
    with pytest.raises(ValueError, match=r"^every=0 is not a number of steps; write a whole number from 1"):
        NeuralDbgCallback(every=0)
    with pytest.raises(TypeError, match="evry"):
        NeuralDbgCallback(evry=10)
