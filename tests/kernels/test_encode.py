"""Fields of records against Python's own text, and records to the byte: what is written, and nothing beyond."""

import json
from datetime import UTC, datetime, timedelta

import numba
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rfmstream.kernels import encode_records as records
from rfmstream.kernels import encode_text as text
from rfmstream.kernels.encode_batches import fill_batch
from rfmstream.kernels.encode_latest import mark_latest

INT64 = st.integers(-(2**63), 2**63 - 1)
GUARD = 0xEE
MARGIN = 3
PLAIN, QUOTED = False, True
EDGES = [0, 9, 10, 63, 64, 99, 100, 8191, 8192, 2**20 - 1, 2**20, 2**27, 2**31 - 1, 2**63 - 1, -1, -(2**63)]


def written(write, *arguments):
    """Call a field's pair of functions; return the bytes, after checking that the sizes agree."""
    out = np.full(8192, GUARD, np.uint8)
    size, end = write(out, *arguments)
    assert end == MARGIN + size
    assert (out[:MARGIN] == GUARD).all()
    assert (out[end + text.LINE_BYTES :] == GUARD).all()
    return out[MARGIN:end].tobytes()


@numba.njit
def _integer(out, value):
    size = text.size_integer(value)
    return size, text.write_integer(out, MARGIN, value, size)


@numba.njit
def _varint(out, value):
    return text.size_varint(value), text.write_varint(out, MARGIN, value)


@numba.njit
def _instant(out, at_us):
    return text.INSTANT_BYTES, text.write_instant(out, MARGIN, at_us)


@numba.njit
def _json(out, data, start, size):
    wanted = text.size_json(data, start, size)
    return wanted, text.write_json(out, MARGIN, data, start, size, wanted)


@numba.njit
def _attribute(out, data, start, size, quoted):
    wanted = text.size_attribute(data, start, size, quoted)
    return wanted, text.write_attribute(out, MARGIN, data, start, size, quoted, wanted)


@settings(deadline=None)
@given(INT64 | st.sampled_from(EDGES))
def test_integers_have_all_their_digits(value):
    assert written(_integer, value) == str(value).encode()


