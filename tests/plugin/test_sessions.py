"""Finding and following sessions, whatever happens to the log directory."""

import argparse
import os
import shutil
import time
from dataclasses import replace

import numpy as np
import pytest

from neural.session import records, summaries
from neural.session.frame import Frame
from neural.session.histogram import Histograms, reference_counts
from neural.session.info import SessionInfo
from neural.session.layers import LayerTable
from neural.session.writer import SessionWriter
from tensorboard_plugin_neuraldbg import sessions
from tensorboard_plugin_neuraldbg.log_directories import log_directories

INFO = SessionInfo("Net", "pytorch 2.13.0", 1795354321.0, 10)

pytestmark = pytest.mark.usefixtures("restless")


@pytest.fixture
def start(serve, tmp_path):
    """Start TensorBoard on `tmp_path`."""
    return lambda *arguments: serve("--logdir", str(tmp_path), "--load_fast", "false", *arguments)


def begin(directory, info=INFO):
    writer = SessionWriter(directory)
    writer.write_info(info, 0)
    writer.flush()
    return writer


def only(server):
    (listed,) = server.ask("sessions").document["sessions"]
    return listed


def test_sessions_and_session(server, recorded):
    modified = max(path.stat().st_mtime for path in (recorded[0] / "net/first/neuraldbg").iterdir())
    assert server.ask("sessions").document == {
        "sessions": [{"name": "net/first", "status": "live", "last_step": 360, "last_written": modified}],
        "notices": [],
    }
    document = server.ask("session", run="net/first").document
    revision, _ = document.pop("revision"), document.pop("table_revision")
    assert document == {
        "name": "net/first",
        "status": "live",
        "model": "Net",
        "framework": "pytorch 2.13.0",
        "started": 1795354321.0,
        "every": 10,
        "overhead_budget": None,
        "steps": None,
        "overhead": None,
        "step_seconds": None,
        "tracing_seconds": None,
        "rank": 0,
        "world_size": 1,
        "profiled": "in training",
        "notices": ["Only ten images were found."],
        "problems": [],
        "ended_because": "",
        "first_step": 0,
        "last_step": 360,
        "kinds": {
            "activations": {
                "rows": "layers",
                "frames": 37,
                "description": "the outputs of a layer's forward pass",
                "histograms": 19,
            },
            "gradients": {
                "rows": "parameters",
                "frames": 37,
                "description": "the gradient of the loss by a parameter",
                "histograms": 19,
            },
        },
        "profiles": {},
        "anomalies": 0,
    }
    same = server.ask("session", run="net/first", revision=revision).document
    assert same == {"revision": revision, "unchanged": True}
    assert server.ask("session", run="net/first", revision="other").document["name"] == "net/first"


def test_an_empty_log_directory(start, tmp_path):
    server = start()
    assert server.ask("sessions").document == {"sessions": [], "notices": []}
    assert server.get("/data/plugins_listing").json["neuraldbg"]["enabled"] is False
    answer = server.ask("matrix", run="a", kind="weights", statistic="l2", width=1)
    assert (answer.status, answer.error) == (404, "There is no run 'a': the log directory holds no session yet.")
    shutil.rmtree(tmp_path)
    assert server.ask("sessions").document["sessions"] == []


def test_a_session_that_has_written_nothing_but_its_beginning(start, tmp_path):
    writer = begin(tmp_path / "run" / "neuraldbg")
    server = start()
    document = server.ask("session", run="run").document
    assert (document["status"], document["first_step"], document["last_step"]) == ("live", None, None)
    assert (document["kinds"], document["table_revision"]) == ({}, None)
    assert server.ask("steps", run="run").arrays["steps"].tolist() == []
    assert server.ask("frame", run="run").error == "The run 'run' has no frame yet."
    assert server.ask("layers", run="run").error == "The run 'run' has no layer table yet."
    answer = server.ask("matrix", run="run", kind="weights", statistic="l2", width=1)
    assert answer.error == "The run 'run' has no 'weights' yet; it has nothing."
    writer.close()


def test_a_session_without_a_word_of_itself(start, tmp_path):
    writer = SessionWriter(tmp_path / "run" / "neuraldbg")
    writer.write_layers(LayerTable(()), 0)
    writer.flush()
    document = start().ask("session", run="run").document
    assert (document["model"], document["started"], document["every"], document["status"]) == ("", None, None, "live")
    writer.close()


