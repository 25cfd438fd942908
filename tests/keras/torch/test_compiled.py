"""A train step that torch.compile compiles stays as it is; its parameters are recorded from outside."""

import json

import numpy as np


def test_parameters_of_a_compiled_step_are_recorded_as_of_any_other(run_on_torch, tmp_path, session_at):
    run_on_torch("compiled", tmp_path)
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["graphs"] > 0
    assert (found["same"], found["more graphs"]) == (True, 0)
    compiled, plain = session_at(tmp_path / "runs" / "compiled"), session_at(tmp_path / "runs" / "plain")
    assert sorted(compiled.kinds()) == ["gradients", "updates", "weights"]
    assert compiled.steps().tolist() == [0, 2]
    for step in (0, 2):
        for kind in compiled.kinds():
            np.testing.assert_allclose(compiled.matrix(kind, step), plain.matrix(kind, step), 1e-5, err_msg=kind)
    names = [parameter.name for parameter in compiled.layers().parameters]
    assert names == ["kernel", "bias"]
    (sentence,) = compiled.info().notices
    assert sentence == (
        "The train step is compiled by torch.compile (jit_compile=True), and to look inside would change what is "
        "compiled: its weights, gradients and updates are recorded, its activations, their gradients, the loss, times, "
        "memory and FLOPs are not. Leave jit_compile out to record them."
    )
