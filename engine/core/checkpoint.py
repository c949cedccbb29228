"""Write the whole state of an engine to a directory, and build the engine again from it.

A checkpoint is a manifest and, for each shard, two Arrow IPC files: its customers and its entries (orders and the other
events that must be remembered), in order of their handles. Hash tables and timers follow from them and are built anew.
Files of a new checkpoint get new names; the checkpoint becomes the present one when its manifest is renamed over the
old one, so a crash at any moment leaves one whole checkpoint. The format is described in docs/formats.md.
"""

import fcntl
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray

from rfmstream.engine.core.buffers import offsets_and_data
from rfmstream.engine.core.compact import Compacted
from rfmstream.engine.core.engine import Counters, Engine
from rfmstream.engine.core.shard import Shard
from rfmstream.engine.events.arrow_buffers import check_buffers
from rfmstream.kernels import layout
from rfmstream.kernels.layout import CUSTOMER, ENTRY, EXTRA
from rfmstream.kernels.verify import verify_ids
from rfmstream.schemas.changes import CHANGE_REASONS, MODES
from rfmstream.schemas.codes import FOREVER_US, ID_BYTES_MAX, NEVER_US, NO_TIER, OrderType
from rfmstream.schemas.errors import ConfigError, StateError
from rfmstream.schemas.ruleset import Ruleset, load_ruleset

FORMAT: Final = "rfmstream-checkpoint"
VERSION: Final = 2
"""Of what is written; every version from 1 on is read. Version 2 has the columns of EXTRA, where there are any."""
MANIFEST: Final = "manifest.json"
_FIRST: Final = f"0-{MANIFEST}"
"""Empty, and there while the first checkpoint of a directory is in the making: what is there then is no loss."""
_OWN_FILE: Final = re.compile(r"\d+-\d+-(customers|entries)\.arrow|\d+-manifest\.json")
_TEXTS: Final = ("ruleset", "ruleset_name", "fingerprint", "tier_fingerprint", "time_zone", "currency")
_INDENT: Final = orjson.OPT_INDENT_2
_FIX_DAMAGE: Final = "restore it from a copy, or start without it"
_WITHOUT_ID: Final = (layout.REFUND, layout.ORIGINAL, layout.ERASURE, layout.GONE)
_MARKS_MAX: Final = (len(CHANGE_REASONS) << layout.REASON_SHIFT) - 1
_WRITE_BACK_BYTES: Final = 8 << 20
"""The disk is to begin with each so many bytes while the next are made, not with all of them at the end."""
_ROWS: Final = 1 << 16
"""Rows of a record batch: few enough that splitting records into columns stays in the cache."""

# What is written of each record; the rest (ids, slots of tables and timers) is written as ids or built anew.
_CUSTOMER_FIELDS: Final = tuple(
    name for name in CUSTOMER.names or () if name not in ("key0", "key1", "key_size", "armed")
)
_ENTRY_FIELDS: Final = tuple(name for name in ENTRY.names or () if name not in ("id_start", "id_size"))
_DEFAULTS: Final = dict.fromkeys(EXTRA.names or (), 0)
"""What a column says where an older program wrote none. A field added to a record gets its default here."""


def _schema(dtype: np.dtype[Any], fields: Iterable[str], id_name: str) -> pa.Schema:
    return pa.schema(
        [
            (id_name, pa.string()),
            *((name, pa.from_numpy_dtype(dtype[name])) for name in fields),
        ]
    )


_CUSTOMER_SCHEMA: Final = _schema(CUSTOMER, _CUSTOMER_FIELDS, "customer_id")
_EXTRA_SCHEMA: Final = pa.schema(
    [*_CUSTOMER_SCHEMA, *((name, pa.from_numpy_dtype(EXTRA[name])) for name in _DEFAULTS)]
)
_ENTRY_SCHEMA: Final = _schema(ENTRY, _ENTRY_FIELDS, "id")


def write_checkpoint(engine: Engine, directory: str | os.PathLike[str]) -> None:
    """Write the state of an engine; the checkpoint that was in the directory is replaced in one step.

    Raises  StateError where the directory holds something else or cannot be written
    """
    folder = Path(directory)
    with _writing(folder):
        _write(engine, folder)


