"""Clusters: the workers of a TensorFlow job that train together, where this process is one of them.

TensorFlow is asked, not the environment: TF_CONFIG is there for jobs of other kinds too, and a strategy may have its
cluster from elsewhere. What is asked is not public, and there is nothing public in its place: where a version of
TensorFlow lacks it, this process counts as alone.
"""

from __future__ import annotations

import sys
from typing import Any

# Workers train together; an evaluator trains nothing and parameter servers only hold values. A chief comes first.
_TRAINING = ("chief", "worker")
# How long to wait for an answer over the network, in milliseconds; the answer comes as soon as there is a value.
_WAIT_MILLISECONDS = 1000


def place() -> tuple[int, int] | None:
    """Return this process' number among the workers that train together and how many these are; None outside of one."""
    job = getattr(_context(), "_collective_ops_server_def", None)
    if job is None or job.job_name not in _TRAINING:
        return None
    sizes = {one.name: len(one.tasks) for one in job.cluster.job}
    before = sizes.get("chief", 0) if job.job_name == "worker" else 0
    return before + job.task_index, sum(sizes.get(name, 0) for name in _TRAINING)


class CoordinationBoard:
    """A `ranks.Board` on the key-value store of the cluster's coordination service, which is gone when the job is."""

    def __init__(self) -> None:
        self._context = _context()

    def first(self, key: str, text: str) -> str:
        """See `Board`."""
        try:
            self._context.set_config_key_value(key, text)  # fails where the key is there
        except _errors().AlreadyExistsError:
            return str(self._context.get_config_key_value(key, _WAIT_MILLISECONDS))
        return text

    def read(self, key: str) -> str | None:
        """See `Board`."""
        try:
            return str(self._context.get_config_key_value(key, _WAIT_MILLISECONDS))
        except _errors().DeadlineExceededError:
            return None


def _context() -> Any:
    """Return TensorFlow's context in this process; None where it is not in use."""
    module = sys.modules.get("tensorflow.python.eager.context")
    return None if module is None else module.context_safe()


def _errors() -> Any:
    return sys.modules["tensorflow.python.framework.errors_impl"]
