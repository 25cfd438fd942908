"""Traces, times, memory and FLOPs: each answer against what was written."""

import numpy as np
import pytest

from neural.session.frame import PROFILES, Frame
from neural.session.info import SessionInfo
from neural.session.layers import Layer, LayerTable
from neural.session.reader import SessionReader
from neural.session.writer import SessionWriter

RUN = "run"
STEPS = tuple(range(0, 60, 5))
# FLOPs are counted once, and a layer is added, at these steps.
COUNTED, GROWN = 10, 30
NAN = float("nan")
INFO = SessionInfo("Net", "pytorch", 1795354321.0, overhead_budget=0.02, rank=1, world_size=4, profiled="apart")


def trace_of(step):
    """Return a step of two micro-batches: forward and backward twice, one layer in each."""
    unit, memory = 1e-3 * (1 + step), 1000.0 * (1 + step)
    rows = [
        # layer, phase, start, duration, allocated, reserved, process
        (-1, 3, 0.0, 10 * unit, NAN, NAN, 7 * memory),
        (-1, 0, 0.0, 2 * unit, NAN, NAN, 3 * memory),
        (0, 0, 0.5 * unit, unit, NAN, NAN, 8 * memory),
        (-1, 1, 2 * unit, 3 * unit, NAN, NAN, 4 * memory),
        (-1, 0, 5 * unit, unit, NAN, NAN, NAN),
        (-1, 1, 6 * unit, unit, NAN, NAN, 2 * memory),
    ]
    return np.array(rows)


def timing_of(step):
    layers = 2 if step < GROWN else 3
    matrix = np.arange(3.0 * layers).reshape(layers, 3) * 1e-3 + step
    matrix[1] = NAN if step % 10 else matrix[1]
    return matrix


FLOPS = np.array([[1e6, 2e6], [NAN, NAN]])


@pytest.fixture(scope="module")
def logdir(tmp_path_factory):
    logdir = tmp_path_factory.mktemp("runs")
    writer = SessionWriter(logdir / RUN / "neuraldbg")
    writer.write_info(INFO, 0)
    writer.write_layers(LayerTable((Layer("Linear_1", "Linear", "0"), Layer("ReLU_1", "ReLU", "1"))), 0)
    for step in STEPS:
        profiles = {"trace": trace_of(step), "timing": timing_of(step)}
        if step == COUNTED:
            profiles["flops"] = FLOPS
        writer.write(
            Frame(
                step,
                1795354321.0 + step,
                profiles=profiles,
                scalars={"overhead": step / 1000, "step_seconds": step / 100, "tracing_seconds": 1.5},
            )
        )
    writer.close()
    return logdir


@pytest.fixture
def ask(serve, logdir):
    server = serve("--logdir", str(logdir), "--load_fast", "false")
    return lambda route, **parameters: server.ask(route, run=RUN, **parameters)


def test_the_session_tells_what_there_is_and_what_watching_costs(ask):
    document = ask("session").document
    told = ("every", "overhead_budget", "steps", "rank", "world_size", "profiled", "profiles", "anomalies")
    assert [document[key] for key in told] == [
        *(None, 0.02, None, 1, 4, "apart"),
        *({"trace": len(STEPS), "timing": len(STEPS), "flops": 1}, 0),
    ]
    assert document["overhead"] == pytest.approx(STEPS[-1] / 1000)
    assert document["step_seconds"] == pytest.approx(STEPS[-1] / 100)
    assert document["tracing_seconds"] == pytest.approx(1.5)


