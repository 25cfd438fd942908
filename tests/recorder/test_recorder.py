from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import time

import numpy as np
import pytest

from neural.session import statistics
from neural.session.frame import Frame
from neural.session.layers import Layer, LayerTable
from neural.session.reader import SessionReader
from neural.session.writer import SessionWriter
from neural_callbacks.recorder import LONGEST_REASON, Recorder

TABLE = LayerTable((Layer("Dense_1", "Dense", "dense"),))


def frame(step):
    return Frame(step, time.time(), {"activations": statistics.reference_row(np.arange(3.0))[None]}, {}, {"loss": 0.5})


def open_recorder(log_dir, **options):
    options = {"model": "Net", "framework": "numpy 2", "run_name": "run", "every": 10, **options}
    return Recorder(log_dir=log_dir, **options)


def read(recorder):
    reader = SessionReader(recorder.directory)
    reader.refresh()
    return reader


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.WARNING, logger="neuraldbg")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "neuraldbg"]


def test_frames_and_table_come_out_as_they_went_in(tmp_path, said):
    recorder = open_recorder(tmp_path)
    recorder.write_layers(TABLE, 0)
    given = [frame(0), frame(10)]
    for item in given:
        recorder.record(item)
    recorder.close()
    reader = read(recorder)
    assert reader.layers() == TABLE
    assert reader.steps().tolist() == [0, 10]
    np.testing.assert_array_equal(reader.matrix("activations", 10), given[1].matrices["activations"])
    info = reader.info()
    assert (info.model, info.framework, info.every, info.status) == ("Net", "numpy 2", 10, "finished")
    assert info.started == pytest.approx(time.time(), abs=60)
    assert said() == []


def test_run_is_named_after_model_and_time(tmp_path):
    recorders = [open_recorder(tmp_path, model="my net/2", run_name=None) for _ in range(3)]
    for recorder in recorders:
        recorder.close()
        assert re.fullmatch(r"my_net_2-\d{8}-\d{6}(-[23])?", recorder.run_name)
        assert recorder.directory == tmp_path / recorder.run_name / "neuraldbg"
    assert len({recorder.run_name for recorder in recorders}) == 3


def test_a_name_that_holds_a_session_is_numbered(tmp_path):
    names = []
    for _ in range(3):
        recorder = open_recorder(tmp_path, run_name="mnist/dense")
        recorder.close()
        names.append(recorder.run_name)
    assert names == ["mnist/dense", "mnist/dense-2", "mnist/dense-3"]


def test_a_folder_with_other_logs_is_used(tmp_path):
    (tmp_path / "run").mkdir()
    recorder = open_recorder(tmp_path)
    recorder.close()
    assert recorder.directory == tmp_path / "run" / "neuraldbg"


@pytest.mark.parametrize("name", ["", "/etc", "../run", "a/../../b", "."])
def test_a_name_that_leaves_the_log_directory_is_refused(name, tmp_path):
    with pytest.raises(ValueError, match="run_name") as caught:
        open_recorder(tmp_path, run_name=name)
    assert str(caught.value) == (
        f"run_name={name!r} is not a folder below log_dir; write a plain name, as run_name='mnist-1'."
    )


def test_notices_are_said_and_kept_once(tmp_path, said):
    recorder = open_recorder(tmp_path, notices=["Only half of the images."])
    recorder.notice("One layer is not recorded.")
    recorder.notice("One layer is not recorded.")
    recorder.close()
    assert said() == ["Only half of the images.", "One layer is not recorded."]
    assert read(recorder).info().notices == tuple(said())


def test_what_is_contained_is_said_once_and_its_part_switched_off(tmp_path, said):
    recorder = open_recorder(tmp_path)
    for name in ("dense", "conv2d"):
        with recorder.contained("gradients"):
            raise KeyError(name)
    with recorder.contained("weights"):
        pass
    recorder.close()
    assert recorder.switched_off == {"gradients"}
    sentence = "NeuralDbg switched gradients off after an error, training goes on: KeyError: 'dense'."
    assert said() == [sentence]
    assert read(recorder).info().notices == (sentence,)
    assert read(recorder).info().status == "finished"


def test_an_interrupt_is_not_contained(tmp_path):
    recorder = open_recorder(tmp_path)

    def interrupted():
        with recorder.contained("gradients"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    recorder.close()


@pytest.mark.parametrize(
    ("error", "status", "because"),
    [
        (None, "finished", ""),
        (SystemExit(0), "finished", ""),
        (SystemExit(3), "failed", "SystemExit: 3"),
        (KeyboardInterrupt(), "failed", "KeyboardInterrupt"),
        (ValueError("no data"), "failed", "ValueError: no data"),
        (ValueError("x" * 5000), "failed", ("ValueError: " + "x" * 5000)[:LONGEST_REASON] + " ..."),
    ],
)
def test_session_tells_how_the_run_ended(error, status, because, tmp_path):
    recorder = open_recorder(tmp_path)
    recorder.record(frame(0))
    recorder.close(error)
    recorder.close(RuntimeError("later"))
    info = read(recorder).info()
    assert (info.status, info.ended_because) == (status, because)
    assert read(recorder).steps().tolist() == [0]


def test_nothing_is_recorded_after_the_end(tmp_path):
    recorder = open_recorder(tmp_path)
    recorder.record(frame(0))
    recorder.close()
    recorder.record(frame(1))
    recorder.write_layers(TABLE, 1)
    assert read(recorder).steps().tolist() == [0]


def test_a_writer_that_raises_does_not_reach_training(tmp_path, said, monkeypatch):
    def fail(*_arguments):
        raise RuntimeError("broken")

    recorder = open_recorder(tmp_path)
    with monkeypatch.context() as broken:
        broken.setattr(SessionWriter, "write", fail)
        recorder.record(frame(0))
        recorder.record(frame(1))
    recorder.close()
    assert said() == ["NeuralDbg switched recording off after an error, training goes on: RuntimeError: broken."]


def test_a_log_directory_that_cannot_be_made_is_said_once(tmp_path, said):
    (tmp_path / "file").write_text("")
    recorder = open_recorder(tmp_path / "file")
    recorder.record(frame(0))
    recorder.record(frame(1))
    recorder.close()
    assert len([sentence for sentence in said() if "cannot write" in sentence]) == 1


SCRIPT = """
import sys
from neural_callbacks.recorder import Recorder
recorder = Recorder(model="Net", framework="numpy 2", log_dir=sys.argv[1], run_name="run", every=1)
{ending}
"""


@pytest.mark.parametrize(
    ("ending", "status", "because"),
    [("", "finished", ""), ("raise ValueError('no data')", "failed", "ValueError: no data")],
)
def test_a_run_that_was_not_closed_is_closed_at_exit(ending, status, because, tmp_path):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(
        [sys.executable, "-c", SCRIPT.format(ending=ending), str(tmp_path)],
        env=environment,
        check=not because,
        capture_output=True,
    )
    reader = SessionReader(tmp_path / "run" / "neuraldbg")
    reader.refresh()
    assert (reader.info().status, reader.info().ended_because) == (status, because)
