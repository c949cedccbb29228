"""Build a machine from a checkpoint, and verify on the way whatever the kernels will rely on."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from rfmstream.engine.core.buffers import offsets_and_data
from rfmstream.engine.core.checkpoint.columns import (
    ENTRY_SCHEMA,
    FIX_DAMAGE,
    WITHOUT_ID,
    completed,
    customer_schema,
    id_bytes_of,
    missing_columns,
)
from rfmstream.engine.core.checkpoint.manifest import is_of_views, known_from, place_of_view, read_manifest
from rfmstream.engine.core.checkpoint.populations import ERASED, POPULATION_SCHEMA, populations_of
from rfmstream.engine.core.counters import Counters
from rfmstream.engine.core.forgetting import check_window
from rfmstream.engine.core.machine import Machine
from rfmstream.engine.core.populations import Populations
from rfmstream.engine.core.shard import Shard
from rfmstream.engine.events.arrow_buffers import check_buffers
from rfmstream.kernels import layout
from rfmstream.kernels.verify import verify_ids
from rfmstream.schemas.changes import CHANGE_REASONS
from rfmstream.schemas.codes import ID_BYTES_MAX, NO_TIER, OrderType
from rfmstream.schemas.errors import ConfigError, StateError
from rfmstream.schemas.plan import no_view
from rfmstream.schemas.ruleset import Ruleset, load_ruleset

_BLOCK_BYTES: Final = 4 << 20
_MARKS_MAX: Final = (len(CHANGE_REASONS) << layout.REASON_SHIFT) - 1


def read_checkpoint(
    directory: str | os.PathLike[str],
    *,
    ruleset: Ruleset | str | None = None,
    threads: int | None = None,
    view: str | None = None,
) -> Machine:
    """Return the machine a checkpoint holds; see `Engine.restore`."""
    folder = Path(directory)
    while True:
        if not is_of_views(folder):
            machine = read_machine(folder, ruleset=ruleset, threads=threads)
            if view not in (None, machine.ruleset.name):
                raise no_view(view, [machine.ruleset.name], where=os.fspath(folder))
            return machine
        name, place = place_of_view(folder, view)
        try:
            return read_machine(place, ruleset=ruleset, threads=threads, view=name)
        except StateError:
            # While it was read another one may have taken its place, whose views are in other folders.
            if place_of_view(folder, view)[1] == place:
                raise


def read_machine(
    folder: Path,
    *,
    ruleset: Ruleset | str | None = None,
    threads: int | None = None,
    only_shard: int | None = None,
    **options: Any,  # noqa: ANN401 - `view`, `seeds` and `hashed` of the machine
) -> Machine:
    """Return the machine in a folder that holds the checkpoint of one.

    only_shard  the machine is to hold the customers of this shard alone; its counters begin anew
    """
    while True:
        manifest = read_manifest(folder)
        try:
            return _read(folder, manifest, ruleset, threads, {**options, "only_shard": only_shard})
        except StateError:
            # While it was read another one may have taken its place, whose manifest names other files.
            if read_manifest(folder) == manifest:
                raise


def _read(
    folder: Path,
    manifest: dict[str, Any],
    ruleset: Ruleset | str | None,
    threads: int | None,
    options: dict[str, Any],
) -> Machine:
    only_shard = options.pop("only_shard")
    own = own_ruleset(manifest, ruleset, folder)
    populations = None
    if "populations" in manifest:
        populations = _read_populations(folder, manifest["populations"])
    files = manifest["files"]
    told = list(zip(manifest["shards"], files[::2], files[1::2], strict=True))
    if only_shard is not None:
        told = [told[only_shard]]
    machine = Machine(own, threads=len(told), mode=manifest["mode"], populations=populations, **options)
    if threads is not None:
        machine.use_threads(threads)
    parts = [(shard, *saved) for shard, saved in zip(machine.shards, told, strict=True)]

    def load(part: tuple[Shard, dict[str, int], dict[str, Any], dict[str, Any]]) -> None:
        shard, saved, customers, entries = part
        rows, tiers = entries["rows"], len(own.tiers) - 1
        if manifest["has_extras"]:
            shard.make_extras()
        # What kernels take for a place in an array, and what it may be at the most.
        of_customers = dict.fromkeys(("head", "tail", "change_entry"), rows)
        of_customers |= {"tier": tiers, "from_tier": tiers, "marks": _MARKS_MAX}
        # A note's `next` is an OrderType.
        of_entries = {"customer": customers["rows"], "previous": rows, "next": max(rows, *OrderType)}
        shard.load(
            saved["clock_us"],
            known_from(saved),
            saved["wheel_key"],
            (
                customers["rows"],
                customers["id_bytes"],
                _read_columns(folder, customers, customer_schema(shard), of_customers),
            ),
            (entries["rows"], entries["id_bytes"], _read_columns(folder, entries, ENTRY_SCHEMA, of_entries)),
        )
        if fault := shard.fault(len(own.tiers)):
            raise StateError(f"the checkpoint is damaged: {fault}", path=folder, fix=FIX_DAMAGE)
        shard.arm()

    machine.threads.for_each(load, parts)
    if only_shard is None:
        machine.counters = Counters(**manifest["counters"])
    if own.fingerprint != manifest["fingerprint"] and machine.customers:
        # The tiers are decided as before, but other signals are asked for.
        machine.ask_anew()
    return machine


def _read_populations(folder: Path, saved: dict[str, Any]) -> Populations:
    batches = _read_columns(folder, saved, POPULATION_SCHEMA, {"role": ERASED})
    try:
        return populations_of(pa.Table.from_batches(batches, schema=POPULATION_SCHEMA))
    except UnicodeDecodeError as error:
        raise StateError(
            "the checkpoint is damaged: a text is no UTF-8", path=folder, fix=FIX_DAMAGE
        ) from error


def own_ruleset(
    manifest: dict[str, Any], ruleset: Ruleset | str | None, folder: Path, *, view: str | None = None
) -> Ruleset:
    """Return the ruleset to go on with, which must decide exactly as the checkpoint's did.

    view  whose, where the checkpoint holds several
    """
    if ruleset is None:
        try:
            given = load_ruleset(
                manifest["ruleset_name"], time_zone=manifest["time_zone"], currency=manifest["currency"]
            )
        except ConfigError as error:
            raise StateError(
                f"the checkpoint's ruleset {manifest['ruleset']} is not a built-in one",
                path=folder,
                fix="name its file with the ruleset option" if view is None else "give the plan of its views",
            ) from error
    else:
        given = ruleset if isinstance(ruleset, Ruleset) else load_ruleset(ruleset)
    if not decides_alike(manifest, given):
        whose = "the checkpoint" if view is None else f"the checkpoint's view {view}"
        raise StateError(
            f"{whose} belongs to ruleset {manifest['ruleset']}, not to {given.identity}",
            path=folder,
            fix="use the ruleset, time zone and currency it was made with, or name another directory; the other one "
            f"takes over by replay {'--resegment' if view is None else f'--resegment-view {view}'}",
        )
    return given


def decides_alike(manifest: dict[str, Any], ruleset: Ruleset) -> bool:
    """Tell whether a ruleset decides exactly as the checkpoint's did, under the same name."""
    decides = ruleset.tier_fingerprint or ruleset.fingerprint
    return (ruleset.identity, decides) == (manifest["ruleset"], manifest["tier_fingerprint"])


