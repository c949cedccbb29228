"""Have the kernels compiled that take long: several processes of the tests would else compile the same at once.

    python -m tests.support.warm_kernels orders | texts

Each part has kernels of its own, so that the two can be compiled side by side. What is left are small ones.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from rfmstream.engine.core.engine import Engine
from rfmstream.engine.files.source import open_orders
from rfmstream.engine.live.decode import Decoder
from rfmstream.engine.live.encode import Encoder
from rfmstream.engine.live.kafka.batches import record_batches
from rfmstream.engine.live.model import RawRecords
from rfmstream.engine.replay.generate import generate, generate_batches

ORDER: Final = b'{"customer_id":"c","order_id":"o","occurred_at":"2026-01-01T00:00:00Z","amount_minor":1}'


def orders() -> None:
    """Apply orders, write what comes of them as records, and the engine as a snapshot and a checkpoint."""
    engine = Engine("rfm8-annual")
    encoder = Encoder(engine.ruleset, source="/warm")
    for batch in generate_batches(customers=50, orders=500, seed=1, keys="zipf:1.2"):
        for changes, _ in encoder.parts(engine.step(batch).changes):
            list(record_batches(changes, timestamp_ms=0, compression="lz4"))
    engine.snapshot()
    with TemporaryDirectory() as folder:
        engine.checkpoint(folder)
        Engine.restore(folder)


def texts() -> None:
    """Read files and records; let time pass for an engine without customers."""
    with TemporaryDirectory() as folder:
        for suffix in (".csv", ".jsonl", ".parquet"):
            path = Path(folder) / f"orders{suffix}"
            generate(customers=50, orders=500, seed=1, out=path)
            list(open_orders([path], currency="USD"))
    Decoder(currency="USD").decode(RawRecords([b"c"], [ORDER], [[]], [0], [0], 1))
    engine = Engine("rfm8-annual")
    engine.advance("2026-01-01")
    engine.next_due_us("2027-01-01")


if __name__ == "__main__":
    {"orders": orders, "texts": texts}[sys.argv[1]]()
