"""What went wrong, in episodes: against steps written down by hand."""

import numpy as np
import pytest

from neural.session import statistics
from neural.session.anomaly import Anomaly
from neural.session.frame import Frame
from neural.session.writer import SessionWriter
from tensorboard_plugin_neuraldbg import episodes
from tensorboard_plugin_neuraldbg.episodes import Episode, episodes_of

FORWARD = Anomaly("forward", 2, nan=12, posinf=0, neginf=0)
LOSS = Anomaly("loss")
PARAMETER = Anomaly("parameter", 0, 1)


@pytest.mark.parametrize(
    ("wrong", "sound", "expected"),
    [
        ([], [1, 2], []),
        ([5], [], [Episode(5, 5, 1)]),
        ([5, 6, 9], [0, 10], [Episode(5, 9, 3)]),
        ([5, 6, 9], [7], [Episode(5, 6, 2), Episode(9, 9, 1)]),
        ([0, 4, 8], [2, 6], [Episode(0, 0, 1), Episode(4, 4, 1), Episode(8, 8, 1)]),
    ],
)
def test_a_sound_step_ends_an_episode(wrong, sound, expected):
    assert episodes_of(np.array(wrong, np.int64), np.array(sound, np.int64)) == expected


def write(directory, steps, skipped=()):
    """Write a frame per step; the anomalies of each are given, none where it was sound."""
    writer = SessionWriter(directory)
    for step, anomalies in steps.items():
        matrices = {"activations": statistics.unmeasured(1)}
        scalars = {"skipped": float(step in skipped)}
        writer.write(Frame(step, 1.0 + step, matrices, scalars=scalars, anomalies=anomalies))
    writer.close()


def test_each_episode_tells_what_went_wrong_first_and_what_followed(serve, tmp_path):
    steps = {0: (), 137: (FORWARD, LOSS, PARAMETER), 138: (LOSS,), 140: (), 150: (LOSS,), 151: (LOSS,), 160: (LOSS,)}
    write(tmp_path / "run" / "neuraldbg", steps, skipped=(151,))
    server = serve("--logdir", str(tmp_path), "--load_fast", "false")
    assert server.ask("session", run="run").document["anomalies"] == 5
    loss = {"place": "loss", "layer": None, "parameter": None, "nan": None, "posinf": None, "neginf": None}
    assert server.ask("anomalies", run="run").document == {
        "episodes": [
            {
                "first_step": 137,
                "last_step": 138,
                "steps": 2,
                "anomalies": [
                    {"place": "forward", "layer": 2, "parameter": None, "nan": 12, "posinf": 0, "neginf": 0},
                    loss,
                    loss | {"place": "parameter", "layer": 0, "parameter": 1},
                ],
            },
            {"first_step": 150, "last_step": 160, "steps": 2, "anomalies": [loss]},
        ],
        "left_out": 0,
        "skipped_steps": 1,
        "last_skipped_step": 151,
    }


def test_no_anomaly_is_no_episode(serve, tmp_path):
    write(tmp_path / "run" / "neuraldbg", {0: ()})
    server = serve("--logdir", str(tmp_path), "--load_fast", "false")
    assert server.ask("anomalies", run="run").document == {
        "episodes": [], "left_out": 0, "skipped_steps": 0, "last_skipped_step": None
    }  # fmt: skip


def test_a_list_of_many_episodes_begins_with_the_first(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(episodes, "MOST_EPISODES", 2)
    write(tmp_path / "run" / "neuraldbg", {step: (LOSS,) if step % 2 else () for step in range(10)})
    answer = serve("--logdir", str(tmp_path), "--load_fast", "false").ask("anomalies", run="run").document
    assert ([episode["first_step"] for episode in answer["episodes"]], answer["left_out"]) == ([1, 3], 3)
