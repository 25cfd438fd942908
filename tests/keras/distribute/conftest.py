"""Training under tf.distribute, in processes of their own: devices and clusters are there before TensorFlow starts."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

# Generous: a job takes some twenty seconds on a machine that has nothing else to do.
PATIENCE = 240.0


@pytest.fixture
def launch(tmp_path):
    """Return a function that runs a script beside this file, once for each environment, all at the same time."""

    def run(script, *arguments, environments=({},)):
        paths = os.pathsep.join(path for path in sys.path if path)
        ours = {"PYTHONPATH": paths, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
        command = [sys.executable, Path(__file__).with_name(script), tmp_path, *arguments]
        with ExitStack() as stack:
            processes = []
            for number, environment in enumerate(environments):
                output = stack.enter_context((tmp_path / f"output-{number}").open("wb"))
                process = subprocess.Popen(
                    command, stdout=output, stderr=subprocess.STDOUT, env=os.environ | ours | environment
                )
                stack.callback(process.wait)
                stack.callback(process.kill)
                processes.append(process)
            codes = [process.wait(PATIENCE) for process in processes]
        said = [(tmp_path / f"output-{number}").read_text() for number in range(len(codes))]
        assert codes == [0] * len(codes), "\n".join(said)

    return run
