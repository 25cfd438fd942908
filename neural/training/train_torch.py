"""The training loop on PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from neural.data.datasets import Dataset
from neural.dsl import torch_builder
from neural.dsl.model import Network
from neural.dsl.torch_builder import Loss
from neural.training.examples import WITH_CLASS_NUMBERS, Examples, prepare
from neural.training.progress import Observation, Progress

# (output, labels) -> how good each sample was, (batch,)
Metric = Callable[[Tensor, Tensor], Tensor]


def train(
    network: Network,
    data: Dataset,
    *,
    epochs: int | None,
    observe: Observation | None,
    progress: Progress,
    seed: int,
) -> nn.Module:
    """Train `network` on `data`, which fits it, and return the trained module.

    On a machine with a CUDA device it trains there. The last batch of an epoch may be a smaller one, as in Keras.

    Raises:
        DataError: the validation split leaves nothing.
    """
    examples = prepare(network, data)
    torch.manual_seed(seed)
    order = torch.Generator().manual_seed(seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = torch_builder.build(network).to(device)
    optimizer = torch_builder.optimizer(network, model)
    loss_of = torch_builder.loss(network)
    metrics = {name: _metric(name, network) for name in network.metrics}
    x, y = _tensors(examples.train, device)
    size = network.train.batch_size
    epochs = epochs or network.train.epochs
    progress.on_start(epochs, -(-len(x) // size))
    with ExitStack() as watching:
        watch = None if observe is None else watching.enter_context(_watch(model, optimizer, observe, data))
        for epoch in range(1, epochs + 1):
            model.train()
            means = _Means()
            permutation = torch.randperm(len(x), generator=order) if network.train.shuffle else torch.arange(len(x))
            for number, batch in enumerate(permutation.to(device).split(size), start=1):
                output = model(x[batch])
                loss = loss_of(output, y[batch])
                optimizer.zero_grad()
                loss.backward()
                if watch is not None:
                    watch.record_scalars(loss=loss)
                optimizer.step()
                means.add(loss, output, y[batch], metrics)
                progress.on_batch(epoch, number)
            figures = means.by_name()
            if examples.validation is not None:
                held_back = _evaluated(model, _tensors(examples.validation, device), loss_of, metrics, size)
                figures |= {f"val_{name}": value for name, value in held_back.items()}
            progress.on_epoch(epoch, epochs, figures.pop("loss"), figures)
    figures = _evaluated(model, _tensors(examples.test, device), loss_of, metrics, size)
    progress.on_test(figures.pop("loss"), figures)
    return model


def _watch(model: nn.Module, optimizer: torch.optim.Optimizer, observe: Observation, data: Dataset) -> Any:
    from neural_callbacks import NeuralDbg  # noqa: PLC0415 - an unobserved training does without

    notices = () if data.notice is None else (data.notice,)
    return NeuralDbg(
        model,
        optimizer,
        log_dir=observe.log_dir,
        run_name=observe.run_name,
        every=observe.every,
        overhead_budget=observe.overhead_budget,
        notices=notices,
    )


def _tensors(examples: Examples, device: torch.device) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(examples.x).to(device), torch.from_numpy(examples.y).to(device)


def _evaluated(
    model: nn.Module, data: tuple[Tensor, Tensor], loss_of: Loss, metrics: Mapping[str, Metric], size: int
) -> dict[str, float]:
    model.eval()
    means = _Means()
    with torch.no_grad():
        for x, y in zip(*(tensor.split(size) for tensor in data), strict=True):
            output = model(x)
            means.add(loss_of(output, y), output, y, metrics)
    return means.by_name()


def _metric(name: str, network: Network) -> Metric:
    if name == "mse":
        return lambda output, y: (output - y).square().mean(dim=-1)
    if name == "mae":
        return lambda output, y: (output - y).abs().mean(dim=-1)
    if network.loss == WITH_CLASS_NUMBERS:
        return lambda output, y: (output.argmax(dim=-1) == y).float()
    return lambda output, y: (output.argmax(dim=-1) == y.argmax(dim=-1)).float()


@dataclass
class _Means:
    """Means over the samples seen; the sums stay on the device, so that no batch waits for it."""

    sums: dict[str, Tensor] = field(default_factory=dict)
    seen: int = 0

    def add(self, loss: Tensor, output: Tensor, y: Tensor, metrics: Mapping[str, Metric]) -> None:
        """Count a batch: `loss` is its mean."""
        self.seen += len(y)
        output = output.detach()
        new = {"loss": loss.detach() * len(y)} | {name: metric(output, y).sum() for name, metric in metrics.items()}
        self.sums = {name: value + self.sums.get(name, 0) for name, value in new.items()}

    def by_name(self) -> dict[str, float]:
        """Return the means, the loss first."""
        return {name: float(value) / self.seen for name, value in self.sums.items()}
