"""The one way into training: the data, the backend, and a clear word where either is missing."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Literal

from neural.data import datasets
from neural.dsl.errors import BackendMissingError, NetworkSyntaxError
from neural.dsl.model import Network
from neural.training import quiet
from neural.training.progress import Observation, Progress

Backend = Literal["tensorflow", "pytorch"]

# Backend -> (what it is called, the package that must import, our extra that brings it, the loop's module)
_BACKENDS = {
    "tensorflow": ("TensorFlow", "tensorflow", "tensorflow", "neural.training.train_keras"),
    "pytorch": ("PyTorch", "torch", "torch", "neural.training.train_torch"),
}

# The layers of the language that training changes.
_WITH_WEIGHTS = {"Dense", "Output", "Conv2D", "BatchNormalization"}

DEFAULT_SEED = 0


def check(network: Network, *, backend: Backend, dataset: str | None) -> None:
    """Say what training would stumble over at its start, before anything is started.

    Raises:
        NetworkSyntaxError: no layer of the network has weights.
        BackendMissingError: the framework is not installed.
        DataError: the data set is unknown or does not fit the network.
    """
    if not any(layer.type in _WITH_WEIGHTS for layer in network.layers):
        sentence = 'The network has no weights to train. Write a layer that has, such as Output(10, "softmax").'
        raise NetworkSyntaxError(network.source.message(network.layers[-1].at, sentence))
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
        NetworkSyntaxError: no layer of the network has weights.
        BackendMissingError: the framework is not installed, or cannot be imported.
        DataError: the data set is unknown or does not fit the network.
    """
    check(network, backend=backend, dataset=dataset)
    _start(backend)
    loop = importlib.import_module(_BACKENDS[backend][3])
    data = datasets.load(datasets.named(dataset, network), framework=backend)
    if data.notice is not None:
        progress.on_notice(data.notice)
    loop.train(network, datasets.fitted(data, network), epochs=epochs, observe=observe, progress=progress, seed=seed)


def _start(backend: Backend) -> None:
    title, package, _, _ = _BACKENDS[backend]
    try:
        if backend == "tensorflow":
            quiet.start_tensorflow()
        else:
            quiet.start_pytorch()
    except (ImportError, OSError) as error:
        # A library that is missing, or of another machine; TensorFlow wraps its traceback around what it caught.
        cause: BaseException = error
        while cause.__context__ is not None:
            cause = cause.__context__
        other = next(name for name in _BACKENDS if name != backend)
        raise BackendMissingError(
            f"{title} is installed but cannot be imported: {' '.join(str(cause).split()).rstrip('.')}. "
            f"Write: pip install --force-reinstall {package}, or choose --backend {other}."
        ) from error
