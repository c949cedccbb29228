"""Orders replayed to files, and the report of them."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rfmstream.engine.insight.report.build import Question, build
from rfmstream.engine.insight.report.model import Report
from rfmstream.engine.replay.replay import Outputs, open_engine, replay
from rfmstream.schemas.ruleset import load_ruleset


@dataclass(frozen=True)
class Case:
    """The files of a replay, and the report of them."""

    orders: Path
    changes: Path
    snapshot: Path
    report: Report


def replayed(folder: Path, table: pa.Table, name: str, **options: str) -> Case:
    ruleset = load_ruleset(name, **options)
    orders = folder / "orders.parquet"
    pq.write_table(table, orders)
    changes, snapshot = folder / "changes.parquet", folder / "snapshot.parquet"
    replay(open_engine(ruleset), [orders], outputs=Outputs(changes=changes, snapshot=snapshot))
    return Case(
        orders, changes, snapshot, build(Question([changes], snapshot, orders=[orders], ruleset=ruleset))
    )


def order_table(rows: list[dict[str, object]]) -> pa.Table:
    table = pa.Table.from_pylist(rows)
    instants = table["occurred_at_us"].cast(pa.timestamp("us", tz="UTC"))
    return table.drop_columns(["occurred_at_us", "event_id"]).append_column("occurred_at", instants)