def test_new_frames_and_new_runs_are_seen(start, tmp_path, write_session):
    server = start()
    writer = begin(tmp_path / "b" / "neuraldbg")
    before = server.ask("session", run="b").document
    writer.write_layers(LayerTable(()), 3)
    writer.flush()
    after = server.ask("session", run="b", revision=before["revision"]).document
    writer.write_layers(LayerTable(()), 3)
    writer.flush()
    again = server.ask("session", run="b", revision=after["revision"]).document
    assert before["table_revision"] is None
    assert None is not after["table_revision"] != again["table_revision"] is not None
    assert server.get("/data/plugins_listing").json["neuraldbg"]["enabled"] is True
    write_session(tmp_path / "a" / "neuraldbg")
    assert [listed["name"] for listed in server.ask("sessions").document["sessions"]] == ["a", "b"]
    assert [listed["last_step"] for listed in server.ask("sessions").document["sessions"]] == [360, None]
    assert server.ask("session", run="c").error == "There is no run 'c'; write one of 'a', 'b'."
    writer.close()


def test_status_follows_what_is_said_and_when(start, tmp_path):
    directory = tmp_path / "run" / "neuraldbg"
    writer = begin(directory)
    server = start()
    assert only(server)["status"] == server.ask("session", run="run").document["status"] == "live"
    for status in ("finished", "failed"):
        writer.write_info(replace(INFO, status=status, ended_because="Out of memory." if status == "failed" else ""), 1)
        writer.flush()
        assert only(server)["status"] == server.ask("session", run="run").document["status"] == status
    assert server.ask("session", run="run").document["ended_because"] == "Out of memory."
    writer.write_info(INFO, 2)
    writer.close()
    (path,) = directory.iterdir()
    live = server.ask("session", run="run").document["revision"]
    os.utime(path, (time.time() - 16, time.time() - 16))
    assert only(server)["status"] == server.ask("session", run="run").document["status"] == "lost"
    assert "unchanged" not in server.ask("session", run="run", revision=live).document
    os.utime(path, (time.time() - 13, time.time() - 13))
    assert only(server)["status"] == "live"


def test_a_problem_that_shows_later_is_a_change(start, tmp_path):
    begin(tmp_path / "neuraldbg", replace(INFO, status="finished")).close()
    (path,) = (tmp_path / "neuraldbg").iterdir()
    path.write_bytes(path.read_bytes() + b"torn")
    server = start()
    document = server.ask("session", run=".").document
    assert document["problems"] == []
    os.utime(path, (time.time() - 16, time.time() - 16))
    document = server.ask("session", run=".", revision=document["revision"]).document
    assert document["problems"] == [f"{path.name} ends in the middle of a record; its last 4 bytes are not shown."]


def test_a_run_that_vanishes(start, tmp_path, write_session):
    write_session(tmp_path / "gone" / "neuraldbg")
    server = start()
    question = {"run": "gone", "kind": "gradients", "statistic": "l2", "width": 9}
    assert server.ask("matrix", **question).status == 200
    shutil.rmtree(tmp_path / "gone")
    answer = server.ask("matrix", **question)
    assert (answer.status, answer.error) == (404, "There is no run 'gone': the log directory holds no session yet.")
    assert server.ask("sessions").document["sessions"] == []


def test_a_run_that_vanishes_before_anyone_noticed(start, tmp_path, write_session, monkeypatch):
    write_session(tmp_path / "gone" / "neuraldbg")
    server = start()
    server.ask("sessions")
    monkeypatch.setattr(sessions, "DISCOVERY_REST_SECONDS", 3600.0)
    server.ask("sessions")
    shutil.rmtree(tmp_path / "gone")
    assert server.ask("session", run="gone").error == "There is no run 'gone'; its files were removed."
    (listed,) = server.ask("sessions").document["sessions"]
    assert (listed["last_step"], listed["last_written"]) == (None, None)


