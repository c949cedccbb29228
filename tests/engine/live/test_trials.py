"""Records that end a process are found, and no others; what was found is left out again in a later run."""

from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from rfmstream.engine.live.decode import Decoder
from rfmstream.engine.live.model import RawRecords, Source
from rfmstream.engine.live.store import Store
from rfmstream.engine.live.stored import Note
from rfmstream.engine.live.suspects import Suspects
from rfmstream.engine.live.trials import Trials

FAULTS = Path(__file__).resolve().parents[2] / "support" / "faults"
RECIPE = {"currency": "USD", "time_zone": "UTC", "record_bytes_max": 1 << 20}
SOURCE = Source("orders", 0)


def order(number: int) -> bytes:
    row = {"customer_id": f"c{number}", "order_id": f"o{number}", "occurred_at": "2026-01-01", "amount": "1"}
    return orjson.dumps(row)


def records(values: list[bytes | None], first: int = 0) -> RawRecords:
    n = len(values)
    headers = [[("content-type", b"application/json")]] * n
    return RawRecords([b"k"] * n, values, headers, [5] * n, range(first, first + n), first + n)


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Trials]:
    # This process has its site already, so the fault is only of those it starts.
    monkeypatch.syspath_prepend(str(FAULTS))
    monkeypatch.setenv("RFM_FAULT", request.param)
    made = Trials(RECIPE)
    yield made
    made.close()


@pytest.mark.parametrize("trials", ["SIGSEGV", "raise"], indirect=True)
def test_those_that_end_a_process_are_found(trials: Trials) -> None:
    values: list[bytes | None] = [order(number) for number in range(700)]
    values[300] = values[301] = b'{"poison":1}'
    values[699] = b"[poison"
    values[5] = None
    assert trials.poison(records(values, 1000)) == [1300, 1301, 1699]
    assert trials.poison(records(values[:300], 1000)) == []


def test_one_that_never_ends_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FAULTS))
    monkeypatch.setenv("RFM_FAULT", "hang")
    trials = Trials(RECIPE, piece_s_max=1)
    assert trials.poison(records([order(1), b"poison", order(2)])) == [1]
    trials.close()


def test_where_no_process_can_start_nothing_is_blamed() -> None:
    made = Trials({**RECIPE, "nonsense": 1})
    assert made.poison(records([order(1)])) == []
    made.close()


class Blames:
    """Says of one offset that it is poison, as often as it is asked."""

    def __init__(self, *offsets: int) -> None:
        self.offsets, self.asked = offsets, 0

    def poison(self, given: RawRecords) -> list[int]:
        self.asked += 1
        return [
            at for at in given.offsets if at in self.offsets and given.values[at - given.offsets[0]] != b"\0"
        ]


def test_what_is_poison_is_refused_now_and_in_later_runs(tmp_path: Path) -> None:
    store, decoder = Store(str(tmp_path), app_id="a"), Decoder(currency="USD")
    batch = records([order(number) for number in range(10)], 100)

    first = Suspects(SOURCE, store, Blames(104))
    first.begin(100, 100, 110)
    assert first.decode(decoder, batch).orders.num_rows == 10  # nobody has died
    assert store.noted(SOURCE) == Note(is_running=True)

    blames = Blames(104)
    second = Suspects(SOURCE, store, blames)
    second.begin(100, 100, 110)
    assert second.are_in(batch)
    for _ in range(2):
        got = second.decode(decoder, batch)
        assert got.orders.num_rows == 9
        [refused] = got.refused
        assert (refused.reason, refused.offset, refused.original) == ("malformed", 104, order(4))
    assert not second.are_in(records([order(1)], 110))
    second.leave()
    assert store.noted(SOURCE) == Note(poison=(104,))

    third = Suspects(SOURCE, store, blames)
    third.begin(100, 104, 110)
    asked = blames.asked
    assert third.decode(decoder, batch).orders.num_rows == 9
    assert blames.asked == asked
    fourth = Suspects(SOURCE, store, None)
    fourth.begin(100, 100, 110)
    assert fourth.decode(decoder, batch).orders.num_rows == 10
    third.leave()

    fifth = Suspects(SOURCE, store, blames)
    fifth.begin(105, 105, 110)
    fifth.leave()
    assert store.noted(SOURCE) == Note()
    assert [path.name for path in (tmp_path / "orders-0").iterdir()] == []


def test_a_note_that_is_damaged_stops_nobody(tmp_path: Path) -> None:
    store = Store(str(tmp_path), app_id="a")
    for text in ("", "{", "[]", '{"is_running":1}', '{"is_running":true,"poison":"x"}'):
        (tmp_path / "orders-0").mkdir(exist_ok=True)
        (tmp_path / "orders-0" / "running.json").write_text(text)
        assert store.noted(SOURCE) == Note()
