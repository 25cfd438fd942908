"""The sessions below the log directory: found, opened, followed while they grow."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neural.session.frame import KINDS, PROFILES
from neural.session.info import SessionInfo
from neural.session.layers import LayerTable
from neural.session.rank_folders import has_events, ranks
from neural.session.reader import SessionReader, find_sessions
from tensorboard_plugin_neuraldbg.requests import NOT_FOUND, RequestError

logger = logging.getLogger("neuraldbg")

# A session that says it runs, but whose files nobody touched for so long, is lost. Its writer touches them every
# second or so; a shared file system may show that late.
LOST_AFTER_SECONDS = 15.0
# A session's files are looked at no more often than this, whoever asks.
REFRESH_REST_SECONDS = 0.5
# The log directory is walked no more often than this, and for a tenth of the time at most.
DISCOVERY_REST_SECONDS = 2.0
DISCOVERY_REST_RATIO = 10.0
# How long TensorBoard's list of plugins waits for the first walk over a large log directory.
ACTIVITY_PATIENCE_SECONDS = 0.2
# Each open session holds a descriptor per event file, and an index. Each rank of a distributed job is a session: a job
# of more ranks than this is read anew whenever its ranks are compared.
MAX_OPEN = 256


class Session:
    """One session, followed. Whoever asks several things of it that must agree holds `lock`."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.directory = directory
        self.lock = threading.RLock()
        self.reader = SessionReader(directory)
        self._refreshed = float("-inf")

    def refresh(self, *, rest: float | None = None) -> None:
        """Take in what was written, unless that was done less than `rest` seconds ago."""
        with self.lock:
            now = time.monotonic()
            if now - self._refreshed >= (REFRESH_REST_SECONDS if rest is None else rest):
                self.reader.refresh()
                self._refreshed = now

    def info(self) -> SessionInfo | None:
        """Return what the session says of itself; None where it does not, or where that is damaged."""
        try:
            return self.reader.info()
        except ValueError:
            return None

    def table(self) -> LayerTable | None:
        """Return the newest layer table; None where there is none, or where it is damaged."""
        try:
            return self.reader.layers()
        except ValueError:
            return None

    def status(self) -> str:
        """Return "live", "finished", "failed" or "lost"."""
        info = self.info()
        return _status(info.status if info else "running", self.reader.last_written)

    def document(self, known_revision: str | None) -> dict[str, Any]:
        """Return the answer of the route `session`."""
        with self.lock:
            reader, status, problems = self.reader, self.status(), self._problems()
            revision = f"{reader.revision}-{len(problems)}-{status}"
            if revision == known_revision:
                return {"revision": revision, "unchanged": True}
            info, steps = self.info(), reader.steps()
            return {
                "revision": revision,
                "name": self.name,
                "status": status,
                "model": info.model if info else "",
                "framework": info.framework if info else "",
                "started": info.started if info else None,
                "every": info.every if info else None,
                "overhead_budget": info.overhead_budget if info else None,
                "steps": info.steps if info else None,
                "overhead": self._newest("overhead"),
                "step_seconds": self._newest("step_seconds"),
                "tracing_seconds": self._newest("tracing_seconds"),
                "rank": info.rank if info else 0,
                "world_size": info.world_size if info else 1,
                "profiled": info.profiled if info else "in training",
                "notices": info.notices if info else (),
                "problems": problems,
                "ended_because": info.ended_because if info else "",
                "first_step": int(steps[0]) if len(steps) else None,
                "last_step": int(steps[-1]) if len(steps) else None,
                "kinds": {kind: self._kind_document(kind) for kind in reader.kinds()},
                "profiles": {
                    kind: len(reader.profile_steps(kind)) for kind in PROFILES if len(reader.profile_steps(kind))
                },
                "anomalies": len(reader.anomaly_steps()),
                "table_revision": reader.table_revision(),
            }

    def _newest(self, scalar: str) -> float | None:
        """Return the newest measurement of a scalar; None without one."""
        value = self.reader.newest_scalar(scalar)
        return value if value is not None and math.isfinite(value) else None

    def _kind_document(self, kind: str) -> dict[str, Any]:
        return {
            "rows": KINDS[kind].rows,
            "frames": len(self.reader.steps(kind)),
            "description": KINDS[kind].description,
            "histograms": len(self.reader.histogram_steps(kind)),
        }

    def _problems(self) -> tuple[str, ...]:
        problems = list(self.reader.problems)
        for part in (self.reader.info, self.reader.layers):
            try:
                part()
            except ValueError as error:
                problems.append(str(error))
        return tuple(problems)


def _status(said: str, last_written: float | None) -> str:
    if said != "running":
        return said
    is_heard = last_written is not None and time.time() - last_written < LOST_AFTER_SECONDS
    return "live" if is_heard else "lost"


@dataclass(frozen=True)
class _Outline:
    """What the list of sessions tells of one, and the state of its files at that time."""

    files: tuple[tuple[str, int, int], ...]
    said: str
    last_step: int | None
    last_written: float | None


