"""Scripts that train with Keras on JAX run in processes of their own, as Keras chooses its backend when imported."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture
def on_jax(tmp_path):
    """Return a function that runs a script beside this file in `tmp_path` and returns what it prints, as JSON."""

    def run(script, *arguments):
        environment = {
            **os.environ,
            "KERAS_BACKEND": "jax",
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": str(HERE.parents[2]),
        }
        command = [sys.executable, "-W", "error", HERE / script, *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, check=False, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run
