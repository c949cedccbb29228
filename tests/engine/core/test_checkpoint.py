"""A checkpoint is whole or it is refused, and a crash at any moment leaves the one before it."""

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest
import xxhash
from kernel_shards import event
from oracle_days import DAY_US
from twins import canonical_batch, in_order, plain_rows

from rfmstream import ConfigError, Engine, InputError, RfmError, StateError, load_ruleset
from rfmstream.engine.core.checkpoint import manifest as manifests
from rfmstream.engine.core.checkpoint import read, write
from rfmstream.engine.core.checkpoint.folder import MANIFEST, has_checkpoint
from rfmstream.engine.replay.replay import open_engine
from rfmstream.schemas.ruleset import Milestones


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


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    grown(threads=2).checkpoint(tmp_path / "state")
    return tmp_path / "state"


@pytest.mark.parametrize("ruleset", ["rfm8", "rfm8-annual", "scores4"])
@pytest.mark.parametrize(("shards", "threads"), [(1, None), (1, 3), (3, 1), (3, None), (3, 2)])
def test_both_go_on_alike(tmp_path: Path, ruleset: str, shards: int, threads: int | None) -> None:
    engine = grown(ruleset=ruleset, threads=shards, mode="live")
    engine.checkpoint(tmp_path)
    again = Engine.restore(tmp_path, threads=threads)
    assert again.mode == "live"
    assert again.ruleset == engine.ruleset
    for _ in range(2):
        assert told(again) == told(engine)
        assert (again.clock_us, again.counters, again.customers, again.orders) == (
            engine.clock_us,
            engine.counters,
            engine.customers,
            engine.orders,
        )
        more = canonical_batch(history(200, first=400))  # half of it known
        assert in_order(plain_rows(again.step_canonical(more).changes)) == in_order(
            plain_rows(engine.step_canonical(more).changes)
        )
        later = engine.clock_us + 100 * DAY_US
        assert in_order(plain_rows(again.advance(later))) == in_order(plain_rows(engine.advance(later)))


def test_an_empty_engine_comes_back(tmp_path: Path) -> None:
    Engine(threads=2).checkpoint(tmp_path)
    again = Engine.restore(tmp_path)
    assert (again.clock, again.customers, again.snapshot().num_rows) == (None, 0, 0)
    assert again.step_canonical(canonical_batch(history(3))).changes.num_rows > 0


def test_an_engine_without_customers_keeps_its_clock(tmp_path: Path) -> None:
    engine = Engine()
    engine.advance("2026-01-01")
    engine.checkpoint(tmp_path)
    assert Engine.restore(tmp_path).clock == engine.clock


def test_a_newer_checkpoint_takes_the_place_of_the_older(tmp_path: Path) -> None:
    engine = grown(50)
    names = set()
    for _ in range(3):
        engine.checkpoint(tmp_path)
        files = {path.name for path in tmp_path.iterdir()}
        assert len(files) == 3
        names |= files
        engine.step_canonical(canonical_batch(history(50, first=engine.counters.read)))
    assert len(names) == 7  # names of files are not used again


def test_nothing_is_pickled(saved: Path) -> None:
    for path in saved.iterdir():
        if path.suffix == ".arrow":
            assert path.read_bytes()[:4] == b"\xff\xff\xff\xff"  # an Arrow IPC stream
        else:
            orjson.loads(path.read_bytes())
    sources = list(Path(str(read.__file__)).parent.glob("*.py"))
    assert len(sources) > 4
    assert not [source for source in sources if "pickle" in source.read_text()]