def _write(engine: Engine, folder: Path) -> None:
    old = _files_of(folder)
    generation = 1 + max((int(name.split("-")[0]) for name in old), default=0)
    written: list[Path] = []

    def write(part: tuple[int, Shard]) -> list[dict[str, Any]]:
        number, shard = part
        files, compacted = [], Compacted(shard)
        for kind, schema, batches in (
            ("customers", _customer_schema(shard), _customer_batches(shard, compacted)),
            ("entries", _ENTRY_SCHEMA, _entry_batches(shard, compacted)),
        ):
            path = folder / f"{generation}-{number}-{kind}.arrow"
            written.append(path)
            files.append(_write_file(path, schema, batches))
        return files

    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not has_checkpoint(folder) and _FIRST not in old:
            written.append(folder / _FIRST)
            written[-1].touch()
        files = list(chain.from_iterable(engine.for_each(write, list(enumerate(engine.shards)))))
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "ruleset": engine.ruleset.identity,
            "ruleset_name": engine.ruleset.name,
            "fingerprint": engine.ruleset.fingerprint,
            "tier_fingerprint": engine.ruleset.tier_fingerprint or engine.ruleset.fingerprint,
            "time_zone": engine.ruleset.time_zone,
            "currency": engine.ruleset.currency,
            "mode": engine.mode,
            "has_extras": engine.shards[0].has_extras,
            "clock_us": engine.clock_us,
            "counters": asdict(engine.counters),
            "shards": [
                {"clock_us": shard.clock_us, "wheel_key": int(shard.state.row.wheel_key)}
                for shard in engine.shards
            ],
            "files": files,
        }
        written.append(folder / f"{generation}-{MANIFEST}")
        with written[-1].open("wb") as file:
            file.write(orjson.dumps({"xxh3_128": _digest(manifest), "manifest": manifest}, option=_INDENT))
            _sync(file)
        sync_folder(folder)
        written.pop().replace(folder / MANIFEST)
        written.clear()  # they are the checkpoint now
        sync_folder(folder)
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise
    # Whatever happens from here on leaves files too many, which the next checkpoint removes.
    for name in (*old, _FIRST):
        (folder / name).unlink(missing_ok=True)


@contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """Lock a folder; yield whether nobody else has. A process that dies lets go."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_free = True
    except BlockingIOError:
        is_free = False
    try:
        yield is_free
    finally:
        os.close(handle)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep a checkpoint's directory, made if need be, from other runs: of two, one would be as if it had never been.

    Raises  StateError where another run holds it, or it cannot be made
    """
    is_new = not os.path.exists(folder)  # noqa: PTH110 - a name too long is none, and told when it is made
    try:
        with ExitStack() as stack:
            with _writing(folder):
                if is_new:
                    folder.mkdir(parents=True)
                is_free = stack.enter_context(locked(folder))
            if not is_free:
                raise StateError(
                    "another run is at work on this checkpoint",
                    path=folder,
                    fix="wait for its end, or name another directory",
                )
            yield
    finally:
        if is_new:
            with suppress(OSError):  # a checkpoint is in it
                folder.rmdir()


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StateError(
            f"cannot write a checkpoint: {error.strerror or error}",
            path=folder,
            fix="name a directory that can be written to, on a disk with room",
        ) from error


def has_checkpoint(directory: str | os.PathLike[str]) -> bool:
    """Tell whether a directory holds a checkpoint, whole or not."""
    return os.path.exists(Path(directory) / MANIFEST)  # noqa: PTH110 - a name too long is none


def is_unfinished(directory: str | os.PathLike[str]) -> bool:
    """Tell whether a directory holds the parts of its first checkpoint alone, whose writer was killed.

    Raises  StateError where it holds anything else
    """
    return not has_checkpoint(directory) and _FIRST in _files_of(Path(directory))


def read_checkpoint(
    directory: str | os.PathLike[str], *, ruleset: Ruleset | str | None = None, threads: int | None = None
) -> Engine:
    """Return the engine a checkpoint holds; see `Engine.restore`."""
    folder = Path(directory)
    while True:
        manifest = _read_manifest(folder)
        try:
            return _read(folder, manifest, ruleset, threads)
        except StateError:
            # While it was read another one may have taken its place, whose manifest names other files.
            if _read_manifest(folder) == manifest:
                raise


