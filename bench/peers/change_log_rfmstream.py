"""The tier change log and the snapshot by rfmstream's Python API: the same columns as the peers.

`rfmstream replay --changes` does more: all columns of a change, and a summary.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

if __name__ == "__main__":
    # As the command does: numpy's linear algebra, which nobody here uses, starts a thread a core when it is loaded.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pyarrow as pa
import pyarrow.parquet as pq

from rfmstream import Engine, load_ruleset
from rfmstream.engine.files.background import WriteBehind, read_ahead
from rfmstream.engine.files.output import OutputFile
from rfmstream.engine.files.source import open_orders
from rfmstream.schemas.changes import CHANGE_SCHEMA

CHANGE_COLUMNS = ["customer_id", "seq", "effective_at", "from_tier", "to_tier", "reason"]
SNAPSHOT_COLUMNS = [
    *("customer_id", "tier", "last_paid_at", "recency_days", "frequency", "monetary_minor"),
    *("first_paid_at", "lifetime_orders", "lifetime_monetary_minor", "average_order_minor"),
]


def run(parquet_path: Path, ruleset_name: str, as_of: str, out_parquet: Path, *, threads: int = 1) -> None:
    """Write every tier change up to `as_of`: customer_id, seq, effective_at, from_tier, to_tier, reason."""
    engine = _engine(ruleset_name, threads)
    schema = pa.schema([CHANGE_SCHEMA.field(name) for name in CHANGE_COLUMNS])
    with OutputFile(out_parquet, schema) as out:
        with WriteBehind(out.write) as behind:
            for changes in chain(_changes(engine, parquet_path), map(engine.advance, [as_of])):
                for batch in changes.select(CHANGE_COLUMNS).to_batches():
                    behind.put(batch)
        out.publish()


def run_snapshot(
    parquet_path: Path, ruleset_name: str, as_of: str, out_parquet: Path, *, threads: int = 1
) -> None:
    """Write one row a customer as of `as_of`: tier, R, F and M, first order and lifetime totals."""
    engine = _engine(ruleset_name, threads)
    for _ in _changes(engine, parquet_path):
        pass
    pq.write_table(engine.snapshot(as_of).select(SNAPSHOT_COLUMNS), out_parquet, use_dictionary=["tier"])


def _engine(ruleset_name: str, threads: int) -> Engine:
    """Return an engine that gives no signals, which the peers do not, either."""
    return Engine(load_ruleset(ruleset_name).without_signals(), threads=threads)


def _changes(engine: Engine, path: Path) -> Iterator[pa.Table]:
    orders = open_orders([path], currency=engine.ruleset.currency)
    for batch, _ in read_ahead(orders, lambda: None):
        yield engine.step_canonical(batch).changes


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("orders", type=Path)
    parser.add_argument("ruleset")
    parser.add_argument("as_of", help="such as 2026-01-01T00:00:00Z")
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--snapshot", action="store_true", help="write the snapshot instead of the change log"
    )
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    started = time.perf_counter()
    job = run_snapshot if arguments.snapshot else run
    job(arguments.orders, arguments.ruleset, arguments.as_of, arguments.out, threads=arguments.threads)
    print(f"rfmstream: {time.perf_counter() - started:.2f} s")
    sys.stdout.flush()
    # Taking the interpreter down by itself would take the longer the more memory there is; the command ends so, too.
    os._exit(0)


if __name__ == "__main__":
    main()
