"""The one way into training: the data, the backend, and a clear word where either is missing."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Literal

from neural.data import datasets
from neural.dsl.errors import BackendMissingError
from neural.dsl.model import Network
from neural.training import quiet
from neural.training.progress import Observation, Progress

Backend = Literal["tensorflow", "pytorch"]

# Backend -> (what it is called, the package that must import, our extra that brings it, the loop's module)
_BACKENDS = {
    "tensorflow": ("TensorFlow", "tensorflow", "tensorflow", "neural.training.train_keras"),
    "pytorch": ("PyTorch", "torch", "torch", "neural.training.train_torch"),
}

DEFAULT_SEED = 0


def check(network: Network, *, backend: Backend, dataset: str | None) -> None:
    """Say what training would stumble over at its start, before anything is started.

    Raises:
        BackendMissingError: the framework is not installed.
        DataError: the data set is unknown or does not fit the network.
    """
    title, package, extra, _ = _BACKENDS[backend]
    if importlib.util.find_spec(package) is None:
        other = next(name for name in _BACKENDS if name != backend)
        raise BackendMissingError(
            f"{title} is not installed, and the backend {backend} needs it. "
            f'Write: pip install "tensorboard-plugin-neuraldbg[{extra}]", or choose --backend {other}.'
        )
    datasets.named(dataset, network)


def train(
    network: Network,
    *,
    backend: Backend,
    progress: Progress,
    dataset: str | None = None,
    epochs: int | None = None,
    observe: Observation | None = None,
    seed: int = DEFAULT_SEED,
) -> None:
    """Train `network` and report to `progress`.

    Args:
        network: a checked network.
        backend: the framework to train with.
        progress: hears of notices, epochs and the final test.
        dataset: the name of a data set; None takes the one that fits the network's input and output.
        epochs: instead of the number that the network's `train` section says.
        observe: where to record a debugging session; None trains without watching.
        seed: of initial weights, dropout and the order of the data.

    Raises:
        BackendMissingError: the framework is not installed.
        DataError: the data set is unknown or does not fit the network.
    """
    check(network, backend=backend, dataset=dataset)
    if backend == "tensorflow":
        quiet.start_tensorflow()
    else:
        quiet.start_pytorch()
    loop = importlib.import_module(_BACKENDS[backend][3])
    data = datasets.load(datasets.named(dataset, network), framework=backend)
    if data.notice is not None:
        progress.on_notice(data.notice)
    loop.train(network, datasets.fitted(data, network), epochs=epochs, observe=observe, progress=progress, seed=seed)
