"""What torchrun runs in a test: `restarted.py RUNS` fails in its first life, on rank 1; in the next it ends well.

There is no process group: the ranks know one another by torchrun alone.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import torch

from neural.session.rank_folders import ranks
from neural_callbacks import NeuralDbg

runs = Path(sys.argv[1])
is_first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
model = torch.nn.Linear(2, 1)
optimizer = torch.optim.SGD(model.parameters(), 0.1)
with NeuralDbg(model, optimizer, runs, "elastic", every=1) as watch:
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.ones(3, 2)).sum().backward()
        optimizer.step()
    while is_first and len(ranks(runs / "elastic" / "neuraldbg")) < int(os.environ["WORLD_SIZE"]):
        time.sleep(0.05)  # until the other rank has attached too
    if is_first and os.environ["RANK"] == "1":
        raise SystemExit("rank 1 fails")
