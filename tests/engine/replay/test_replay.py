import os
import signal
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from little_history import CHANGES

from rfmstream import Engine
from rfmstream.engine.replay.replay import Outputs, open_engine, replay
from rfmstream.engine.replay.summary import summarise
from rfmstream.schemas.errors import ConfigError, InputError, StateError
from rfmstream.schemas.ruleset import load_ruleset

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def us(year: int, month: int, day: int) -> int:
    return int((datetime(year, month, day, tzinfo=UTC) - EPOCH).total_seconds()) * 1_000_000


MARCH_US = us(2026, 3, 1)


def changes_of(*paths: Path) -> list[tuple[object, ...]]:
    rows = [row for path in paths for row in pq.read_table(path).to_pylist()]
    return sorted(
        (
            row["customer_id"],
            row["seq"],
            row["effective_at"].isoformat(),
            row["from_tier"],
            row["to_tier"],
            row["reason"],
            row["order_id"],
        )
        for row in rows
    )


@pytest.mark.parametrize("threads", [1, 3])
def test_a_history_by_hand(history: Path, tmp_path: Path, threads: int) -> None:
    outputs = Outputs(
        tmp_path / "changes.parquet", tmp_path / "snapshot.parquet", tmp_path / "rejected.parquet"
    )
    result = replay(open_engine(threads=threads), [history], as_of_us=MARCH_US, outputs=outputs)
    assert changes_of(tmp_path / "changes.parquet") == CHANGES
    counters = result.counters
    assert (counters.read, counters.applied, counters.duplicates) == (7, 4, 1)
    assert counters.rejected == {"missing_customer_id": 1, "unknown_order": 1}
    assert counters.changes == {"first_order": 2, "order": 1, "cancellation": 1, "recency_expired": 1}
    assert result.as_of_us == MARCH_US
    assert result.files == dict(zip(outputs.paths().values(), (5, 2, 2), strict=True))
    rejected = pq.read_table(tmp_path / "rejected.parquet").to_pylist()
    assert [(row["row"], row["reason"], row["source"]) for row in rejected] == [
        (4, "missing_customer_id", str(history)),
        (5, "unknown_order", str(history)),
    ]
    snapshot = {row["customer_id"]: row for row in pq.read_table(tmp_path / "snapshot.parquet").to_pylist()}
    assert (snapshot["ann"]["tier"], snapshot["ann"]["lifetime_monetary_minor"]) == ("001", 130_000)
    assert (snapshot["bob"]["tier"], snapshot["bob"]["lifetime_orders"]) == (None, 0)


def test_time_ends_at_the_last_event_unless_told(history: Path) -> None:
    result = replay(open_engine(), [history])
    assert result.as_of_us == us(2026, 1, 9)
    assert "recency_expired" not in result.counters.changes


