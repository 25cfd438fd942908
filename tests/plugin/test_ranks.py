"""The ranks of a job through TensorBoard's application: each answer against what was written."""

import json
import os
import shutil
import time

import numpy as np
import pytest

from neural.session import statistics
from neural.session.frame import Frame
from neural.session.info import SessionInfo
from neural.session.layers import Layer, LayerTable, Parameter
from neural.session.rank_folders import rank_folder
from neural.session.writer import SessionWriter

WORLD_SIZE = 5
STEPS = tuple(range(0, 40, 2))
PLANTED = 2  # its loss is another
EARLY = 3  # recorded no more from step 20 on
NORMS = (1.5, 1.5, 2.5, 1.5)
TABLE = LayerTable((Layer("Linear_1", "Linear", "0"),), (Parameter("weight", 0, (2, 3)),))


def losses(rank):
    """Return a rank's loss at each of `STEPS` as it is recorded."""
    values = (3.0 if rank == PLANTED else 1.0) + 0.1 * np.random.default_rng(rank).normal(size=len(STEPS))
    return dict(zip(STEPS, values.astype(np.float32).astype(float), strict=True))


def record(session, rank, *, status="running", values=6, world_size=WORLD_SIZE, steps=STEPS, broken=None):
    writer = SessionWriter(rank_folder(session, rank))
    info = SessionInfo("Net", "pytorch", 1795354321.0, 2, rank=rank, world_size=world_size)
    writer.write_info(info, 0)
    writer.write_layers(TABLE, 0)
    for step in steps:
        if rank != EARLY or step < 20:
            loss = float("nan") if step == broken else losses(rank)[step]
            scalars = {"loss": loss, "gradient_norm": NORMS[rank], "overhead": 0.01 * rank}
            weights = statistics.reference_row(np.arange(float(values)) + rank)[None]
            writer.write(Frame(step, 1795354321.0 + step, {"weights": weights}, scalars=scalars))
    if status != "running":
        ended = {"ended_because": "RuntimeError: gone"} if status == "failed" else {}
        writer.write_info(SessionInfo(**vars(info) | {"status": status} | ended), steps[-1])
    writer.close()


@pytest.fixture(scope="module")
def logdir(tmp_path_factory):
    logdir = tmp_path_factory.mktemp("runs")
    session = logdir / "job" / "neuraldbg"
    for rank, status in ((0, "finished"), (1, "running"), (2, "finished"), (3, "failed")):
        record(session, rank, status=status)
    for path in rank_folder(session, 1).iterdir():
        os.utime(path, (time.time() - 60, time.time() - 60))
    return logdir


@pytest.fixture
def ask(logdir, serve):
    return serve("--logdir", str(logdir), "--load_fast", "false").ask


@pytest.fixture
def ask_here(tmp_path, serve, restless):  # noqa: ARG001 - it lets every request look at the disk
    return serve("--logdir", str(tmp_path), "--load_fast", "false").ask


def test_the_ranks_of_a_job_are_one_run(ask):
    (listed,) = ask("sessions").document["sessions"]
    assert (listed["name"], listed["status"], listed["last_step"]) == ("job", "finished", 38)


def test_ranks(ask):
    document = ask("ranks", run="job").document
    assert (document["world_size"], document["missing"], document["sharded"]) == (WORLD_SIZE, [4], False)
    assert document["scalars"] == ["loss", "gradient_norm", "overhead"]
    said = [(rank["rank"], rank["status"], rank["last_step"], rank["ended_because"]) for rank in document["ranks"]]
    assert said == [
        (0, "finished", 38, ""),
        (1, "lost", 38, ""),
        (2, "finished", 38, ""),
        (3, "failed", 18, "RuntimeError: gone"),
    ]
    for rank in document["ranks"]:
        number = rank["rank"]
        step = 18 if number == EARLY else 38
        there = [losses(other)[step] for other in range(4) if step < 20 or other != EARLY]
        figure = rank["figures"]["loss"]
        assert (figure["step"], figure["value"]) == (step, losses(number)[step])
        assert figure["from_median"] == pytest.approx(losses(number)[step] - np.median(there), abs=1e-12)
        assert rank["figures"]["gradient_norm"]["value"] == NORMS[number]


