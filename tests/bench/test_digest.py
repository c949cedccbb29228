"""The digest of the benches tells tables apart by their rows, and by nothing else."""

import sys
from pathlib import Path

import pyarrow as pa

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))
from digest import digest

WHOLE = pa.table(
    {
        "id": ["ann", "bob", "", None],
        "seq": pa.array([1, 2, None, 0], pa.int64()),
        "at": pa.array([1, -5, 0, None], pa.timestamp("us", "UTC")),
    }
)


def of(table: pa.Table) -> str:
    return digest(table.to_batches())


def test_order_batches_and_encoding_do_not_matter() -> None:
    turned = WHOLE.take([3, 1, 0, 2])
    assert of(turned) == of(WHOLE)
    assert of(pa.concat_tables([WHOLE.slice(2), WHOLE.slice(0, 2)])) == of(WHOLE)
    assert of(WHOLE.set_column(0, "id", WHOLE["id"].dictionary_encode())) == of(WHOLE)
    assert of(WHOLE.set_column(0, "id", WHOLE["id"].cast(pa.large_string()))) == of(WHOLE)
    assert digest(WHOLE.to_batches(), ["id", "seq", "at"]) == of(WHOLE)


def test_rows_matter() -> None:
    others = [
        WHOLE.slice(1),
        pa.concat_tables([WHOLE, WHOLE.slice(0, 1)]),
        WHOLE.set_column(0, "id", pa.array(["bob", "ann", "", None])),
        WHOLE.set_column(0, "id", pa.array(["ann", "bob", None, ""])),
        WHOLE.set_column(1, "seq", pa.array([1, 2, 0, None], pa.int64())),
        WHOLE.set_column(1, "seq", pa.array([1, 2, 0, 0], pa.int64())),
        WHOLE.select(["seq", "id", "at"]),
    ]
    digests = {of(table) for table in others}
    assert len(digests) == len(others)
    assert of(WHOLE) not in digests
