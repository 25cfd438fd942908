"""One event file of a session: an index of what stands where, that grows as the file does."""

from __future__ import annotations

import itertools
import os
import time
import weakref
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from neural.session import summaries
from neural.session.frame import KINDS, PROFILES
from neural.session.records import Scanner

# Read this much of a file at a time (more only for a larger record): it stays in the processor's cache.
CHUNK_BYTES = 2**18
# A torn record at a file's end is somebody writing, until the file has been quiet for so many seconds.
QUIET_SECONDS = 15.0

_serials = itertools.count()


@dataclass
class Entries:
    """Where the values of one tag stand in one file; parallel arrays.

    `contents` and `heights` tell where a matrix's numbers begin and how many rows it has; -1 where that is not known.
    """

    steps: array[int] = field(default_factory=lambda: array("q"))
    wall_times: array[float] = field(default_factory=lambda: array("d"))
    offsets: array[int] = field(default_factory=lambda: array("q"))
    lengths: array[int] = field(default_factory=lambda: array("q"))
    contents: array[int] = field(default_factory=lambda: array("q"))
    heights: array[int] = field(default_factory=lambda: array("q"))


class EventFile:
    """One event file: an open descriptor, how far it was scanned, and what was found.

    `serial` is a number that no other event file of this process has, not even a later one of the same name.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.serial = next(_serials)
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self.descriptor)
        self.identity = os.fstat(self.descriptor).st_ino
        self.scanner = Scanner()
        self.entries: dict[str, Entries] = {}
        self.foreign = 0
        self.refusal = ""

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes of the file; fewer where it ends before."""
        return os.pread(self.descriptor, length, offset)

    def grow(self) -> bool:
        """Index what was appended since the last call; return whether anything was."""
        size = os.fstat(self.descriptor).st_size
        start = self.scanner.position
        wanted = CHUNK_BYTES
        while self.scanner.position < size:
            before = self.scanner.position
            buffer = self.read(before, min(wanted, size - before))
            for span, data in self.scanner.scan(buffer, size):
                self._add(span.offset, data)
            if self.scanner.position == before:
                needed = self.scanner.needed(buffer)
                if needed <= len(buffer) or needed > size - before:
                    break
                wanted = needed
            else:
                wanted = CHUNK_BYTES
        return self.scanner.position > start

    def _add(self, offset: int, data: bytes) -> None:
        try:
            for value in summaries.parse(data):
                name = value.tag.removeprefix(summaries.PREFIX)
                kind = KINDS.get(name) or PROFILES.get(name)
                start, rows = (-1, -1) if kind is None else summaries.locate_matrix(data, value, kind.columns)
                entries = self.entries.get(value.tag)
                if entries is None:
                    entries = self.entries[value.tag] = Entries()
                entries.steps.append(value.step)
                entries.wall_times.append(value.wall_time)
                entries.offsets.append(offset)
                entries.lengths.append(len(data))
                entries.contents.append(offset + start if start >= 0 else -1)
                entries.heights.append(rows)
        except summaries.NewerVersionError as error:
            self.refusal = str(error)
        except ValueError:
            self.foreign += 1

    def problems(self) -> Iterator[str]:
        """Yield a sentence for each thing in the file that is not shown."""
        if self.refusal:
            yield f"{self.path.name} is not shown. {self.refusal}"
        if self.scanner.corrupt:
            yield f"{self.path.name} is damaged in {self.scanner.corrupt} places; what stands there was skipped."
        if self.foreign:
            yield f"{self.path.name} holds {self.foreign} records that no session has; they were skipped."
        status = os.fstat(self.descriptor)
        rest = status.st_size - self.scanner.position
        if rest > 0 and time.time() - status.st_mtime > QUIET_SECONDS:
            yield f"{self.path.name} ends in the middle of a record; its last {rest} bytes are not shown."
