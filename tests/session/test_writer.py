from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from neural.session import statistics, writer
from neural.session.frame import Frame
from neural.session.reader import SessionReader
from neural.session.writer import SessionWriter


def read(path: Path) -> SessionReader:
    reader = SessionReader(path.parent)
    reader.refresh()
    return reader


def test_frames_are_on_disk_after_a_flush(tmp_path: Path, make_frame) -> None:
    session = SessionWriter(tmp_path / "run" / "neuraldbg", refresh_rate=3600)
    session.write(make_frame(0))
    session.flush()
    assert read(session.path).steps().tolist() == [0]
    session.close()


def test_frames_are_on_disk_without_a_flush_at_the_refresh_rate(tmp_path: Path, make_frame) -> None:
    session = SessionWriter(tmp_path, refresh_rate=0.01)
    session.write(make_frame(0))
    deadline = time.monotonic() + 30
    while not session.path.exists() or not len(read(session.path).steps()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    session.close()


def test_a_quiet_writer_renews_the_files_time(tmp_path: Path, make_frame) -> None:
    session = SessionWriter(tmp_path, refresh_rate=0.01)
    session.write(make_frame(0))
    session.flush()
    os.utime(session.path, (1.0, 1.0))
    deadline = time.monotonic() + 30
    while session.path.stat().st_mtime < 2.0:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    session.close()


def test_closing_writes_what_is_left_and_may_be_repeated(tmp_path: Path, make_frame) -> None:
    session = SessionWriter(tmp_path, refresh_rate=3600)
    for step in range(30):
        session.write(make_frame(step))
    session.close()
    session.close()
    session.write(make_frame(30))
    session.flush()
    assert read(session.path).steps().tolist() == list(range(30))


def test_an_interpreter_that_ends_without_closing_loses_nothing(tmp_path: Path) -> None:
    script = f"""
import numpy as np
from pathlib import Path
from neural.session.frame import Frame
from neural.session.writer import SessionWriter
session = SessionWriter(Path({str(tmp_path)!r}), refresh_rate=3600)
session.write(Frame(7, 0.0, {{"weights": np.zeros((1, 10))}}))
"""
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True)
    (path,) = tmp_path.iterdir()
    assert read(path).steps().tolist() == [7]


def test_training_waits_rather_than_filling_the_memory(tmp_path: Path, monkeypatch, make_frame) -> None:
    monkeypatch.setattr(writer, "MAX_PENDING_BYTES", 1)
    gate = threading.Event()
    append = SessionWriter._append

    def slow(self, file, parts):
        gate.wait()
        append(self, file, parts)

    monkeypatch.setattr(SessionWriter, "_append", slow)
    session = SessionWriter(tmp_path, refresh_rate=0.001)
    session.write(make_frame(0))
    second = threading.Thread(target=session.write, args=(make_frame(1),))
    second.start()
    second.join(0.2)
    assert second.is_alive()
    gate.set()
    second.join()
    session.close()
    assert read(session.path).steps().tolist() == [0, 1]


class Disk:
    """A disk with so many bytes left: `os.write` fills it, then refuses, as the kernel does."""

    def __init__(self, free: int) -> None:
        self.free = free
        self.write = os.write

    def __call__(self, file: int, data: memoryview) -> int:
        if not self.free and len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        part = data[: self.free]
        self.free -= len(part)
        return self.write(file, part)


