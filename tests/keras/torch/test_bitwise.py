"""Training on torch is the same to the last bit with and without the callback; and it shows when it is not."""

import json

import pytest

from neural.session.frame import KINDS

MODELS = [
    "softmax",
    "sigmoid",
    "convolution",
    "functional",
    "subclassed",
    "mixed_precision",
    "recurrent",
    "attention",
    "accumulated",
    "checkpointed",
]
CASES = [(model, 1) for model in MODELS] + [("convolution", 3), ("functional", 3)]


@pytest.fixture(scope="module")
def results(run_on_torch, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bitwise")
    run_on_torch("bitwise", folder)
    return json.loads((folder / "results.json").read_text())


@pytest.mark.parametrize(("model", "every"), CASES, ids=[f"{model}-{every}" for model, every in CASES])
def test_training_is_the_same_to_the_last_bit(model, every, results):
    found = results[f"{model}-{every}"]
    reshaped = "Training needs no gradient by the outputs of reshape, so none is recorded."
    assert found == {
        "same": True,
        "steps": list(range(0, 4, every)),
        "kinds": sorted(KINDS),
        "notices": [reshaped] if model in {"convolution", "recurrent"} else [],
    }


def test_a_tap_that_disturbs_is_found(results):
    assert results["disturbed"]
