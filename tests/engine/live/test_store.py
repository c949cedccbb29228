"""Checkpoints of partitions: there at once or not at all, and nothing damaged is ever loaded."""

import shutil
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from kernel_shards import event
from twins import canonical_batch, plain_rows

from rfmstream import Engine
from rfmstream.engine.live.model import Source
from rfmstream.engine.live.store import POSITION, Store
from rfmstream.schemas.errors import StateError
from rfmstream.schemas.ruleset import Ruleset, load_ruleset

SOURCE = Source("orders.of-a-shop", 7)


def engine_of(count: int = 3, ruleset: str = "rfm8") -> Engine:
    engine = Engine(ruleset)
    engine.step_canonical(canonical_batch([event(f"c{i}" * 9, f"o{i}", i) for i in range(count)]))
    return engine


def rows(engine: Engine) -> list[dict[str, object]]:
    return plain_rows(engine.snapshot(10**15))


@pytest.fixture(params=["folder", "file://", "mock://"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    uri = {"folder": f"{tmp_path}/a/b", "file://": f"file://{tmp_path}/a", "mock://": "mock:///a/b"}[
        request.param
    ]
    return Store(uri, app_id="app", keep=2)


def test_comes_back(store: Store) -> None:
    store.check()
    assert store.sources() == []
    assert store.load(SOURCE) is None
    saved = store.save(SOURCE, engine_of(), 5, "some law", 7)
    loaded = store.load(SOURCE, 5, load_ruleset("rfm8"))
    assert loaded is not None
    assert (loaded.offset, loaded.law, loaded.mark, loaded.name) == (5, "some law", 7, saved.name)
    assert rows(loaded.engine) == rows(engine_of())
    assert store.sources() == [SOURCE]
    assert saved.bytes > 1000
    of_its_own = store.load(SOURCE)
    assert of_its_own is not None
    assert of_its_own.engine.ruleset.identity == "rfm8"


def test_the_newest_that_is_not_after_the_offset(store: Store) -> None:
    for offset, count in ((9, 1), (9, 2), (30, 3)):
        store.save(SOURCE, engine_of(count), offset, "")
    for not_after, found in ((None, (30, 3)), (30, (30, 3)), (29, (9, 2)), (8, None)):
        loaded = store.load(SOURCE, not_after)
        assert (loaded and (loaded.offset, loaded.engine.customers)) == found
    store.save(SOURCE, engine_of(4), 9, "")  # by an owner that is late
    loaded = store.load(SOURCE)
    assert loaded is not None
    assert loaded.offset == 30


def test_keeps_the_newest_and_leaves_others_alone(store: Store) -> None:
    other = Source("orders.of-a-shop", 70)
    store.save(other, engine_of(), 1, "")
    for offset in range(5):
        store.save(SOURCE, engine_of(), offset, "")
    assert store.load(SOURCE, 2) is None
    assert store.load(SOURCE, 3) is not None
    assert store.sources() == [SOURCE, other]
    store.discard(SOURCE)
    assert store.load(SOURCE) is None
    assert store.load(other) is not None


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("harm", [flip, halve, Path.unlink])
@pytest.mark.parametrize(
    "file", ["position.json", "manifest.json", "1-0-customers.arrow", "1-0-entries.arrow"]
)
def test_what_is_damaged_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, file: str, harm: Callable[[Path], None]
) -> None:
    store = Store(str(tmp_path), app_id="app")
    store.save(SOURCE, engine_of(1), 5, "")
    saved = store.save(SOURCE, engine_of(2), 6, "")
    harm(tmp_path / str(SOURCE) / saved.name / file)
    loaded = store.load(SOURCE)
    assert loaded is not None
    assert loaded.offset == 5
    assert "passed over" in caplog.text
    shutil.rmtree(tmp_path / str(SOURCE) / loaded.name)
    assert store.load(SOURCE) is None


def test_no_bit_may_turn(tmp_path: Path) -> None:
    store = Store(str(tmp_path), app_id="app")
    saved = store.save(SOURCE, engine_of(2), 6, "law")
    for path in sorted((tmp_path / str(SOURCE) / saved.name).iterdir()):
        whole = path.read_bytes()
        for at in range(0, len(whole), 97):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :])
            loaded = store.load(SOURCE)
            # In the indentation of a JSON file a bit may turn without a consequence.
            assert loaded is None or (loaded.law, rows(loaded.engine)) == ("law", rows(engine_of(2)))
        path.write_bytes(whole)
    assert store.load(SOURCE) is not None


