from __future__ import annotations

import dataclasses
import os
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neural.session import event_file, records, statistics, summaries
from neural.session.frame import KINDS, Frame
from neural.session.layers import LayerTable
from neural.session.rank_folders import rank_folder, ranks
from neural.session.reader import SessionReader, find_sessions
from neural.session.writer import SessionWriter


def open_reader(path: Path) -> SessionReader:
    reader = SessionReader(path.parent)
    reader.refresh()
    return reader


def test_everything_written_comes_back(record, make_frame, assert_same_frame, table, info) -> None:
    reader = open_reader(record(range(0, 50, 10)))
    assert reader.kinds() == tuple(KINDS)
    assert reader.steps().tolist() == [0, 10, 20, 30, 40]
    assert reader.histogram_steps("weights").tolist() == [0, 10, 20, 30, 40]
    for step in range(0, 50, 10):
        assert_same_frame(reader.frame(step), make_frame(step))
    assert reader.layers() == table
    assert reader.info() == info
    assert reader.problems == ()


def test_an_empty_session_has_nothing_and_says_so_when_asked(tmp_path: Path) -> None:
    reader = SessionReader(tmp_path / "none")
    assert not reader.refresh()
    assert reader.info() is None
    assert reader.layers() is None
    assert reader.table_revision() is None
    assert reader.last_written is None
    assert reader.kinds() == ()
    assert reader.steps().tolist() == []
    assert reader.column_block("weights", ["rms"], np.array([3])).shape == (1, 1, 0)
    with pytest.raises(LookupError, match=r"The session has no frame at step 3\."):
        reader.frame(3)
    with pytest.raises(LookupError, match=r"The session has no neuraldbg/weights at step 3\."):
        reader.matrix("weights", 3)


def test_it_follows_a_growing_file(tmp_path: Path, make_frame) -> None:
    session = SessionWriter(tmp_path)
    reader = SessionReader(tmp_path)
    seen = []
    for step in range(3):
        session.write(make_frame(step))
        session.flush()
        assert reader.refresh()
        revision = reader.revision
        assert not reader.refresh()
        assert reader.revision == revision
        seen.append((revision, reader.steps().tolist()))
    session.close()
    assert [steps for _, steps in seen] == [[0], [0, 1], [0, 1, 2]]
    assert len({revision for revision, _ in seen}) == 3


def test_a_file_that_grows_byte_by_byte_is_never_misread(record, tmp_path: Path, make_frame, assert_same_frame) -> None:
    whole = record(range(2)).read_bytes()
    path = tmp_path / "growing" / "events.out.tfevents.1"
    path.parent.mkdir()
    reader = SessionReader(path.parent)
    with path.open("wb", buffering=0) as file:
        for at in range(0, len(whole), 61):
            file.write(whole[at : at + 61])
            reader.refresh()
            assert reader.problems == ()
    reader.refresh()
    assert_same_frame(reader.frame(1), make_frame(1))


def test_every_cut_of_a_file_leaves_what_was_whole(tmp_path: Path, make_frame, assert_same_frame) -> None:
    def small_frame(step: int) -> Frame:
        frame = make_frame(step)
        matrices = {kind: frame.matrices[kind][:1] for kind in ("gradients", "weights")}
        histograms = {"weights": frame.histograms["weights"]}
        profiles = {"timing": frame.profiles["timing"][:1]}
        return dataclasses.replace(frame, matrices=matrices, histograms=histograms, profiles=profiles)

    session = SessionWriter(tmp_path)
    for step in range(2):
        session.write(small_frame(step))
    session.close()
    whole = session.path.read_bytes()
    ends, scanner = [], records.Scanner()
    for span, data in scanner.scan(whole, len(whole)):
        ends += [span.offset + span.length + 4] * len(list(summaries.parse(data)))
    folder = tmp_path / "cut"
    folder.mkdir()
    path = folder / "events.out.tfevents.1"
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        os.utime(path, (1.0, 1.0))
        reader = open_reader(path)
        found = sum(len(entries.steps) for file in reader._order for entries in file.entries.values())
        assert found == sum(end <= cut for end in ends)
        for step in reader.steps().tolist():
            frame, expected = reader.frame(step), small_frame(step)
            assert_same_frame(
                frame,
                dataclasses.replace(
                    expected,
                    matrices={kind: expected.matrices[kind] for kind in frame.matrices},
                    histograms={kind: expected.histograms[kind] for kind in frame.histograms},
                    scalars={name: expected.scalars[name] for name in frame.scalars},
                    profiles={kind: expected.profiles[kind] for kind in frame.profiles},
                    anomalies=expected.anomalies if frame.anomalies else (),
                ),
            )
        rest = cut - max([0, *(end for end in [len_of_head(whole), *ends] if end <= cut)])
        expected_problems = (
            (f"{path.name} ends in the middle of a record; its last {rest} bytes are not shown.",) if rest else ()
        )
        assert reader.problems == expected_problems


