"""Orders as records: what a worker's reader makes of them, and when they are due."""

import numpy as np
import orjson
import pyarrow as pa
import pytest

from rfmstream.engine.events.normalise import normalise
from rfmstream.engine.live.decode import Decoder
from rfmstream.engine.live.model import RawRecords
from rfmstream.engine.live.orders_out import FORMS, OrderEncoder, OutRecord, Pace, ValueForm
from rfmstream.schemas.orders import CANONICAL_SCHEMA
from rfmstream.schemas.plan import ATTRIBUTE

DAY_US = 86_400_000_000


@pytest.fixture
def orders() -> pa.RecordBatch:
    canonical, rejected = normalise(
        pa.table(
            {
                "customer_id": ['an"n', "böb", "cid", 'an"n', "böb"],
                "order_id": ["a1", "b1", "c\n1", "a1", "b1"],
                "type": ["paid", "paid", "paid", "refunded", "cancelled"],
                "occurred_at": [f"2026-01-0{day}T10:00:00.000001Z" for day in range(1, 6)],
                "amount": ["10.00", "12345678.90", "0.00", "0.01", None],
                "event_id": [None, None, None, "e1", None],
            }
        ),
        currency="USD",
    )
    assert rejected.num_rows == 0
    return canonical


def encoder(**options: object) -> OrderEncoder:
    return OrderEncoder("USD", lambda keys: np.array([len(key) % 2 for key in keys], np.int64), **options)  # type: ignore[arg-type]


def decoded(records: list[OutRecord], partition: int, attributes: tuple[str, ...] = ()) -> pa.RecordBatch:
    ours = [record for record in records if record.partition == partition]
    batch = Decoder(currency="USD", attributes=attributes).decode(
        RawRecords(
            keys=[record.key for record in ours],
            values=[record.value for record in ours],
            headers=[record.headers for record in ours],
            timestamps_ms=[record.timestamp_ms or 0 for record in ours],
            offsets=list(range(len(ours))),
            position=len(ours),
        )
    )
    assert batch.refused == []
    return batch.orders


@pytest.mark.parametrize("form", FORMS)
def test_attributes_are_sent_along(orders: pa.RecordBatch, form: ValueForm) -> None:
    stores = pa.array(["hk", None, "h\n", "tw", "hk"])
    with_stores = orders.append_column(ATTRIBUTE + "store", stores)
    records = list(encoder(form=form, rows_per_record=2).records(with_stores))
    for partition, rows in ((0, [0, 1, 3, 4]), (1, [2])):
        found = decoded(records, partition, ("store",))
        assert found.column(ATTRIBUTE + "store").to_pylist() == stores.take(pa.array(rows)).to_pylist()
        assert (
            found.column("order_id").to_pylist() == orders.column("order_id").take(pa.array(rows)).to_pylist()
        )


@pytest.mark.parametrize("form", FORMS)
def test_a_worker_reads_the_orders_that_were_sent(orders: pa.RecordBatch, form: ValueForm) -> None:
    records = list(encoder(form=form, rows_per_record=2).records(orders))
    for partition, rows in ((0, [0, 1, 3, 4]), (1, [2])):
        found = decoded(records, partition).drop_columns("row")
        assert found.to_pylist() == orders.take(pa.array(rows)).drop_columns("row").to_pylist()


def test_a_record_an_order_has_the_customer_as_key_and_the_order_s_time(orders: pa.RecordBatch) -> None:
    records = list(encoder().records(orders))
    assert [record.key for record in records] == [
        b'an"n',
        "böb".encode(),
        b"cid",
        b'an"n',
        "böb".encode(),
    ]
    assert [record.partition for record in records] == [0, 0, 1, 0, 0]
    assert records[0].timestamp_ms == 1_767_261_600_000
    assert records[0].headers == []
    assert orjson.loads(records[0].value) == {
        "customer_id": 'an"n',
        "order_id": "a1",
        "type": "paid",
        "occurred_at": "2026-01-01T10:00:00.000001Z",
        "amount_minor": 1000,
        "currency": "USD",
        "event_id": None,
    }


def test_a_record_of_many_has_the_time_of_the_newest(orders: pa.RecordBatch) -> None:
    records = list(encoder(form="array", rows_per_record=3).records(orders))
    assert [(one.partition, one.key, one.timestamp_ms) for one in records] == [
        (0, None, 1_767_261_600_000 + 3 * 86_400_000),
        (0, None, 1_767_261_600_000 + 4 * 86_400_000),
        (1, None, 1_767_261_600_000 + 2 * 86_400_000),
    ]
    assert records[0].headers == [("content-type", b"application/json")]


def test_a_shift_moves_orders_and_records(orders: pa.RecordBatch) -> None:
    shifted = encoder(shift_us=365 * DAY_US)
    first = next(iter(shifted.records(orders)))
    assert orjson.loads(first.value)["occurred_at"] == "2027-01-01T10:00:00.000001Z"
    assert first.timestamp_ms == 1_767_261_600_000 + 365 * 86_400_000
    assert shifted.oldest_us(orders) == 1_767_261_600_000_001 + 365 * DAY_US


def test_the_log_may_set_the_time(orders: pa.RecordBatch) -> None:
    assert {one.timestamp_ms for one in encoder(stamp_events=False).records(orders)} == {None}


def test_no_orders_make_no_records() -> None:
    nothing = pa.RecordBatch.from_pylist([], schema=CANONICAL_SCHEMA)
    assert list(encoder(form="arrow").records(nothing)) == []


def test_pace() -> None:
    times_us = np.array([100, 100, 100 + 2 * DAY_US, 100 + 2 * DAY_US])
    assert Pace().due_s(times_us).tolist() == [0, 0, 0, 0]
    assert Pace(speedup=86_400).due_s(times_us).tolist() == [0, 0, 2, 2]
    both = Pace(rate=2, speedup=86_400)
    assert both.due_s(times_us).tolist() == [0, 0.5, 2, 2]
    # The next batch goes on where this one ended.
    assert both.due_s(times_us + 2 * DAY_US).tolist() == [2, 2.5, 4, 4]
    assert both.due_s(times_us[:0]).tolist() == []
