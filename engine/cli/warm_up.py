"""`rfmstream warm-up`: the kernels compiled before they are needed, once for a machine and a version, on all its cores.

numba compiles under one lock, so threads do not help: parts are compiled by processes of their own, which fill one
folder on the disk. A kernel that two of them need is compiled by the first, and the other waits for it.

    python -m rfmstream.engine.cli.warm_up PART ...
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import click

from rfmstream.engine.core.processors import usable_cores

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

KERNELS: Final = {
    "orders": (
        *("emit.order_keys", "emit.signal_keys", "emit.write_changes", "emit.write_signals"),
        *("fold.fold", "ids.hash_ids", "memory.touch_pages", "parse.lengths_within"),
    ),
    "histories": (
        *("generate.draw_history", "generate.draw_load", "generate.fill_alias"),
        *("generate.fill_customers", "generate.fill_keys", "generate.fill_zipf_weights"),
    ),
    "csv": (
        *("delimited.copy_cells", "delimited.find_cells", "parse.is_ascii"),
        *("parse.mark_rounded", "parse.match_words"),
        *("parse.parse_instants", "parse.parse_integers"),
    ),
    "values": ("parse.check_text", "parse.integers_of_decimals", "parse.integers_of_doubles"),
    "maps": (
        *("exact.compare_numbers", "exact.fold_product", "exact.fold_sum", "exact.parse_numbers"),
        *("exact.round_numbers", "exact.sum_groups", "json_text.nesting"),
    ),
    "questions": (
        *("emit.hold_out", "erase.purge", "forget.drop_forgotten", "forget.place_kept", "forget.refill"),
        *("horizon.horizon_of", "lookup.find_customers", "resegment.resegment"),
    ),
    "jsonl": ("json_orders.scan_orders", "json_split.split_records"),
    "time": ("wheel.advance", "wheel.next_due"),
    "snapshot": ("ids.gather_customer_ids", "ids.size_customer_ids", "snapshot.write_snapshot"),
    "records": (
        *("arrow_streams.unpacked_bytes", "encode_batches.fill_batch", "encode_latest.mark_latest"),
        *(
            "deflate.deflate_records",
            "encode_records.write_records",
            "json_members.find_members",
            "lz4.pack_records",
            "parse.within",
            "record_batches.has_byte",
        ),
    ),
    "fetches": (
        *(
            "placement.count_places",
            "placement.place_crc32",
            "placement.place_fnv1a",
            "placement.place_murmur2",
        ),
        *("record_batches.count_records", "record_batches.gather"),
        *("record_batches.index_records", "record_batches.number_runs"),
    ),
    "report": (
        *("group_sums.sum_bins", "group_sums.sum_groups", "local_days.local_days", "movement.count_days"),
        *("movement.count_moves", "movement.follow_customers", "movement.put_again"),
    ),
    "state": (
        *("entry_ids.gather_entry_ids", "entry_ids.size_entry_ids"),
        *("restore.load_customer_ids", "restore.load_entry_ids", "verify.verify_clock"),
        *("verify.verify_customers", "verify.verify_entries"),
        *("verify.verify_ids", "wheel.rearm"),
    ),
}
"""The kernels each part compiles: the dearest part first, last those that wait for a kernel of the first.

A kernel that several parts need stands with one of them.

