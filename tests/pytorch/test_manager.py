"""The life of an observer: how it starts, what it survives, how it ends, and that it leaves nothing behind."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules import module as module_hooks
from torch.optim import optimizer as optimizer_hooks

from neural.session.statistics import COUNT, reference_row
from neural_callbacks import NeuralDbg
from neural_callbacks.pytorch.taps import Sample


def model_and_optimizer():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    return model, torch.optim.SGD(model.parameters(), 0.1)


def train(model, optimizer, steps=1):
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(5, 3)).sum().backward()
        optimizer.step()


def hooks(model, optimizer):
    """Everything that hangs on the model, the optimizer, or torch's global lists."""
    lists = [vars(module)[name] for module in model.modules() for name in vars(module) if "hooks" in name]
    lists += [value for name, value in vars(optimizer).items() if "hooks" in name]
    for module in (module_hooks, optimizer_hooks):
        lists += [value for name, value in vars(module).items() if name.startswith("_global_")]
    return sum(len(item) for item in lists if item)


def test_all_hooks_are_gone_after_the_end(tmp_path):
    model, optimizer = model_and_optimizer()
    attributes = set(vars(model))
    with NeuralDbg(model, optimizer, tmp_path, every=2):
        assert hooks(model, optimizer) > 0
        train(model, optimizer, 3)
    with NeuralDbg(model, None, tmp_path, every=1):
        train(model, optimizer, 3)
    assert hooks(model, optimizer) == 0
    assert set(vars(model)) == attributes


@pytest.mark.parametrize(("sentinel", "count"), [(False, 2), (True, 5)])
def test_unsampled_steps_have_no_hook_but_those_of_the_optimizer_and_the_sentinel(tmp_path, sentinel, count):
    model, optimizer = model_and_optimizer()
    with NeuralDbg(model, optimizer, tmp_path, every=100, sentinel=sentinel):
        train(model, optimizer)
        assert hooks(model, optimizer) == count


def test_an_observer_that_is_dropped_takes_its_hooks_along(tmp_path):
    model, optimizer = model_and_optimizer()
    NeuralDbg(model, None, tmp_path).attach()
    gc.collect()
    assert hooks(model, optimizer) == 0


def test_attach_and_close_may_be_called_again(tmp_path, read):
    model, optimizer = model_and_optimizer()
    watch = NeuralDbg(model, optimizer, tmp_path, every=1)
    assert watch.directory is None
    assert watch.attach() is watch.attach()
    train(model, optimizer, 2)
    watch.close()
    watch.close()
    first = watch.directory
    assert read(watch).steps().tolist() == [0, 1]
    watch.attach()
    train(model, optimizer)
    watch.close()
    assert watch.directory != first
    assert read(watch).steps().tolist() == [0]


def test_session_tells_what_it_is_of(tmp_path, read, heard):
    model, optimizer = model_and_optimizer()
    with NeuralDbg(model, optimizer, tmp_path, every=3, notices=["Only half of the images."]) as watch:
        train(model, optimizer)
    assert heard() == ["Only half of the images."]
    info = read(watch).info()
    assert (info.model, info.framework, info.every) == ("Sequential", f"pytorch {torch.__version__}", 3)
    assert (info.status, info.notices) == ("finished", ("Only half of the images.",))
    assert re.fullmatch(r"Sequential-\d{8}-\d{6}", watch.directory.parent.name)
    assert watch.directory.parent.parent == tmp_path


def test_an_exception_in_the_loop_comes_out_untouched_and_the_session_says_failed(tmp_path, read):
    model, optimizer = model_and_optimizer()
    mistake = RuntimeError("no such batch")
    watch = NeuralDbg(model, optimizer, tmp_path)

    def loop():
        with watch:
            train(model, optimizer)
            raise mistake

    with pytest.raises(RuntimeError) as caught:
        loop()
    assert caught.value is mistake
    info = read(watch).info()
    assert (info.status, info.ended_because) == ("failed", "RuntimeError: no such batch")
    assert read(watch).steps().tolist() == [0]
    assert hooks(model, optimizer) == 0


def switched_off(part, why):
    return f"NeuralDbg switched {part} off after an error, training goes on: {why}."


def broken(*_args, **_options):
    raise ValueError("broken")


