"""Contract columns of any sensible type to canonical orders, and the reason of every row that is none."""

from datetime import UTC, date, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rfmstream.engine.events.normalise import normalise
from rfmstream.schemas.errors import ConfigError, InputError
from rfmstream.schemas.orders import CANONICAL_SCHEMA, REJECTED_SCHEMA

GOOD = {"customer_id": "c", "order_id": "o", "occurred_at": "2024-01-02T03:04:05Z", "amount": "1.50"}


def table(**columns: object) -> pa.RecordBatch:
    """One good row per value given; the columns not given hold the good value."""
    count = len(next(iter(columns.values())))
    merged = {name: [value] * count for name, value in GOOD.items() if name not in columns} | columns
    return pa.RecordBatch.from_pydict(merged)


def accepted(batch: pa.RecordBatch, **options: object) -> list[dict]:
    orders, rejected = normalise(batch, currency=options.pop("currency", "CNY"), **options)
    orders.validate(full=True)
    assert orders.schema.equals(CANONICAL_SCHEMA, check_metadata=True)
    assert rejected.to_pylist() == []
    return orders.to_pylist()


def reasons(batch: pa.RecordBatch, **options: object) -> list[tuple[int, str]]:
    orders, rejected = normalise(batch, currency=options.pop("currency", "CNY"), **options)
    orders.validate(full=True)
    rejected.validate(full=True)
    assert rejected.schema.equals(REJECTED_SCHEMA, check_metadata=True)
    assert orders.num_rows + rejected.num_rows == batch.num_rows
    return [(row["row"], row["reason"]) for row in rejected.to_pylist()]


def as_string(values: list[bytes | None]) -> pa.Array:
    raw = pa.array(values, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(raw), raw.buffers())


def test_clean_columns_pass_without_a_copy() -> None:
    batch = pa.record_batch(
        {
            "customer_id": ["a", "b"],
            "order_id": ["1", "2"],
            "occurred_at": pa.array([1, 2], pa.timestamp("us", "UTC")),
            "amount_minor": [10, 20],
            "other": [None, 1.5],
        }
    )
    orders, rejected = normalise(batch, currency="CNY", first_row=7)
    assert rejected.num_rows == 0
    assert orders.column("row").to_pylist() == [7, 8]
    for name, at in (("customer_id", 2), ("order_id", 2), ("occurred_at", 1), ("amount_minor", 1)):
        assert orders.column(name).buffers()[at].address == batch.column(name).buffers()[at].address


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.binary(),
        pa.large_binary(),
        pa.dictionary(pa.int8(), pa.string()),
    ],
)
def test_ids_of_any_text_type(kind: pa.DataType) -> None:
    ids = pa.array(["00042", "42", "客户"], pa.string()).cast(kind)
    rows = accepted(table(customer_id=ids, order_id=ids.slice(0)))
    assert (
        [row["customer_id"] for row in rows] == [row["order_id"] for row in rows] == ["00042", "42", "客户"]
    )


@pytest.mark.parametrize("kind", [pa.int8(), pa.int64(), pa.uint64(), pa.decimal128(38, 0)])
def test_integer_ids_become_their_digits(kind: pa.DataType) -> None:
    assert accepted(table(customer_id=pa.array([42], pa.int64()).cast(kind)))[0]["customer_id"] == "42"
    big = pa.array([2**64 - 1], pa.uint64())
    assert accepted(table(customer_id=big))[0]["customer_id"] == "18446744073709551615"


def test_a_float_id_is_refused_with_the_fix() -> None:
    with pytest.raises(InputError, match=r"customer_id is double.*pandas"):
        normalise(table(customer_id=[17850.0]), currency="CNY")


