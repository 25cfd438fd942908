"""Which worker of a TensorFlow cluster a process is, by what the cluster is made of."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace

import pytest

from neural_callbacks import clusters, ranks
from neural_callbacks.ranks import Rank

JOBS = {"chief": 1, "worker": 3, "ps": 2, "evaluator": 1}


@pytest.fixture
def joined(monkeypatch):
    """Put this process in the place of a task of a cluster."""
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(ranks, "_distributed", lambda: None)

    def become(job, index, jobs):
        sizes = [SimpleNamespace(name=name, tasks=dict.fromkeys(range(size), "")) for name, size in jobs.items()]
        server = SimpleNamespace(job_name=job, task_index=index, cluster=SimpleNamespace(job=sizes))
        module = ModuleType("tensorflow.python.eager.context")
        module.context_safe = lambda: SimpleNamespace(_collective_ops_server_def=server)
        monkeypatch.setitem(clusters.sys.modules, module.__name__, module)

    return become


@pytest.mark.parametrize(
    ("job", "index", "jobs", "rank"),
    [
        ("worker", 1, {"worker": 2}, Rank(1, 2)),
        ("chief", 0, JOBS, Rank(0, 4)),
        ("worker", 0, JOBS, Rank(1, 4)),
        ("worker", 2, JOBS, Rank(3, 4)),
        ("evaluator", 0, JOBS, Rank(0, 1)),
        ("ps", 1, JOBS, Rank(0, 1)),
    ],
)
def test_workers_are_counted_after_a_chief_and_the_rest_is_alone(job, index, jobs, rank, joined):
    joined(job, index, jobs)
    assert ranks.find() == rank


@pytest.mark.parametrize("context", [None, SimpleNamespace()], ids=["not in use", "of another version"])
def test_without_a_cluster_a_process_is_alone(context, monkeypatch):
    module = ModuleType("tensorflow.python.eager.context")
    module.context_safe = lambda: context
    monkeypatch.setitem(clusters.sys.modules, module.__name__, module)
    assert clusters.place() is None
