"""The ranks of a job that torchrun started, and started anew after one failed."""

from __future__ import annotations

from neural.session.rank_folders import ranks
from neural.session.reader import SessionReader, find_sessions


def test_ranks_that_torchrun_starts_anew_are_a_run_of_their_own(torchrun, tmp_path):
    done = torchrun("restarted.py", tmp_path, processes=2, restarts=1)
    assert done.returncode == 0, done.stderr
    assert sorted(find_sessions(tmp_path)) == ["elastic", "elastic-2"]
    for run in ("elastic", "elastic-2"):
        folders = ranks(tmp_path / run / "neuraldbg")
        assert list(folders) == [0, 1]
        for rank, folder in folders.items():
            reader = SessionReader(folder)
            reader.refresh()
            info = reader.info()
            assert (info.rank, info.world_size, info.notices) == (rank, 2, ())
            assert len(list(folder.glob("*tfevents*"))) == 1
            if run == "elastic-2":
                assert (info.status, reader.steps().tolist()) == ("finished", [0, 1])
            elif rank == 1:
                assert (info.status, info.ended_because) == ("failed", "SystemExit: rank 1 fails")