@pytest.mark.parametrize(
    "values",
    [
        pa.array([1704164645], pa.timestamp("s", "UTC")),
        pa.array([1704164645000], pa.timestamp("ms", "Europe/London")),
        pa.array([1704164645000000], pa.timestamp("us")),
        pa.array([1704164645000000999], pa.timestamp("ns", "UTC")),
        pa.array(["2024-01-02T11:04:05+08:00"]),
        pa.array(["2024-01-02 03:04:05"]).dictionary_encode(),
    ],
)
def test_times_of_any_type(values: pa.Array) -> None:
    assert accepted(table(occurred_at=values))[0]["occurred_at"] == datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_times_before_1970_in_ns_are_floored() -> None:
    rows = accepted(table(occurred_at=pa.array([-1], pa.timestamp("ns", "UTC"))))
    assert rows[0]["occurred_at"] == datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)


def test_dates_are_midnights_of_the_zone() -> None:
    for values in ([date(2024, 7, 1)], pa.array([date(2024, 7, 1)], pa.date64()), ["2024-07-01"]):
        rows = accepted(table(occurred_at=values), time_zone="Europe/London")
        assert rows[0]["occurred_at"] == datetime(2024, 6, 30, 23, tzinfo=UTC)


@settings(deadline=None)
@given(
    st.lists(
        st.datetimes(datetime.fromisoformat("1850-01-01"), datetime.fromisoformat("2100-01-01")), max_size=5
    ),
    st.sampled_from(
        [
            "Europe/London",
            "America/Sao_Paulo",
            "Australia/Lord_Howe",
            "Asia/Shanghai",
            "Africa/Casablanca",
            "Pacific/Apia",
        ]
    ),
    st.sampled_from(["2018-11-04", "2024-03-31", "2024-10-27", "1940-06-01", "2011-12-30", "1900-12-31"]),
    st.integers(0, 24 * 60 - 1),
)
def test_naive_times_as_zoneinfo_reads_them(
    moments: list[datetime], zone: str, day: str, minute: int
) -> None:
    moments = [
        *moments,
        datetime.fromisoformat(f"{day}T{minute // 60:02}:{minute % 60:02}"),
    ]  # often a gap or fold
    expected = [moment.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC) for moment in moments]
    for values in (pa.array(moments, pa.timestamp("us")), [moment.isoformat() for moment in moments]):
        rows = accepted(table(occurred_at=values), time_zone=zone)
        assert [row["occurred_at"] for row in rows] == expected


