"""Starts a framework as a guest on a busy machine: without notices on the console, without spinning on every core."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import tempfile
from collections.abc import Iterator

# All that TensorFlow's native code logs: without a GPU it calls a missing CUDA an error, on the console of everybody.
# What goes wrong in training comes as an exception. An environment that says otherwise is left alone.
TENSORFLOW_LOG_LEVEL = "3"
# OpenMP's threads spin while they wait. Beside TensorBoard and a browser on 2 busy cores a step of the MNIST example
# took 150 to 240 ms so, and 20 to 45 ms with threads that sleep.
OPENMP_WAIT_POLICY = "PASSIVE"


def start_tensorflow() -> None:
    """Import TensorFlow and find its devices, choose it for Keras, and import Keras."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", TENSORFLOW_LOG_LEVEL)
    # TensorFlow 2.21 prints notices (oneDNN, CUDA) before it reads the level.
    with errors_held_back():
        importlib.import_module("tensorflow").config.list_physical_devices()
        importlib.import_module("keras")


def start_pytorch() -> None:
    """Import PyTorch."""
    os.environ.setdefault("OMP_WAIT_POLICY", OPENMP_WAIT_POLICY)
    importlib.import_module("torch")


@contextlib.contextmanager
def errors_held_back() -> Iterator[None]:
    """Hold standard error back, down to its file descriptor; what came is shown after all where the body fails.

    Where it is interrupted, nothing failed: the console stays clean.
    """
    sys.stderr.flush()
    console = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except Exception:
            held.seek(0)
            os.write(console, held.read())
            raise
        finally:
            os.dup2(console, 2)
            os.close(console)
