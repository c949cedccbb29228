import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rfmstream.engine.files.output import OutputFile
from rfmstream.engine.replay.replay import Outputs, open_engine, replay
from rfmstream.engine.replay.timeline import read_timeline
from rfmstream.schemas.errors import InputError
from rfmstream.schemas.ruleset import load_ruleset
from rfmstream.schemas.ruleset_identity import ruleset_of

OFFSETS_ASTRAY = pa.py_buffer(np.array([0, 2**30, 2], np.int32))


@pytest.fixture(params=[".parquet", ".arrow", ".csv", ".jsonl"])
def changes(history: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    path = tmp_path / f"changes{request.param}"
    history.write_text(history.read_text().replace("bob", "00042"))
    replay(open_engine(), [history], outputs=Outputs(changes=path))
    return path


def test_the_changes_of_one_customer(changes: Path) -> None:
    story = read_timeline(changes, "00042")
    assert [change["reason"] for change in story.changes] == ["first_order", "cancellation"]
    assert story.changes[0]["effective_at"].isoformat() == "2026-01-06T10:00:00+00:00"
    assert story.changes[1]["to_tier"] is None
    assert story.identity == "rfm8"


@pytest.mark.parametrize("since", [["holdout", "view", "population"], ["view", "population"]])
def test_a_file_from_before_there_were_holdouts_and_views(changes: Path, since: list[str]) -> None:
    expected = read_timeline(changes, "00042")
    expected = replace(expected, changes=tuple(dict(row) | dict.fromkeys(since) for row in expected.changes))
    table = pq.read_table(changes) if changes.suffix == ".parquet" else None
    if changes.suffix == ".arrow":
        table = pa.ipc.open_file(changes).read_all()
    if table is None:
        if changes.suffix == ".csv":
            text = changes.read_text(encoding="utf-8")
            old = "".join(line.rsplit(",", len(since))[0] + "\n" for line in text.splitlines())
        else:
            old = changes.read_text(encoding="utf-8")
            for name in since:
                old = re.sub(f',"{name}":[^,}}]*', "", old)
        changes.write_text(old, encoding="utf-8")
    else:
        out = OutputFile(changes, table.drop_columns(since).schema)
        with out:
            for batch in table.drop_columns(since).to_batches():
                out.write(batch)
            out.publish()
    assert read_timeline(changes, "00042") == expected


def test_by_default_one_with_the_most_changes(changes: Path) -> None:
    assert read_timeline(changes).customer_id == "00042"  # both have two; the first by id


def test_a_customer_who_is_not_there(changes: Path) -> None:
    with pytest.raises(InputError, match="no change of customer '42'"):
        read_timeline(changes, "42")


def test_files_that_are_no_changes(history: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "snapshot.parquet"
    replay(open_engine(), [history], outputs=Outputs(snapshot=snapshot))
    for path in (snapshot, history, tmp_path / "x.txt", tmp_path / "none.csv"):
        with pytest.raises(InputError):
            read_timeline(path)


@pytest.mark.parametrize(
    ("column", "values", "words"),
    [
        ("order_id", pa.StringArray.from_buffers(2, OFFSETS_ASTRAY, pa.py_buffer(b"ab")), "cannot be read"),
        ("effective_at", pa.array([0, 2**62], pa.timestamp("us", "UTC")), "cannot be read"),
        ("frequency", pa.array([None, 2], pa.int64()), "null values"),
        ("customer_id", pa.array([[1], [2]]), "cannot be read"),
    ],
)
def test_changes_that_are_damaged(
    history: Path, tmp_path: Path, column: str, values: pa.Array, words: str
) -> None:
    path = tmp_path / "changes.arrow"
    replay(open_engine(), [history], outputs=Outputs(changes=path))
    with pa.ipc.open_file(path) as file:
        whole = file.read_all().slice(0, len(values))
    at = whole.schema.get_field_index(column)
    table = whole.set_column(at, column, values)
    with pa.ipc.new_file(path, table.schema) as file:
        file.write_table(table)
    with pytest.raises(InputError, match=words):
        read_timeline(path)


@pytest.mark.parametrize(("cell", "words"), [("", "has no reason"), ("whim", "the unknown reason 'whim'")])
def test_changes_without_a_reason_that_is_known(history: Path, tmp_path: Path, cell: str, words: str) -> None:
    path = tmp_path / "changes.csv"
    replay(open_engine(), [history], outputs=Outputs(changes=path))
    path.write_text(path.read_text().replace(",first_order,", f",{cell},"))
    with pytest.raises(InputError, match=words):
        read_timeline(path)


def test_an_identity_leads_back_to_its_ruleset() -> None:
    ruleset = load_ruleset("scores4", currency="JPY", time_zone="Asia/Tokyo")
    assert ruleset_of(ruleset.identity) == ruleset
    assert ruleset_of("rfm8") == load_ruleset("rfm8")
    assert ruleset_of("rfm8@1234abcd") is None
    assert ruleset_of("ours@1234abcd[currency=EUR]") is None
    assert ruleset_of("rfm8[foo]") is None
