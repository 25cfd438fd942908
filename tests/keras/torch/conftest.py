"""Scripts that train Keras models on the torch backend, in a process of their own: a backend is chosen at import."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from neural.session.reader import SessionReader

HERE = Path(__file__).parent
# Keras 3.15 saves a variable through numpy.array(..., copy=False), which numpy 2 has deprecated.
SAVING = "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"


@pytest.fixture(scope="session")
def run_on_torch():
    """Return a function that runs a script of this folder in another folder; it returns what the script printed."""

    def run(script, folder):
        environment = os.environ | {"KERAS_BACKEND": "torch", "PYTHONPATH": str(HERE.parents[2])}
        command = [sys.executable, "-W", "error", "-W", SAVING, HERE / f"{script}.py"]
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def session_at():
    """Return a function that reads the session of a run."""

    def reader_of(run):
        reader = SessionReader(run / "neuraldbg")
        reader.refresh()
        assert reader.problems == ()
        return reader

    return reader_of