def test_the_rank_with_another_loss_is_named(ask):
    by_scalar = {found["scalar"]: found for found in ask("ranks", run="job").document["departures"]}
    others = [losses(rank)[38] for rank in (0, 1)]
    assert by_scalar["loss"] == {
        "scalar": "loss",
        "rank": PLANTED,
        "step": 38,
        "value": losses(PLANTED)[38],
        "low": min(others),
        "high": max(others),
    }
    assert "overhead" not in by_scalar


def test_ranks_as_they_were_at_a_step(ask):
    document = ask("ranks", run="job", step=13).document
    assert [rank["figures"]["loss"]["step"] for rank in document["ranks"]] == [12] * 4
    (found,) = [found for found in document["departures"] if found["scalar"] == "loss"]
    assert (found["rank"], found["step"]) == (PLANTED, 12)
    assert found["high"] == max(losses(rank)[12] for rank in (0, 1, 3))


def test_a_figure_of_every_rank_over_the_steps(ask):
    answer = ask("rank_series", run="job", scalar="loss", width=100)
    assert {name: answer.document[name] for name in ("scalar", "ranks", "frames")} == {
        "scalar": "loss",
        "ranks": [0, 1, 2, 3],
        "frames": 20,
    }
    arrays = answer.arrays
    assert arrays["first_step"].tolist() == arrays["last_step"].tolist() == list(STEPS)
    expected = np.array([[losses(rank)[step] for step in STEPS] for rank in range(4)])
    expected[EARLY, 10:] = np.nan
    for name in ("minimum", "maximum"):
        np.testing.assert_array_equal(arrays[name], expected.astype(np.float32))
    np.testing.assert_array_equal(arrays["state"], ~np.isnan(expected))
    np.testing.assert_array_equal(arrays["low"], np.nanmin(expected, axis=0).astype(np.float32))
    np.testing.assert_array_equal(arrays["high"], np.nanmax(expected, axis=0).astype(np.float32))
    median = np.nanmedian(expected, axis=0)
    np.testing.assert_allclose(arrays["median"], median, rtol=1e-6)
    np.testing.assert_allclose(arrays["spread"], np.nanmedian(abs(expected - median), axis=0), rtol=1e-5)
    assert arrays["furthest"].tolist() == [PLANTED] * 20


def test_a_column_of_several_steps_tells_of_the_one_at_which_a_rank_is_furthest_off(ask):
    arrays = ask("rank_series", run="job", scalar="loss", width=4, first=4, last=35).arrays
    assert arrays["first_step"].tolist() == [4, 10, 20, 30]
    assert arrays["last_step"].tolist() == [8, 18, 28, 34]
    steps = [4, 6, 8]
    values = np.array([[losses(rank)[step] for step in steps] for rank in range(4)])
    np.testing.assert_array_equal(arrays["minimum"][:, 0], values.min(axis=1).astype(np.float32))
    np.testing.assert_array_equal(arrays["high"][0], np.float32(values.max()))
    distance = values[PLANTED] - np.median(values, axis=0)
    np.testing.assert_allclose(arrays["median"][0], np.median(values, axis=0)[distance.argmax()], rtol=1e-6)
    assert ask("rank_series", run="job", scalar="loss", width=4, first=7, last=7).arrays["low"].tolist() == []


@pytest.mark.parametrize(
    ("route", "parameters", "status", "sentence"),
    [
        ("ranks", {"run": "no"}, 404, "There is no run 'no'; write 'job'."),
        (
            "rank_series",
            {"run": "job", "scalar": "acc", "width": 9},
            404,
            "No rank has the figure 'acc'; there is loss, gradient_norm, overhead.",
        ),
        ("rank_series", {"run": "job", "width": 9}, 400, "The parameter 'scalar' is missing; write scalar=NAME."),
        ("frame", {"run": "job", "rank": 4}, 404, "The run 'job' has no session of rank 4; it has 0, 1, 2, 3."),
        (
            "frame",
            {"run": "job", "rank": "one"},
            400,
            "rank was given as 'one'; write a whole number from 0 to 999999999.",
        ),
    ],
)
def test_what_cannot_be_answered_is_said(ask, route, parameters, status, sentence):
    answer = ask(route, **parameters)
    assert (answer.status, answer.error) == (status, sentence)


