import json

import numpy as np
import pytest

from tensorboard_plugin_neuraldbg.encoding import json_number, pack, steps_array


def test_arrays_stand_at_multiples_of_eight_bytes_in_the_order_of_the_head():
    small, large = np.array([1, 2, 3], np.uint8), np.array([[1.5, -2.5]], ">f8")
    body = pack({"step": 7}, {"small": small, "large": large})
    length = int.from_bytes(body[:4], "little")
    head = json.loads(body[4 : 4 + length])
    assert (4 + length) % 8 == 0
    assert head == {
        "step": 7,
        "arrays": [
            {"name": "small", "dtype": "uint8", "shape": [3]},
            {"name": "large", "dtype": "float64", "shape": [1, 2]},
        ],
    }
    assert body[4 + length :] == bytes([1, 2, 3, 0, 0, 0, 0, 0]) + large.astype("<f8").tobytes()


def test_an_array_seen_from_its_side_is_sent_row_by_row():
    turned = np.arange(6, dtype=np.float32).reshape(2, 3).T
    body = pack({}, {"turned": turned})
    assert np.frombuffer(body[-24:], "<f4").tolist() == [0, 3, 1, 4, 2, 5]


def test_an_empty_array_takes_no_bytes():
    assert len(pack({}, {"none": np.empty((3, 0), np.float32)})) % 8 == 0


def test_an_array_of_another_type_is_refused():
    with pytest.raises(
        ValueError, match=r"^The array 'x' is int64; a binary answer holds float32, float64, int32, uint8.$"
    ):
        pack({}, {"x": np.arange(2)})


@pytest.mark.parametrize(
    ("value", "text"), [(1.5, 1.5), (float("nan"), "NaN"), (float("inf"), "Infinity"), (float("-inf"), "-Infinity")]
)
def test_a_number_that_json_does_not_have_becomes_its_name(value, text):
    assert json_number(value) == text


def test_steps_are_int32_as_long_as_they_fit():
    assert steps_array(np.array([1, 2**31 - 1])).dtype == np.int32
    assert steps_array(np.array([1, 2**31])).dtype == np.float64
    assert steps_array(np.empty(0, np.int64)).dtype == np.int32
