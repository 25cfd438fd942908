"""One rank of a job, started by the tests: `worker.py FOLDER` trains small models and leaves what it saw in FOLDER.

Parameters and batches of every step go to `SCENARIO-RANK.npz`, so that a test can compute again what was recorded.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import distributed, nn
from torch.distributed.fsdp import fully_shard
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from neural.session.reader import SessionReader
from neural_callbacks import NeuralDbg

STEPS = 6
DEAD = 17  # the exit code of the rank that dies


def network():
    torch.manual_seed(3)
    # Of sizes that two ranks, and four, cannot share evenly.
    return nn.Sequential(nn.Linear(6, 11), nn.ReLU(), nn.Linear(11, 3))


def batch(rank, step):
    random = np.random.default_rng([rank, step])
    return random.normal(size=(8, 6)).astype(np.float32), random.integers(3, size=8)


def replicated():
    return DistributedDataParallel(network())


def sharded():
    model = network()
    for layer in (model[0], model[2]):
        fully_shard(layer)
    fully_shard(model)
    return model


def local(tensor):
    return getattr(tensor, "to_local", lambda: tensor)().detach().clone().numpy()


def train(model, watch, *, rank, steps=STEPS, loss_times=1.0, keep=None, before_step=lambda _step: None):
    """Train; return everything in which two trainings can differ, and put each step's parameters into `keep`."""
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    seen = []
    with watch(model, optimizer) as observer:
        for step in range(steps):
            inputs, targets = map(torch.from_numpy, batch(rank, step))
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(inputs), targets)
            loss.backward()
            if observer is not None:
                observer.record_scalars(loss=loss.detach() * loss_times)
            before_step(step)
            kept = {} if keep is None else keep
            for name, parameter in model.named_parameters():
                bare = name.removeprefix("module.")
                kept[f"{step}/weights/{bare}"] = local(parameter)
                kept[f"{step}/gradients/{bare}"] = local(parameter.grad)
            optimizer.step()
            for name, parameter in model.named_parameters():
                bare = name.removeprefix("module.")
                kept[f"{step}/updates/{bare}"] = local(parameter) - kept[f"{step}/weights/{bare}"]
            kept[f"{step}/loss"] = loss.detach().numpy()
            seen.append(loss.detach().numpy())
    parameters = list(model.parameters())
    return [*seen, *map(local, parameters), *(local(p.grad) for p in parameters), torch.get_rng_state().numpy()]


def unwatched(*_):
    return nullcontext()


def main(folder):
    runs = folder / "runs"
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size)

    def watched(run_name):
        return lambda model, optimizer: NeuralDbg(model, optimizer, runs, run_name, every=1)

    def watched_late(model, optimizer):
        time.sleep(rank * 1.1 / world_size)  # each rank's clock has another second by then
        return NeuralDbg(model, optimizer, runs, every=1)

    for scenario, make in (("ddp", replicated), ("fsdp", sharded)):
        keep = {}
        plain = train(make(), unwatched, rank=rank)
        seen = train(make(), watched(scenario), rank=rank, keep=keep)
        for number, (one, other) in enumerate(zip(plain, seen, strict=True)):
            keep |= {f"plain/{number}": one, f"watched/{number}": other}
        np.savez(folder / f"{scenario}-{rank}.npz", **keep)

    train(replicated(), watched_late, rank=rank)
    planted = 3.0 if rank == world_size - 2 else 1.0
    train(replicated(), watched("planted"), rank=rank, steps=12, loss_times=planted)
    train(replicated(), watched("rank-0-alone") if rank == 0 else unwatched, rank=rank)
    train(replicated(), watched("without-rank-0") if rank else unwatched, rank=rank)

    def die(step):
        if step == STEPS // 2 and rank == world_size - 1:
            reader = SessionReader(runs / "death" / "neuraldbg" / f"rank_{rank:05}")
            while step - 1 not in reader.steps():  # its writer has a second before all is on disk
                time.sleep(0.05)
                reader.refresh()
            os._exit(DEAD)

    try:
        train(replicated(), watched("death"), rank=rank, before_step=die)
    except RuntimeError as error:
        print("The others ended it:", error)  # noqa: T201 - the test shows it where something went wrong


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    os._exit(0)  # a process group that lost a rank cannot be taken down in order