def test_a_damaged_file_is_shown_as_far_as_it_goes(start, tmp_path, write_session):
    write_session(tmp_path / "run" / "neuraldbg")
    (path,) = (tmp_path / "run" / "neuraldbg").iterdir()
    content = bytearray(path.read_bytes())
    for at in (len(content) // 3, len(content) // 2):
        content[at] ^= 0xFF
    path.write_bytes(content)
    server = start()
    (problem,) = server.ask("session", run="run").document["problems"]
    assert problem == f"{path.name} is damaged in 2 places; what stands there was skipped."
    answer = server.ask("matrix", run="run", kind="activations", statistic="l2", width=100)
    assert answer.document["frames"] >= 35


def test_a_file_of_rubbish(start, tmp_path):
    directory = tmp_path / "run" / "neuraldbg"
    directory.mkdir(parents=True)
    (directory / "events.out.tfevents.1.host").write_bytes(os.urandom(4096))
    server = start()
    document = server.ask("session", run="run").document
    assert (
        document["problems"][0] == "events.out.tfevents.1.host is damaged in 1 places; what stands there was skipped."
    )
    assert only(server)["last_step"] is None


def test_a_damaged_layer_table_is_a_problem_of_its_own(start, tmp_path, write_session):
    write_session(tmp_path / "run" / "neuraldbg")
    damaged = summaries._text_event(summaries.LAYERS_TAG, 999, 2e9, '{"layers": 3}', "")
    about = summaries._text_event(summaries.INFO_TAG, 999, 2e9, "[]", "")
    path = tmp_path / "run" / "neuraldbg" / "events.out.tfevents.9999999999.host"
    path.write_bytes(records.encode(damaged) + records.encode(about))
    server = start()
    document = server.ask("session", run="run").document
    assert len(document["problems"]) == 2
    assert document["problems"][0].startswith("The session's record of itself is not one: ")
    assert document["problems"][1].startswith("The layer table is not one: ")
    assert server.ask("matrix", run="run", kind="activations", statistic="l2", width=100).status == 200
    answer = server.ask("matrix", run="run", kind="gradients", statistic="l2", width=100, by="layer")
    assert (answer.status, answer.error) == (404, "The run 'run' has no layer table yet.")
    assert list(server.ask("frame", run="run").arrays) == ["activations", "gradients"]


def test_a_session_of_a_newer_neuraldbg(start, tmp_path, monkeypatch, write_session):
    summaries._metadata.cache_clear()
    monkeypatch.setattr(summaries, "VERSION", (2, 3))
    write_session(tmp_path / "run" / "neuraldbg")
    monkeypatch.undo()
    summaries._metadata.cache_clear()
    summaries._columns.cache_clear()
    (path,) = (tmp_path / "run" / "neuraldbg").iterdir()
    problems = start().ask("session", run="run").document["problems"]
    assert problems == [
        (
            f"{path.name} is not shown. It was written by a newer NeuralDbg (format 2.3; this one reads 1.x): "
            "update tensorboard-plugin-neuraldbg."
        )
    ]


def test_a_folder_that_may_not_be_read_hides_no_other(start, tmp_path, monkeypatch, write_session):
    write_session(tmp_path / "run" / "neuraldbg")
    closed = tmp_path / "closed" / "neuraldbg"
    closed.mkdir(parents=True)
    listdir = type(closed).iterdir

    def refuse(path):
        if path == closed:
            raise PermissionError(13, "Permission denied")
        return listdir(path)

    monkeypatch.setattr(type(closed), "iterdir", refuse)
    assert only(start())["name"] == "run"


def test_a_link_out_of_the_log_directory_is_not_followed(start, tmp_path_factory, tmp_path, write_session):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    write_session(elsewhere / "secret" / "neuraldbg")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "neuraldbg").symlink_to(elsewhere / "secret" / "neuraldbg")
    (tmp_path / "whole").symlink_to(elsewhere / "secret")
    server = start()
    assert server.ask("sessions").document == {
        "sessions": [],
        "notices": [
            (
                "The session 'run' is not shown: it is a link that leads out of the log directory. "
                "Start TensorBoard with a --logdir that holds it."
            )
        ],
    }
    for run, sentence in (
        ("run", "The run 'run' lies outside the log directory and is not shown."),
        ("whole", "There is no run 'whole': the log directory holds no session yet."),
        (
            f"../{elsewhere.name}/secret",
            f"There is no run '../{elsewhere.name}/secret': the log directory holds no session yet.",
        ),
    ):
        answer = server.ask("session", run=run)
        assert (answer.status, answer.error) == (404, sentence)


def test_a_link_that_is_the_log_directory_is_one(serve, tmp_path, write_session):
    write_session(tmp_path / "real" / "run" / "neuraldbg")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert only(serve("--logdir", str(tmp_path / "link"), "--load_fast", "false"))["name"] == "run"


@pytest.mark.parametrize("logdir", ["run", "run/neuraldbg"])
def test_the_log_directory_may_be_the_run(serve, tmp_path, write_session, logdir):
    write_session(tmp_path / "run" / "neuraldbg")
    server = serve("--logdir", str(tmp_path / logdir), "--load_fast", "false")
    assert only(server)["name"] == "."
    assert server.ask("session", run=".").document["name"] == "."