def test_instants_at_the_limits() -> None:
    def us(*parts: int) -> int:
        return (datetime(*parts, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // (datetime.resolution)

    first, last = us(1, 1, 1), us(9999, 12, 31, 23, 59, 59, 999999)
    values = pa.array(
        [first, last, first - 1, last + 1, -(2**63), 2**63 - 1, None], pa.timestamp("us", "UTC")
    )
    assert reasons(table(occurred_at=values)) == [(row, "bad_time") for row in (2, 3, 4, 5, 6)]
    seconds = pa.array([-(2**62), 2**62, last // 10**6, last // 10**6 + 1], pa.timestamp("s"))
    assert reasons(table(occurred_at=seconds)) == [(row, "bad_time") for row in (0, 1, 3)]
    early = table(occurred_at=["0001-01-01", "0001-01-02"])
    assert reasons(early, time_zone="Asia/Shanghai") == [(0, "bad_time")]


def test_a_number_is_no_time() -> None:
    with pytest.raises(InputError, match="unix_s"):
        normalise(table(occurred_at=[1700000000]), currency="CNY")


@pytest.mark.parametrize(
    "values",
    [
        ["1.50", "-0.01"],
        [1.5, -0.01],
        pa.array([1.5, -0.01], pa.float32()),
        pa.array([Decimal("1.50"), Decimal("-0.01")], pa.decimal128(20, 10)),
        pa.array([Decimal("1.50"), Decimal("-0.01")], pa.decimal256(60, 30)),
        pa.array(["1.50", "-0.01"]).dictionary_encode(),
    ],
)
def test_amounts_of_any_type(values: object) -> None:
    rows = accepted(table(amount=values, type=["adjusted", "adjusted"]))
    assert [row["amount_minor"] for row in rows] == [150, -1]


def test_integer_amounts_are_major_units() -> None:
    for kind in (pa.int8(), pa.uint16(), pa.int64(), pa.uint64()):
        assert accepted(table(amount=pa.array([3], kind)))[0]["amount_minor"] == 300
    assert accepted(table(amount=[3]), currency="JPY")[0]["amount_minor"] == 3


def test_amounts_at_the_limits() -> None:
    over = [10**10, 10**10 + 1, -(2**63), 2**63 - 1]
    kinds = ["adjusted"] * 4
    bad = [(1, "bad_amount"), (2, "bad_amount"), (3, "bad_amount")]
    assert reasons(table(amount=over, type=kinds)) == bad
    assert reasons(table(amount=[str(value) for value in over], type=kinds)) == bad
    assert reasons(table(amount=[float(value) for value in over], type=kinds)) == bad
    assert (
        reasons(table(amount=pa.array([Decimal(value) for value in over], pa.decimal128(38, 2)), type=kinds))
        == bad
    )
    minor = pa.RecordBatch.from_pydict(
        {k: [v] * 3 for k, v in GOOD.items() if k != "amount"}
        | {"amount_minor": [10**12, 10**12 + 1, -(2**63)]}
    )
    assert reasons(minor) == [(1, "bad_amount"), (2, "bad_amount")]
    assert reasons(table(amount=pa.array([2**64 - 1], pa.uint64()))) == [(0, "bad_amount")]
    assert reasons(table(amount=[0.1 + 0.2, 1e300, float("inf"), float("nan")])) == [
        (at, "bad_amount") for at in range(4)
    ]


def test_amount_minor_counts_where_it_is_there() -> None:
    rows = accepted(table(amount=["1.00", "2.00"], amount_minor=[7, None]))
    assert [row["amount_minor"] for row in rows] == [7, 200]
    refused = normalise(table(amount=["3", "4.005"], amount_minor=["5.5", None]), currency="CNY")[1]
    assert refused["amount"].to_pylist() == ["5.5", "4.005"]


def test_types() -> None:
    kinds = ["paid", "refunded", "cancelled", "adjusted", None, ""]
    for values in (kinds, pa.array(kinds).dictionary_encode()):
        assert [row["type"] for row in accepted(table(type=values))] == [0, 1, 2, 3, 0, 0]
    assert [row["type"] for row in accepted(table(order_id=["1"], type=pa.nulls(1)))] == [0]
    assert reasons(table(type=["Paid", "refund"])) == [(0, "unknown_type"), (1, "unknown_type")]


def test_cancelled_needs_no_amount_and_counts_none() -> None:
    rows = accepted(table(amount=[None, "", "-5.00"], type=["cancelled"] * 3))
    assert [row["amount_minor"] for row in rows] == [0, 0, 0]
    assert accepted(table(amount=[float("nan")], type=["cancelled"]))[0]["amount_minor"] == 0
    assert reasons(table(amount=["x"], type=["cancelled"])) == [(0, "bad_amount")]


def test_event_ids() -> None:
    rows = accepted(table(event_id=["e1", "", None, "é", "x" * 300]))
    assert [row["event_id"] for row in rows] == ["e1", None, None, "é", "x" * 300]
    assert reasons(table(event_id=as_string([b"\xff", b"ok", None]))) == [(0, "malformed")]


def test_negative_amounts() -> None:
    kinds = ["paid", "refunded", "adjusted", "cancelled", "nonsense"]
    found = reasons(table(amount=["-1"] * 5, type=kinds))
    assert found == [(0, "negative_amount"), (1, "negative_amount"), (4, "unknown_type")]


def test_a_foreign_amount_is_rejected_for_its_currency() -> None:
    batch = table(
        amount=["12.50", "1.234", "1.234", "12.50", "x"], currency=["USD", "BHD", "USD", None, "USD"]
    )
    found = reasons(batch, currency="JPY")
    expected = ["currency_mismatch", "currency_mismatch", "bad_amount", "bad_amount", "bad_amount"]
    assert found == list(enumerate(expected))
    assert reasons(table(currency=["CNY", "", None, "cny"])) == [(3, "currency_mismatch")]


def test_ids_at_the_limits() -> None:
    texts = ["x" * 256, "x" * 257, "é" * 128, "é" * 128 + "x", "", None, " "]
    expected = [(1, "malformed"), (3, "malformed"), (4, "missing_customer_id"), (5, "missing_customer_id")]
    assert reasons(table(customer_id=texts)) == expected
    assert [reason for _, reason in reasons(table(order_id=texts))][-1] == "missing_order_id"


def test_precedence_of_reasons() -> None:
    good = {
        "customer_id": b"c",
        "order_id": b"o",
        "occurred_at": b"2024-01-01",
        "amount": b"1",
        "currency": b"CNY",
    }
    faults = [
        ("malformed", {"order_id": b"\xff"}),
        ("missing_customer_id", {"customer_id": b""}),
        ("missing_order_id", {"order_id": b""}),
        ("bad_time", {"occurred_at": b"yesterday"}),
        ("bad_amount", {"amount": b"1.001"}),
        ("negative_amount", {"amount": b"-1"}),
        ("currency_mismatch", {"currency": b"USD"}),
        ("unknown_type", {"type": b"gift"}),
    ]
    for at, (reason, fault) in enumerate(faults):
        row = {**good, "type": b"paid"}
        for _, later in reversed(faults[at + 1 :]):
            row |= later
        row |= fault
        if reason == "malformed":
            row["customer_id"] = b""
        batch = pa.RecordBatch.from_pydict({name: as_string([value]) for name, value in row.items()})
        if reason == "negative_amount":
            # An unknown type is not known to forbid a sign.
            batch = batch.set_column(batch.schema.get_field_index("type"), "type", pa.array(["paid"]))
        assert reasons(batch) == [(0, reason)]


def test_a_rejected_row_shows_itself_as_it_came() -> None:
    batch = pa.record_batch(
        {
            "customer_id": as_string([b"ok", b"\xffbad"]),
            "order_id": pa.array([1, 2]),
            "occurred_at": pa.array([0, None], pa.timestamp("us", "UTC")),
            "amount": pa.array([Decimal("1.234"), None], pa.decimal128(10, 3)),
            "currency": ["CNY", "USD"],
        }
    )
    _, rejected = normalise(batch, currency="CNY", source="orders.csv", rows=np.array([4, 9]))
    first, second = rejected.to_pylist()
    assert first == {
        "row": 4,
        "source": "orders.csv",
        "reason": "bad_amount",
        "customer_id": "ok",
        "order_id": "1",
        "type": None,
        "occurred_at": "1970-01-01 00:00:00.000000Z",
        "amount": "1.234",
        "currency": "CNY",
        "event_id": None,
        "raw": None,
    }
    assert (second["row"], second["reason"], second["customer_id"]) == (9, "malformed", "\ufffdbad")


def test_missing_columns_are_named_with_those_there() -> None:
    with pytest.raises(
        InputError, match=r"no column order_id, amount \(or amount_minor\); the columns are customer_id"
    ):
        normalise(pa.record_batch({"customer_id": ["c"], "occurred_at": ["2024"]}), currency="CNY")
    twice = pa.RecordBatch.from_arrays(
        [pa.array(["x"])] * 5, names=["customer_id", "order_id", "order_id", "occurred_at", "amount"]
    )
    with pytest.raises(InputError, match="2 columns order_id"):
        normalise(twice, currency="CNY")


def test_options_are_checked() -> None:
    with pytest.raises(ConfigError, match="currency"):
        normalise(table(order_id=["1"]), currency="EURO")
    with pytest.raises(ConfigError, match="Mars"):
        normalise(table(occurred_at=["2024-01-01"]), currency="CNY", time_zone="Mars/Olympus")


def test_chunked_tables_slices_and_empty_input() -> None:
    whole = table(order_id=["1", "2", "3", "4"], event_id=[None, "e", None, ""])
    chunked = pa.Table.from_batches([whole.slice(0, 1), whole.slice(1)])
    assert accepted(chunked) == accepted(whole)
    assert [row["event_id"] for row in accepted(whole.slice(1, 2), first_row=1)] == ["e", None]
    assert accepted(whole.slice(0, 0)) == []
    assert accepted(chunked.slice(0, 0)) == []
