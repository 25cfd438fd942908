"""The first value that is not finite is found on torch in the step, and in the layer, where it arose."""

import numpy as np
import pytest

from neural.session.anomaly import Anomaly


@pytest.fixture(scope="module")
def trained(run_on_torch, tmp_path_factory):
    folder = tmp_path_factory.mktemp("broken")
    run_on_torch("broken", folder)
    return folder / "runs"


def places(anomalies):
    return [(one.place, one.layer, one.parameter) for one in anomalies]


def only_anomalies(reader, step):
    """Return the anomalies of `step`, in which alone there are any."""
    found = reader.anomalies()
    assert list(found) == [step]
    return found[step]


EVERYTHING = [
    ("forward", 0, None),
    ("forward", 1, None),
    ("loss", None, None),
    ("backward", 1, None),
    ("backward", 0, None),
    *[("parameter", layer, row) for row, layer in enumerate((0, 0, 1, 1))],
]


def test_data_that_are_not_finite_are_found_in_their_step(trained, session_at):
    reader = session_at(trained / "data")
    assert places(only_anomalies(reader, 5)) == EVERYTHING
    assert not np.isfinite(reader.scalar("loss", 5))
    assert reader.steps().tolist() == [0, 9]  # who looks has no statistics


def test_the_layer_in_which_it_arose_comes_first(trained, session_at):
    found = only_anomalies(session_at(trained / "layer"), 6)
    assert places(found)[:3] == [("forward", 1, None), ("forward", 2, None), ("loss", None, None)]


def test_what_arises_on_the_way_back_is_found_there(trained, session_at):
    reader = session_at(trained / "slope")
    found = only_anomalies(reader, 4)
    ways_back = [("backward", 1, None), ("backward", 0, None)]
    assert places(found) == [*ways_back, ("parameter", 0, 0), ("parameter", 0, 1)]
    assert np.isfinite(reader.scalar("loss", 4))


def test_a_sampled_step_counts_the_values(trained, session_at):
    found = only_anomalies(session_at(trained / "sampled"), 9)
    assert found[0] == Anomaly("forward", 0, None, nan=3, posinf=1, neginf=0)
    assert places(found)[2] == ("loss", None, None)


def test_a_scale_that_overflows_is_no_anomaly(trained, session_at):
    reader = session_at(trained / "scaled")
    assert (reader.steps().tolist(), reader.anomalies()) == ([0, 9], {})
    assert reader.scalar("skipped", 0) == 1
    assert np.isfinite(reader.scalar("loss", 0))


def test_of_a_training_that_diverges_the_first_step_is_recorded(trained, session_at):
    ((step, found),) = session_at(trained / "diverging").anomalies().items()
    assert 0 < step < 9
    assert ("loss", None, None) in places(found)
