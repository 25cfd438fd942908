from __future__ import annotations

import numpy as np
import pytest

from neural_callbacks.schedule import Every


def test_every_nth_step_is_sampled_from_the_first_on():
    assert [step for step in range(8) if Every(3)(step)] == [0, 3, 6]
    assert all(Every(1)(step) for step in range(5))


def test_numbers_of_numpy_are_numbers():
    assert Every(np.int64(2)) == Every(2)


@pytest.mark.parametrize("n", [0, -1, 2.0, "10", None, True])
def test_what_is_no_number_of_steps_is_refused(n):
    with pytest.raises(ValueError, match="every") as caught:
        Every(n)
    assert str(caught.value) == f"every={n!r} is not a number of steps; write a whole number from 1, as every=10."
