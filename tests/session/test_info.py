"""A session's record of itself comes back as it was, and one that says what nobody knows is refused."""

import json

import pytest

from neural.session.info import SessionInfo

INFO = SessionInfo("Net", "keras", 5.0, every=3, notices=("One.",), steps=(1, 2), profiled="apart")


def test_it_comes_back():
    assert SessionInfo.from_json(INFO.to_json()) == INFO


def test_an_older_one_was_profiled_in_training():
    document = json.loads(INFO.to_json())
    del document["profiled"]
    assert SessionInfo.from_json(json.dumps(document)).profiled == "in training"


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        ("status", "The session's status is 'odd'; known are running, finished, failed."),
        ("profiled", "The session's profiled is 'odd'; known are in training, apart."),
    ],
)
def test_an_unknown_value_is_refused(key, sentence):
    document = {**json.loads(INFO.to_json()), key: "odd"}
    with pytest.raises(ValueError, match="known are") as error:
        SessionInfo.from_json(json.dumps(document))
    assert str(error.value) == sentence
