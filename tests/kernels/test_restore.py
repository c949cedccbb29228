"""A shard built from the columns of another answers as that one does, and has room as it grows on."""

from pathlib import Path

import pytest
from kernel_shards import customers_of, event, fold_events, shard_in

from rfmstream import Engine
from rfmstream.kernels.layout import GROUP
from rfmstream.kernels.restore import BLOCK


def ids(size: int) -> list[str]:
    """Return ids of all lengths, short ones mixed with long ones."""
    return [f"{i}-".ljust((i * 37) % 256 + 1, "x")[:256] if i % 3 else str(i) for i in range(size)]


def restored(engine: Engine, directory: Path) -> Engine:
    engine.checkpoint(directory)
    return Engine.restore(directory)


@pytest.mark.parametrize("size", [1, GROUP - 1, GROUP, GROUP + 1, BLOCK, BLOCK + 1, 70_000])
def test_everything_is_known_again(tmp_path: Path, size: int) -> None:
    engine = Engine()
    rows = [event(name, name[::-1], i, 2) for i, name in enumerate(ids(size))]
    fold_events(engine, rows)
    again = restored(engine, tmp_path)
    before, after = shard_in(engine), shard_in(again)
    assert fold_events(again, rows) == ["duplicate"] * size
    timers = [name for name in customers_of(before).dtype.names if name not in ("armed", "key1")]
    assert (customers_of(after)[timers] == customers_of(before)[timers]).all()
    assert after.memory()["ids"] == before.memory()["ids"]
    assert after.state.row.n_orders == size
    # And what was known is refunded, in both.
    refunds = [{**row, "occurred_at_us": size + 1, "amount_minor": 1, "type": "refunded"} for row in rows]
    assert fold_events(again, refunds) == ["applied"] * size


def test_every_kind_of_entry_is_known_again(tmp_path: Path) -> None:
    rows = [
        event("a", "o1", 1, 9, event_id="e1"),
        event("a", "o2", 1, 9),
        event("a", "o1", 2, 4, type="refunded"),
        event("a", "o1", 2, 5, type="refunded", event_id="e2"),
        event("a", "o2", 3, 0, type="cancelled"),
        event("a", "x", 4, -3, type="adjusted"),
        event("a", "x", 4, 5, type="adjusted", event_id="e3"),
    ]
    engine = Engine()
    assert fold_events(engine, rows) == ["applied"] * 7
    again = restored(engine, tmp_path)
    assert fold_events(again, rows) == ["duplicate"] * 7
    conflicts = [
        event("a", "o1", 1, 8),
        event("a", "o1", 2, 3, type="refunded"),
        event("a", "x", 4, 3, type="adjusted"),
        event("a", "x", 4, 6, type="adjusted", event_id="e3"),
        event("a", "e2", 9),
    ]
    assert fold_events(again, conflicts) == ["conflicting_duplicate"] * 5


@pytest.mark.parametrize("size", [10_000, 10_194, 12_345])
def test_room_for_the_ids_of_entries_keeps_up_after_a_restore(tmp_path: Path, size: int) -> None:
    # A restore makes exactly as much room as there are entries; from then on everything doubles, each in its turn.
    engine = Engine()
    fold_events(engine, [event("a", str(i), i) for i in range(size)])
    again = restored(engine, tmp_path)
    state = shard_in(again).state.row
    for first in range(size, 2 * size + 2000, 64):
        fold_events(again, [event("a", str(i), i) for i in range(first, first + 64)])
        assert (state.n_entries - 1) // GROUP < state.id_base_size