def taken_over(manifest: dict[str, Any], ruleset: Ruleset, folder: Path) -> Ruleset:
    """Return what to read a checkpoint with that another ruleset takes over: it must not move before it is resegmented.

    Errors  ConfigError  the other ruleset counts in another currency, or orders that the state has forgotten
            StateError   nobody knows what the tiers were called
    """
    if ruleset.currency != manifest["currency"]:
        raise ConfigError(
            f"ruleset {ruleset.identity} counts in {ruleset.currency}, the state in {manifest['currency']}",
            key="ruleset",
            fix=f"use a ruleset in {manifest['currency']}, or begin anew",
        )
    check_window(ruleset, max(map(known_from, manifest["shards"])), manifest["clock_us"])
    tiers = manifest.get("tiers")
    if tiers is None:  # an older version wrote it
        try:
            tiers = [tier.id for tier in own_ruleset(manifest, None, folder).tiers]
        except StateError as error:
            raise StateError(
                f"the checkpoint does not say which tiers its ruleset {manifest['ruleset']} has",
                path=folder,
                fix="run once with that ruleset, which writes them down, and then with the other one",
            ) from error
    return as_made(manifest, tiers, ruleset)


def as_made(manifest: dict[str, Any], tiers: Iterable[str], ruleset: Ruleset) -> Ruleset:
    """Return the rules of a ruleset under the name, tiers and currency of the one that a checkpoint was made with."""
    return replace(
        ruleset,
        identity=manifest["ruleset"],
        fingerprint=manifest["fingerprint"],
        tier_fingerprint=manifest.get("tier_fingerprint", manifest["fingerprint"]),
        currency=manifest["currency"],
        tiers=tuple(replace(ruleset.tiers[0], id=tier) for tier in tiers),
    )


