"""Digits, a way to read sessions, and a look at what hangs on a model."""

from __future__ import annotations

import logging

import pytest
import torch
from torch.nn.modules import module as module_hooks
from torch.optim import optimizer as optimizer_hooks

from neural.data import datasets
from neural.session.reader import SessionReader


@pytest.fixture(scope="session")
def digits():
    """Return 40 images (40, 1, 8, 8) and their labels (40,)."""
    part = datasets.load("digits", framework="pytorch").train
    return torch.from_numpy(part.x[:40]).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(part.y[:40])


@pytest.fixture
def read():
    """Read the session of a callback that has closed it."""

    def read(callback):
        reader = SessionReader(callback.directory)
        reader.refresh()
        assert reader.problems == ()
        return reader

    return read


@pytest.fixture
def hooks():
    """Count the hooks on a model, on optimizers and in torch's global lists."""

    def count(model, *optimizers):
        lists = [vars(module)[name] for module in model.modules() for name in vars(module) if "hooks" in name]
        lists += [value for optimizer in optimizers for name, value in vars(optimizer).items() if "hooks" in name]
        for module in (module_hooks, optimizer_hooks):
            lists += [value for name, value in vars(module).items() if name.startswith("_global_")]
        return sum(len(item) for item in lists if item)

    return count


@pytest.fixture(autouse=True)
def quiet(caplog, monkeypatch, tmp_path):
    """No test leaves a file outside of its folder, or anything in the log that it did not look at."""
    caplog.set_level(logging.WARNING, logger="neuraldbg")
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    yield
    assert [r.getMessage() for r in caplog.get_records("call") if r.name == "neuraldbg"] == []


@pytest.fixture
def heard(caplog):
    """What was logged so far; asking for it once says that the test has looked."""

    def heard():
        said = [record.getMessage() for record in caplog.records if record.name == "neuraldbg"]
        caplog.clear()
        return said

    return heard