"values" are texts beyond ASCII and amounts that are no text, "maps" what input maps reckon with, "questions" what is
asked of an engine now and then, "report" what a report counts by, "state" a checkpoint and what reads it; "records" and
"fetches" are the live worker's, "histories" those of `rfmstream generate`.
"""

_ALIKE: Final = ("orders", "time", "snapshot", "state", "questions")
"""Parts whose kernels are made of the same helpers: those of `fold`, mostly."""

_PLAYBOOK: Final = re.compile(r"^(\[playbooks\..*\])$", re.MULTILINE)
_MAP: Final = """
name = "reckons"
[lines]
[[event]]
when = { column = "n", greater_than = 0 }
customer_id = "c"
order_id = "o"
occurred_at = "t"
amount = { sum = ["a", { product = ["a", "n"] }], round_to = 2 }
"""

_ORDER: Final = '{"customer_id":"c","order_id":"o","occurred_at":"2026-01-01T00:00:00Z","amount":"1.00"}'
_POLL_S: Final = 0.1


@click.command("warm-up")
@click.option(
    "--into",
    metavar="FOLDER",
    type=click.Path(path_type=Path, file_okay=False),
    help="For those who build a wheel: write the kernels into FOLDER/LEVEL, with --level.",
)
@click.option(
    "--level",
    metavar="LEVEL",
    help="Compile for all processors of a level that this one has: x86_64-v2, x86_64-v3, x86_64-v4 or aarch64.",
)
def warm_up(*, into: Path | None, level: str | None) -> None:
    """Compile the kernels for this machine, once.

    The first command that needs them does it by itself, within half a minute or so. Say it where waiting is no matter:
    in the build of an image, or after an installation. The kernels go to the folder that NUMBA_CACHE_DIR names, else
    to the user's cache; nobody else may write there. Another version of rfmstream, or another processor, compiles anew.
    """
    if (into is None) != (level is None):
        raise click.UsageError("--into and --level go together")
    if into is not None and level is not None:
        _choose_level(into.absolute(), level)
    if compile_kernels(*KERNELS):
        click.echo("the kernels are compiled")
    else:
        click.echo("the kernels were compiled already")


def _choose_level(folder: Path, level: str) -> None:
    """Have this process and those it starts compile for a level of instructions."""
    from rfmstream.kernels._store import FOR_VARIABLE, levels

    if level not in levels():
        known = ", ".join(levels()) or "none"
        raise click.UsageError(f"--level: this machine cannot run {level}; it can run {known}")
    os.environ[FOR_VARIABLE] = f"{folder / level}:{level}"
    # What numba optimises for; the host's own abilities would show in how wide its vectors are.
    os.environ["NUMBA_CPU_NAME"] = "generic" if level == "aarch64" else level.replace("_", "-", 1)
    os.environ["NUMBA_CPU_FEATURES"] = ""


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
    """Run the parts in two processes; yield while they run.

    Those that share helpers are in one, which compiles these once. Where there is one core so are all.
    """
    alike = [part for part in parts if part in _ALIKE]
    others = [part for part in parts if part not in _ALIKE]
    both = [some for some in (alike, others) if some] if usable_cores() > 1 else [parts]
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
    """Apply orders, and have memory made resident as for many of them."""
    import numpy as np

    from rfmstream.engine.core.engine import Engine
    from rfmstream.engine.core.touch import Touching

    Engine("rfm8-annual").step(_batch())
    memory = np.zeros(1)
    Touching(memory, memory.ctypes.data, memory.nbytes).run()


def _snapshot() -> None:
    """Take a snapshot of an engine that has a customer."""
    from rfmstream.engine.core.engine import Engine

    engine = Engine("rfm8-annual")
    engine.step(_batch())
    engine.snapshot()


def _state() -> None:
    """Write a checkpoint, and read the engine from it again."""
    from rfmstream.engine.core.engine import Engine

    engine = Engine("rfm8-annual")
    engine.step(_batch())
    with TemporaryDirectory(prefix="rfmstream-warm-up-") as folder:
        engine.checkpoint(folder)
        Engine.restore(folder)


def _report() -> None:
    from rfmstream.engine.insight.report.warm import warm_up

    warm_up()


def _time() -> None:
    """Let time pass for an engine without customers."""
    from rfmstream.engine.core.engine import Engine

    engine = Engine("rfm8-annual")
    engine.advance("2026-01-01")
    engine.next_due_us("2027-01-01")


def _questions() -> None:
    """Ask for a customer, erase it, and go on by a ruleset that holds customers out and forgets orders."""
    from rfmstream.engine.core.engine import Engine
    from rfmstream.engine.core.lookup import rows_of
    from rfmstream.schemas.ruleset import load_ruleset

    text = files("rfmstream.schemas").joinpath("rulesets", "groups3.toml").read_text(encoding="utf-8")
    with TemporaryDirectory(prefix="rfmstream-warm-up-") as folder:
        path = Path(folder) / "ruleset.toml"
        text = "forget_orders_after_days = 365\n" + _PLAYBOOK.sub(r'\1\nholdout = "0.5"', text)
        path.write_text(text, encoding="utf-8")
        ruleset = load_ruleset(path)
    engine = Engine(ruleset)
    engine.step(_batch())
    rows_of(engine, ["c"])
    engine.resegment(ruleset)
    engine.step(_batch(type="erased", occurred_at="2026-01-02T00:00:00Z"))


def _values() -> None:
    """Judge an id beyond ASCII and one that is absent, and amounts that are no text."""
    from decimal import Decimal

    from rfmstream.engine.events.normalise import normalise

    for amount in (1.5, Decimal("1.50")):
        for customer in ("\u00e9", None):
            normalise(_batch(customer_id=customer, amount=amount), currency="USD")


def _maps() -> None:
    """Reckon with numbers as a map says, and look at a text that nests too deep."""
    from rfmstream.engine.events.json_rows import is_deep

    _read("orders.csv", "c,o,t,a,n\nc,o,2026-01-01T00:00:00Z,1.50,2\n", input_map=_MAP)
    is_deep(b"[" * 1000)


def _csv() -> None:
    _read("orders.csv", "customer_id,order_id,type,occurred_at,amount\nc,o,paid,2026-01-01T00:00:00Z,1.00\n")


def _jsonl() -> None:
    _read("orders.jsonl", _ORDER + "\n")


def _read(name: str, text: str, *, input_map: str | None = None) -> None:
    """Read a file, with a map or without."""
    from rfmstream.engine.files.mapping import load_map
    from rfmstream.engine.files.source import open_orders

    with TemporaryDirectory(prefix="rfmstream-warm-up-") as folder:
        path, of_map = Path(folder) / name, Path(folder) / "map.toml"
        path.write_text(text)
        of_map.write_text(input_map or "")
        list(open_orders([path], currency="USD", input_map=load_map(of_map) if input_map else None))


def _records() -> None:
    """Take an order from a record to the records of its tier changes, and read one with an attribute."""
    from rfmstream.engine.live.decode import Decoder
    from rfmstream.engine.live.model import RawRecords
    from rfmstream.engine.live.warm import warm_up as warm_up_worker
    from rfmstream.schemas.ruleset import load_ruleset

    warm_up_worker(load_ruleset("rfm8-annual"), "log")
    records = RawRecords([b"c"], [_ORDER.encode()], [[]], [0], range(1), 1)
    Decoder(currency="USD", attributes=["store"]).decode(records)


def _fetches() -> None:
    """Read a fetch, and find the partitions of keys."""
    from rfmstream.engine.live.kafka.raw_check import reads_alike
    from rfmstream.engine.live.placement import PARTITIONERS, Placement, places_of

    reads_alike()
    Placement(0, 3).count([b"c"])
    for partitioner in PARTITIONERS:
        places_of([b"c"], 3, partitioner)


def _histories() -> None:
    """Make up a history."""
    from rfmstream.engine.replay.generate import generate

    with TemporaryDirectory(prefix="rfmstream-warm-up-") as folder:
        generate(customers=5, orders=20, seed=1, out=Path(folder) / "orders.csv")
        generate(customers=5, orders=20, seed=1, keys="zipf:1.2", out=Path(folder) / "load.csv")


def _batch(**values: object) -> "pa.Table":
    """Return an order; other values by the columns' names."""
    import pyarrow as pa

    order = {"customer_id": "c", "order_id": "o", "occurred_at": "2026-01-01T00:00:00Z", "amount": "1.00"}
    return pa.table({name: [value] for name, value in (order | values).items()})


_PARTS: Final = {
    "orders": _orders,
    "snapshot": _snapshot,
    "time": _time,
    "state": _state,
    "csv": _csv,
    "values": _values,
    "maps": _maps,
    "questions": _questions,
    "report": _report,
    "jsonl": _jsonl,
    "records": _records,
    "fetches": _fetches,
    "histories": _histories,
}

if __name__ == "__main__":
    for _part in sys.argv[1:]:
        _PARTS[_part]()
