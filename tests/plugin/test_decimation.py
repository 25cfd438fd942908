import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tensorboard_plugin_neuraldbg.decimation import Decimation


@st.composite
def selections(draw):
    first = draw(st.integers(0, 60))
    return first, draw(st.integers(first, 120)), draw(st.integers(1, 40))


@given(selections())
def test_columns_hold_every_frame_exactly_once(selection):
    first, last, width = selection
    decimation = Decimation.to_width(first, last, width)
    covered = [
        frame for start, end in zip(decimation.starts, decimation.ends, strict=True) for frame in range(start, end + 1)
    ]
    assert covered == list(range(first, last))
    assert decimation.columns == len(decimation.starts) <= width


@given(selections())
def test_no_finer_decimation_would_fit(selection):
    first, last, width = selection
    decimation = Decimation.to_width(first, last, width)
    if decimation.size > 1:
        assert Decimation(first, last, decimation.size - 1).columns > width


@given(
    selections(),
    arrays.arrays(
        np.float32, (120, 2), elements=st.floats(-1e6, 1e6, width=32) | st.just(float("nan")), fill=st.nothing()
    ),
)
def test_columns_hold_the_least_and_the_greatest_of_their_frames(selection, values):
    decimation = Decimation.to_width(*selection)
    least, greatest = decimation.reduce(np.fmin, values), decimation.reduce(np.fmax, values)
    assert least.shape == (decimation.columns, 2)
    for column, (start, end) in enumerate(zip(decimation.starts, decimation.ends, strict=True)):
        for row in range(2):
            finite = [x for x in values[start : end + 1, row] if not np.isnan(x)]
            if finite:
                assert (least[column, row], greatest[column, row]) == (min(finite), max(finite))
            else:
                assert np.isnan(least[column, row])
                assert np.isnan(greatest[column, row])


@given(selections(), st.lists(st.integers(0, 2), min_size=120, max_size=120))
def test_state_of_a_column_is_the_worst_of_its_frames(selection, states):
    decimation = Decimation.to_width(*selection)
    worst = decimation.reduce(np.maximum, np.array(states, np.uint8))
    assert worst.tolist() == [max(states[a : b + 1]) for a, b in zip(decimation.starts, decimation.ends, strict=True)]


def test_columns_stay_where_they_are_while_a_session_grows_or_a_view_moves():
    before, after = Decimation.to_width(0, 41, 10), Decimation.to_width(0, 49, 10)
    assert after.starts[: before.columns].tolist() == before.starts.tolist()
    moved = Decimation.to_width(7, 49, 10)
    assert set(moved.starts[1:]) <= set(after.starts)
