"""The log directories that TensorBoard was started with."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

_REMOTE = re.compile(r"[a-zA-Z][0-9a-zA-Z.+-]*://")


def log_directories(flags: argparse.Namespace) -> tuple[list[tuple[str, Path]], list[str]]:
    """Return (prefix of the runs' names, folder) for `--logdir` or each part of `--logdir_spec`, and notices.

    A notice is a sentence about a directory that cannot be shown. `--logdir_spec` is read as TensorBoard reads it:
    parts with commas between them, each a path or `name:path`.
    """
    logdir = getattr(flags, "logdir", "") or ""
    parts = [("", logdir)] if logdir else _parts(getattr(flags, "logdir_spec", "") or "")
    directories = [
        # Not Path.expanduser, which raises for a user that does not exist.
        (name, Path(os.path.expanduser(path)).absolute())  # noqa: PTH111
        for name, path in parts
        if not _is_remote(path)
    ]
    notices = [
        f"The log directory {path} is remote; NeuralDbg shows sessions in local folders only."
        for _, path in parts
        if _is_remote(path)
    ]
    return directories, notices


def _is_remote(path: str) -> bool:
    return _REMOTE.match(path) is not None


def _parts(specification: str) -> list[tuple[str, str]]:
    parts = []
    for part in filter(None, specification.split(",")):
        has_name = ":" in part and not _is_remote(part) and not part.startswith("/") and not os.path.splitdrive(part)[0]
        name, _, path = part.partition(":") if has_name else ("", "", part)
        parts.append((name, path))
    return parts
