"""Fixtures for the Keras observer's tests; loading TensorFlow takes seconds, so everything runs in one process."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import pytest
from tensorflow.python.framework import config as tensorflow_config

from neural.session.reader import SessionReader


@pytest.fixture
def deterministic():
    """TensorFlow's operations give the same bits in every run."""
    tensorflow_config.enable_op_determinism()
    yield
    tensorflow_config.disable_op_determinism()


@pytest.fixture(autouse=True)
def fresh_names():
    """Layers are called dense, dense_1, ... from the start in every test."""
    keras.backend.clear_session()


@pytest.fixture
def read():
    """Return a function that reads the session a callback has written."""

    def reader_of(callback):
        reader = SessionReader(callback.directory)
        reader.refresh()
        assert reader.problems == ()
        return reader

    return reader_of