class Sessions:
    """All sessions below some log directories, each given with the prefix of its runs' names ("" for none).

    A session whose folder lies elsewhere (a symbolic link that leads out of the log directory) is not shown.
    """

    def __init__(self, roots: Sequence[tuple[str, Path]], notices: Sequence[str] = ()) -> None:
        self._roots = roots
        self._notices = notices
        self._found: dict[str, Path] = {}
        self._outside: dict[str, None] = {}
        self._outlines: dict[Path, _Outline] = {}
        self._open: OrderedDict[Path, Session] = OrderedDict()
        self._lock = threading.Lock()
        self._discovery = threading.Lock()
        self._rest_until = float("-inf")

    def are_there(self) -> bool:
        """Return whether there is a session; at once, even where the log directory is large and slow."""
        if not self._found and not self._discovery.locked():
            walk = threading.Thread(target=self._discover, name="neuraldbg-discovery", daemon=True)
            walk.start()
            walk.join(ACTIVITY_PATIENCE_SECONDS)
        return bool(self._found)

    def open(self, name: str, rank: int | None = None) -> Session:
        """Return the session of a rank of the run `name`, up to date; None: of the first rank that recorded anything.

        Raises:
            RequestError: there is no such run, or no such rank of it.
        """
        directory = self._directory(name)
        if rank is None:
            return self._refreshed(name, _first_rank(directory))
        folders = _ranks(directory)
        if rank not in folders:
            there = ", ".join(map(str, list(folders)[:MAX_NAMED])) or "none"
            more = f" and {len(folders) - MAX_NAMED} more" if len(folders) > MAX_NAMED else ""
            raise RequestError(NOT_FOUND, f"The run {name!r} has no session of rank {rank}; it has {there}{more}.")
        return self._refreshed(name, folders[rank])

    def ranks(self, name: str) -> dict[int, Session]:
        """Return the sessions of all ranks of the run `name`, ascending, up to date.

        Raises:
            RequestError: there is no such run.
        """
        return {rank: self._refreshed(name, folder) for rank, folder in _ranks(self._directory(name)).items()}

    def _directory(self, name: str) -> Path:
        directory = self._discover().get(name)
        if directory is None or not directory.is_dir():
            raise RequestError(NOT_FOUND, self._unknown(name))
        return directory

    def _refreshed(self, name: str, directory: Path) -> Session:
        session = self._session(name, directory)
        session.refresh()
        return session

    def document(self) -> dict[str, Any]:
        """Return the answer of the route `sessions`."""
        listed = []
        for name, directory in sorted(self._discover().items()):
            outline = self._outline(name, _first_rank(directory))
            listed.append(
                {
                    "name": name,
                    "status": _status(outline.said, outline.last_written),
                    "last_step": outline.last_step,
                    "last_written": outline.last_written,
                }
            )
        outside = (
            f"The session {name!r} is not shown: it is a link that leads out of the log directory. Start TensorBoard "
            "with a --logdir that holds it."
            for name in self._outside
        )
        return {"sessions": listed, "notices": [*self._notices, *outside]}

    def _discover(self) -> dict[str, Path]:
        with self._discovery:
            start = time.monotonic()
            if start < self._rest_until:
                return self._found
            found: dict[str, Path] = {}
            outside: dict[str, None] = {}
            for prefix, root in self._roots:
                for run, directory in find_sessions(root).items():
                    name = "/".join(part for part in (prefix, run) if part and part != ".") or "."
                    if not directory.resolve().is_relative_to(root.resolve()):
                        outside[name] = None
                    else:
                        # Two log directories without a name of their own may hold runs of the same name.
                        found[name if name not in found else f"{root.name}/{run}"] = directory
            self._found, self._outside = found, outside
            now = time.monotonic()
            self._rest_until = now + max(DISCOVERY_REST_SECONDS, DISCOVERY_REST_RATIO * (now - start))
            return found

    def _session(self, name: str, directory: Path) -> Session:
        with self._lock:
            session = self._open.pop(directory, None) or Session(name, directory)
            self._open[directory] = session
            while len(self._open) > MAX_OPEN:
                self._open.popitem(last=False)
            return session

    def _outline(self, name: str, directory: Path) -> _Outline:
        """Return what the list tells of a session, reading it only when its files have changed."""
        files = _files(directory)
        known = self._outlines.get(directory)
        if known is not None and known.files == files:
            return known
        session = self._session(name, directory)
        with session.lock:
            session.refresh(rest=0.0)
            info, steps = session.info(), session.reader.steps()
            outline = _Outline(
                files,
                info.status if info else "running",
                int(steps[-1]) if len(steps) else None,
                session.reader.last_written,
            )
        self._outlines[directory] = outline
        return outline

    def _unknown(self, name: str) -> str:
        if name in self._outside:
            return f"The run {name!r} lies outside the log directory and is not shown."
        if name in self._found:
            return f"There is no run {name!r}; its files were removed."
        names = sorted(self._found)
        if not names:
            return f"There is no run {name!r}: the log directory holds no session yet."
        several = "one of " if len(names) > 1 else ""
        shown = ", ".join(repr(known) for known in names[:MAX_NAMED])
        more = f" or {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
        return f"There is no run {name!r}; write {several}{shown}{more}."


# A sentence lists no more runs than this.
MAX_NAMED = 5


def _ranks(directory: Path) -> dict[int, Path]:
    """Return the folder of each rank of the run in `directory`; a link that leads elsewhere is not followed."""
    inside = directory.resolve()
    return {rank: folder for rank, folder in ranks(directory).items() if folder.resolve().is_relative_to(inside)}


def _first_rank(directory: Path) -> Path:
    """Return the folder of the first rank that recorded anything: rank 0's, unless that died at once."""
    return directory if has_events(directory) else next(iter(_ranks(directory).values()), directory)


def _files(directory: Path) -> tuple[tuple[str, int, int], ...]:
    try:
        with os.scandir(directory) as entries:
            status = [(entry.name, entry.stat()) for entry in entries]
    except OSError:
        return ()
    return tuple(sorted((name, found.st_size, found.st_mtime_ns) for name, found in status))