@settings(deadline=None)
@given(st.integers(0, 2**31 - 1) | st.sampled_from([edge for edge in EDGES if 0 <= edge < 2**31]))
def test_varints_can_be_read_back(value):
    encoded = written(_varint, value)
    assert sum((byte & 0x7F) << (7 * place) for place, byte in enumerate(encoded)) == 2 * value
    assert [byte >= 0x80 for byte in encoded] == [True] * (len(encoded) - 1) + [False]
    assert len(encoded) == max(1, -(-(2 * value).bit_length() // 7))


@settings(deadline=None)
@given(st.datetimes(timezones=st.just(UTC)))
@example(datetime(1, 1, 1, tzinfo=UTC))
@example(datetime.max.replace(tzinfo=UTC))
@example(datetime(2000, 2, 29, tzinfo=UTC))
@example(datetime(1900, 3, 1, tzinfo=UTC))
def test_instants_are_those_of_datetime(at):
    micros = (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert written(_instant, micros).decode() == at.isoformat(timespec="microseconds").replace("+00:00", "Z")


def test_every_day_of_a_cycle_of_the_calendar():
    first = datetime(1999, 12, 30, tzinfo=UTC)
    start = int(first.timestamp()) * 1_000_000
    for day in range(400 * 366):
        date = (first + timedelta(days=day)).date()
        assert written(_instant, start + day * 86_400_000_000)[:10] == date.isoformat().encode()


@settings(deadline=None)
@given(st.text(max_size=40), st.integers(0, 9))
def test_json_strings_are_pythons(value, before):
    value = value.encode("utf-8", "replace").decode()
    data = np.frombuffer(b'"' * before + value.encode(), np.uint8)
    expected = json.dumps(value, ensure_ascii=False)[1:-1].encode()
    assert written(_json, data, before, data.size - before) == expected


def test_every_byte_at_every_place_of_a_word():
    for byte in range(128):
        for place in range(17):
            value = "x" * place + chr(byte) + "y" * (16 - place)
            data = np.frombuffer(value.encode(), np.uint8)
            assert written(_json, data, 0, 17).decode() == json.dumps(value, ensure_ascii=False)[1:-1]
            allowed = 0x20 <= byte < 0x7F and byte != 0x25
            expected = value if allowed else value.replace(chr(byte), f"%{byte:02X}")
            assert written(_attribute, data, 0, 17, PLAIN).decode() == expected
            assert (
                written(_attribute, data, 0, 17, QUOTED).decode()
                == json.dumps(expected, ensure_ascii=False)[1:-1]
            )


@pytest.mark.parametrize("cut", [b"\xc3", b"\xe5\xae", b"\xf0\x9f\x98", b"\xff", b"\x80"])
def test_broken_utf8_is_encoded_without_reading_on(cut):
    data = np.frombuffer(b"ab" + cut + b"\xf0\x9f\x98\x80", np.uint8)
    end = 2 + len(cut)
    encoded = written(_attribute, data, 0, end, PLAIN)
    assert encoded.startswith(b"ab")
    assert b"%F0%9F" not in encoded[2 + 3 * len(cut) :]


def table_of(ids):
    offset = np.cumsum([0, *map(len, ids)], dtype=np.int32)
    return offset, np.frombuffer(b"".join(ids) or b"\0", np.uint8)


@settings(deadline=None)
@given(st.lists(st.sampled_from([b"", b"a", b"b", b"a" * 16, b"a" * 17, b"a" * 18]) | st.binary(max_size=3)))
def test_latest_is_the_last_of_equal_ids(ids):
    out = np.empty(len(ids), np.bool_)
    mark_latest(*table_of(ids), np.zeros(4, np.uint64), np.zeros(128, np.int32), out)
    assert out.tolist() == [value not in ids[i + 1 :] for i, value in enumerate(ids)]


def steps_of_numbers(values):
    """Lay out records that are their length and a number after the piece `#`."""
    steps = np.zeros(2, records.STEP)
    steps[0]["kind"], steps[0]["argument"] = records.LENGTH, 1
    steps[1]["kind"], steps[1]["group"], steps[1]["piece_size"] = records.INTEGER, 1, 1
    steps[1]["values_at"] = values.__array_interface__["data"][0]
    return steps, np.frombuffer(b"#" + bytes(text.LINE_BYTES), np.uint8), np.zeros(1, np.int64)


@pytest.mark.parametrize("short", [0, 1, 5])
def test_rows_are_written_as_long_as_there_is_room(short):
    values = np.array([7, -12, 10**18], np.int64)
    expected = (
        b"\x0c\x00\x00\x00\x04#7" + b"\x10\x00\x00\x02\x08#-12" + b"\x30\x00\x00\x04\x28#1000000000000000000"
    )
    out = np.full(len(expected) - short + text.LINE_BYTES + 64, GUARD, np.uint8)
    starts, sizes = np.zeros((2, 3), np.int64)
    room = out[: len(expected) - short + text.LINE_BYTES]
    marks = np.zeros((3, 2, 2), np.int32)
    row, used = records.write_records(*steps_of_numbers(values), 26, 0, 3, room, starts, sizes, marks)
    assert row == (3 if short == 0 else 2)
    assert used == [7, 16, 41][row - 1]
    assert (starts[:row].tolist(), sizes[:row].tolist()) == ([4, 11, 20][:row], [3, 5, 21][:row])
    assert marks[:row, :, 0].tolist() == [[4, 5], [11, 12], [20, 21]][:row]
    assert out[:used].tobytes() == expected[:used]
    assert (out[room.size :] == GUARD).all()


def test_rows_of_another_batch_count_from_its_first():
    values = np.arange(100, 300, dtype=np.int64)
    out = np.zeros(4000, np.uint8)
    starts, sizes, marks = *np.zeros((2, 200), np.int64), np.zeros((80, 2, 2), np.int32)
    row, used = records.write_records(*steps_of_numbers(values), 26, 120, 200, out, starts, sizes, marks)
    assert (row, starts[120]) == (200, 4)
    whole = out[:used].tobytes()
    # From the 65th on the offset takes two bytes.
    assert whole[:8] == b"\x10\x00\x00\x00\x08#22"
    assert whole[64 * 9 : 64 * 9 + 10] == b"\x12\x00\x00\x80\x01\x08#284"
    assert whole[starts[199] : starts[199] + sizes[199]] == b"\x08#299"


def test_a_batch_is_filled_to_its_last_byte():
    data = np.frombuffer(b"abc" + b"d" * 70 + bytes(text.LINE_BYTES), np.uint8)
    starts, sizes = np.array([0, 0, 3], np.int64), np.array([3, 0, 70], np.int64)
    expected = b"\x0c\x00\x00\x00abc" + b"\x06\x00\x00\x02" + b"\x92\x01\x00\x00\x04" + b"d" * 70
    assert len(expected) <= sizes.sum() + 3 * text.BEGINNING_BYTES_MAX
    for short, filled in ((0, 3), (1, 2), (75, 2), (76, 1), (79, 1), (80, 0)):
        out = np.full(len(expected) + text.LINE_BYTES - short, GUARD, np.uint8)
        count, used = fill_batch(data, starts, sizes, 0, out)
        assert count == filled
        assert out[:used].tobytes() == expected[:used]
    out = np.zeros(79 + text.LINE_BYTES, np.uint8)
    assert fill_batch(data, starts, sizes, 1, out) == (2, 4 + 75)
    assert out[:5].tobytes() == b"\x06\x00\x00\x00\x92"