def test_going_on_from_a_checkpoint_is_one_run(history: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    header, *rows = history.read_text().splitlines(keepends=True)
    found = []
    for number, part in enumerate((rows[:2], rows[2:5], rows[5:])):
        source, out = tmp_path / f"part{number}.csv", tmp_path / f"changes{number}.parquet"
        source.write_text(header + "".join(part))
        replay(
            open_engine(checkpoint=state),
            [source],
            as_of_us=MARCH_US if number == 2 else None,
            outputs=Outputs(changes=out),
            checkpoint=state,
        )
        found.append(out)
    assert changes_of(*found) == CHANGES


def test_the_counters_are_those_of_the_run(history: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    replay(open_engine(checkpoint=state), [history], checkpoint=state)
    again = replay(open_engine(checkpoint=state), [history], checkpoint=state)
    assert again.counters.read == 7
    assert again.counters.applied == 0
    assert again.counters.changes == {}


def test_a_checkpoint_keeps_its_ruleset(history: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    ruleset = load_ruleset("types7", currency="EUR")
    replay(open_engine(ruleset, checkpoint=state), [history], checkpoint=state)
    assert open_engine(checkpoint=state).ruleset == ruleset
    with pytest.raises(StateError):
        open_engine(load_ruleset("rfm8"), checkpoint=state)


def test_a_folder_of_something_else_is_not_a_checkpoint(history: Path) -> None:
    with pytest.raises(StateError):
        open_engine(checkpoint=history.parent)
    with pytest.raises(ConfigError, match="is not a directory"):
        open_engine(checkpoint=history)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_once_a_file_has_its_name_nothing_interrupts(
    history: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    write = Engine.checkpoint

    def checkpoint(engine: Engine, directory: Path) -> None:
        os.kill(os.getpid(), number)
        write(engine, directory)

    monkeypatch.setattr(Engine, "checkpoint", checkpoint)
    before = signal.getsignal(number)
    outputs = Outputs(changes=tmp_path / "changes.parquet")
    replay(open_engine(), [history], outputs=outputs, checkpoint=tmp_path / "state")
    assert signal.getsignal(number) is before
    assert (tmp_path / "changes.parquet").exists()
    assert Engine.restore(tmp_path / "state").customers > 0


def test_strict_refuses_the_whole_input(history: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    outputs = Outputs(out / "changes.parquet", out / "snapshot.parquet", out / "rejected.csv")
    with pytest.raises(InputError) as caught:
        replay(open_engine(), [history], outputs=outputs, checkpoint=tmp_path / "state", strict=True)
    assert str(caught.value) == (
        f"{history}: 2 of 7 rows were rejected (missing_customer_id 1, unknown_order 1): "
        f"row 4 missing_customer_id, row 5 unknown_order; all of them are in {out}/rejected.csv"
    )
    assert [path.name for path in out.iterdir()] == ["rejected.csv"]
    assert not (tmp_path / "state").exists()


def test_strict_lets_duplicates_pass(history: Path) -> None:
    lines = history.read_text().splitlines(keepends=True)
    history.write_text("".join(lines[:5]))
    assert replay(open_engine(), [history], strict=True).counters.duplicates == 1


def test_time_does_not_go_back(history: Path, tmp_path: Path) -> None:
    outputs = Outputs(changes=tmp_path / "out" / "changes.csv")
    (tmp_path / "out").mkdir()
    with pytest.raises(ConfigError, match="lies before the clock, 2026-01-09T00:00:00Z"):
        replay(open_engine(), [history], as_of_us=us(2026, 1, 8), outputs=outputs)
    assert list((tmp_path / "out").iterdir()) == []


def test_damaged_input_leaves_nothing(history: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "in" / "z.parquet"
    damaged.write_bytes(b"PAR1 and no more")
    outputs = Outputs(changes=tmp_path / "changes.csv")
    with pytest.raises(InputError, match=r"z\.parquet"):
        replay(open_engine(), [history, damaged], outputs=outputs)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_progress_ends_at_the_total(history: Path) -> None:
    told = []
    replay(open_engine(), [history], on_progress=told.append)
    ends = {progress.stage: (progress.done, progress.total) for progress in told}
    assert ends
    assert all(done == total for done, total in ends.values())


def test_no_orders_at_all(tmp_path: Path) -> None:
    source = tmp_path / "none.csv"
    source.write_text("customer_id,order_id,occurred_at,amount\n")
    outputs = Outputs(tmp_path / "c.csv", tmp_path / "s.csv", tmp_path / "r.csv")
    result = replay(open_engine(), [source], outputs=outputs)
    assert result.counters.read == 0
    assert all(len(path.read_text().splitlines()) == 1 for path in outputs.paths().values())


def test_rows_at_or_after_until_are_left_out_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "o.csv"
    path.write_text(
        "customer_id,order_id,occurred_at,amount\n"
        "ann,1,2024-06-01,600\nann,2,2024-06-03,600\nann,3,2024-06-04,600\nbob,4,2204-06-05,10\nbob,5,2024-06-30,1\n"
    )
    until_us = us(2024, 6, 30)
    result = replay(open_engine(), [path], until_us=until_us)
    assert (result.counters.read, result.rows_after_until, result.rows_ahead) == (3, 2, 0)
    assert result.as_of_us == until_us
    assert [(row["customer_id"], row["tier"]) for row in result.snapshot.to_pylist()] == [("ann", "111")]
    later = replay(open_engine(), [path], until_us=until_us, as_of_us=us(2024, 8, 1))
    assert [row["tier"] for row in later.snapshot.to_pylist()] == ["011"]
    with pytest.raises(ConfigError, match="lies before the clock"):
        replay(open_engine(), [path], until_us=until_us, as_of_us=us(2024, 6, 2))


def test_rows_dated_after_now_are_applied_and_told(tmp_path: Path) -> None:
    path = tmp_path / "o.csv"
    path.write_text(
        "customer_id,order_id,occurred_at,amount\nann,1,2024-06-01,600\nbob,2,2204-06-05,10\nbob,3,2203-06-05,10\n"
    )
    result = replay(open_engine(), [path])
    assert (result.counters.applied, result.rows_ahead) == (3, 2)
    assert result.newest_ahead_us == us(2204, 6, 5)
    assert summarise(result).as_dict()["dated_ahead"] == {"rows": 2, "newest": "2204-06-05T00:00:00Z"}
    assert summarise(replay(open_engine(), [path], until_us=us(2024, 7, 1))).as_dict()["dated_ahead"] == {
        "rows": 0,
        "newest": None,
    }


def test_a_time_without_a_zone_is_local_in_the_zone_of_the_ruleset(tmp_path: Path) -> None:
    path = tmp_path / "o.csv"
    path.write_text(
        "customer_id,order_id,occurred_at,amount\nann,1,2024-06-01,600\nbob,2,2024-06-01 12:00,10\n"
    )
    engine = open_engine(load_ruleset("rfm8", time_zone="Asia/Shanghai"))
    result = replay(engine, [path])
    assert [row["last_paid_at"].isoformat() for row in result.snapshot.to_pylist()] == [
        "2024-05-31T16:00:00+00:00",
        "2024-06-01T04:00:00+00:00",
    ]
    other = Engine(load_ruleset("rfm8", time_zone="Asia/Shanghai"))
    other.step(pa.csv.read_csv(path))
    assert other.snapshot().equals(result.snapshot)