@pytest.mark.parametrize("free", [0, 10, 1500, 5000, 20_000])
def test_a_full_disk_is_reported_once_and_written_to_again_when_it_may(
    tmp_path: Path, monkeypatch, caplog, make_frame, table, info, free: int
) -> None:
    disk = Disk(free)
    monkeypatch.setattr(writer.os, "write", disk)
    session = SessionWriter(tmp_path, refresh_rate=0.001)
    session.write_info(info, 0)
    session.write_layers(table, 0)
    for step in range(20):
        session.write(make_frame(step))
        session.flush()
    lost = session.lost_frames
    disk.free = 10**9
    for step in range(20, 25):
        session.write(make_frame(step))
    session.close()

    reader = read(session.path)
    assert reader.problems == ()
    assert reader.info() == info
    assert reader.layers() == table
    complete = [step for step in reader.steps().tolist() if set(reader.frame(step).matrices) == set(reader.kinds())]
    assert 0 < lost == 25 - len([step for step in complete if reader.frame(step).scalars])
    assert complete[-5:] == [20, 21, 22, 23, 24]
    messages = [record.getMessage() for record in caplog.records if record.name == "neuraldbg"]
    assert messages == [
        (
            f"NeuralDbg cannot write {session.path}: No space left on device. "
            "Training goes on; what cannot be written is not recorded."
        ),
        f"NeuralDbg could not record {lost} frames in {session.path}.",
    ]


def test_a_folder_that_cannot_be_made_is_reported_once(tmp_path: Path, caplog, make_frame) -> None:
    (tmp_path / "file").write_text("in the way")
    session = SessionWriter(tmp_path / "file" / "neuraldbg", refresh_rate=0.001)
    for step in range(3):
        session.write(make_frame(step))
        session.flush()
    session.close()
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.WARNING]
    assert "Not a directory" in caplog.records[0].getMessage()
    assert session.lost_frames == 3


def test_a_run_deleted_in_mid_training_begins_anew_with_its_table(tmp_path: Path, make_frame, table, info) -> None:
    session = SessionWriter(tmp_path / "run" / "neuraldbg", refresh_rate=3600)
    session.write_info(info, 0)
    session.write_layers(table, 0)
    session.write(make_frame(0))
    session.flush()
    shutil.rmtree(tmp_path / "run")
    session.write(make_frame(1))
    session.close()
    reader = read(session.path)
    assert reader.steps().tolist() == [1]
    assert reader.layers() == table
    assert reader.info() == info
    assert reader.problems == ()


def test_a_frame_that_cannot_be_encoded_takes_no_other_with_it(tmp_path: Path, caplog, make_frame) -> None:
    session = SessionWriter(tmp_path, refresh_rate=3600)
    session.write(make_frame(0))
    session.write(Frame(1, 0.0, {"no such kind": statistics.unmeasured(1)}))
    session.write(make_frame(2))
    session.close()
    assert read(session.path).steps().tolist() == [0, 2]
    assert session.lost_frames == 1
    assert caplog.records[0].getMessage().startswith("NeuralDbg could not encode a frame. Training goes on;")


def test_a_forked_child_neither_writes_nor_hangs(tmp_path: Path, make_frame) -> None:
    session = SessionWriter(tmp_path, refresh_rate=3600)
    session.write(make_frame(0))

    def child() -> None:
        session.write(make_frame(1))
        session.flush()
        session.close()

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(30)
    assert process.exitcode == 0
    session.close()
    assert read(session.path).steps().tolist() == [0]


def test_two_writers_of_one_process_use_two_files(tmp_path: Path, make_frame) -> None:
    writers = [SessionWriter(tmp_path), SessionWriter(tmp_path)]
    for step, session in enumerate(writers):
        session.write(make_frame(step))
        session.close()
    assert writers[0].path != writers[1].path
    assert read(writers[0].path).steps().tolist() == [0, 1]


def test_a_histogram_of_more_than_four_billion_values_keeps_its_count(tmp_path: Path) -> None:
    from neural.session.histogram import BINS, Histograms  # noqa: PLC0415

    counts = np.zeros(BINS, np.int64)
    counts[300] = 2**40
    session = SessionWriter(tmp_path)
    session.write(Frame(0, 0.0, {"weights": statistics.unmeasured(1)}, {"weights": Histograms.from_rows({0: counts})}))
    session.close()
    assert read(session.path).histograms("weights", 0).row(0)[300] == 2**40
