"""Engines with a history, their checkpoints, and checkpoints that were changed behind the program's back."""

from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import xxhash
from kernel_shards import event
from oracle_days import DAY_US
from twins import canonical_batch, plain_rows

from rfmstream import Engine
from rfmstream.engine.core.checkpoint import manifest as manifests
from rfmstream.engine.core.checkpoint.folder import MANIFEST


def history(size: int, first: int = 0) -> list[dict[str, Any]]:
    """Return orders of all kinds; every seed is in the numbers."""
    rows = []
    for i in range(first, first + size):
        rows.append(event(f"c{i % 83}".ljust(i % 83 + 3, "x"), f"o{i}", i * DAY_US // 9, 30_000 + i))
        if i % 7 == 0:
            rows.append(
                {
                    **rows[-1],
                    "type": "refunded",
                    "amount_minor": 10_000,
                    "occurred_at_us": i * DAY_US // 9 + 1,
                }
            )
        if i % 11 == 0:
            rows.append({**rows[-1], "type": "cancelled", "amount_minor": 0, "event_id": f"e{i}"})
        if i % 13 == 0:
            rows.append(
                {**rows[-1], "type": "adjusted", "amount_minor": -5, "order_id": "credit", "event_id": None}
            )
    return rows


def grown(size: int = 500, **options: Any) -> Engine:  # noqa: ANN401
    engine = Engine(options.pop("ruleset", "rfm8-annual"), **options)
    engine.step_canonical(canonical_batch(history(size)))
    return engine


def told(engine: Engine) -> list[dict[str, Any]]:
    return sorted(plain_rows(engine.snapshot()), key=lambda row: row["customer_id"])


def put(path: Path, content: bytes) -> None:
    """Replace a file by another one of its name; whoever still looks at the old one keeps seeing that."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def seal(folder: Path, manifest: dict[str, Any]) -> None:
    """Write a manifest whose checksum is right, whatever it says."""
    put(
        folder / MANIFEST,
        orjson.dumps({"xxh3_128": manifests.digest_of(manifest), "manifest": manifest}),
    )


def rewritten(folder: Path, number: int, table: pa.Table) -> None:
    """Put another table in the place of a file of a checkpoint, whose manifest then says so."""
    manifest = orjson.loads((folder / MANIFEST).read_bytes())["manifest"]
    file = manifest["files"][number]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    whole = sink.getvalue().to_pybytes()
    put(folder / file["name"], whole)
    file |= {"bytes": len(whole), "xxh3_128": xxhash.xxh3_128_hexdigest(whole)}
    seal(folder, manifest)


def customers_of(folder: Path) -> pa.Table:
    name = orjson.loads((folder / MANIFEST).read_bytes())["manifest"]["files"][0]["name"]
    with pa.ipc.open_stream(folder / name) as reader:
        return reader.read_all()