def _read_columns(
    folder: Path, saved: dict[str, Any], schema: pa.Schema, highest: dict[str, int]
) -> Iterator[pa.RecordBatch]:
    """Yield the batches of a file, none of which says more than its manifest or `highest`, by column, allows."""
    path = folder / saved["name"]
    try:
        if _digest(path) != (saved["bytes"], saved["xxh3_128"]):
            raise StateError(
                "the checkpoint is damaged: its checksum differs",
                path=path,
                fix=FIX_DAMAGE,
            )
        # Not mapped into memory: a file that somebody cuts meanwhile would end this process by a signal.
        with pa.OSFile(os.fspath(path)) as source, pa.ipc.open_stream(source) as reader:
            missing = missing_columns(reader.schema, schema, path)
            rows, id_bytes = saved["rows"], saved["id_bytes"]
            for batch in reader:
                check_buffers(batch)
                _check_texts(batch)
                rows -= batch.num_rows
                id_bytes -= id_bytes_of(batch)
                if min(rows, id_bytes) < 0 or not _is_within(batch, highest):
                    raise pa.ArrowInvalid("a value is out of range")
                yield completed(batch, missing)
            if rows != 0 or id_bytes != 0:
                raise pa.ArrowInvalid("rows are missing")
    except FileNotFoundError as error:
        raise StateError(
            "the checkpoint is not whole: a file is missing", path=path, fix="start without it"
        ) from error
    except (pa.ArrowException, OSError, ValueError) as error:  # a name that is no UTF-8 is a ValueError
        raise StateError(f"the checkpoint cannot be read: {error}", path=path, fix=FIX_DAMAGE) from error


def _check_texts(batch: pa.RecordBatch) -> None:
    """Raise pa.ArrowInvalid where an id or a name is no UTF-8, as whoever reads a change or a snapshot believes it is.

    Of event ids too long to be kept, which nobody is ever told, digests stand there instead.
    """
    ids = batch.column(0)
    try:
        ids.validate(full=True)
    except pa.ArrowInvalid:
        if batch.schema.names[0] != "id":
            raise
        is_told = batch["marks"].to_numpy() & layout.KIND_MASK != layout.EVENT
        ids.filter(pa.array(is_told)).validate(full=True)


def _digest(path: Path) -> tuple[int, str]:
    """Return the size of a file and its digest."""
    digest, size = xxhash.xxh3_128(), 0
    with path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            size += len(block)
    return size, digest.hexdigest()


def _is_within(batch: pa.RecordBatch, highest: dict[str, int]) -> bool:
    if any(column.null_count for column in batch.columns):
        return False
    if batch.schema.names[0] == "text":  # a population may have a name of any length
        return bool(pc.all(pc.less_equal(batch["role"], highest["role"]), min_count=0).as_py())
    has_id = np.ones(batch.num_rows, np.bool_)
    if batch.schema.names[0] == "id":
        has_id = ~np.isin(batch["marks"].to_numpy() & layout.KIND_MASK, WITHOUT_ID)
    if not verify_ids(offsets_and_data(batch.column(0))[0], has_id, ID_BYTES_MAX):
        return False
    bounds = [(pc.min_max(batch[name]).as_py(), limit) for name, limit in highest.items() if batch.num_rows]
    return all(found["min"] >= NO_TIER and found["max"] <= limit for found, limit in bounds)
