from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorboard.summary.writer.record_writer import RecordWriter

from neural.session.records import Scanner, encode, masked_crc

RECORDS = [b"", b"a", b"neuraldbg" * 20, bytes(range(256)), b"last"]


def scan_whole(data: bytes, chunk: int = 1 << 20) -> tuple[list[bytes], Scanner]:
    """Feed `data` to a scanner as a reader does: chunk by chunk, more where a record needs it."""
    scanner, found = Scanner(), []
    wanted = chunk
    while scanner.position < len(data):
        before = scanner.position
        buffer = data[before : before + wanted]
        found += [record for _, record in scanner.scan(buffer, len(data))]
        wanted = chunk if scanner.position > before else scanner.needed(buffer)
        if scanner.position == before and (wanted <= len(buffer) or wanted > len(data) - before):
            break
    return found, scanner


def test_the_framing_is_tensorboards_own(tmp_path) -> None:
    path = tmp_path / "records"
    with path.open("wb") as file:
        writer = RecordWriter(file)
        for record in RECORDS:
            writer.write(record)
    assert path.read_bytes() == b"".join(map(encode, RECORDS))


def test_a_known_crc() -> None:
    # CRC32C of "123456789" is 0xE3069283 (RFC 3720, the check value of the polynomial).
    crc = 0xE3069283
    assert masked_crc(b"123456789") == (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


@pytest.mark.parametrize("chunk", [13, 16, 100, 1 << 20])
def test_records_come_back(chunk: int) -> None:
    found, scanner = scan_whole(b"".join(map(encode, RECORDS)), chunk)
    assert found == RECORDS
    assert scanner.corrupt == 0


def test_a_span_tells_where_the_data_lies() -> None:
    data = b"".join(map(encode, RECORDS))
    for span, record in Scanner().scan(data, len(data)):
        assert data[span.offset : span.offset + span.length] == record


def test_every_cut_leaves_the_whole_records_and_waits_for_the_rest() -> None:
    data = b"".join(map(encode, RECORDS))
    ends = np.cumsum([len(encode(record)) for record in RECORDS])
    for cut in range(len(data) + 1):
        found, scanner = scan_whole(data[:cut])
        assert found == RECORDS[: int(np.sum(ends <= cut))]
        assert scanner.corrupt == 0
        found += [record for _, record in scanner.scan(data[scanner.position :], len(data))]
        assert found == RECORDS


@given(st.data())
def test_a_flipped_byte_costs_its_own_record_and_no_other(data) -> None:
    whole = bytearray(b"".join(map(encode, RECORDS)))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    found, scanner = scan_whole(bytes(whole), data.draw(st.sampled_from([16, 64, 1 << 20])))
    ends = np.cumsum([len(encode(record)) for record in RECORDS])
    hit = int(np.searchsorted(ends, at, side="right"))
    assert found == RECORDS[:hit] + RECORDS[hit + 1 :]
    # The last record's header may be what was hit: then nothing behind it can tell that it is over.
    assert scanner.corrupt == 1


@given(st.lists(st.sampled_from(RECORDS[1:]), min_size=1), st.binary(min_size=1, max_size=80))
def test_rubbish_between_records_is_passed_over(records: list[bytes], rubbish: bytes) -> None:
    data = b"".join(map(encode, records))
    found, scanner = scan_whole(data + rubbish + data)
    assert found[: len(records)] == records
    if scanner.corrupt:
        assert found[-len(records) :] == records


def test_a_tail_of_zeros_as_a_crash_leaves_it_is_one_damaged_place() -> None:
    data = encode(b"first")
    found, scanner = scan_whole(data + bytes(5000) + encode(b"second"), chunk=64)
    assert found == [b"first", b"second"]
    assert scanner.corrupt == 1


def test_a_length_that_only_looks_right_does_not_stop_the_reader() -> None:
    length = struct.pack("<Q", 10**6)
    far = length + struct.pack("<I", masked_crc(length))
    found, _ = scan_whole(bytes(20) + far + encode(b"second"))
    assert found == [b"second"]