def test_home_in_the_log_directory(serve, tmp_path, monkeypatch, write_session):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_session(tmp_path / "runs" / "a" / "neuraldbg")
    assert only(serve("--logdir", "~/runs", "--load_fast", "false"))["name"] == "a"


def test_the_parts_of_logdir_spec(serve, tmp_path, monkeypatch, write_session):
    monkeypatch.setenv("HOME", str(tmp_path))
    for run in ("one/a", "two/a", "three/a", "four"):
        write_session(tmp_path / run / "neuraldbg")
    spec = f"first:{tmp_path}/one,{tmp_path}/two,~/three,last:~/four"
    names = [listed["name"] for listed in serve("--logdir_spec", spec).ask("sessions").document["sessions"]]
    assert names == ["a", "first/a", "last", "three/a"]


def test_a_remote_log_directory_is_said_not_to_be_read(tmp_path):
    flags = argparse.Namespace(logdir="", logdir_spec=f"far:gs://bucket/runs,{tmp_path}")
    directories, notices = log_directories(flags)
    assert directories == [("", tmp_path)]
    assert notices == ["The log directory gs://bucket/runs is remote; NeuralDbg shows sessions in local folders only."]


def test_no_more_sessions_stay_open_than_may(start, tmp_path, monkeypatch):
    monkeypatch.setattr(sessions, "MAX_OPEN", 2)
    for name in "abc":
        begin(tmp_path / name / "neuraldbg").close()
    server = start()
    for _ in range(2):
        for name in "abc":
            assert server.ask("session", run=name).status == 200
    assert len(server.plugin._sessions._open) == 2
    assert len(server.ask("sessions").document["sessions"]) == 3


def test_a_session_that_does_not_change_is_not_read_for_the_list(start, tmp_path, monkeypatch):
    begin(tmp_path / "run" / "neuraldbg").close()
    server = start()
    first = only(server)
    monkeypatch.setattr(sessions.Session, "refresh", lambda *_, **__: pytest.fail("it was read"))
    assert only(server) == first


def test_the_disk_is_not_looked_at_for_every_request(start, tmp_path, monkeypatch):
    monkeypatch.setattr(sessions, "REFRESH_REST_SECONDS", 3600.0)
    monkeypatch.setattr(sessions, "DISCOVERY_REST_SECONDS", 3600.0)
    writer = begin(tmp_path / "run" / "neuraldbg")
    server = start()
    before = server.ask("session", run="run").document["revision"]
    writer.write_layers(LayerTable(()), 3)
    writer.close()
    begin(tmp_path / "other" / "neuraldbg").close()
    assert server.ask("session", run="run", revision=before).document["unchanged"]
    assert server.ask("session", run="other").status == 404


def test_a_slow_log_directory_does_not_hold_up_the_list_of_plugins(start, tmp_path, monkeypatch, write_session):
    write_session(tmp_path / "run" / "neuraldbg")
    monkeypatch.setattr(sessions, "ACTIVITY_PATIENCE_SECONDS", 0.0)
    find, found = sessions.find_sessions, sessions.threading.Event()

    def find_slowly(root):
        assert found.wait(10)
        return find(root)

    monkeypatch.setattr(sessions, "find_sessions", find_slowly)
    server = start()
    plugin = server.plugin
    assert not plugin.is_active()
    assert not plugin.is_active()
    found.set()
    assert server.ask("sessions").document["sessions"]
    assert plugin.is_active()


def test_a_run_that_is_recorded_again_under_its_name(start, tmp_path):
    question = {"run": "run", "kind": "weights", "width": 9}
    answers = []
    server = start()
    for value in (1.0, 2.0):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        writer = begin(tmp_path / "run" / "neuraldbg")
        writer.write(Frame(0, 5.0, {"weights": np.full((1, 10), value)}, {"weights": counted(value)}))
        writer.close()
        answers.append(
            (
                server.ask("matrix", statistic="mean", **question).arrays["maximum"].tolist(),
                server.ask("series", row=0, statistics="mean", **question).arrays["maximum"].tolist(),
                server.ask("histograms", row=0, **question).arrays["bins"].tolist(),
            )
        )
    assert answers == [([[1.0]], [[1.0]], [384]), ([[2.0]], [[2.0]], [385])]


def counted(value):
    return Histograms.from_rows({0: reference_counts([value])})
