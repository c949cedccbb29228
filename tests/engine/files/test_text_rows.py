import csv
import io
import json
from datetime import UTC, datetime

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from rfmstream.engine.files.text_rows import csv_header, csv_lines, json_lines

INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "text": st.none() | TEXT,
            "word": st.none() | st.sampled_from(["111", 'q"uote', "a,b"]),
            "number": st.none() | INT64,
            "at": st.none() | st.datetimes(timezones=st.just(UTC)),
        }
    ),
    max_size=8,
)
SCHEMA = pa.schema(
    {
        "text": pa.string(),
        "word": pa.dictionary(pa.int8(), pa.string()),
        "number": pa.int64(),
        "at": pa.timestamp("us", "UTC"),
    }
)


def as_text(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat(timespec="microseconds").replace("+00:00", "Z")


@given(ROWS, st.integers(0, 3))
def test_json_lines_say_the_rows(rows: list[dict[str, object]], skipped: int) -> None:
    batch = pa.RecordBatch.from_pylist(rows, SCHEMA).slice(skipped)
    lines = bytes(json_lines(batch)).decode().split("\n")
    assert lines.pop() == ""
    assert [json.loads(line) for line in lines] == [
        {**row, "at": as_text(row["at"])} for row in rows[skipped:]
    ]


@given(ROWS, st.integers(0, 3))
def test_csv_lines_say_the_rows(rows: list[dict[str, object]], skipped: int) -> None:
    batch = pa.RecordBatch.from_pylist(rows, SCHEMA).slice(skipped)
    text = (csv_header(SCHEMA) + bytes(csv_lines(batch))).decode()
    expected = [
        {
            name: "" if value is None else str(value)
            for name, value in {**row, "at": as_text(row["at"])}.items()
        }
        for row in rows[skipped:]
    ]
    assert list(csv.DictReader(io.StringIO(text, newline=""))) == expected


def test_csv_tells_an_empty_string_from_a_null() -> None:
    batch = pa.record_batch({"a": ["", None], "b": ["x", "y"]})
    assert bytes(csv_lines(batch)) == b'"",x\n,y\n'


def test_a_deadline_beyond_the_last_year_is_written_as_it_is() -> None:
    beyond = pa.array([253_402_300_800_000_000]).view(pa.timestamp("us", "UTC"))
    assert bytes(csv_lines(pa.record_batch({"at": beyond}))) == b"10000-01-01T00:00:00.000000Z\n"
