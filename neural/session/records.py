"""TFRecord framing with CRC32C, as event files use it: append, scan, find the way again after damage.

A record is: length (uint64), masked CRC of the length (uint32), data, masked CRC of the data (uint32), little endian.
https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/lib/io/record_writer.h gives the format.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

import google_crc32c
import numpy as np

_HEADER = struct.Struct("<QI")
_LENGTH = struct.Struct("<Q")
_CRC = struct.Struct("<I")
HEADER_BYTES = _HEADER.size
OVERHEAD_BYTES = _HEADER.size + _CRC.size
_MASK_DELTA = 0xA282EAD8


def masked_crc(data: bytes) -> int:
    """Return the CRC32C of `data`, rotated and offset so that a CRC of data that holds CRCs stays a good one."""
    crc: int = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def encode(data: bytes) -> bytes:
    """Return `data` as one record."""
    length = _LENGTH.pack(len(data))
    return b"".join((length, _CRC.pack(masked_crc(length)), data, _CRC.pack(masked_crc(data))))


def _header_at(buffer: bytes, position: int) -> int | None:
    """Return the data length that the header at `position` gives, or None where that is no header."""
    length, crc = _HEADER.unpack_from(buffer, position)
    return length if masked_crc(buffer[position : position + _LENGTH.size]) == crc else None


def _next_header(buffer: bytes, start: int, longest: int) -> int | None:
    """Return the first position from `start` on where a header stands that names at most `longest` bytes."""
    end = len(buffer) - HEADER_BYTES + 1
    if start >= end:
        return None
    octets = np.frombuffer(buffer, np.uint8)
    lengths = np.zeros(end - start, np.uint64)
    for byte in range(_LENGTH.size):
        lengths |= octets[start + byte : end + byte].astype(np.uint64) << np.uint64(8 * byte)
    (candidates,) = np.nonzero((lengths > 0) & (lengths <= longest))
    return next((start + int(at) for at in candidates if _header_at(buffer, start + int(at)) is not None), None)


class Span(NamedTuple):
    """Where one record's data lies: its offset in the file and its length, both in bytes."""

    offset: int
    length: int


class Scanner:
    """Walks over the records of one file as it grows.

    `position` is where the next record is expected, in bytes from the start of the file; `corrupt` counts the
    records, or stretches between records, whose CRC was wrong and that were passed over.
    """

    def __init__(self) -> None:
        self.position = 0
        self.corrupt = 0
        self._lost = False

    def scan(self, buffer: bytes, file_size: int) -> Iterator[tuple[Span, bytes]]:
        """Yield the whole, undamaged records of `buffer`, which begins at `position`, and advance behind each.

        `file_size` is the file's size now: a header that names more than that is not believed while searching for
        the way. What remains behind the last whole record is left for the next call, which brings more of the file.
        """
        start, at = self.position, 0
        while at + HEADER_BYTES <= len(buffer):
            length = None if self._lost else _header_at(buffer, at)
            if length is None:
                self.corrupt += not self._lost
                # A header names what fits into the file; without that limit, chance would have us wait for ever.
                header = _next_header(buffer, at if self._lost else at + 1, file_size - self.position)
                self._lost = header is None
                at = len(buffer) - HEADER_BYTES + 1 if header is None else header
                self.position = start + at
                continue
            end = at + HEADER_BYTES + length + _CRC.size
            if end > len(buffer):
                break
            data = buffer[at + HEADER_BYTES : end - _CRC.size]
            self.position = start + end
            if masked_crc(data) == _CRC.unpack_from(buffer, end - _CRC.size)[0]:
                yield Span(start + at + HEADER_BYTES, length), data
            else:
                self.corrupt += 1
            at = end

    def needed(self, buffer: bytes) -> int:
        """Return how many bytes from `position` on the next record takes; `buffer` begins at `position`."""
        if self._lost or len(buffer) < HEADER_BYTES:
            return HEADER_BYTES
        length = _header_at(buffer, 0)
        return HEADER_BYTES if length is None else length + OVERHEAD_BYTES
