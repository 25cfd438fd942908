"""What is read of anomalies is what was written, and anything else is refused with a sentence."""

from __future__ import annotations

import pytest

from neural.session.anomaly import Anomaly, from_json, to_json


def test_anomalies_come_back_in_their_order():
    anomalies = (Anomaly("forward", 3, nan=2, posinf=0, neginf=1), Anomaly("loss"), Anomaly("parameter", 1, 4))
    assert from_json(to_json(anomalies)) == anomalies


def test_keys_of_a_newer_version_are_left_aside():
    assert from_json('[{"place": "loss", "layer": null, "cause": "log of zero"}]') == (Anomaly("loss"),)


@pytest.mark.parametrize("text", ["3", '[{"layer": 1}]', "[[]]", "not JSON"])
def test_what_is_no_list_of_anomalies_is_refused(text):
    with pytest.raises(ValueError, match=r"^A step's anomalies are not a list of them|^Expecting value"):
        from_json(text)


def test_an_unknown_place_is_refused():
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is compared below
        from_json('[{"place": "nowhere"}]')
    known = "forward, loss, backward, parameter"
    assert str(caught.value) == f"An anomaly's place is 'nowhere'; known are {known}."