def len_of_head(whole: bytes) -> int:
    """The end of the first record, which gives the file's version and holds no value."""
    span, _ = next(records.Scanner().scan(whole, len(whole)))
    return span.offset + span.length + 4


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(data=st.data())
def test_flipped_bytes_cost_no_more_than_the_records_they_hit(record, tmp_path: Path, make_frame, data) -> None:
    source = next(tmp_path.glob("run/neuraldbg/*"), None) or record(range(4))
    whole = bytearray(source.read_bytes())
    spans = [
        (span.offset - 12, span.offset + span.length + 4)
        for span, _ in records.Scanner().scan(bytes(whole), len(whole))
    ]
    hit = set()
    for at in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=4, unique=True)):
        whole[at] ^= data.draw(st.integers(1, 255))
        hit.add(next(number for number, (start, end) in enumerate(spans) if start <= at < end))
    folder = tmp_path / "flipped"
    folder.mkdir(exist_ok=True)
    path = folder / "events.out.tfevents.1"
    path.write_bytes(whole)
    reader = open_reader(path)
    intact = {
        (value.tag, value.step)
        for number, (start, end) in enumerate(spans)
        if number not in hit
        for value in summaries.parse(source.read_bytes()[start + 12 : end - 4])
    }
    found = {(tag, step) for file in reader._order for tag, e in file.entries.items() for step in e.steps}
    assert found == intact
    for step in reader.steps().tolist():
        for kind, matrix in reader.frame(step).matrices.items():
            np.testing.assert_array_equal(matrix, make_frame(step).matrices[kind])
    assert any("is damaged in" in problem for problem in reader.problems) or hit == {len(spans) - 1}


def test_a_column_block_is_the_statistics_of_the_frames(record) -> None:
    reader = open_reader(record(range(300)))
    steps = np.array([-1, 0, 3, 150, 299, 301])
    names = ["rms", "count", "absmax", "l2", "zero_share", "mean", "std"]
    for kind in KINDS:
        block = reader.column_block(kind, names, steps)
        for position, step in enumerate(steps):
            for number, name in enumerate(names):
                if 0 <= step < 300:
                    expected = statistics.select(reader.matrix(kind, int(step)), name)
                    np.testing.assert_array_equal(block[number, position], expected)
                else:
                    assert np.isnan(block[number, position]).all()


def test_a_table_that_grows_leaves_earlier_frames_unmeasured_there(tmp_path: Path) -> None:
    session = SessionWriter(tmp_path)
    for step, rows in enumerate([1, 3, 2]):
        session.write(Frame(step, 0.0, {"weights": np.full((rows, 10), float(rows))}))
    session.close()
    block = open_reader(session.path).column_block("weights", ["mean"], np.arange(3))
    np.testing.assert_array_equal(block[0], [[1, np.nan, np.nan], [3, 3, 3], [2, 2, np.nan]])


def test_columns_of_another_minor_version_are_matched_by_name(tmp_path: Path, monkeypatch) -> None:
    kind = KINDS["weights"]
    columns = ("l2", "novelty", "count")
    monkeypatch.setattr("neural.session.summaries.KINDS", {"weights": dataclasses.replace(kind, columns=columns)})
    session = SessionWriter(tmp_path)
    session.write(Frame(0, 0.0, {"weights": np.array([[5.0, 1.0, 2.0], [6.0, 1.0, 3.0]])}))
    session.close()
    reader = open_reader(session.path)
    expected = statistics.unmeasured(2)
    expected[:, statistics.L2], expected[:, statistics.COUNT] = [5, 6], [2, 3]
    np.testing.assert_array_equal(reader.matrix("weights", 0), expected)
    block = reader.column_block("weights", ["l2", "mean"], np.array([0]))
    np.testing.assert_array_equal(block, [[[5, 6]], [[np.nan, np.nan]]])


