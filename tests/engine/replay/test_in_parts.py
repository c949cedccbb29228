"""Replayed in parts on disk, a history gives what it gives in memory."""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from schedules import some

from rfmstream import ConfigError, Engine, InputError
from rfmstream.engine.events.instants import to_text
from rfmstream.engine.files.memory import set_bound
from rfmstream.engine.files.scratch import PREFIX, scratch, set_place
from rfmstream.engine.replay.in_parts import replay_in_parts
from rfmstream.engine.replay.replay import Outputs, open_engine, replay
from rfmstream.engine.replay.sizes import Parts, parts_for
from rfmstream.engine.replay.summary import summarise
from rfmstream.schemas.mapping import InputFormat
from rfmstream.schemas.ruleset import Ruleset, load_ruleset

DAY_US = 86_400_000_000
START_US = 1_700_000_000_000_000
SORT_KEYS = ("customer_id", "seq", "kind", "effective_at", "days", "count", "amount_minor", "order_id", "row")

EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["ann", "bob", "cyd", "dan", "eve", "", "fay"]),
        st.sampled_from(["1", "2", "3", "4"]),
        st.sampled_from(["paid", "paid", "paid", "refunded", "cancelled", "adjusted", "erased", "gift"]),
        st.integers(0, 60),
        st.sampled_from(["5.00", "400.00", "1200.00"]),
    ),
    max_size=40,
)


def parts(count: int, *, at_once: int = 2) -> Parts:
    return Parts(count, at_once, sort_bytes=1, gather_bytes=2_000, disk_bytes=0)


def warning_ruleset(folder: Path) -> Ruleset:
    path = folder / "warns.toml"
    path.write_text(
        'extends = "rfm8"\nname = "warns"\n[tiers.101]\nwarn_days = [7, 2]\n[milestones]\norders = [1, 2]\n'
    )
    return load_ruleset(str(path))


def history(folder: Path, events: list[tuple[Any, ...]], name: str = "o.csv") -> Path:
    path = folder / name
    lines = [
        f"{customer},{order},{kind},{to_text(START_US + day * DAY_US)},{amount}"
        for customer, order, kind, day, amount in events
    ]
    path.write_text("customer_id,order_id,type,occurred_at,amount\n" + "".join(f"{line}\n" for line in lines))
    return path


def outputs(folder: Path, name: str, *, signals: bool = False) -> Outputs:
    paths = {kind: folder / f"{name}-{kind}.parquet" for kind in ("changes", "snapshot", "rejected")}
    return Outputs(**paths, signals=folder / f"{name}-signals.parquet" if signals else None)


def rows_of(path: Path) -> list[dict[str, Any]]:
    rows = pq.read_table(path).to_pylist()
    return sorted(rows, key=lambda row: [str(row.get(key)) for key in SORT_KEYS])


