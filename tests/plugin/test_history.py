import numpy as np
import pytest

from tensorboard_plugin_neuraldbg import history
from tensorboard_plugin_neuraldbg.history import History, HistoryCache


class Source:
    """Frames whose entry is ten times their place; remembers which it was asked for."""

    def __init__(self, places, rows=2):
        self.places = np.array(places)
        self.rows = rows
        self.asked = []

    def read(self, numbers):
        self.asked += [int(self.places[number]) for number in numbers]
        values = np.repeat(self.places[numbers, None] * 10.0, self.rows, axis=1)
        return values, np.ones(values.shape, np.uint8)

    def update(self, kept):
        return kept.update(self.places, self.read, 8)


def test_only_new_frames_are_read():
    kept = History()
    Source([1, 2, 3]).update(kept)
    more = Source([1, 2, 3, 4, 5])
    values, _ = more.update(kept)
    assert more.asked == [4, 5]
    assert values[:, 0].tolist() == [10, 20, 30, 40, 50]


def test_a_step_recorded_again_is_read_again_and_no_other():
    kept = History()
    Source([1, 2, 3, 4]).update(kept)
    again = Source([1, 22, 3, 4, 5])
    values, _ = again.update(kept)
    assert again.asked == [22, 5]
    assert values[:, 1].tolist() == [10, 220, 30, 40, 50]


def test_a_step_inserted_or_gone_moves_the_others():
    kept = History()
    Source([1, 2, 3, 4]).update(kept)
    changed = Source([7, 2, 9, 4])
    values, _ = changed.update(kept)
    assert changed.asked == [7, 9]
    assert values[:, 0].tolist() == [70, 20, 90, 40]
    values, _ = Source([2]).update(kept)
    assert values[:, 0].tolist() == [20]


def test_rows_that_come_later_are_nan_before():
    kept = History()
    Source([1, 2], rows=1).update(kept)
    values, state = Source([1, 2, 3], rows=3).update(kept)
    np.testing.assert_array_equal(values, [[10, np.nan, np.nan], [20, np.nan, np.nan], [30, 30, 30]])
    assert state.tolist() == [[1, 0, 0], [1, 0, 0], [1, 1, 1]]
    values, state = Source([1, 2, 3, 4], rows=2).update(kept)
    np.testing.assert_array_equal(values[3], [40, 40, np.nan])
    assert state[3].tolist() == [1, 1, 0]


def test_frames_are_read_in_blocks(monkeypatch):
    monkeypatch.setattr(history, "BLOCK_BYTES", 16)
    sizes = []

    def read(numbers):
        sizes.append(len(numbers))
        return (np.zeros((len(numbers), 1)),)

    History().update(np.arange(5), read, 8)
    assert sizes == [2, 2, 1]


def test_a_read_that_fails_leaves_nothing_half_moved():
    kept = History()
    Source([1, 2, 3]).update(kept)

    def fail(_numbers):
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        kept.update(np.array([5, 1, 2]), fail, 8)
    values, _ = Source([1, 2, 3]).update(kept)
    assert values[:, 0].tolist() == [10, 20, 30]


def test_the_cache_forgets_what_was_not_asked_for_the_longest():
    one_history = History()
    Source([1, 2, 3]).update(one_history)
    cache = HistoryCache(budget=2 * one_history.nbytes)
    for key in "abc":
        Source([1, 2, 3]).update(cache.take(key))
        cache.take("a")
    cache.settle()
    assert [cache.take(key).nbytes > 0 for key in "abc"] == [True, False, True]
