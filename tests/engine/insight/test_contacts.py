from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rfmstream.engine.insight.contacts import read_contacts
from rfmstream.schemas.errors import InputError

HEAD = "customer_id,campaign,contacted_at,responded_at\n"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "sent.csv"
    path.write_text(text)
    return path


def test_times_without_a_zone_are_local(tmp_path: Path) -> None:
    path = written(
        tmp_path, HEAD + "00042,spring,2026-05-01 09:00,\n7,spring,2026-05-01T09:00:00Z,2026-05-02\n"
    )
    first, second = read_contacts(path, time_zone="Asia/Shanghai").to_pylist()
    assert first == {
        "customer_id": "00042",
        "campaign": "spring",
        "contacted_at": datetime(2026, 5, 1, 1, tzinfo=UTC),
        "responded_at": None,
    }
    assert second["responded_at"] == datetime(2026, 5, 1, 16, tzinfo=UTC)


def test_parquet_and_lines_of_json(tmp_path: Path) -> None:
    rows = {
        "customer_id": pa.array([1, 2]),
        "campaign": pa.array(["a", "b"]).dictionary_encode(),
        "contacted_at": pa.array([datetime(2026, 5, 1), None]).cast(pa.timestamp("s")),  # noqa: DTZ001
    }
    path = tmp_path / "sent.parquet"
    pq.write_table(pa.table(rows).slice(0, 1), path)
    (row,) = read_contacts(path).to_pylist()
    assert (row["customer_id"], row["contacted_at"]) == ("1", datetime(2026, 5, 1, tzinfo=UTC))
    pq.write_table(pa.table(rows), path)
    with pytest.raises(InputError, match="row 1 has no contacted_at that can be read"):
        read_contacts(path)
    path = tmp_path / "sent.jsonl"
    path.write_text('{"customer_id": "x", "campaign": "a", "contacted_at": "2026-05-01T00:00:00Z"}\n')
    assert read_contacts(path).num_rows == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("customer_id,contacted_at\nx,2026-05-01\n", "it has no campaign"),
        (HEAD + ",spring,2026-05-01,\n", "row 0 has no customer_id"),
        (HEAD + "x,,2026-05-01,\n", "row 0 has no campaign"),
        (HEAD + "x,spring,2026-05-01,\ny,spring,yesterday,\n", "row 1 has no contacted_at"),
        (HEAD + "x,spring,2026-05-01,yesterday\n", "row 0 has no responded_at"),
        (HEAD + "x,spring\n", "row 0 is damaged"),
    ],
)
def test_rows_that_say_too_little(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_contacts(written(tmp_path, text))


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a directory"):
        read_contacts(tmp_path)