@pytest.mark.parametrize(("asked", "found"), [(None, 55), (55, 55), (52, 50), (14, 10), (0, 0)])
def test_the_newest_of_each_kind_up_to_a_step(ask, asked, found):
    answer = ask("profile", kinds="trace,timing,flops,memory", **({} if asked is None else {"step": asked}))
    assert answer.document["phases"] == ["forward", "backward", "optimizer", "step"]
    told = answer.document["profiles"]
    counted = COUNTED if found >= COUNTED else None
    assert {kind: (told[kind]["step"], told[kind]["first_step"]) for kind in told} == {
        "trace": (found, 0),
        "timing": (found, 0),
        "flops": (counted, COUNTED),
        "memory": (None, None),
    }
    assert all(told[kind]["columns"] == list(PROFILES[kind].columns) for kind in told)
    np.testing.assert_array_equal(answer.arrays["trace"], trace_of(found))
    np.testing.assert_array_equal(answer.arrays["timing"], timing_of(found))
    np.testing.assert_array_equal(answer.arrays["flops"], FLOPS if counted is not None else np.empty((0, 2)))
    assert answer.arrays["memory"].shape == (0, 4)


def columns_of(answer):
    pairs = zip(answer.arrays["first_step"], answer.arrays["last_step"], strict=True)
    return [[step for step in STEPS if first <= step <= last] for first, last in pairs]


@pytest.mark.parametrize("row", [0, 1, 2])
@pytest.mark.parametrize("window", [{"width": 5}, {"width": 100}, {"width": 3, "first": 12, "last": 45}])
def test_one_layer_over_the_steps(ask, row, window):
    answer = ask("profile_series", kind="timing", row=row, **window)
    covered = columns_of(answer)
    wanted = [step for step in STEPS if window.get("first", 0) <= step <= window.get("last", 99)]
    assert [step for steps in covered for step in steps] == wanted
    assert len(covered) <= window["width"]
    assert (answer.document["columns"], answer.document["frames"]) == (["calls", "forward", "backward"], len(wanted))
    for number, steps in enumerate(covered):
        values = [timing_of(step)[row] for step in steps if row < len(timing_of(step))]
        values = np.array([value for value in values if not np.isnan(value).any()]).reshape(-1, 3)
        assert answer.arrays["state"][number] == bool(len(values))
        low, high = (values.min(axis=0), values.max(axis=0)) if len(values) else (np.full(3, NAN),) * 2
        np.testing.assert_allclose(answer.arrays["minimum"][:, number], low, rtol=1e-6)
        np.testing.assert_allclose(answer.arrays["maximum"][:, number], high, rtol=1e-6)


def test_a_layer_that_is_not_there_is_refused(ask):
    answer = ask("profile_series", kind="timing", row=3, width=9)
    assert (answer.status, answer.error) == (404, "There is no row 3 in 'timing'; its rows are 0 to 2.")


def test_whole_traces_over_the_steps(ask):
    answer = ask("trace_series", width=4)
    names = ["forward", "backward", "optimizer", "step", "allocated", "reserved", "process"]
    assert (answer.document["columns"], answer.document["frames"]) == (names, len(STEPS))
    for number, steps in enumerate(columns_of(answer)):
        for array, scale in (("minimum", 1 + steps[0]), ("maximum", 1 + steps[-1])):
            times = np.array([3, 4, NAN, 10]) * 1e-3 * scale
            np.testing.assert_allclose(answer.arrays[array][:, number], [*times, NAN, NAN, 8000.0 * scale], rtol=1e-6)
    assert answer.arrays["state"].tolist() == [1] * 4


@pytest.mark.usefixtures("restless")
def test_a_new_trace_is_seen_and_alone_read(serve, tmp_path, monkeypatch):
    writer = SessionWriter(tmp_path / RUN / "neuraldbg")
    server = serve("--logdir", str(tmp_path), "--load_fast", "false")
    read, asked = SessionReader.profile, []
    monkeypatch.setattr(SessionReader, "profile", lambda self, kind, step: asked.append(step) or read(self, kind, step))
    revisions = []
    for step in (3, 4):
        writer.write(Frame(step, 1.0, profiles={"trace": trace_of(step)}))
        writer.flush()
        document = server.ask("session", run=RUN).document
        revisions.append(document["revision"])
        assert document["profiles"] == {"trace": step - 2}
        assert server.ask("trace_series", run=RUN, width=9).document["frames"] == step - 2
    writer.close()
    assert asked == [3, 4]
    assert revisions[0] != revisions[1]
