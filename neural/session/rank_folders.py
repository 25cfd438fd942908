"""Where the ranks of a distributed job keep their sessions: rank 0 in the run's folder, the others below it."""

from __future__ import annotations

import re
from pathlib import Path

_RANK_FOLDER = re.compile(r"rank_(\d{5,9})")


def rank_folder(session: Path, rank: int) -> Path:
    """Return the folder of a rank's session, where `session` is the run's (…/RUN/neuraldbg)."""
    return session / f"rank_{rank:05}" if rank else session


def ranks(session: Path) -> dict[int, Path]:
    """Return the ranks whose sessions lie in a run's folder `session`, ascending, and the folder of each."""
    found = {0: session} if has_events(session) else {}
    try:
        numbers = sorted(int(match[1]) for path in session.iterdir() if (match := _RANK_FOLDER.fullmatch(path.name)))
    except OSError:
        return found
    folders = {number: rank_folder(session, number) for number in numbers if number}
    return found | {number: folder for number, folder in folders.items() if has_events(folder)}


def has_events(folder: Path) -> bool:
    """Say whether a folder holds event files; False where it is not there or may not be read."""
    try:
        return any("tfevents" in entry.name for entry in folder.iterdir())
    except OSError:
        return False  # a folder that has just vanished, or is closed, is no reason to hide other sessions