def test_what_fails_while_measuring_is_said_once_and_training_goes_on(tmp_path, read, heard, monkeypatch):
    monkeypatch.setattr("neural_callbacks.pytorch.taps.measurable", broken)
    monkeypatch.setattr("neural_callbacks.pytorch.parameters._together", broken)
    model, optimizer = model_and_optimizer()
    with NeuralDbg(model, optimizer, tmp_path, every=1) as watch:
        train(model, optimizer, 3)
    sentences = [switched_off(part, "ValueError: broken") for part in ("activations", "parameters")]
    assert heard() == sentences
    assert read(watch).info().notices == tuple(sentences)
    assert read(watch).info().status == "finished"
    assert read(watch).kinds() == ()


def test_what_fails_at_the_end_of_a_step_ends_the_sampling(tmp_path, read, heard, monkeypatch):
    monkeypatch.setattr(Sample, "finish", broken)
    model, optimizer = model_and_optimizer()
    with NeuralDbg(model, optimizer, tmp_path, every=1) as watch:
        train(model, optimizer, 3)
        assert hooks(model, optimizer) == 2
    assert heard() == [switched_off("frames", "ValueError: broken")]
    assert read(watch).steps().tolist() == []


def test_a_scalar_that_is_not_one_number_is_said(tmp_path, read, heard):
    model, optimizer = model_and_optimizer()
    with NeuralDbg(model, optimizer, tmp_path, every=1) as watch:
        watch.record_scalars(loss=torch.ones(3))
        train(model, optimizer)
    why = "ValueError: loss has the shape (3,); give a single number, as its mean"
    assert heard() == [switched_off("scalars", why)]
    assert "loss" not in read(watch).frame(0).scalars
    assert "gradient_norm" in read(watch).frame(0).scalars


def test_scalars_of_unsampled_steps_are_not_looked_at(tmp_path, read):
    model, optimizer = model_and_optimizer()
    with NeuralDbg(model, optimizer, tmp_path, every=2) as watch:
        for loss in (torch.tensor(1.0), object(), torch.tensor(3.0)):
            watch.record_scalars(loss=loss)
            if isinstance(loss, torch.Tensor):
                loss.mul_(100)  # the user's own business, once it was handed over
            train(model, optimizer)
    assert [read(watch).frame(step).scalars["loss"] for step in (0, 2)] == [1.0, 3.0]


def test_a_model_can_be_copied_pickled_and_saved_while_watched(tmp_path):
    model, optimizer = model_and_optimizer()
    names = list(model.state_dict())
    with NeuralDbg(model, optimizer, tmp_path, every=1):
        train(model, optimizer)
        twin = copy.deepcopy(model)
        torch.save(model, buffer := io.BytesIO())
        copy.deepcopy(optimizer)
        assert b"neural_callbacks" not in pickle.dumps(model) + pickle.dumps(optimizer) + buffer.getvalue()
        assert list(model.state_dict()) == names
        twin(torch.randn(2, 3))
        train(model, optimizer)


def test_a_layer_put_in_another_s_place_gets_a_row_of_its_own(tmp_path, read):
    model, optimizer = model_and_optimizer()
    with NeuralDbg(model, optimizer, tmp_path, every=1) as watch:
        train(model, optimizer)
        model[1] = nn.Tanh()
        model[2] = nn.Linear(4, 2)
        optimizer.add_param_group({"params": model[2].parameters()})
        train(model, optimizer)
    reader = read(watch)
    assert [(layer.name, layer.own_name) for layer in reader.layers().layers] == [
        ("Linear_1", "0"),
        ("ReLU_1", "1"),
        ("Linear_2", "2"),
        ("Tanh_1", "1"),
        ("Linear_3", "2"),
    ]
    measured = [~np.isnan(reader.matrix("activations", step)[:, 0]) for step in (0, 1)]
    assert measured[0].tolist() == [True, True, True]
    assert measured[1].tolist() == [True, False, False, True, True]
    assert (~np.isnan(reader.matrix("updates", 1)[:, 0])).tolist() == [True, True, False, False, True, True]


def test_a_layer_put_in_the_place_of_its_like_goes_on_in_the_same_row(tmp_path, read):
    model, optimizer = model_and_optimizer()
    with NeuralDbg(model, optimizer, tmp_path, every=1) as watch:
        train(model, optimizer)
        model[2] = nn.Linear(4, 1)
        train(model, optimizer)
    assert len(read(watch).layers().layers) == 3
    assert not np.isnan(read(watch).matrix("activations", 1)).any()


