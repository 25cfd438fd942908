"""The life of a session on torch: fits, errors, saved models; train steps of all kinds; what fails in here."""

import json
import zipfile

import numpy as np
import pytest

from neural.session.frame import KINDS

NO_BACKWARD = "Activation gradients are not recorded: the train step does not call backward."
NO_OPTIMIZER = (
    "Gradients and updates are not recorded: the train step does not apply gradients with an optimizer of Keras that "
    "the model holds."
)
OURS = "NeuralDbg switched {} off after an error, training goes on: RuntimeError: ours."


@pytest.fixture(scope="module")
def lived(run_on_torch, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lives")
    run_on_torch("lives", folder)
    return folder


@pytest.fixture(scope="module")
def found(lived):
    return json.loads((lived / "found.json").read_text())


def test_each_fit_is_a_session_and_steps_go_on_counting(lived, found, session_at):
    steps = {run: session_at(lived / "runs" / run).steps().tolist() for run in ("twice", "twice-2", "stopped")}
    assert steps == {"twice": [0, 2, 4], "twice-2": [6, 8], "stopped": [0, 2, 4, 6, 8]}
    assert found["the same after two fits"]
    assert {session_at(lived / "runs" / run).info().status for run in steps} == {"finished"}


def test_a_model_has_nothing_of_ours_between_the_steps(lived, found):
    assert found["untouched in mid-run"] == [True] * 5
    with zipfile.ZipFile(lived / "mid.keras") as saved:
        assert b"neural" not in saved.read("config.json")


def test_an_interrupt_leaves_a_readable_session_and_the_model_as_it_was(lived, found, session_at):
    reader = session_at(lived / "runs" / "interrupted")
    assert (reader.steps().tolist(), reader.info().status) == ([0, 1], "failed")
    assert reader.info().ended_because == "RuntimeError: model.fit did not come to its end"
    assert session_at(lived / "runs" / "after").steps().tolist() == [0, 1, 2, 3, 4]
    assert found["untouched after an interrupt"]


def test_the_models_own_error_is_the_users_to_see(lived, found, session_at):
    assert found["the model's own error"] == "Exception encountered when calling Broken.call()."
    assert found["untouched after an error"]
    assert session_at(lived / "runs" / "broken").info().status == "failed"


@pytest.mark.parametrize(
    ("kind", "missing", "notices"),
    [
        ("ByHand", set(), ()),
        (
            "ByGrad",
            {"activation_gradients"},
            (NO_BACKWARD,),
        ),
        (
            "ByTorch",
            {"gradients", "updates"},
            (NO_OPTIMIZER,),
        ),
    ],
)
def test_a_train_step_of_the_users_own_is_looked_into(kind, missing, notices, lived, found, session_at):
    reader = session_at(lived / "runs" / kind)
    assert found[kind]
    assert set(reader.kinds()) == set(KINDS) - missing
    assert reader.info().notices == notices
    assert np.isfinite(reader.frame(0).scalars["loss"])


@pytest.mark.parametrize(
    ("kind", "steps", "names"), [("Spare", [0, 2, 4], ["used"]), ("SpareByHand", [2, 4], ["used", "own"])]
)
def test_what_is_not_built_does_not_hold_up_the_rest(kind, steps, names, lived, found, session_at):
    reader = session_at(lived / "runs" / kind)
    assert found[kind]
    assert reader.steps().tolist() == steps
    assert [layer.own_name for layer in reader.layers().layers] == names
    assert [parameter.name for parameter in reader.layers().parameters] == ["kernel", "bias"] * len(names)
    assert not np.isnan(reader.matrix("updates", 2)).any()


def test_of_two_optimizers_each_has_its_loss(lived, found, session_at):
    reader = session_at(lived / "runs" / "Gan")
    assert found["Gan"]
    scalars = reader.frame(0).scalars
    assert (scalars["loss_1"] < 0, scalars["loss_2"] > 3, "loss" in scalars) == (True, True, False)
    assert [layer.own_name for layer in reader.layers().layers] == ["generator/dense", "discriminator/dense_1"]
    assert not np.isnan(reader.matrix("gradients", 0)).any()
    assert not np.isnan(reader.matrix("updates", 0)).any()


@pytest.mark.parametrize(
    ("where", "part"),
    [
        ("Sample see_layer", "the taps in the train step"),
        ("Sample _see_gradient", "the taps in the train step"),
        ("Sample see_weights", "the taps in the train step"),
        ("Sample _places", "the taps in the train step"),
        ("Sample frame", "frames"),
        ("Profile enter", "the profile"),
        ("train_steps find_sites", "the taps in the train step"),
        ("LookedAt see_layer", "the sentinel"),
    ],
)
def test_what_fails_in_here_is_said_once_and_training_goes_on(where, part, lived, found, session_at):
    reader = session_at(lived / "runs" / f"failing {where}")
    assert found[f"failing {where.split()[1]}"]
    assert reader.info().notices == (OURS.format(part),)
    goes_on = part in {"the profile", "the sentinel"}
    assert (reader.steps().tolist() == [0, 2, 4]) == goes_on
