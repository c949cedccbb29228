"""A fuzzer's target: what the JSON scanner accepts is what orjson reads of the same bytes."""

from datetime import UTC, datetime


def take_json(data: bytes) -> None:
    """Take a record's value."""
    import orjson  # noqa: PLC0415 - after instrumentation

    from rfmstream.engine.live.decode import Decoder  # noqa: PLC0415
    from rfmstream.engine.live.model import RawRecords  # noqa: PLC0415

    # As one that the scanner settles alone, and as JSON lines, of which it never settles all.
    plain, other = (
        Decoder(currency="CNY").decode(RawRecords([None] * n, values, [()] * n, [0] * n, range(n), n))
        for values in ([data], [data, b"{"])
        for n in [len(values)]
    )
    assert plain.orders.equals(other.orders)
    assert plain.refused == other.refused[: len(plain.refused)]
    for order in plain.orders.to_pylist() if plain.orders.num_rows == 1 and not plain.refused else ():
        row = _row(orjson.loads, data)
        if row is None:  # one row of several, or in an envelope
            continue
        assert str(row["customer_id"]) == order["customer_id"]
        if order["order_id"]:
            assert str(row["order_id"]) == order["order_id"]
        assert order["occurred_at"] >= datetime(1, 1, 1, tzinfo=UTC)


def _row(loads: object, data: bytes) -> dict[str, object] | None:
    try:
        row = loads(data)  # type: ignore[operator]
    except ValueError:
        return None
    return row if isinstance(row, dict) and "customer_id" in row else None


def json_seeds() -> list[bytes]:
    """Return orders in JSON of several forms."""
    one = (
        b'{"customer_id":"c1","order_id":"o1","occurred_at":"2026-01-01T00:00:00Z","amount":"1.25","type":"paid",'
        b'"currency":"CNY","event_id":"e1","note":{"a":[1,2.5e3,null,true]}}'
    )
    return [
        one,
        one.replace(b'"1.25"', b"1.25"),
        one.replace(b'"amount":"1.25"', b'"amount_minor":125'),
        one.replace(b"c1", b"\\u00e9\\ud83d\\ude00"),
        one.replace(b"c1", "\u91cd".encode()),
        b"[" + one + b"," + one.replace(b"o1", b"o2") + b"]",
        one + b"\n" + one,
        b'{"specversion":"1.0","data":' + one + b"}",
        b'{"customer_id":1,"order_id":2,"occurred_at":"2026-01-01","amount":0.1}',
    ]
