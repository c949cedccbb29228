"""A checkpoint that is damaged, forged or not whole is refused."""

import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest
import xxhash
from checkpoints import grown, put, rewritten, seal, told

from rfmstream import Engine, StateError
from rfmstream.engine.core.checkpoint import manifest as manifests
from rfmstream.engine.core.checkpoint import read
from rfmstream.engine.core.checkpoint.folder import MANIFEST, has_checkpoint


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


@pytest.mark.parametrize("number", [0, 1])
def test_an_id_that_is_no_utf8_is_refused(saved: Path, number: int) -> None:
    manifest = orjson.loads((saved / MANIFEST).read_bytes())["manifest"]
    file = manifest["files"][number]
    with pa.ipc.open_stream((saved / file["name"]).read_bytes()) as reader:
        table = reader.read_all()
    ids = pa.array([id_.encode()[:-1] + b"\x9c" if id_ else b"" for id_ in table[0].to_pylist()], pa.binary())
    text = pa.StringArray.from_buffers(len(ids), *ids.buffers()[1:])
    rewritten(saved, number, table.set_column(0, table.schema.field(0), text))
    with pytest.raises(StateError, match="UTF8"):
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
    [
        ("version", manifests.VERSION + 1, f"version {manifests.VERSION + 1}"),
        ("version", None, "version"),
        ("format", "other", "manifest"),
    ],
)
def test_another_format_is_refused(saved: Path, field: str, value: object, words: str) -> None:
    path = saved / MANIFEST
    whole = orjson.loads(path.read_bytes())
    whole["manifest"][field] = value
    put(path, orjson.dumps(whole))
    with pytest.raises(StateError, match=words):
        Engine.restore(saved)


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
