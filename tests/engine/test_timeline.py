from pathlib import Path

import pytest

from engine.replay import Outputs, open_engine, replay
from engine.timeline import read_timeline, ruleset_of
from schemas.errors import InputError
from schemas.ruleset import load_ruleset


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


def test_an_identity_leads_back_to_its_ruleset() -> None:
    ruleset = load_ruleset("scores4", currency="JPY", time_zone="Asia/Tokyo")
    assert ruleset_of(ruleset.identity) == ruleset
    assert ruleset_of("rfm8") == load_ruleset("rfm8")
    assert ruleset_of("rfm8@1234abcd") is None
    assert ruleset_of("ours@1234abcd[currency=EUR]") is None
    assert ruleset_of("rfm8[foo]") is None
