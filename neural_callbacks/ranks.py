"""Ranks: which process of a distributed job this one is, and one name for the run that all of its ranks write to.

Nothing here is a collective call, which would hang where only some ranks are watched, and the process group stays as
it is. The ranks leave one another a few words on a *board*: a key-value store that the job has anyway, or, on one
machine, files in the log directory.
"""

from __future__ import annotations

import atexit
import hashlib
import itertools
import logging
import os
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from neural_callbacks import clusters

logger = logging.getLogger("neuraldbg")

# How long a rank waits for the one that names the run, in seconds. That one only makes a folder in the meantime.
PATIENCE_SECONDS = 5.0
LOOK_EVERY_SECONDS = 0.01

NOT_AGREED = (
    "Rank {} of {} did not learn under which name the others record this run, and records it as a run of its own. "
    "Ranks learn it where torchrun has started them, where init_process_group comes before NeuralDbg, or from the "
    "coordination service of a TensorFlow cluster."
)


@dataclass(frozen=True)
class Rank:
    """This process' number among the `world_size` of its job, from 0."""

    number: int = 0
    world_size: int = 1


class Board(Protocol):
    """A place that all ranks of a job can read and write."""

    def first(self, key: str, text: str) -> str:
        """Put `text` under `key` unless something stands there; return what stands there now."""

    def read(self, key: str) -> str | None:
        """Return what stands under `key`; None while nothing does."""


def find() -> Rank:
    """Return this process' rank.

    By torch.distributed or by TensorFlow's cluster where one is in use, else by the launcher's RANK and WORLD_SIZE.
    """
    distributed = _distributed()
    if distributed is not None and distributed.is_initialized():
        return Rank(distributed.get_rank(), distributed.get_world_size())
    if (place := clusters.place()) is not None:
        return Rank(*place)
    given = os.environ.get("RANK", ""), os.environ.get("WORLD_SIZE", "")
    if not all(text.isascii() and text.isdigit() for text in given):
        return Rank()
    number, world_size = map(int, given)
    return Rank(number, world_size) if number < world_size else Rank()


def agree(topic: str, name_it: Callable[[], str], rank: Rank, log_dir: Path) -> str | None:
    """Return the name that all ranks of the job give to `topic`; None where this rank did not learn it.

    The first rank to come here calls `name_it`, the others get what that returned. Who comes again, be it with a second
    observer or as a process that took the place of one that died, gets the next name on the same topic.
    """
    if rank.world_size == 1:
        return name_it()
    try:
        board = _board(log_dir)
        return None if board is None else _agreed(board, topic, name_it, rank)
    except Exception as error:
        # A store that is gone must not end training.
        logger.debug("The ranks could not agree on the name of their run.", exc_info=error)
        return None


def _agreed(board: Board, topic: str, name_it: Callable[[], str], rank: Rank) -> str | None:
    # Processes that an elastic launcher starts anew, or of another number, are another run.
    job = (os.environ.get(name, "") for name in ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT"))
    prefix = "/".join(("neuraldbg", *job, str(rank.world_size), topic))
    me = secrets.token_hex(8)
    key = next(
        key
        for key in (f"{prefix}/{number}" for number in itertools.count())
        if board.first(f"{key}/rank_{rank.number}", me) == me
    )
    if board.first(f"{key}/named_by", me) == me:
        return board.first(f"{key}/name", name_it())
    deadline = time.monotonic() + PATIENCE_SECONDS
    # Looking again and again, not the store's own wait: that would keep the job's other threads from using the store.
    while (name := board.read(f"{key}/name")) is None and time.monotonic() < deadline:
        time.sleep(LOOK_EVERY_SECONDS)
    return name


def _distributed() -> Any:
    """Return the module torch.distributed where it is loaded and works, else None."""
    module = sys.modules.get("torch.distributed")
    return module if module is not None and module.is_available() else None


def _board(log_dir: Path) -> Board | None:
    """Return what the ranks of this job can leave word on; None where there is nothing.

    The choice must come out the same on every rank, whether or not its process group is there already.
    """
    environment, distributed = os.environ, _distributed()
    if distributed is not None and environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        # The store of torchrun itself, which is there before any process group, and which those use too.
        address, port = environment["MASTER_ADDR"], int(environment["MASTER_PORT"])
        patience = timedelta(seconds=PATIENCE_SECONDS)
        store = distributed.TCPStore(address, port, is_master=False, timeout=patience, wait_for_workers=False)
        return _StoreBoard(store)
    if distributed is not None and distributed.is_initialized():
        # Not public, and there is nothing public in its place: where it is gone, the caller gets an AttributeError.
        return _StoreBoard(distributed.distributed_c10d._get_default_store())  # noqa: SLF001
    if clusters.place() is not None:
        return clusters.CoordinationBoard()
    return _file_board(environment, log_dir)


def _file_board(environment: Mapping[str, str], log_dir: Path) -> Board | None:
    if not environment.get("MASTER_PORT") or environment.get("LOCAL_WORLD_SIZE") != environment.get("WORLD_SIZE"):
        return None  # on several machines, what a job left here before could not be told from what this one leaves
    # All ranks are children of one launcher. Its number, since run id and port may be those of an earlier job.
    job = (environment.get("TORCHELASTIC_RUN_ID", ""), environment["MASTER_PORT"], str(os.getppid()))
    return _FileBoard(log_dir / f".neuraldbg-{hashlib.sha256(repr(job).encode()).hexdigest()[:16]}")


class _StoreBoard:
    """A board on a store of torch.distributed."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def first(self, key: str, text: str) -> str:
        """See `Board`."""
        found: bytes = self._store.compare_set(key, "", text)
        return found.decode()

    def read(self, key: str) -> str | None:
        """See `Board`."""
        return self._store.get(key).decode() if self._store.check([key]) else None


class _FileBoard:
    """A board in a folder, a file for each key; the folder goes when the process that made it ends."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            pass
        else:
            atexit.register(shutil.rmtree, folder, ignore_errors=True)

    def first(self, key: str, text: str) -> str:
        """See `Board`."""
        path = self._path(key)
        draft = path.with_name(f"{secrets.token_hex(8)}.draft")
        draft.write_text(text)
        try:
            os.link(draft, path)  # a file appears with its content, or not at all
        except FileExistsError:
            return path.read_text()
        finally:
            draft.unlink()
        return text

    def read(self, key: str) -> str | None:
        """See `Board`."""
        path = self._path(key)
        return path.read_text() if path.exists() else None

    def _path(self, key: str) -> Path:
        return self._folder / hashlib.sha256(key.encode()).hexdigest()
