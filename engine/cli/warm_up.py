"""`rfmstream warm-up`: the kernels compiled before they are needed, once for a machine and a version, on all its cores.

numba compiles under one lock, so threads do not help: parts that have no kernel in common are compiled by processes of
their own, which fill one cache on the disk.

    python -m rfmstream.engine.cli.warm_up PART ...
"""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import click

from rfmstream.engine.core.processors import usable_cores

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

_PARSE: Final = (
    *(
        "parse.is_ascii",
        "parse.lengths_within",
        "parse.parse_instants",
        "parse.parse_integers",
        "parse.within",
    ),
)

KERNELS: Final = {
    "orders": (
        *("emit.order_keys", "emit.write_changes", "entry_ids.gather_entry_ids", "entry_ids.size_entry_ids"),
        *("fold.fold", "ids.gather_customer_ids", "ids.hash_ids", "ids.size_customer_ids"),
        *("restore.load_customer_ids", "restore.load_entry_ids", "snapshot.write_snapshot", "wheel.rearm"),
    ),
    "time": ("wheel.advance", "wheel.next_due"),
    "csv": ("delimited.copy_cells", "delimited.find_cells", "parse.match_words", *_PARSE),
    "jsonl": ("json_orders.scan_orders", "json_split.split_records"),
    "records": (
        *("encode_latest.mark_latest", "encode_records.write_records", "lz4.pack_records"),
        "record_batches.has_byte",
    ),
    "histories": ("generate.draw_history", "generate.fill_customers"),
}
"""What each part compiles and those before it do not, the dearest first.

"records" are the live worker's, "histories" those of `rfmstream generate`.
"""

_POLL_S: Final = 0.1


@click.command("warm-up")
def warm_up() -> None:
    """Compile the kernels for this machine, once.

    The first command that needs them does it by itself, within half a minute or so. Say it where waiting is no matter:
    in the build of an image, or after an installation. The cache is under NUMBA_CACHE_DIR, else in the user's cache
    folder; a new version of rfmstream, of numba or of Python compiles anew.
    """
    if compile_kernels(*KERNELS):
        click.echo("the kernels are compiled")
    else:
        click.echo("the kernels were compiled already")


def compile_kernels(*parts: str) -> bool:
    """Compile what the cache lacks of these parts, and show how far it is; False where nothing was to be done.

    What fails here is not told: it will be by whoever needs the kernel.
    """
    from rfmstream.kernels._jit import compiled, is_jitted

    wanted = {kernel for part in parts for kernel in KERNELS[part]}
    before = compiled() if is_jitted() else wanted
    open_parts = [part for part in parts if not before.issuperset(KERNELS[part])]
    if not open_parts:
        return False
    from rfmstream.engine.cli.progress import count_bar

    lacking = wanted - before
    if not sys.stderr.isatty():
        click.echo(f"compiling {len(lacking)} kernels for this machine, once", err=True)
    with count_bar("compiling kernels, once", len(lacking), is_timed=False) as show:
        for running in _run(open_parts):
            if show is not None and running:
                show(len(lacking & compiled()))
    return True


def _run(parts: Sequence[str]) -> "Iterator[bool]":
    """Run the parts in processes of their own, the dearest in one and the others in another; yield while they run."""
    first, others = parts[:1], parts[1:]
    both = [first, others] if others and usable_cores() > 1 else [parts]
    running = [
        subprocess.Popen(
            [sys.executable, "-m", __spec__.name, *some], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for some in both
    ]
    try:
        while any(process.poll() is None for process in running):
            time.sleep(_POLL_S)
            yield True
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()


def _orders() -> None:
    """Apply orders; a snapshot, a checkpoint, and the engine read from it again."""
    from rfmstream.engine.core.engine import Engine

    engine = Engine("rfm8-annual")
    engine.step(_batch())
    engine.snapshot()
    with TemporaryDirectory(prefix="rfmstream-warm-up-") as folder:
        engine.checkpoint(folder)
        Engine.restore(folder)


def _time() -> None:
    """Let time pass for an engine without customers."""
    from rfmstream.engine.core.engine import Engine

    engine = Engine("rfm8-annual")
    engine.advance("2026-01-01")
    engine.next_due_us("2027-01-01")


def _csv() -> None:
    _read("orders.csv", "customer_id,order_id,type,occurred_at,amount\nc,o,paid,2026-01-01T00:00:00Z,1.00\n")


def _jsonl() -> None:
    order = '{"customer_id":"c","order_id":"o","occurred_at":"2026-01-01T00:00:00Z","amount":"1.00"}'
    _read("orders.jsonl", order + "\n")


def _read(name: str, text: str) -> None:
    """Read a file."""
    from rfmstream.engine.files.source import open_orders

    with TemporaryDirectory(prefix="rfmstream-warm-up-") as folder:
        path = Path(folder) / name
        path.write_text(text)
        list(open_orders([path], currency="USD"))


def _records() -> None:
    """Take an order from a record to the records of its tier changes."""
    from rfmstream.engine.live.warm import warm_up as warm_up_worker
    from rfmstream.schemas.ruleset import load_ruleset

    warm_up_worker(load_ruleset("rfm8-annual"), "log")


def _histories() -> None:
    """Make a history up."""
    from rfmstream.engine.replay.generate import generate

    with TemporaryDirectory(prefix="rfmstream-warm-up-") as folder:
        generate(customers=5, orders=20, seed=1, out=Path(folder) / "orders.csv")


def _batch() -> "pa.Table":
    import pyarrow as pa

    return pa.table(
        {"customer_id": ["c"], "order_id": ["o"], "occurred_at": ["2026-01-01T00:00:00Z"], "amount": ["1.00"]}
    )


_PARTS: Final = {
    "orders": _orders,
    "time": _time,
    "csv": _csv,
    "jsonl": _jsonl,
    "records": _records,
    "histories": _histories,
}

if __name__ == "__main__":
    for _part in sys.argv[1:]:
        _PARTS[_part]()
