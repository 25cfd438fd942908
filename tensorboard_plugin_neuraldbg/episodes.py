"""Episodes: the steps in which something went wrong, those with nothing sound between them taken together."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tensorboard_plugin_neuraldbg.history import Indices
from tensorboard_plugin_neuraldbg.sessions import Session

# A page lists no more than this many episodes; what went wrong first comes first.
MOST_EPISODES = 20


@dataclass(frozen=True)
class Episode:
    """From the first to the last of `steps` steps that went wrong."""

    first_step: int
    last_step: int
    steps: int


def episodes_of(wrong: Indices, sound: Indices) -> list[Episode]:
    """Split the steps that went wrong, ascending, wherever a sound one lies between two of them."""
    before = np.searchsorted(sound, wrong)
    starts = np.flatnonzero(np.diff(before, prepend=-1))
    ends = np.append(starts[1:], len(wrong)) if len(wrong) else starts
    return [
        Episode(int(wrong[start]), int(wrong[end - 1]), int(end - start))
        for start, end in zip(starts, ends, strict=True)
    ]


def anomalies(session: Session) -> dict[str, Any]:
    """Return the answer of the route `anomalies`."""
    with session.lock:
        reader = session.reader
        steps = reader.anomaly_steps()
        # A step that the gradient scaler skipped changed no weight: nothing broke, the scale was too large.
        skipped = np.array([bool(reader.scalar("skipped", int(step))) for step in steps], np.bool_)
        found = episodes_of(steps[~skipped], np.setdiff1d(reader.steps(), steps))
        listed = [
            asdict(episode) | {"anomalies": [asdict(anomaly) for anomaly in reader.anomalies_at(episode.first_step)]}
            for episode in found[:MOST_EPISODES]
        ]
    return {
        "episodes": listed,
        "left_out": len(found) - len(listed),
        "skipped_steps": int(skipped.sum()),
        "last_skipped_step": int(steps[skipped][-1]) if skipped.any() else None,
    }