def put(path: Path, content: bytes) -> None:
    """Replace a file by another one of its name; whoever still looks at the old one keeps seeing that."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)


@pytest.mark.parametrize("pattern", ["*customers.arrow", "*entries.arrow"])
def test_a_flipped_bit_is_found(saved: Path, pattern: str) -> None:
    rng = random.Random(1)  # noqa: S311
    for path in sorted(saved.glob(pattern)):
        good = path.read_bytes()
        for at in [0, len(good) - 1, *(rng.randrange(len(good)) for _ in range(20))]:
            bad = bytearray(good)
            bad[at] ^= 1 << rng.randrange(8)
            put(path, bad)
            with pytest.raises(StateError, match="damaged"):
                Engine.restore(saved)
        put(path, good)
    Engine.restore(saved)


def test_a_flipped_bit_of_the_manifest_is_found(saved: Path) -> None:
    path = saved / MANIFEST
    good = path.read_bytes()
    rng = random.Random(2)  # noqa: S311
    missed = []
    for at in sorted(rng.sample(range(len(good)), 300)):
        bad = bytearray(good)
        bad[at] ^= 1 << rng.randrange(7)
        put(path, bad)
        try:
            Engine.restore(saved)
        except StateError:
            continue
        except Exception as error:  # noqa: BLE001 - another error than it should be
            missed.append((at, bytes(bad[max(0, at - 20) : at + 20]), type(error).__name__))
        else:
            missed.append((at, bytes(bad[max(0, at - 20) : at + 20]), "accepted"))
    assert not missed


@pytest.mark.parametrize("size", [0, 1, 100, -1])
def test_a_file_cut_short_is_found(saved: Path, size: int) -> None:
    for path in sorted(saved.iterdir()):
        good = path.read_bytes()
        put(path, good[:size])
        with pytest.raises(StateError):
            Engine.restore(saved)
        put(path, good)


def test_a_missing_file_is_found(saved: Path) -> None:
    for path in sorted(saved.iterdir()):
        good = path.read_bytes()
        path.unlink()
        with pytest.raises(StateError):
            Engine.restore(saved)
        put(path, good)


def test_files_that_changed_places_are_found(saved: Path) -> None:
    first, second = sorted(saved.glob("*-customers.arrow"))
    good = first.read_bytes(), second.read_bytes()
    put(first, good[1])
    put(second, good[0])
    with pytest.raises(StateError, match="damaged"):
        Engine.restore(saved)


@pytest.mark.parametrize(
    "make", [lambda _: None, lambda path: path.mkdir(), lambda path: path.write_text("x")]
)
def test_where_there_is_no_checkpoint(tmp_path: Path, make: Any) -> None:  # noqa: ANN401
    make(tmp_path / "state")
    with pytest.raises(StateError):
        Engine.restore(tmp_path / "state")
    assert not has_checkpoint(tmp_path / "state")


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [("version", 4, "version 4"), ("version", None, "version"), ("format", "other", "manifest")],
)
def test_another_format_is_refused(saved: Path, field: str, value: object, words: str) -> None:
    path = saved / MANIFEST
    whole = orjson.loads(path.read_bytes())
    whole["manifest"][field] = value
    put(path, orjson.dumps(whole))
    with pytest.raises(StateError, match=words):
        Engine.restore(saved)


def seal(folder: Path, manifest: dict[str, Any]) -> None:
    """Write a manifest whose checksum is right, whatever it says."""
    put(
        folder / MANIFEST,
        orjson.dumps({"xxh3_128": manifests._digest(manifest), "manifest": manifest}),
    )


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("shards",), 5),
        (("shards",), []),
        (("shards", 0), {}),
        (("shards", 0, "clock_us"), 1.5),
        (("shards", 1, "wheel_key"), 2**62),
        (("files",), None),
        (("files",), []),
        (("files", 0, "name"), 7),
        (("files", 0, "name"), "../other"),
        (("files", 1, "id_bytes"), 2**62),
        (("files", 2, "rows"), -1),
        (("files", 2, "rows"), 2**31),
        (("files", 2, "rows"), 1),
        (("files", 2, "id_bytes"), 1),
        (("counters",), 1),
        (("counters", "applied"), {}),
        (("counters", "rejected"), []),
        (("counters", "other"), 1),
        (("ruleset",), None),
        (("currency",), 5),
        (("mode",), 0),
    ],
)
def test_a_manifest_that_leads_astray_is_refused(
    saved: Path, path: tuple[str | int, ...], value: object
) -> None:
    manifest = orjson.loads((saved / MANIFEST).read_bytes())["manifest"]
    inner = manifest
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    seal(saved, manifest)
    with pytest.raises(StateError):
        Engine.restore(saved)


@pytest.mark.parametrize(
    ("number", "column", "value"),
    [
        *((0, name, 2**32 - 1) for name in ("head", "tail", "change_entry")),
        *((0, name, value) for name in ("tier", "from_tier") for value in (-2, 127)),
        (0, "marks", 255),
        *((1, name, 2**32 - 1) for name in ("customer", "previous", "next")),
        *((number, name, None) for number, name in ((0, "customer_id"), (1, "id"), (0, "seq"), (1, "at_us"))),
        (0, "customer_id", "x" * 5000),
    ],
)
def test_a_file_that_leads_astray_is_refused(saved: Path, number: int, column: str, value: object) -> None:
    forge(saved, number, lambda rows: rows[3].update({column: value}))
    with pytest.raises(StateError, match="cannot be read"):
        Engine.restore(saved)


Forge = Callable[[list[dict[str, Any]]], object]


def forge(folder: Path, number: int, change: Forge) -> None:
    """Change the rows of a file of a checkpoint, whose checksums are then right again."""
    manifest = orjson.loads((folder / MANIFEST).read_bytes())["manifest"]
    file = manifest["files"][number]
    with pa.ipc.open_stream(folder / file["name"]) as reader:
        table = reader.read_all()
    rows = table.to_pylist()
    change(rows)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema=table.schema))
    whole = sink.getvalue().to_pybytes()
    put(folder / file["name"], whole)
    file |= {"bytes": len(whole), "xxh3_128": xxhash.xxh3_128_hexdigest(whole)}
    seal(folder, manifest)


def listed(rows: list[dict[str, Any]]) -> list[int]:
    """Return the handles of a customer's entries, three or more, oldest first."""
    tails = [handle for handle, row in enumerate(rows, 1) if row["next"] and row["marks"] & 15 == 0]
    for tail in tails:
        found = [tail]
        while rows[found[-1] - 1]["next"]:
            found.append(rows[found[-1] - 1]["next"])
        if len(found) > 3:
            return found
    raise AssertionError("the history has no such customer")


