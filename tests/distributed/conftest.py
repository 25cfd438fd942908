"""Jobs of several processes, on this machine, that train with gloo."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest

from neural.session.rank_folders import ranks
from neural.session.reader import SessionReader

# Generous: a job takes some ten seconds on a machine that has nothing else to do.
PATIENCE = 240.0
WORKER = Path(__file__).with_name("worker.py")


def environment():
    """Return the environment of a process of a job, without what an outer job may have left there."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TORCHELASTIC", "MASTER_"))}
    paths = os.pathsep.join(path for path in sys.path if path)
    return kept | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}


def launch(folder, world_size):
    """Run `worker.py` as a job of so many ranks; return their exit codes and what they said."""
    with ExitStack() as stack:
        processes = []
        for rank in range(world_size):
            output = stack.enter_context((folder / f"output-{rank}").open("wb"))
            place = {"RANK": rank, "WORLD_SIZE": world_size, "LOCAL_WORLD_SIZE": world_size}
            process = subprocess.Popen(
                [sys.executable, WORKER, folder],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment() | {name: str(value) for name, value in place.items()},
            )
            stack.callback(process.kill)
            processes.append(process)
        codes = [process.wait(PATIENCE) for process in processes]
    return codes, [(folder / f"output-{rank}").read_text() for rank in range(world_size)]


@dataclass(frozen=True)
class Job:
    """A job that has ended: its folder, and how many ranks it had."""

    folder: Path
    world_size: int
    codes: list[int]
    said: list[str]

    @property
    def runs(self):
        return self.folder / "runs"

    @cached_property
    def _readers(self):
        return {}

    def sessions(self, run):
        """Return a reader of each rank's session in a run."""
        if run not in self._readers:
            found = {rank: SessionReader(folder) for rank, folder in ranks(self.runs / run / "neuraldbg").items()}
            for reader in found.values():
                reader.refresh()
                assert reader.problems == ()
            self._readers[run] = found
        return self._readers[run]

    def kept(self, scenario):
        """Return what each rank kept of a scenario: name -> array."""
        return [dict(np.load(self.folder / f"{scenario}-{rank}.npz")) for rank in range(self.world_size)]


@pytest.fixture(scope="session", params=[2, 4], ids=["2 ranks", "4 ranks"])
def job(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("job")
    codes, said = launch(folder, request.param)
    return Job(folder, request.param, codes, said)


@pytest.fixture
def torchrun():
    """Return a function that runs a script beside this file under torchrun, and returns what came of it."""

    def run(script, *arguments, processes, restarts=0):
        counts = ("--nproc-per-node", str(processes), "--max-restarts", str(restarts))
        options = ("--standalone", "--monitor-interval", "0.1", *counts)
        return subprocess.run(
            [sys.executable, "-m", "torch.distributed.run", *options, WORKER.with_name(script), *arguments],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    return run
