from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from little_history import CHANGES

from rfmstream.engine.cli.app import cli
from rfmstream.engine.core.engine import Engine
from rfmstream.engine.files.source import open_orders
from rfmstream.engine.insight.past import past_tiers
from rfmstream.engine.replay.replay import Outputs, open_engine, replay
from rfmstream.schemas.errors import ConfigError


@pytest.fixture(params=[".parquet", ".arrow", ".csv", ".jsonl"])
def changes(history: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    path = tmp_path / f"changes{request.param}"
    replay(open_engine(), [history], as_of_us=1_772_323_200_000_000, outputs=Outputs(changes=path))
    return path


def tiers(table: object) -> dict[str, str | None]:
    rows = table.select(["customer_id", "tier"]).to_pylist()  # type: ignore[attr-defined]
    return {row["customer_id"]: row["tier"] for row in rows}


@pytest.mark.parametrize("change", range(len(CHANGES)))
@pytest.mark.parametrize("just_before", [False, True])
def test_the_last_change_at_or_before(changes: Path, change: int, just_before: bool) -> None:  # noqa: FBT001
    instant = CHANGES[change][2]
    as_of = instant.replace(":00+00:00", ":00.000000+00:00")
    expected = {
        customer: to
        for customer, _, at, _, to, *_ in sorted(CHANGES, key=lambda row: row[2])
        if at < instant or (at == instant and not just_before)
    }
    if just_before:
        hour, minute = int(instant[11:13]), instant[14:16]
        as_of = f"{instant[:11]}{hour - 1:02d}:{minute}:59.999999+00:00" if hour else None
    if as_of is not None:
        assert tiers(past_tiers([changes], as_of)[0]) == expected


def test_it_is_what_an_engine_says_that_stopped_there(history: Path, changes: Path) -> None:
    as_of = "2026-01-07T12:00:00Z"
    engine = Engine("rfm8")
    for batch, _ in open_orders([history], currency="CNY"):
        before = [at.as_py().isoformat() < "2026-01-07T12:00:00" for at in batch["occurred_at"]]
        engine.step_canonical(batch.filter(pa.array(before, pa.bool_())))
    assert tiers(past_tiers([changes], as_of)[0]) == tiers(engine.snapshot(as_of))


def test_what_came_after_the_log_is_not_in_it(changes: Path) -> None:
    with pytest.raises(ConfigError, match="the changes end at 2026-02-05"):
        past_tiers([changes], "2026-02-06")


def test_the_command(changes: Path, tmp_path: Path) -> None:
    out = tmp_path / "then.parquet"
    words = ["snapshot", "--changes", str(changes), "--as-of", "2026-01-07", "--out", str(out)]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.output
    assert "2 customers as of 2026-01-07T00:00:00Z" in result.output
    assert tiers(pq.read_table(out)) == {"ann": "101", "bob": "100"}
    refused = CliRunner().invoke(cli, [*words[:3], "--out", str(out)])
    assert refused.exit_code == 2
    assert "name its instant by --as-of" in refused.output
