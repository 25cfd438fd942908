"""How the ranks of a job find their numbers and one name for their run, without a framework."""

from __future__ import annotations

import logging
import re
import threading

import pytest

from neural.session.reader import SessionReader, find_sessions
from neural_callbacks import ranks
from neural_callbacks.ranks import NOT_AGREED, Rank
from neural_callbacks.recorder import Recorder


@pytest.fixture(autouse=True)
def no_torch(monkeypatch):
    monkeypatch.setattr(ranks, "_distributed", lambda: None)


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.WARNING, logger="neuraldbg")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "neuraldbg"]


@pytest.fixture
def launched(monkeypatch):
    """Put this process in the place of one rank after the other."""
    for name in ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_USE_AGENT_STORE"):
        monkeypatch.delenv(name, raising=False)

    def become(rank, world_size=3, **environment):
        given = {"RANK": rank, "WORLD_SIZE": world_size, "LOCAL_WORLD_SIZE": world_size, "MASTER_PORT": 29500}
        for name, value in (given | environment).items():
            monkeypatch.setenv(name, str(value))

    return become


def record(log_dir, run_name=None, model="Net"):
    recorder = Recorder(model=model, framework="numpy 2", log_dir=log_dir, run_name=run_name, every=1)
    recorder.close()
    return recorder


@pytest.mark.parametrize(
    ("environment", "rank"),
    [
        ({}, Rank(0, 1)),
        ({"RANK": "2", "WORLD_SIZE": "4"}, Rank(2, 4)),
        ({"RANK": "0", "WORLD_SIZE": "1"}, Rank(0, 1)),
        ({"RANK": "2"}, Rank(0, 1)),
        ({"RANK": "4", "WORLD_SIZE": "4"}, Rank(0, 1)),
        ({"RANK": "-1", "WORLD_SIZE": "4"}, Rank(0, 1)),
        ({"RANK": "two", "WORLD_SIZE": "4"}, Rank(0, 1)),
    ],
)
def test_rank_by_the_environment(environment, rank, monkeypatch):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert ranks.find() == rank


@pytest.mark.parametrize("first", [0, 2])
def test_all_ranks_write_to_one_run_whichever_comes_first(first, tmp_path, launched, said):
    recorders = {}
    for rank in sorted(range(3), key=lambda rank: rank != first):
        launched(rank)
        recorders[rank] = record(tmp_path)
    ((name, folder),) = find_sessions(tmp_path).items()
    assert re.fullmatch(r"Net-\d{8}-\d{6}", name)
    assert {rank: recorder.directory for rank, recorder in recorders.items()} == {
        0: folder,
        1: folder / "rank_00001",
        2: folder / "rank_00002",
    }
    for rank, recorder in recorders.items():
        reader = SessionReader(recorder.directory)
        reader.refresh()
        assert (reader.info().rank, reader.info().world_size, reader.info().notices) == (rank, 3, ())
    assert said() == []


def test_ranks_that_come_at_once_name_the_run_once(tmp_path, launched):
    launched(0, 8)
    names, start = {}, threading.Barrier(8)

    def run(number):
        start.wait()
        names[number] = ranks.agree("Net", lambda: f"by {number}", Rank(number, 8), tmp_path)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(names) == 8
    assert len(set(names.values())) == 1


def test_a_second_observer_is_another_run_on_every_rank(tmp_path, launched):
    directories = []
    for rank in (0, 1):
        launched(rank, 2)
        directories.append([record(tmp_path, "gan").directory for _ in range(2)])
    launched(0, 2)
    directories.append(record(tmp_path, "other").directory)
    assert directories == [
        [tmp_path / "gan" / "neuraldbg", tmp_path / "gan-2" / "neuraldbg"],
        [tmp_path / "gan" / "neuraldbg" / "rank_00001", tmp_path / "gan-2" / "neuraldbg" / "rank_00001"],
        tmp_path / "other" / "neuraldbg",
    ]