def _read(
    folder: Path, manifest: dict[str, Any], ruleset: Ruleset | str | None, threads: int | None
) -> Engine:
    own = _own_ruleset(manifest, ruleset, folder)
    engine = Engine(own, threads=len(manifest["shards"]), mode=manifest["mode"])
    if threads is not None:
        engine.use_threads(threads)
    files = iter(manifest["files"])
    parts = [
        (shard, saved, next(files), next(files))
        for shard, saved in zip(engine.shards, manifest["shards"], strict=True)
    ]

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
            saved["wheel_key"],
            (
                customers["rows"],
                customers["id_bytes"],
                _read_columns(folder, customers, _customer_schema(shard), of_customers),
            ),
            (entries["rows"], entries["id_bytes"], _read_columns(folder, entries, _ENTRY_SCHEMA, of_entries)),
        )
        if fault := shard.fault(len(own.tiers)):
            raise StateError(f"the checkpoint is damaged: {fault}", path=folder, fix=_FIX_DAMAGE)
        shard.arm()

    engine.for_each(load, parts)
    engine.counters = Counters(**manifest["counters"])
    if own.fingerprint != manifest["fingerprint"] and engine.customers:
        # The tiers are decided as before, but other signals are asked for.
        engine.ask_anew()
    return engine


def _customer_schema(shard: Shard) -> pa.Schema:
    """Return the columns of customers that a shard has something to say in."""
    return _EXTRA_SCHEMA if shard.has_extras else _CUSTOMER_SCHEMA


def _own_ruleset(manifest: dict[str, Any], ruleset: Ruleset | str | None, folder: Path) -> Ruleset:
    """Return the ruleset to go on with, which must decide exactly as the checkpoint's did."""
    if ruleset is None:
        try:
            given = load_ruleset(
                manifest["ruleset_name"], time_zone=manifest["time_zone"], currency=manifest["currency"]
            )
        except ConfigError as error:
            raise StateError(
                f"the checkpoint's ruleset {manifest['ruleset']} is not a built-in one",
                path=folder,
                fix="name its file with the ruleset option",
            ) from error
    else:
        given = ruleset if isinstance(ruleset, Ruleset) else load_ruleset(ruleset)
    decides = given.tier_fingerprint or given.fingerprint
    if decides != manifest["tier_fingerprint"] or given.identity != manifest["ruleset"]:
        raise StateError(
            f"the checkpoint belongs to ruleset {manifest['ruleset']}, not to {given.identity}",
            path=folder,
            fix="use the ruleset, time zone and currency it was made with, or another directory",
        )
    return given


def _customer_batches(shard: Shard, compacted: Compacted) -> Iterator[pa.RecordBatch]:
    for handles, records in compacted.customers(_ROWS):
        offsets, data = shard.customer_ids(handles.astype(np.uint32))
        yield _split(records, _customer_schema(shard), offsets, data)


def _entry_batches(shard: Shard, compacted: Compacted) -> Iterator[pa.RecordBatch]:
    for handles, entries in compacted.entries(_ROWS):
        # An id of no bytes: notes that remember something of an order by its handle.
        has_none = np.isin(entries["marks"] & layout.KIND_MASK, _WITHOUT_ID)
        offsets, data = shard.entry_ids(np.where(has_none, 0, handles))
        yield _split([entries], _ENTRY_SCHEMA, offsets, data)


def _split(
    records: list[NDArray[Any]], schema: pa.Schema, offsets: NDArray[np.int32], data: NDArray[np.uint8]
) -> pa.RecordBatch:
    """Write records side by side, of the same handles each, as columns."""
    ids = pa.StringArray.from_buffers(records[0].size, pa.py_buffer(offsets), pa.py_buffer(data))
    fields = {name: part[name] for part in records for name in part.dtype.names or ()}
    columns = [pa.array(np.ascontiguousarray(fields[name])) for name in schema.names[1:]]
    return pa.RecordBatch.from_arrays([ids, *columns], schema=schema)