def test_a_checkpoint_in_anothers_place(tmp_path: Path) -> None:
    store = Store(str(tmp_path), app_id="app")
    saved = store.save(Source("orders", 1), engine_of(), 6, "")
    shutil.copytree(tmp_path / "orders-1" / saved.name, tmp_path / "orders-2" / saved.name)
    assert store.load(Source("orders", 2)) is None
    with pytest.raises(StateError, match="belongs to the application app"):
        Store(str(tmp_path), app_id="other").load(Source("orders", 1))


def test_a_format_of_tomorrow_is_refused(tmp_path: Path) -> None:
    import xxhash  # noqa: PLC0415

    store = Store(str(tmp_path), app_id="app")
    saved = store.save(SOURCE, engine_of(), 6, "")
    path = tmp_path / str(SOURCE) / saved.name / POSITION
    position = orjson.loads(path.read_bytes())["position"] | {"version": 2}
    digest = xxhash.xxh3_128_hexdigest(orjson.dumps(position, option=orjson.OPT_SORT_KEYS))
    path.write_bytes(orjson.dumps({"xxh3_128": digest, "position": position}))
    with pytest.raises(StateError, match="another format"):
        store.load(SOURCE)


def own_rules(tmp_path: Path) -> Ruleset:
    text = Path(load_ruleset.__code__.co_filename).with_name("rulesets") / "rfm8.toml"
    path = tmp_path / "own.toml"
    path.write_text(text.read_text(encoding="utf-8").replace("= [30]", "= [31]"), encoding="utf-8")
    return load_ruleset(path)


def test_under_another_ruleset_it_keeps_its_own_tiers(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"), app_id="app")
    engine = engine_of()
    store.save(SOURCE, engine, 6, "")
    loaded = store.load(SOURCE, None, load_ruleset("types7"))
    assert loaded is not None
    assert loaded.engine.ruleset.identity == "rfm8"
    loaded.engine.resegment(load_ruleset("types7"))
    expected = plain_rows(engine_of(ruleset="types7").snapshot())
    assert [row["tier"] for row in plain_rows(loaded.engine.snapshot())] == [row["tier"] for row in expected]


def test_a_ruleset_that_nobody_knows(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"), app_id="app")
    own = own_rules(tmp_path)
    store.save(SOURCE, Engine(own), 6, "")
    assert store.load(SOURCE, None, own) is not None
    (tmp_path / "own.toml").unlink()
    with pytest.raises(StateError, match="not a built-in one"):
        store.load(SOURCE)


def test_what_a_dead_process_left_goes_with_the_next_checkpoint(tmp_path: Path) -> None:
    import fcntl  # noqa: PLC0415
    import os  # noqa: PLC0415

    store = Store(str(tmp_path), app_id="app")
    store.save(SOURCE, engine_of(), 1, "")
    dead, alive = (tmp_path / str(SOURCE) / f".writing-{name}" for name in ("dead", "alive"))
    for folder in (dead, alive):
        folder.mkdir()
        (folder / "1-0-customers.arrow").write_bytes(b"half")
    handle = os.open(alive, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    store.save(SOURCE, engine_of(), 2, "")
    os.close(handle)
    assert (dead.exists(), alive.exists()) == (False, True)


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path), app_id="app")
    store.save(SOURCE, engine_of(), 1, "")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StateError, match="No space left on device"):
        store.save(SOURCE, engine_of(), 2, "")
    monkeypatch.undo()
    assert len(list((tmp_path / str(SOURCE)).iterdir())) == 1
    loaded = store.load(SOURCE)
    assert loaded is not None
    assert loaded.offset == 1


def test_a_root_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StateError, match="cannot be reached") as caught:
        Store(str(tmp_path / "file"), app_id="app").check()
    assert caught.value.fix


def test_a_scheme_nobody_knows() -> None:
    with pytest.raises(StateError, match="cannot be reached"):
        Store("gopher://host/x", app_id="app")


def test_a_frozen_engine_stays_as_it_was() -> None:
    engine = engine_of(200)
    before = rows(engine)
    frozen = engine.frozen()
    engine.step_canonical(canonical_batch([event(f"c{i}" * 9, f"n{i}", 10**6 + i) for i in range(3000)]))
    store = Store("mock:///a", app_id="app")
    store.save(SOURCE, frozen, 1, "")
    loaded = store.load(SOURCE)
    assert loaded is not None
    assert rows(loaded.engine) == before
    assert loaded.engine.counters.applied == 200
    assert engine.customers == 3000