def test_what_changes_in_the_model_changes_the_table(tmp_path, read):
    class Late(nn.Sequential):
        def forward(self, x):
            return super().forward(x) if self.late else self[0](x)

    model = Late(nn.Linear(3, 3), nn.Linear(3, 1))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    tables = []
    for steps in range(1, 4):
        with NeuralDbg(model, optimizer, tmp_path, every=1) as watch:
            for step in range(steps):
                model.late = step > 0
                model[0].bias.requires_grad_(step > 1)
                train(model, optimizer)
        tables.append(read(watch).layers())
    assert [table.layers[1].output_shapes for table in tables] == [(), ((5, 1),), ((5, 1),)]
    assert [table.parameters[1].trainable for table in tables] == [False, False, True]


def test_steps_that_a_scaler_skips_count_and_are_marked(tmp_path, read):
    model, optimizer = model_and_optimizer()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    with NeuralDbg(model, optimizer, tmp_path, steps=[0, 1, 3]) as watch:
        for factor in (1.0, float("inf"), float("inf"), 1.0):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = (model(torch.ones(5, 3)) * factor).sum()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            if factor == 1.0:
                gradient = model[0].weight.grad.clone()
    reader = read(watch)
    assert reader.steps().tolist() == [0, 1, 3]
    assert reader.layers().layers[0].dtype == "bfloat16"
    expected = reference_row(gradient.reshape(-1))
    np.testing.assert_allclose(reader.matrix("gradients", 3)[0], expected, rtol=1e-6)
    assert reader.scalar_steps("skipped").tolist() == [1, 2]
    assert reader.steps("updates").tolist() == [0, 3]


def test_a_closure_s_gradients_are_those_after_it_ran(tmp_path, read):
    model = nn.Linear(3, 1, bias=False)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=1)
    x = torch.randn(5, 3)

    def closure():
        optimizer.zero_grad()
        loss = model(x).sum()
        loss.backward()
        return loss

    with NeuralDbg(model, optimizer, tmp_path, every=1) as watch:
        for _ in range(2):
            x = x * 2
            optimizer.step(closure)
    for step, factor in enumerate((0.5, 1.0)):
        expected = reference_row(factor * x.sum(0))
        np.testing.assert_allclose(read(watch).matrix("gradients", step)[0], expected, rtol=1e-5)


def test_without_an_optimizer_only_those_of_the_model_s_parameters_count(tmp_path, read):
    model, optimizer = model_and_optimizer()
    other_model, other = model_and_optimizer()
    with NeuralDbg(model, None, tmp_path, every=1) as watch:
        for _ in range(2):
            train(other_model, other, 3)
            train(model, optimizer)
    assert read(watch).steps().tolist() == [0, 1]
    assert len(read(watch).layers().layers) == 3
    assert not np.isnan(read(watch).matrix("updates", 1)).any()


def test_a_graph_that_is_kept_does_not_reach_into_later_steps(tmp_path, read):
    model, optimizer = model_and_optimizer()
    with NeuralDbg(model, optimizer, tmp_path, every=2) as watch:
        output = model(torch.randn(5, 3))
        kept = output.sum()
        kept.backward(retain_graph=True)
        optimizer.step()
        train(model, optimizer)
        torch.autograd.grad(kept, output)
        train(model, optimizer)
    assert read(watch).matrix("activation_gradients", 2)[2, COUNT] == 5


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (
            ("model",),
            TypeError,
            "NeuralDbg watches a torch.nn.Module, or several in a list or a dict, not str; write NeuralDbg(model).",
        ),
        (
            (nn.Linear(1, 1), "adam"),
            TypeError,
            "The optimizer is a str, not a torch.optim.Optimizer; write NeuralDbg(model, optimizer), or leave it out.",
        ),
        (
            (nn.Linear(1, 1), None, "runs", None, 0),
            ValueError,
            "every=0 is not a number of steps; write a whole number from 1, as every=10.",
        ),
    ],
)
def test_what_cannot_be_watched_is_said(arguments, error, text):
    with pytest.raises(error) as caught:
        NeuralDbg(*arguments)
    assert str(caught.value) == text
