"""Small models of each kind, the same in every test, and the way to train them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from neural.session.reader import SessionReader


class Recurrent(nn.Module):
    """An LSTM, a GRU and a head: layers whose outputs are tuples."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 8, batch_first=True)
        self.gru = nn.GRU(8, 8, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        sequence, _ = self.lstm(x)
        sequence, _ = self.gru(sequence)
        return self.head(sequence[:, -1])


class Transformer(nn.Module):
    """Two encoder layers over embedded tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.encoder(self.embedding(tokens)).mean(1))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Dropout(0.25),
        nn.Flatten(),
        nn.Linear(4 * 16, 3),
    )


@dataclass(frozen=True)
class Problem:
    """A model and what to feed it."""

    model: Callable[[], nn.Module]
    inputs: Callable[[], Tensor]


PROBLEMS = {
    "mlp": Problem(mlp, lambda: torch.randn(16, 6)),
    "cnn": Problem(cnn, lambda: torch.randn(16, 1, 8, 8)),
    "recurrent": Problem(Recurrent, lambda: torch.randn(16, 5, 6)),
    "transformer": Problem(Transformer, lambda: torch.randint(20, (16, 7))),
}


@pytest.fixture(params=PROBLEMS)
def problem(request):
    return PROBLEMS[request.param]


@pytest.fixture
def read():
    """Read the session of an observer that has closed."""

    def read(watch):
        reader = SessionReader(watch.directory)
        reader.refresh()
        assert reader.problems == ()
        return reader

    return read


@pytest.fixture(autouse=True)
def seeded():
    torch.set_num_threads(1)  # tensors of a few values gain nothing from more, and a busy machine punishes it
    torch.manual_seed(0)
    yield
    torch.compiler.reset()  # where something was compiled, a model may be, as far as an observer can know


@pytest.fixture
def heard(caplog):
    """What was logged so far; asking for it once says that the test has looked."""

    def heard():
        said = [record.getMessage() for record in caplog.records if record.name == "neuraldbg"]
        caplog.clear()
        return said

    return heard


@pytest.fixture(autouse=True)
def quiet(caplog):
    """No test leaves anything in the log that it did not look at."""
    caplog.set_level(logging.WARNING, logger="neuraldbg")
    yield
    assert [r.getMessage() for r in caplog.get_records("call") if r.name == "neuraldbg"] == []