def test_a_name_that_holds_a_session_is_numbered_the_same_on_every_rank(tmp_path, launched):
    launched(0, 1)
    record(tmp_path, "mnist")
    names = []
    for rank in (1, 0):
        launched(rank, 2)
        names.append(record(tmp_path, "mnist").run_name)
    assert names == ["mnist-2", "mnist-2"]


@pytest.mark.parametrize(
    "again",
    [{"TORCHELASTIC_RESTART_COUNT": 1}, {"TORCHELASTIC_RUN_ID": "another"}, {"MASTER_PORT": 29501}, {}],
)
def test_processes_that_are_started_anew_are_another_run(again, tmp_path, launched):
    lives = []
    for environment in ({}, again):
        names = set()
        for rank in (0, 1):
            launched(rank, 2, **environment)
            names.add(record(tmp_path, "mnist").run_name)
        lives.append(names)
    assert lives == [{"mnist"}, {"mnist-2"}]


def test_ranks_of_another_number_are_another_run(tmp_path, launched):
    launched(0, 2)
    assert record(tmp_path, "mnist").run_name == "mnist"
    for rank in (2, 0):
        launched(rank, 3)
        assert record(tmp_path, "mnist").run_name == "mnist-2"


def test_a_rank_that_waits_in_vain_records_a_run_of_its_own(tmp_path, launched, said, monkeypatch):
    monkeypatch.setattr(ranks, "PATIENCE_SECONDS", 0.05)

    def die(*_):
        raise SystemExit

    launched(0)
    with pytest.raises(SystemExit):
        ranks.agree("mnist", die, Rank(0, 3), tmp_path)
    launched(1)
    recorder = record(tmp_path, "mnist")
    assert recorder.directory == tmp_path / "mnist-rank1" / "neuraldbg" / "rank_00001"
    assert said() == [NOT_AGREED.format(1, 3)]
    assert said()[0].startswith("Rank 1 of 3 did not learn under which name the others record this run")
    assert find_sessions(tmp_path) == {"mnist-rank1": tmp_path / "mnist-rank1" / "neuraldbg"}


@pytest.mark.parametrize("environment", [{"LOCAL_WORLD_SIZE": 1}, {"MASTER_PORT": ""}])
def test_a_job_without_a_board_records_a_run_for_each_rank(environment, tmp_path, launched, said):
    for rank in (0, 1):
        launched(rank, 2, **environment)
        assert record(tmp_path, "mnist").run_name == f"mnist-rank{rank}"
    assert said() == [NOT_AGREED.format(0, 2), NOT_AGREED.format(1, 2)]


def test_a_board_that_breaks_does_not_reach_training(tmp_path, launched, said):
    launched(1)
    (tmp_path / "runs").write_text("no folder")
    record(tmp_path / "runs", "mnist")
    assert NOT_AGREED.format(1, 3) in said()


def test_a_machine_that_holds_a_run_of_that_name_mixes_nothing_into_it(tmp_path, launched, said):
    launched(1)
    record(tmp_path, "mnist")
    # What the others name "mnist" now is not what this machine's disk has under that name.
    name = ranks.agree("cifar", lambda: "mnist", Rank(0, 3), tmp_path)
    recorder = record(tmp_path, "cifar")
    assert name == "mnist"
    assert recorder.run_name == "cifar-rank1"
    assert said() == [NOT_AGREED.format(1, 3)]


def test_the_board_of_files_goes_with_the_process_that_made_it(tmp_path, launched, monkeypatch):
    ending = []
    monkeypatch.setattr(ranks.atexit, "register", lambda *what, **how: ending.append((what, how)))
    for rank in (0, 1):
        launched(rank, 2)
        ranks.agree("mnist", lambda: "mnist", Rank(rank, 2), tmp_path)
    assert [path.name[:11] for path in tmp_path.iterdir()] == [".neuraldbg-"]
    ((remove, *arguments), options) = ending.pop()
    remove(*arguments, **options)
    assert ending == []
    assert list(tmp_path.iterdir()) == []