def in_a_circle(rows: list[dict[str, Any]]) -> None:
    first, *_, last = listed(rows)
    rows[first - 1]["previous"] = last
    rows[last - 1]["next"] = first


def back_and_forth(rows: list[dict[str, Any]]) -> None:
    _, second, third, *_ = listed(rows)
    rows[third - 1]["next"] = second


def of_somebody_else(rows: list[dict[str, Any]]) -> None:
    second = listed(rows)[1]
    rows[second - 1]["customer"] = 1 + rows[second - 1]["customer"] % 80


NONE, ORIGINAL, EVENT = 7, 4, 3

FORGED: dict[str, tuple[int, Forge]] = {
    "links in a circle": (1, in_a_circle),
    "links that turn back": (1, back_and_forth),
    "an entry in another's list": (1, of_somebody_else),
    "a link to itself": (1, lambda rows: rows[listed(rows)[1] - 1].update(previous=listed(rows)[1])),
    "an entry of nobody": (1, lambda rows: rows[3].update(customer=0)),
    "an entry of no kind": (1, lambda rows: rows[3].update(marks=NONE)),
    "an entry before all time": (1, lambda rows: rows[listed(rows)[1] - 1].update(at_us=-(2**63))),
    "an entry without an id": (1, lambda rows: rows[listed(rows)[1] - 1].update(id="")),
    "a note of nothing": (1, lambda rows: [r.update(previous=0) for r in rows if r["marks"] == ORIGINAL]),
    "a note of no type": (1, lambda rows: [r.update(next=77) for r in rows if r["marks"] & 7 == EVENT]),
    "a deadline that has passed": (0, lambda rows: rows[3].update(deadline_us=0)),
    "a deadline before all time": (0, lambda rows: rows[3].update(deadline_us=-(2**63))),
    "a payment after all time": (0, lambda rows: rows[3].update(last_paid_us=2**62)),
    "a tier without orders": (0, lambda rows: rows[3].update(tail=0, head=0)),
    "the list of another": (0, lambda rows: rows[3].update(tail=rows[4]["tail"])),
    "a window of another": (0, lambda rows: rows[3].update(head=rows[4]["tail"])),
    "a customer without an id": (0, lambda rows: rows[3].update(customer_id="")),
}


