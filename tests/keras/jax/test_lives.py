"""The life of a session on JAX, what is seen of a step that is not measured, and what happens when something fails."""

ALL_KINDS = ["activation_gradients", "activations", "gradients", "updates", "weights"]
OFF = "NeuralDbg switched {} off after an error, training goes on: RuntimeError: ours."
TAPS = OFF.format("the taps in the train step")


def spread(step, *, logarithm=True):
    """What is not finite in a step, where it begins in the logarithm or in the layer after it, as everything after."""
    forward = [*(["logarithm"] if logarithm else []), "dense", "dense_1"]
    return [
        *([step, "forward", name, None] for name in forward),
        [step, "loss", None, None],
        *([step, "backward", name, None] for name in ("dense_1", "dense")),
        *([step, "parameter", name, row] for row, name in enumerate(("dense", "dense", "dense_1", "dense_1"))),
    ]


def test_the_first_layer_that_is_not_finite_is_found_in_measured_steps_and_between(on_jax):
    said = on_jax("train_lives.py", "not_finite", "measured_not_finite")
    # Where the step after is measured, it is still in the one before that this began.
    for name, steps in (("single", [0, 4]), ("several", [0])):
        session = said["not_finite"][name]
        assert (session["steps"], session["anomalies"]) == (steps, spread(3))
    assert said["measured_not_finite"] == spread(1, logarithm=False)


def test_fits_that_end_in_several_ways_leave_sessions_and_a_clean_model(on_jax):
    said = on_jax("train_lives.py", "fits", "stopped")
    assert said["fits"] == [True, [0, 2, 4], [6, 8, 10, 12, 14]]
    is_clean, session = said["stopped"]
    assert is_clean
    assert (session["status"], session["steps"], session["kinds"]) == (["finished", ""], [0, 2], ALL_KINDS)


def test_an_interrupted_fit_leaves_a_readable_session(on_jax):
    is_clean, session, again = on_jax("train_lives.py", "broken")["broken"]
    assert is_clean
    assert session["status"] == ["failed", "RuntimeError: model.fit did not come to its end"]
    assert (session["steps"], again) == ([0, 1], [0, 2, 4])


def test_a_train_step_of_the_users_own_is_looked_into(on_jax):
    said = on_jax("train_lives.py", "own_train_step")["own_train_step"]
    for name, has_loss in (("Own", True), ("Other", False)):
        is_same, session = said[name]
        assert is_same
        assert (session["steps"], session["kinds"]) == ([0, 2, 4], ALL_KINDS)
        assert session["losses"] == [has_loss] * 3
    assert said["Own"][1]["notices"] == []
    assert said["Other"][1]["notices"] == ["The loss is not recorded: the train step does not call compute_loss."]


def test_what_cannot_be_looked_into_is_left_alone(on_jax):
    said = on_jax("train_lives.py", "own_train_function", "distributed")
    (own,), (distributed,) = said["own_train_function"], said["distributed"]
    assert own == (
        "Nothing is recorded: Own makes its own train function (make_train_function), and only Keras' own can be "
        "traced with taps in it. Override train_step in its place."
    )
    assert distributed == (
        "Nothing is recorded: the model is trained under keras.distribution, and training on one device is recorded."
    )


def test_what_fails_in_here_is_said_once_and_training_goes_on(on_jax):
    said = on_jax("train_lives.py", "ours_fails", "theirs_fails")
    assert said["ours_fails"] == {
        **{name: [True, True, [TAPS]] for name in ("see_output", "see_gradient", "finish")},
        "__call__": [True, True, [OFF.format("the instrumented train step"), OFF.format("the sentinel")]],
    }
    assert said["theirs_fails"]
