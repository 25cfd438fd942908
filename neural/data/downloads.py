"""Whole data sets through the framework's own loader, which keeps them; quick to say so where that cannot be."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import socket
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Seconds. Long enough for a slow proxy to answer, short enough that nobody takes the command for stuck.
CONNECT_TIMEOUT = 4.0
# Seconds without a byte after which a download counts as broken.
STALL_TIMEOUT = 15.0

Arrays = dict[str, NDArray[np.uint8]]

_KERAS_ORIGIN = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz"
_TORCH_ORIGIN = "https://ossci-datasets.s3.amazonaws.com/mnist/train-labels-idx1-ubyte.gz"


class UnavailableError(Exception):
    """The whole data set cannot be had; the text says why, as a part of a sentence."""


def mnist(framework: str) -> Arrays:
    """Return all of MNIST: `x_train` (60000, 28, 28), `y_train` (60000,), `x_test`, `y_test`; uint8.

    Raises:
        UnavailableError: it is neither kept nor reachable.
    """
    return _mnist_keras() if framework == "tensorflow" else _mnist_torch()


def _mnist_keras() -> Arrays:
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    if not (home / "datasets" / "mnist.npz").is_file():
        _probe(_KERAS_ORIGIN)
    datasets = importlib.import_module("keras").datasets
    with _loading():
        (x_train, y_train), (x_test, y_test) = datasets.mnist.load_data()
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}


def _mnist_torch() -> Arrays:
    if importlib.util.find_spec("torchvision") is None:
        raise UnavailableError("torchvision, which loads it for PyTorch, is not installed")
    vision = importlib.import_module("torchvision.datasets")
    root = Path(os.environ.get("TORCH_HOME") or Path.home() / ".cache" / "torch") / "datasets"
    if not (root / "MNIST" / "raw" / "train-images-idx3-ubyte").is_file():
        _probe(_TORCH_ORIGIN)
    arrays: Arrays = {}
    with _loading():
        for part, train in (("train", True), ("test", False)):
            kept: Any = vision.MNIST(str(root), train=train, download=True)
            arrays |= {f"x_{part}": kept.data.numpy(), f"y_{part}": kept.targets.numpy()}
    return arrays


def _probe(origin: str) -> None:
    """Ask for the headers alone: the loaders themselves would wait for minutes on a network that answers nothing."""
    request = urllib.request.Request(origin, method="HEAD")  # noqa: S310 - https, and a constant
    try:
        with urllib.request.urlopen(request, timeout=CONNECT_TIMEOUT):  # noqa: S310 - the same
            return
    except (OSError, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        host = urllib.parse.urlsplit(origin).hostname
        raise UnavailableError(f"{host} cannot be reached: {_words(reason)}") from error


@contextlib.contextmanager
def _loading() -> Iterator[None]:
    """Give the loader's connections a limit, and turn whatever it fails with into UnavailableError."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(STALL_TIMEOUT)
    try:
        yield
    except Exception as error:  # keras raises the bare class when a download fails
        raise UnavailableError(f"its download failed: {_words(error)}") from error
    finally:
        socket.setdefaulttimeout(before)


def _words(reason: object) -> str:
    """Return the reason on one line, without a number in front and a full stop behind."""
    text = reason.strerror if isinstance(reason, OSError) and reason.strerror else str(reason)
    return " ".join(text.split()).rstrip(".") or type(reason).__name__