def test_a_newer_major_version_is_refused_with_a_sentence(tmp_path: Path, monkeypatch, make_frame) -> None:
    monkeypatch.setattr(summaries, "VERSION", (2, 1))
    summaries._metadata.cache_clear()
    session = SessionWriter(tmp_path)
    session.write(make_frame(0))
    session.close()
    monkeypatch.undo()
    summaries._metadata.cache_clear()
    reader = open_reader(session.path)
    assert reader.kinds() == ()
    assert reader.problems == (
        (
            f"{session.path.name} is not shown. "
            "It was written by a newer NeuralDbg (format 2.1; this one reads 1.x): update tensorboard-plugin-neuraldbg."
        ),
    )


def test_a_replaced_or_shortened_file_is_read_anew(record, tmp_path: Path) -> None:
    first = record(range(3), "a")
    second = record(range(10, 12), "b")
    folder = tmp_path / "live"
    folder.mkdir()
    path = folder / "events.out.tfevents.1"
    shutil.copy(first, path)
    reader = open_reader(path)
    assert reader.steps().tolist() == [0, 1, 2]
    shutil.copy(second, folder / "new")
    (folder / "new").rename(path)
    assert reader.refresh()
    assert reader.steps().tolist() == [10, 11]
    path.write_bytes(b"")
    assert reader.refresh()
    assert reader.steps().tolist() == []
    path.unlink()
    assert reader.refresh()
    assert reader.last_written is None


def test_of_two_values_of_one_step_the_later_counts(tmp_path: Path, make_frame) -> None:
    for wall_time in (5.0, 9.0, 7.0):
        session = SessionWriter(tmp_path)
        session.write(dataclasses.replace(make_frame(int(wall_time)), step=1, wall_time=wall_time))
        session.close()
    reader = open_reader(session.path)
    assert reader.steps().tolist() == [1]
    np.testing.assert_array_equal(reader.matrix("weights", 1), make_frame(9).matrices["weights"])


def test_other_peoples_summaries_in_the_folder_do_no_harm(record) -> None:
    from tensorboard.compat.proto import event_pb2, summary_pb2  # noqa: PLC0415

    path = record(range(1))
    other = event_pb2.Event(step=3, summary=summary_pb2.Summary(value=[summary_pb2.Summary.Value(tag="x")]))
    rubbish = b"\xff not a protobuf"
    path.write_bytes(path.read_bytes() + records.encode(other.SerializeToString()) + records.encode(rubbish))
    reader = open_reader(path)
    assert reader.steps().tolist() == [0]
    assert reader.problems == (f"{path.name} holds 1 records that no session has; they were skipped.",)


def test_memory_grows_with_the_number_of_frames_not_with_their_size(tmp_path: Path) -> None:
    held = []
    for rows in (10, 4000):
        session = SessionWriter(tmp_path / str(rows))
        for step in range(100):
            session.write(Frame(step, 0.0, {"weights": np.zeros((rows, 10))}))
        session.close()
        tracemalloc.start()
        reader = open_reader(session.path)
        reader.matrix("weights", 50)
        held.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
    assert held[1] < 1.5 * held[0]


def test_a_record_larger_than_what_is_read_at_a_time(tmp_path: Path) -> None:
    rows = event_file.CHUNK_BYTES // 80 * 3
    session = SessionWriter(tmp_path)
    for step in range(3):
        session.write(Frame(step, 0.0, {"weights": np.full((rows, 10), float(step))}))
    session.close()
    reader = open_reader(session.path)
    assert reader.steps().tolist() == [0, 1, 2]
    assert reader.matrix("weights", 2)[-1, -1] == 2


def test_sessions_are_found_below_the_log_directory(record, tmp_path: Path) -> None:
    record(range(1), "mnist/first/neuraldbg")
    record(range(1), "neuraldbg")
    (tmp_path / "empty" / "neuraldbg").mkdir(parents=True)
    assert find_sessions(tmp_path) == {
        ".": tmp_path / "neuraldbg",
        "mnist/first": tmp_path / "mnist" / "first" / "neuraldbg",
    }
    assert find_sessions(tmp_path / "mnist" / "first" / "neuraldbg") == {
        ".": tmp_path / "mnist" / "first" / "neuraldbg",
    }
    assert find_sessions(tmp_path / "empty" / "neuraldbg") == {}
    assert find_sessions(tmp_path / "nowhere") == {}