@pytest.mark.parametrize("name", FORGED)
def test_records_that_contradict_each_other_are_refused(saved: Path, name: str) -> None:
    forge(saved, *FORGED[name])
    with pytest.raises(StateError, match=r"is damaged|cannot be read"):
        Engine.restore(saved)


def test_a_next_tier_that_the_ruleset_has_not_is_refused(tmp_path: Path) -> None:
    grown(ruleset="groups3").checkpoint(tmp_path)
    forge(tmp_path, 0, lambda rows: rows[3].update(marks=rows[3]["marks"] & ~14 | 7 << 1))
    with pytest.raises(StateError, match="customer 4 contradicts itself"):
        Engine.restore(tmp_path)


@pytest.mark.parametrize("clock_us", [2**63 - 1, 2**62, -(2**62), -(2**63)])
def test_a_clock_that_stands_where_it_cannot_is_refused(saved: Path, clock_us: int) -> None:
    manifest = orjson.loads((saved / MANIFEST).read_bytes())["manifest"]
    manifest["shards"][0]["clock_us"] = clock_us
    seal(saved, manifest)
    with pytest.raises(StateError):
        Engine.restore(saved)


def test_a_checkpoint_that_is_replaced_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = grown(100)
    engine.checkpoint(tmp_path)
    read_own, others = manifests.read_manifest, [grown(200), grown(300)]

    def replaced(folder: Path) -> dict[str, Any]:
        manifest = read_own(folder)
        if others:
            others.pop().checkpoint(folder)
        return manifest

    monkeypatch.setattr(read, "read_manifest", replaced)
    assert told(Engine.restore(tmp_path)) == told(grown(200))
    (tmp_path / orjson.loads((tmp_path / MANIFEST).read_bytes())["manifest"]["files"][0]["name"]).unlink()
    with pytest.raises(StateError, match="a file is missing"):
        Engine.restore(tmp_path)