@pytest.mark.parametrize("rank", [0, 2])
def test_every_route_tells_of_another_rank(ask, rank):
    document = ask("session", run="job", rank=rank).document
    assert (document["name"], document["rank"], document["world_size"]) == ("job", rank, WORLD_SIZE)
    weights = ask("frame", run="job", rank=rank).arrays["weights"]
    np.testing.assert_array_equal(weights[0], statistics.reference_row(np.arange(6.0) + rank))
    means = ask("series", run="job", rank=rank, kind="weights", row=0, statistics="mean", width=9).arrays["maximum"]
    assert means.max() == 2.5 + rank
    assert ask("layers", run="job", rank=rank).document["layers"][0]["name"] == "Linear_1"


def test_a_run_whose_rank_0_wrote_nothing_shows_the_first_that_did(ask_here, tmp_path):
    session = tmp_path / "job" / "neuraldbg"
    record(session, 2, status="finished")
    assert [listed["status"] for listed in ask_here("sessions").document["sessions"]] == ["finished"]
    assert ask_here("session", run="job").document["rank"] == 2
    document = ask_here("ranks", run="job").document
    assert (document["missing"], document["departures"]) == ([0, 1, 3, 4], [])
    assert document["ranks"][0]["figures"]["loss"]["from_median"] is None
    shutil.rmtree(session / "rank_00002")
    assert ask_here("session", run="job").status == 404


def test_a_run_of_one_process_has_one_rank(ask_here, tmp_path, write_session):
    write_session(tmp_path / "run" / "neuraldbg")
    document = ask_here("ranks", run="run").document
    assert (document["world_size"], document["missing"]) == (1, [])
    assert [rank["rank"] for rank in document["ranks"]] == [0]


def test_where_parameters_are_sharded_gradient_norms_are_not_compared(ask_here, tmp_path):
    for run, values in (("replicated", 6), ("sharded", 2)):
        for rank in (0, 1, 2):
            record(tmp_path / run / "neuraldbg", rank, values=values, world_size=3)
    document = ask_here("ranks", run="sharded").document
    assert document["sharded"] is True
    assert [found["scalar"] for found in document["departures"]] == ["loss"]
    document = ask_here("ranks", run="replicated").document
    assert document["sharded"] is False
    assert "gradient_norm" in {found["scalar"] for found in document["departures"]}


def test_a_figure_that_is_not_finite_on_one_rank(ask_here, tmp_path):
    for rank in (0, 1):
        record(tmp_path / "job" / "neuraldbg", rank, world_size=2, broken=STEPS[-1] if rank else None)
    document = ask_here("ranks", run="job").document
    (found,) = [found for found in document["departures"] if found["scalar"] == "loss"]
    assert (found["rank"], found["value"], found["low"]) == (1, "NaN", losses(0)[38])
    assert document["ranks"][1]["figures"]["loss"] == {"step": 38, "value": "NaN", "from_median": "NaN"}
    arrays = ask_here("rank_series", run="job", scalar="loss", width=100).arrays
    assert arrays["state"][:, -2:].tolist() == [[1, 1], [1, 2]]
    assert arrays["furthest"][-1] == 1


def test_new_steps_of_any_rank_are_seen(ask_here, tmp_path):
    session = tmp_path / "job" / "neuraldbg"
    for rank in (0, 1):
        record(session, rank, steps=STEPS[:3])
    assert ask_here("rank_series", run="job", scalar="loss", width=9).document["frames"] == 3
    record(session, 1, steps=STEPS[3:5])
    arrays = ask_here("rank_series", run="job", scalar="loss", width=9).arrays
    assert arrays["state"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert arrays["furthest"].tolist()[3:] == [-1, -1]


def test_a_link_of_a_rank_that_leads_elsewhere_is_not_followed(ask_here, tmp_path, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    record(elsewhere, 0)
    record(tmp_path / "job" / "neuraldbg", 0)
    (tmp_path / "job" / "neuraldbg" / "rank_00001").symlink_to(elsewhere)
    assert [rank["rank"] for rank in ask_here("ranks", run="job").document["ranks"]] == [0]
    assert ask_here("frame", run="job", rank=1).status == 404


def test_what_is_documented_is_what_is_answered(ask):
    json.dumps(ask("ranks", run="job").document, allow_nan=False)
    assert sorted(ask("ranks", run="job").document) == [
        "departures",
        "missing",
        "ranks",
        "scalars",
        "sharded",
        "world_size",
    ]
