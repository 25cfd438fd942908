from __future__ import annotations

import numpy as np
import pytest

from neural.session.frame import KINDS, PROFILES, Frame
from neural.session.histogram import BINS, Histograms
from neural_callbacks.flight import FlightRecorder

COLUMNS = len(KINDS["weights"].columns)


def frame(step, rows=1):
    return Frame(step, float(step), {"weights": np.zeros((rows, COLUMNS))})


SIZE = 8 * COLUMNS


def steps(recorder):
    return [frame.step for frame in recorder]


def filled(recorder, frames):
    for one in frames:
        recorder.add(one)
    return recorder


def test_the_newest_frames_are_kept_oldest_first():
    recorder = filled(FlightRecorder(max_frames=3, max_bytes=100 * SIZE), map(frame, range(5)))
    assert steps(recorder) == [2, 3, 4]
    assert (len(recorder), recorder.bytes) == (3, 3 * SIZE)


def test_the_oldest_go_until_the_newest_has_room():
    recorder = filled(FlightRecorder(max_frames=100, max_bytes=4 * SIZE), map(frame, range(4)))
    recorder.add(frame(4, rows=3))
    assert steps(recorder) == [3, 4]
    assert recorder.bytes == 4 * SIZE


def test_a_frame_larger_than_all_room_is_not_kept_and_drops_none():
    recorder = filled(FlightRecorder(max_frames=100, max_bytes=4 * SIZE), map(frame, range(4)))
    recorder.add(frame(4, rows=5))
    assert steps(recorder) == [0, 1, 2, 3]
    recorder.add(frame(5, rows=4))
    assert steps(recorder) == [5]


@pytest.mark.parametrize(
    ("holds", "size"),
    [
        ({"matrices": {"weights": np.zeros((2, COLUMNS)), "gradients": np.zeros((1, COLUMNS))}}, 3 * SIZE),
        (
            {"histograms": {"weights": Histograms.from_rows({0: np.eye(1, BINS)[0], 1: np.ones(BINS)})}},
            (1 + BINS) * 3 * 8,
        ),
        ({"profiles": {"flops": np.zeros((7, len(PROFILES["flops"].columns)))}}, 7 * 2 * 8),
        ({"scalars": {"loss": 1.0}}, 0),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bytes_of_all_arrays_count(holds, size):
    recorder = FlightRecorder()
    recorder.add(Frame(0, 0.0, **holds))
    assert recorder.bytes == size


def test_what_is_added_during_an_iteration_comes_with_the_next():
    recorder = filled(FlightRecorder(max_frames=2, max_bytes=100 * SIZE), map(frame, range(2)))
    seen = []
    for one in recorder:
        recorder.add(frame(one.step + 10))
        seen.append(one.step)
    assert seen == [0, 1]
    assert steps(recorder) == [10, 11]