def test_figures_over_the_steps(record) -> None:
    path = record(range(3))
    session = SessionWriter(path.parent)
    session.write(Frame(5, 2000.0, {"weights": np.zeros((1, 10))}, scalars={"gradient_norm": 2.5, "loss": np.nan}))
    session.close()
    reader = open_reader(path)
    assert reader.scalar_names() == ("loss", "gradient_norm")
    assert reader.scalar_steps("loss").tolist() == [0, 1, 2, 5]
    assert reader.scalar_steps("gradient_norm").tolist() == [5]
    assert len(set(reader.scalar_places("loss").tolist())) == 4
    values = reader.scalar_values("loss", reader.scalar_steps("loss")[1:])
    np.testing.assert_array_equal(values, np.array([1 / 2, 1 / 3, np.nan]).astype(np.float32))
    assert len(reader.scalar_steps("accuracy")) == len(reader.scalar_values("accuracy", np.array([], int))) == 0


def test_the_sessions_of_ranks_belong_to_their_run(record, tmp_path: Path) -> None:
    folder = tmp_path / "job" / "neuraldbg"
    for rank in (0, 1, 10):
        record(range(1), f"job/neuraldbg/{rank_folder(Path(), rank)}")
    (folder / "rank_00002").mkdir()
    record(range(1), "job/neuraldbg/rank_1")
    assert find_sessions(tmp_path) == {"job": folder}
    assert find_sessions(folder) == {".": folder}
    assert ranks(folder) == {0: folder, 1: folder / "rank_00001", 10: folder / "rank_00010"}
    assert list(ranks(folder)) == [0, 1, 10]


def test_a_run_is_there_though_its_rank_0_wrote_nothing(record, tmp_path: Path) -> None:
    record(range(1), "job/neuraldbg/rank_00003")
    folder = tmp_path / "job" / "neuraldbg"
    assert find_sessions(tmp_path) == {"job": folder}
    assert ranks(folder) == {3: folder / "rank_00003"}
    assert ranks(tmp_path / "nowhere") == {}


def test_what_was_said_last_counts_though_steps_started_anew(tmp_path: Path, table, info) -> None:
    session = SessionWriter(tmp_path)
    session.write_layers(LayerTable(()), 900)
    session.write_info(dataclasses.replace(info, status="finished"), 900)
    session.flush()
    reader = open_reader(session.path)
    before = reader.table_revision()
    session.write_layers(table, 0)
    session.write_info(info, 0)
    session.close()
    reader.refresh()
    assert reader.info() == info
    assert reader.layers() == table
    assert reader.table_revision() not in {before, None}


def test_a_layer_table_of_the_same_step_is_another_one(record, table) -> None:
    reader = open_reader(record(range(1)))
    before = reader.table_revision()
    assert not reader.refresh()
    assert reader.table_revision() == before
    session = SessionWriter(reader.directory)
    session.write_layers(LayerTable(table.layers), 0)
    session.close()
    reader.refresh()
    assert reader.table_revision() != before
    assert reader.layers() == LayerTable(table.layers)


def test_a_place_is_never_used_again(record) -> None:
    path = record(range(3))
    reader = open_reader(path)
    before = reader.places("weights").tolist()
    assert len(set(before)) == 3
    path.unlink()
    record(range(3))
    reader.refresh()
    assert reader.steps("weights").tolist() == [0, 1, 2]
    assert not set(before) & set(reader.places("weights").tolist())


def test_what_is_no_file_is_left_alone(record) -> None:
    path = record(range(1))
    os.mkfifo(path.parent / "events.out.tfevents.pipe")
    (path.parent / "events.out.tfevents.folder").mkdir()
    (path.parent / "events.out.tfevents.link").symlink_to("nowhere")
    reader = open_reader(path)
    assert reader.steps().tolist() == [0]
    assert reader.problems == ()


def test_a_file_that_may_not_be_read_is_a_problem_and_no_more(record, monkeypatch) -> None:
    path = record(range(1))
    closed = path.parent / "events.out.tfevents.closed"
    closed.touch()
    opened = os.open

    def refuse(file: Path, flags: int) -> int:
        if file == closed:
            raise PermissionError(13, "Permission denied")
        return opened(file, flags)

    monkeypatch.setattr(os, "open", refuse)
    reader = open_reader(path)
    assert reader.steps().tolist() == [0]
    assert reader.problems == ("events.out.tfevents.closed cannot be read: Permission denied.",)
    assert not reader.refresh()
    monkeypatch.undo()
    assert reader.refresh()
    assert reader.problems == ()