def test_a_file_that_is_no_arrow_is_refused(saved: Path) -> None:
    manifest = orjson.loads((saved / MANIFEST).read_bytes())["manifest"]
    file = manifest["files"][0]
    whole = bytearray((saved / file["name"]).read_bytes())
    for at in range(0, len(whole), 997):
        bad = whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :]
        put(saved / file["name"], bytes(bad))
        file["xxh3_128"] = xxhash.xxh3_128_hexdigest(bytes(bad))
        seal(saved, manifest)
        with suppress(StateError):  # or it is another history, whole in itself
            Engine.restore(saved)


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", "5", "{", '"manifest"'])
def test_a_manifest_that_is_none_is_refused(saved: Path, text: str) -> None:
    (saved / MANIFEST).write_text(text)
    with pytest.raises(StateError):
        Engine.restore(saved)


@pytest.mark.parametrize(
    "other",
    [
        load_ruleset("rfm8"),
        load_ruleset("rfm8-annual", time_zone="Asia/Tokyo"),
        load_ruleset("rfm8-annual", currency="EUR"),
        "scores4",
    ],
)
def test_another_ruleset_is_refused_by_name(saved: Path, other: Any) -> None:  # noqa: ANN401
    name = other if isinstance(other, str) else other.identity
    with pytest.raises(StateError) as caught:
        Engine.restore(saved, ruleset=other)
    assert "rfm8-annual" in str(caught.value)
    assert name in str(caught.value)
    assert caught.value.fix is not None


@pytest.mark.parametrize("options", [{"time_zone": "Asia/Tokyo"}, {"currency": "JPY"}])
def test_overrides_come_back_without_being_named(tmp_path: Path, options: dict[str, str]) -> None:
    ruleset = load_ruleset("rfm8", **options)
    Engine(ruleset).checkpoint(tmp_path)
    assert Engine.restore(tmp_path).ruleset == ruleset
    with pytest.raises(StateError, match="rfm8"):
        Engine.restore(tmp_path, ruleset="rfm8")


@pytest.mark.parametrize(
    "name",
    [
        "notes.txt",
        "orders.arrow",
        ".hidden",
        "2024-orders.arrow",
        "1-manifest.json.bak",
        "7-orders-manifest.json",
    ],
)
def test_a_directory_with_foreign_files_is_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("dear to somebody")
    with pytest.raises(StateError, match=name.replace(".", r"\.")):
        grown(5).checkpoint(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "dear to somebody"


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StateError):
            grown(5).checkpoint(place)
    assert (tmp_path / "file").read_text() == "x"


class Crash(BaseException):
    """Nobody catches it on purpose."""


@contextmanager
def crash_at(
    monkeypatch: pytest.MonkeyPatch, step: int, error: BaseException, *, hard: bool
) -> Iterator[None]:
    """Raise at the given call of what reaches the disk; `hard`: as when the process is gone, nothing is cleaned up."""
    calls = count(1)  # shards are written by a thread each

    def counted(function: Any) -> Any:  # noqa: ANN401
        def call(*args: Any, **options: Any) -> Any:  # noqa: ANN401
            if next(calls) == step:
                raise error
            return function(*args, **options)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", counted(os.fsync))
        patch.setattr(Path, "replace", counted(Path.replace))
        if hard:
            patch.setattr(Path, "unlink", lambda *_args, **_options: None)
        yield


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize(
    "error", [Crash(), KeyboardInterrupt(), OSError(28, "No space left on device")], ids=repr
)
@pytest.mark.parametrize("step", range(1, 9))
def test_a_crash_while_writing_leaves_a_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, error: BaseException, *, hard: bool
) -> None:
    engine = grown(100, threads=2)
    engine.checkpoint(tmp_path)
    before = told(engine)
    engine.step_canonical(canonical_batch(history(100, first=100)))
    with crash_at(monkeypatch, step, error, hard=hard), suppress(Crash, KeyboardInterrupt, StateError):
        engine.checkpoint(tmp_path)
    # Five files, the folder, the manifest's new name, then the folder: from there on it is the new checkpoint.
    found = told(Engine.restore(tmp_path))
    assert found == (before if step <= 7 else told(engine))
    engine.checkpoint(tmp_path)
    assert told(Engine.restore(tmp_path)) == told(engine)
    assert len(list(tmp_path.iterdir())) == 5


@pytest.mark.parametrize("error", [Crash(), OSError(28, "No space left on device")], ids=repr)
@pytest.mark.parametrize("step", range(1, 9))
def test_what_is_left_of_a_first_checkpoint_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, error: BaseException
) -> None:
    engine = grown(100, threads=2)
    with crash_at(monkeypatch, step, error, hard=True), suppress(Crash, StateError):
        engine.checkpoint(tmp_path)
    assert open_engine(checkpoint=tmp_path).customers == (0 if step <= 7 else engine.customers)
    # Another failure takes nothing away that tells so.
    with crash_at(monkeypatch, 1, error, hard=False), suppress(Crash, StateError):
        open_engine(checkpoint=tmp_path).checkpoint(tmp_path)
    assert open_engine(checkpoint=tmp_path).customers == (0 if step <= 7 else engine.customers)
    engine.checkpoint(tmp_path)
    assert told(Engine.restore(tmp_path)) == told(engine)
    assert len(list(tmp_path.iterdir())) == 5
    (tmp_path / MANIFEST).unlink()
    with pytest.raises(StateError, match="holds no checkpoint but other files"):
        open_engine(checkpoint=tmp_path)