def told(summary: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return what two summaries must agree in."""
    found = summary.as_dict()
    return {
        name: found[name] for name in ("as_of", "input", "rows", "changes", "signals", "customers", "tiers")
    }


@settings(max_examples=some(40), deadline=None)
@given(EVENTS, st.sampled_from([2, 5, 16]), st.sampled_from([None, 30]), st.sampled_from([None, 200]))
def test_parts_give_what_one_run_gives(
    events: list[tuple[Any, ...]], count: int, until: int | None, as_of: int | None
) -> None:
    until_us, as_of_us = (None if day is None else START_US + day * DAY_US for day in (until, as_of))
    with TemporaryDirectory() as name:
        folder = Path(name)
        source, ruleset = history(folder, events), warning_ruleset(folder)
        whole, parted = (outputs(folder, name, signals=True) for name in ("whole", "parted"))
        one = replay(Engine(ruleset), [source], until_us=until_us, as_of_us=as_of_us, outputs=whole)
        many = replay_in_parts(
            ruleset, [source], parts=parts(count), until_us=until_us, as_of_us=as_of_us, outputs=parted
        )
        assert told(summarise(many)) == told(summarise(one))
        for kind, path in whole.paths().items():
            assert rows_of(parted.paths()[kind]) == rows_of(path), kind
        for kind in ("changes", "signals"):
            at = pq.read_table(parted.paths()[kind])["effective_at"].to_pylist()
            assert at == sorted(at)


def test_the_newest_events_may_not_be_applied(tmp_path: Path) -> None:
    # Time ends at the newest event applied, whichever part that is in: the refunds of unknown orders are later.
    events = [(f"c{i}", "1", "paid", i % 50, "5.00") for i in range(40)]
    events += [(f"c{i}", "9", "refunded", 60 + i, "5.00") for i in range(40)]
    source = history(tmp_path, events)
    one, many = replay(open_engine(), [source]), replay_in_parts(None, [source], parts=parts(16))
    assert many.as_of_us == one.as_of_us == START_US + 39 * DAY_US
    assert many.counters == one.counters


def test_a_checkpoint_of_parts_goes_on_in_parts_and_in_memory(tmp_path: Path) -> None:
    events = [(f"c{i % 17}", str(i), "paid", i % 60, "400.00") for i in range(300)]
    sources = [history(tmp_path, events[:200], "1.csv"), history(tmp_path, events[200:], "2.csv")]
    one = open_engine()
    for source in sources:
        replay(one, [source])
    expected = one.snapshot().sort_by("customer_id")
    for name, second in (("parts", True), ("memory", False)):
        state = tmp_path / name
        replay_in_parts(None, sources[:1], parts=parts(4), checkpoint=state)
        if second:
            result = replay_in_parts(None, sources[1:], parts=parts(4), checkpoint=state)
            assert result.counters.applied == 100
        else:
            replay(open_engine(checkpoint=state), sources[1:], checkpoint=state)
        found = Engine.restore(state)
        assert found.counters == one.counters
        assert found.snapshot().sort_by("customer_id").equals(expected)


def test_strict_leaves_the_rejected_rows_alone(tmp_path: Path) -> None:
    source = history(tmp_path, [("ann", "1", "paid", 1, "5.00"), ("bob", "9", "refunded", 2, "5.00")])
    out, state = outputs(tmp_path, "out"), tmp_path / "state"
    with pytest.raises(InputError, match="1 of 2 rows were rejected"):
        replay_in_parts(None, [source], parts=parts(2), outputs=out, checkpoint=state, strict=True)
    assert out.rejected is not None
    assert [path.name for path in tmp_path.glob("out-*")] == [out.rejected.name]
    assert not list(state.glob("*customers*"))


def test_nothing_is_left_where_a_part_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    source = history(tmp_path, [(f"c{i}", "1", "paid", i % 9, "5.00") for i in range(50)])

    def interrupted(*_: object) -> pa.Table:
        assert list(place.iterdir())
        raise KeyboardInterrupt

    monkeypatch.setattr(Engine, "snapshot", interrupted)
    out = outputs(tmp_path, "out")
    with pytest.raises(KeyboardInterrupt):
        replay_in_parts(None, [source], parts=parts(8), outputs=out, checkpoint=tmp_path / "state")
    assert list(place.iterdir()) == []
    assert list(tmp_path.glob("*out-*")) == []
    assert not list((tmp_path / "state").glob("*.arrow"))


def test_what_a_killed_process_left_goes_at_the_next_start(tmp_path: Path) -> None:
    program = "import sys,time\nfrom pathlib import Path\nfrom rfmstream.engine.files import scratch\n"
    program += "scratch.set_place(Path(sys.argv[1]))\nwith scratch.scratch() as folder:\n"
    program += "    (folder / 'x').write_text('x')\n    print('made', flush=True)\n    time.sleep(600)\n"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, env=dict(os.environ)
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"made\n"
        left = list(tmp_path.iterdir())
        set_place(tmp_path)
        try:
            with scratch() as folder:
                assert sorted(tmp_path.iterdir()) == sorted([*left, folder])  # its process is at work
            process.kill()
            process.wait()
            assert [path.name.startswith(PREFIX) for path in left] == [True]
            with scratch() as folder:
                assert list(tmp_path.iterdir()) == [folder]
        finally:
            set_place(None)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room_is_told_before_anything_is_read() -> None:
    with pytest.raises(ConfigError, match="GiB free"), scratch(bytes_needed=1 << 60):
        pass


def test_memory_chooses_the_way(tmp_path: Path) -> None:
    source = history(tmp_path, [("ann", str(i), "paid", 1, "5.00") for i in range(5_000)])

    def chosen(bound: int, state: Path | None = None) -> Parts | None:
        set_bound(bound)
        try:
            return parts_for([source], InputFormat(), checkpoint=state, threads=2)
        finally:
            set_bound(None)

    assert chosen(1 << 30) is None
    found = chosen(400_000)
    assert found is not None
    assert found.count >= 4
    # Those of a checkpoint cannot be parted further.
    engine = Engine(threads=2)
    engine.checkpoint(tmp_path / "two")
    assert chosen(400_000, tmp_path / "two") is None
    Engine(threads=8).checkpoint(tmp_path / "eight")
    more = chosen(400_000, tmp_path / "eight")
    assert more is not None
    assert more.count == 8