class _Digested:
    """A file being written, and the digest of what was written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = xxhash.xxh3_128()
        self.size = 0
        self._on_its_way = 0
        self.closed = False

    def write(self, data: Any) -> int:  # noqa: ANN401 - anything with a buffer
        view = memoryview(data)
        self.digest.update(view)
        self.size += view.nbytes
        written = self._file.write(view)
        if self.size - self._on_its_way >= _WRITE_BACK_BYTES and hasattr(os, "posix_fadvise"):
            # Linux begins to write back what it is told is not needed, and keeps what is not on the disk yet.
            with suppress(OSError):  # a hint
                os.posix_fadvise(self._file.fileno(), self._on_its_way, 0, os.POSIX_FADV_DONTNEED)
            self._on_its_way = self.size
        return written

    def flush(self) -> None:
        self._file.flush()


def _write_file(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> dict[str, Any]:
    rows = id_bytes = 0
    with path.open("wb", buffering=0) as file:
        digested = _Digested(file)
        with pa.ipc.new_stream(pa.PythonFile(digested, mode="w"), schema) as writer:
            for batch in batches:
                rows += batch.num_rows
                id_bytes += _id_bytes(batch)
                writer.write_batch(batch)
        _sync(file)
    return {
        "name": path.name,
        "rows": rows,
        "id_bytes": id_bytes,
        "bytes": digested.size,
        "xxh3_128": digested.digest.hexdigest(),
    }


def _id_bytes(batch: pa.RecordBatch) -> int:
    offsets, _ = offsets_and_data(batch.column(0))
    return int(offsets[-1]) - int(offsets[0])


def _is_within(batch: pa.RecordBatch, highest: dict[str, int]) -> bool:
    if any(column.null_count for column in batch.columns):
        return False
    has_id = np.ones(batch.num_rows, np.bool_)
    if batch.schema.names[0] == "id":
        has_id = ~np.isin(batch["marks"].to_numpy() & layout.KIND_MASK, _WITHOUT_ID)
    if not verify_ids(offsets_and_data(batch.column(0))[0], has_id, ID_BYTES_MAX):
        return False
    bounds = [(pc.min_max(batch[name]).as_py(), limit) for name, limit in highest.items() if batch.num_rows]
    return all(found["min"] >= NO_TIER and found["max"] <= limit for found, limit in bounds)


def _read_columns(
    folder: Path, saved: dict[str, Any], schema: pa.Schema, highest: dict[str, int]
) -> Iterator[pa.RecordBatch]:
    """Yield the batches of a file, none of which says more than its manifest or `highest`, by column, allows."""
    path = folder / saved["name"]
    try:
        with pa.memory_map(os.fspath(path)) as source:
            whole = source.read_buffer()
            if len(whole) != saved["bytes"] or xxhash.xxh3_128_hexdigest(whole) != saved["xxh3_128"]:
                raise StateError(
                    "the checkpoint is damaged: its checksum differs",
                    path=path,
                    fix=_FIX_DAMAGE,
                )
            with pa.ipc.open_stream(whole) as reader:
                missing = _missing(reader.schema, schema, path)
                rows, id_bytes = saved["rows"], saved["id_bytes"]
                for batch in reader:
                    check_buffers(batch)
                    rows -= batch.num_rows
                    id_bytes -= _id_bytes(batch)
                    if min(rows, id_bytes) < 0 or not _is_within(batch, highest):
                        raise pa.ArrowInvalid("a value is out of range")
                    yield _completed(batch, missing)
                if rows != 0 or id_bytes != 0:
                    raise pa.ArrowInvalid("rows are missing")
    except FileNotFoundError as error:
        raise StateError(
            "the checkpoint is not whole: a file is missing", path=path, fix="start without it"
        ) from error
    except (pa.ArrowException, OSError) as error:
        raise StateError(f"the checkpoint cannot be read: {error}", path=path, fix=_FIX_DAMAGE) from error


def _missing(found: pa.Schema, schema: pa.Schema, path: Path) -> list[pa.Field]:
    """Return the columns that a file has not and an older program did not write.

    Raises  StateError where the file has others
    """
    unknown = [name for name in found.names if name not in schema.names]
    if unknown:
        raise StateError(
            f"the checkpoint has a column {unknown[0]}, which this program does not know",
            path=path,
            fix="use the version of rfmstream that wrote it, or a newer one",
        )
    missing = [field for field in schema if field.name not in found.names]
    kept = [field for field in schema if field.name in found.names]
    if list(found) != kept or any(field.name not in _DEFAULTS for field in missing):
        raise StateError("the checkpoint has other columns", path=path, fix=_FIX_DAMAGE)
    return missing


def _completed(batch: pa.RecordBatch, missing: list[pa.Field]) -> pa.RecordBatch:
    """Return a batch with the columns an older program did not write, at their defaults."""
    for field in missing:
        values = np.full(batch.num_rows, _DEFAULTS[field.name])
        batch = batch.append_column(field, pa.array(values, field.type))
    return batch


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        whole = orjson.loads(path.read_bytes())
    except OSError as error:
        raise StateError("there is no checkpoint here", path=folder) from error
    except orjson.JSONDecodeError as error:
        raise StateError("this is not a checkpoint's manifest", path=path) from error
    manifest: dict[str, Any] | None = whole.get("manifest") if isinstance(whole, dict) else None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise StateError("this is not a checkpoint's manifest", path=path)
    version = manifest.get("version")
    if type(version) is not int or not 1 <= version <= VERSION:
        raise StateError(
            f"the checkpoint has format version {version}, this program reads 1 to {VERSION}",
            path=path,
            fix="use the version of rfmstream that wrote it, or a newer one",
        )
    if whole.get("xxh3_128") != _digest(manifest):
        raise StateError(
            "the checkpoint is damaged: its manifest's checksum differs", path=path, fix=_FIX_DAMAGE
        )
    if version == 1:  # nothing was asked for but tiers
        manifest = {**manifest, "tier_fingerprint": manifest.get("fingerprint"), "has_extras": False}
    if not _is_sound(manifest):
        raise StateError("the manifest is none that rfmstream writes", path=path, fix=_FIX_DAMAGE)
    return manifest


def _is_sound(manifest: dict[str, Any]) -> bool:
    """Tell whether a manifest is such as is written, and asks for no more memory than its files have bytes."""

    def is_within(value: object, low: int, high: int) -> bool:
        return type(value) is int and low <= value <= high

    try:
        shards, files = manifest["shards"], manifest["files"]
        counters = asdict(Counters(**manifest["counters"]))
        by_word = [counters.pop(name).values() for name in ("rejected", "changes", "signals")]
        counts = [*chain.from_iterable(by_word), *counters.values()]
        return (
            all(isinstance(manifest[name], str) for name in _TEXTS)
            and manifest["mode"] in MODES
            and type(manifest["has_extras"]) is bool
            and 0 < len(shards) == len(files) / 2
            and all(is_within(count, 0, 2**63 - 1) for count in counts)
            and all(is_within(shard["clock_us"], NEVER_US, FOREVER_US) for shard in shards)
            and all(is_within(shard["wheel_key"], 0, layout.WHEEL_KEY_MAX) for shard in shards)
            and all(_OWN_FILE.fullmatch(file["name"]) and isinstance(file["xxh3_128"], str) for file in files)
            and all(
                is_within(file[size], 0, file["bytes"]) for file in files for size in ("rows", "id_bytes")
            )
        )
    except (AttributeError, KeyError, TypeError):
        return False


def _digest(manifest: dict[str, Any]) -> str:
    return xxhash.xxh3_128_hexdigest(orjson.dumps(manifest, option=orjson.OPT_SORT_KEYS))


def _files_of(folder: Path) -> list[str]:
    """Return the data files of the present checkpoint and of any that was not finished.

    Raises  StateError where the directory holds anything else: nothing of it may be lost
    """
    is_there = os.path.isdir(folder)  # noqa: PTH112 - a name too long is told when it is made
    names = sorted(path.name for path in folder.iterdir()) if is_there else []
    ours = [name for name in names if _OWN_FILE.fullmatch(name)]
    strange = [name for name in names if name not in ours and name != MANIFEST]
    if strange:
        raise StateError(
            f"the directory holds {strange[0]}, which is no part of a checkpoint",
            path=folder,
            fix="name an empty or new directory",
        )
    return ours


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Force what a folder lists to the disk."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # not every system lets a directory be opened
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