def test_an_interrupt_waits_for_the_other_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = grown(100, threads=2)
    sync, at_work, may_go_on, done = os.fsync, threading.Event(), threading.Event(), []

    def slow(handle: int) -> None:
        at_work.set()
        assert may_go_on.wait(60)
        time.sleep(0.05)
        done.append(sync(handle))

    def interrupted(futures: Any) -> Any:  # noqa: ANN401
        if not may_go_on.is_set():
            assert at_work.wait(60)
            may_go_on.set()
            raise KeyboardInterrupt
        return wait(futures)

    monkeypatch.setattr(os, "fsync", slow)
    monkeypatch.setattr("rfmstream.engine.core.threads.wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        engine.checkpoint(tmp_path)
    assert len(done) == 4
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = grown(5)
    with (
        crash_at(monkeypatch, 1, OSError(28, "No space left on device"), hard=False),
        pytest.raises(StateError, match="No space left"),
    ):
        engine.checkpoint(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_that_takes_no_hints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refused(*hint: int) -> None:
        asked.append(hint)
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(write, "_WRITE_BACK_BYTES", 1000)
    monkeypatch.setattr(os, "posix_fadvise", refused)
    engine = grown(100)
    engine.checkpoint(tmp_path)
    assert len(asked) > 1
    assert told(Engine.restore(tmp_path)) == told(engine)


def test_a_refused_checkpoint_is_an_error_of_ours() -> None:
    assert issubclass(StateError, RfmError)
    assert not issubclass(StateError, ConfigError | InputError)


ASKED = replace(
    load_ruleset("rfm8-annual"),
    fingerprint="another",
    tiers=tuple(
        replace(tier, warn_days=(25,), dwell_days=(30, 90)) for tier in load_ruleset("rfm8-annual").tiers
    ),
    milestones=Milestones((1, 2, 4), (50_000,), (31_000,)),
)


def test_signals_begin_where_a_state_without_them_goes_on(tmp_path: Path) -> None:
    plain = replace(ASKED.without_signals(), fingerprint=ASKED.tier_fingerprint)
    grown(ruleset=plain).checkpoint(tmp_path)
    engine = Engine.restore(tmp_path, ruleset=ASKED)
    assert told(engine) == told(grown(ruleset=plain))
    more = canonical_batch(history(300, first=500))
    result = engine.step_canonical(more)
    # What was reached before gives nothing: everybody had more than four orders.
    assert set(result.signals["kind"].to_pylist()) <= {"warning", "dwell", "single_order"}
    assert engine.counters.signals["warning"] > 0
    # And by a ruleset without signals it goes on again, keeping what it remembers.
    engine.checkpoint(tmp_path)
    quiet = Engine.restore(tmp_path, ruleset=plain)
    quiet.advance(quiet.clock_us + 400 * DAY_US)
    assert quiet.signals.num_rows == 0
    engine.advance(engine.clock_us + 400 * DAY_US)
    assert told(quiet) == told(engine)


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


def test_a_column_that_an_older_program_did_not_write_has_its_default(tmp_path: Path) -> None:
    engine = grown(ruleset=ASKED)
    engine.checkpoint(tmp_path)
    assert set(customers_of(tmp_path)["warned_days"].to_pylist()) == {25}
    rewritten(tmp_path, 0, customers_of(tmp_path).drop_columns(["warned_us", "warned_days"]))
    again = Engine.restore(tmp_path, ruleset=ASKED)
    again.checkpoint(tmp_path)
    assert set(customers_of(tmp_path)["warned_days"].to_pylist()) == {0}
    assert told(again) == told(engine)


def test_a_column_of_a_newer_program_is_refused_by_its_name(saved: Path) -> None:
    table = customers_of(saved)
    rewritten(saved, 0, table.append_column("mood", pa.array([1] * table.num_rows)))
    with pytest.raises(StateError, match="column mood") as caught:
        Engine.restore(saved)
    assert "newer" in str(caught.value.fix)


def test_a_column_that_every_program_wrote_is_missed(saved: Path) -> None:
    rewritten(saved, 0, customers_of(saved).drop_columns(["seq"]))
    with pytest.raises(StateError, match="other columns"):
        Engine.restore(saved)
