"""Each shipped map on a small sample in the form its source writes."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rfmstream import Engine
from rfmstream.engine.files.mapping import list_maps, load_map
from rfmstream.engine.files.source import open_orders
from rfmstream.engine.replay.replay import replay
from rfmstream.schemas.ruleset import load_ruleset


def run(path: Path, name: str, currency: str) -> tuple[list[tuple], list[tuple], int]:
    stream = open_orders([path], input_map=load_map(name), currency=currency)
    good, bad = [], []
    for orders, rejected in stream:
        good += [
            (
                row["customer_id"],
                row["order_id"],
                row["type"],
                str(row["occurred_at"])[:19],
                row["amount_minor"],
            )
            for row in orders.to_pylist()
        ]
        bad += [(row["row"], row["reason"]) for row in rejected.to_pylist()]
    return good, bad, stream.rows_excluded


@pytest.mark.parametrize("name", list_maps())
def test_every_map_says_what_it_is(name: str) -> None:
    shipped = load_map(name)
    assert (shipped.name, shipped.source.startswith("https://")) == (name, True)
    assert shipped.title
    assert shipped.columns()


def test_online_retail(tmp_path: Path) -> None:
    pq.write_table(
        pa.table(
            {
                "InvoiceNo": ["536365", "536365", "536366", "C536379", "536365", "A563185"],
                "StockCode": ["85123A", "71053", "22633", "D", "POST", "B"],
                "Quantity": pa.array([6, 6, 1, -1, 1, 1], pa.int32()),
                "InvoiceDate": pa.array([0, 60, 120, 180, 240, 300], pa.timestamp("s")).cast(
                    pa.timestamp("us")
                ),
                "UnitPrice": [2.55, 3.39, 0.001, 27.5, 0.001, 11062.06],
                "CustomerID": ["17850.0", "17850.0", "17850.0", "14527.0", "17850.0", None],
            }
        ),
        tmp_path / "lines.parquet",
    )
    assert run(tmp_path / "lines.parquet", "online-retail", "GBP") == (
        [
            ("17850.0", "536365", 0, "1970-01-01 00:00:00", 3564),
            ("17850.0", "536366", 0, "1970-01-01 00:02:00", 0),
            ("14527.0", "C536379", 3, "1970-01-01 00:03:00", -2750),
        ],
        [(5, "missing_customer_id")],
        0,
    )


def test_cdnow(tmp_path: Path) -> None:
    path = tmp_path / "CDNOW_master.txt"
    path.write_bytes(
        b"customer_id  date  number_of_cds  dollar_value\r\n"
        b" 00001 19970101  1  11.77\r\n 00002 19970112  1  12.00\r\n"
        b" 00002 19970112  5  77.00\r\n 00003 19970102  2   0.00"
    )
    assert run(path, "cdnow", "USD") == (
        [
            ("00001", "line-0", 0, "1997-01-01 00:00:00", 1177),
            ("00003", "line-3", 0, "1997-01-02 00:00:00", 0),
            ("00002", "line-1", 0, "1997-01-12 00:00:00", 1200),
            ("00002", "line-2", 0, "1997-01-12 00:00:00", 7700),
        ],
        [],
        0,
    )


@pytest.mark.parametrize("ids", ["00007", "00007 0003"])
def test_cdnow_as_its_page_gives_it_has_no_header(tmp_path: Path, ids: str) -> None:
    path = tmp_path / "CDNOW.txt"
    path.write_text(f" {ids} 19970101  2   29.33\r\n {ids} 19970118  2   29.73\r\n")
    assert run(path, "cdnow", "USD")[0] == [
        ("00007", "line-0", 0, "1997-01-01 00:00:00", 2933),
        ("00007", "line-1", 0, "1997-01-18 00:00:00", 2973),
    ]


def test_cdnow_in_two_runs_is_cdnow_in_one(tmp_path: Path) -> None:
    lines = ["00001 19970101 1 11.77\n", "00001 19970112 1 12.00\n", "00001 19970112 1 12.00\n"]
    paths = [tmp_path / "a.txt", tmp_path / "b.txt"]
    for path, part in zip(paths, (lines[:1], lines[1:]), strict=True):
        path.write_text("customer_id date quantity dollar_value\n" + "".join(part))
    engine = Engine(load_ruleset("rfm8", currency="USD"))
    for number, path in enumerate(paths):
        if number:
            engine.checkpoint(tmp_path / "state")
            engine = Engine.restore(tmp_path / "state")
        replay(engine, [path], input_map=load_map("cdnow"))
    assert (engine.counters.applied, engine.counters.rejected, engine.counters.input_rows) == (3, {}, 3)


def test_online_retail_with_american_dates(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text(
        "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
        "536365,85123A,HOLDER,6,12/1/2010 8:26,2.55,17850,United Kingdom\n"
        "536366,85123A,HOLDER,1,2010-12-01 08:28:00,2.55,17850,United Kingdom\n"
        "536367,85123A,HOLDER,1,31/12/2010 8:26,2.55,17850,United Kingdom\n"
    )
    orders, rejected, _ = run(path, "online-retail", "GBP")
    assert orders == [
        ("17850", "536365", 0, "2010-12-01 08:26:00", 1530),
        ("17850", "536366", 0, "2010-12-01 08:28:00", 255),
    ]
    assert rejected == [(2, "bad_time")]


def test_complete_journey_lines(tmp_path: Path) -> None:
    pq.write_table(
        pa.table(
            {
                "household_id": [900, 900, 1228],
                "basket_id": [31198570044, 31198570044, 31198655051],
                "sales_value": [0.5, 0.99, 1.776357e-15],
                "transaction_timestamp": pa.array([10**9, 0, 2 * 10**9], pa.timestamp("ns")),
            }
        ),
        tmp_path / "lines.parquet",
    )
    assert run(tmp_path / "lines.parquet", "complete-journey-lines", "USD") == (
        [
            ("900", "31198570044", 0, "1970-01-01 00:00:01", 149),
            ("1228", "31198655051", 0, "1970-01-01 00:00:02", 0),
        ],
        [],
        0,
    )


SHOPIFY = (
    "Name,Email,Financial Status,Paid at,Fulfillment Status,Currency,Subtotal,Total,Created at,Lineitem quantity,"
    "Lineitem name,Cancelled at,Payment Method,Refunded Amount,Outstanding Balance,Id,Tags,Phone\n"
)


def test_shopify_orders(tmp_path: Path) -> None:
    path = tmp_path / "orders_export_1.csv"
    path.write_text(
        SHOPIFY
        + "#1001,Ana@Example.com,paid,2024-03-01 10:22:33 +0100,fulfilled,EUR,40.00,45.90,2024-03-01 10:22:00 +0100,1,"
        '"Mug, ""blue""",,Shopify Payments,0.00,0.00,5.5E+12,,\n'
        "#1001,Ana@Example.com,,,,,,,2024-03-01 10:22:00 +0100,2,Plate,,,,,,,\n"
        "#1002,bob@example.com,partially_refunded,2024-03-02 09:00:00 +0100,fulfilled,EUR,30.00,30.00,"
        "2024-03-02 09:00:00 +0100,1,Bowl,,PayPal,10.00,0.00,5.5E+12,,\n"
        "#1003,bob@example.com,refunded,2024-03-03 09:00:00 +0100,,EUR,20.00,20.00,2024-03-03 09:00:00 +0100,1,Vase,"
        "2024-03-04 12:00:00 +0100,PayPal,20.00,0.00,5003,,\n"
        "#1004,eve@example.com,pending,,,EUR,9.00,9.00,2024-03-05 09:00:00 +0100,1,Cup,,,0.00,9.00,5004,,\n"
        "#1005,,paid,2024-03-06 09:00:00 +0100,,EUR,9.00,9.00,2024-03-06 09:00 +0100,1,Cup,,,0.00,"
        "0.00,5005,,'+49 123-45\n"
        "#1006,,paid,2024-03-07 09:00:00 +0100,,EUR,9.00,9.00,2024-03-07 09:00:00 +0100,1,Cup,,,0.00,0.00,5006,,\n"
        "#1007,eve@example.com,sent by pigeon,2024-03-08 09:00:00 +0100,,EUR,9.00,9.00,2024-03-08 09:00:00 +0100,1,Cup,"
        "2024-03-09 09:00:00 +0100,,9.00,0.00,5007,,\n"
    )
    assert run(path, "shopify-orders", "EUR") == (
        [
            ("ana@example.com", "#1001", 0, "2024-03-01 09:22:33", 4590),
            ("bob@example.com", "#1002", 0, "2024-03-02 08:00:00", 3000),
            ("bob@example.com", "#1002", 4, "2024-03-02 08:00:00", 1000),
            ("bob@example.com", "#1003", 0, "2024-03-03 08:00:00", 2000),
            ("bob@example.com", "#1003", 4, "2024-03-04 11:00:00", 2000),
            ("bob@example.com", "#1003", 2, "2024-03-04 11:00:00", 0),
            ("+4912345", "#1005", 0, "2024-03-06 08:00:00", 900),
        ],
        [(6, "missing_customer_id"), (7, "unknown_type")],
        2,
    )


def test_shopify_orders_without_a_time_of_payment_and_those_not_paid_whole(tmp_path: Path) -> None:
    path = tmp_path / "orders_export_1.csv"
    tail = "2024-03-01 09:59:00 +0100,1,Mug,,Stripe"
    path.write_text(
        SHOPIFY + f"#1,ann@example.com,partially_refunded,,,EUR,,900.00,{tail},150.00,0.00,1,,\n"
        f"#2,bob@example.com,paid,,,EUR,,0.00,{tail},0.00,0.00,2,,\n"
        f"#3,cy@example.com,Partially_paid,2024-03-01 10:00:00 +0100,,EUR,,700.00,{tail},0.00,250.00,3,,\n"
        f"#4,dot@example.com,refunded,2024-03-01 10:00:00 +0100,,EUR,,800.00,{tail},300.00,500.00,4,,\n"
        f"#5,eli@example.com,paid,2024-03-01 10:00:00 +0100,,EUR,,800.00,{tail},abc,,5,,\n"
    )
    good, bad, excluded = run(path, "shopify-orders", "EUR")
    assert good == [
        ("ann@example.com", "#1", 0, "2024-03-01 08:59:00", 90_000),
        ("bob@example.com", "#2", 0, "2024-03-01 08:59:00", 0),
        ("ann@example.com", "#1", 4, "2024-03-01 08:59:00", 15_000),
        ("cy@example.com", "#3", 0, "2024-03-01 09:00:00", 45_000),
        ("dot@example.com", "#4", 0, "2024-03-01 09:00:00", 30_000),
        ("eli@example.com", "#5", 0, "2024-03-01 09:00:00", 80_000),
        ("dot@example.com", "#4", 4, "2024-03-01 09:00:00", 30_000),
    ]
    assert (bad, excluded) == ([(4, "bad_amount")], 0)


def test_stripe_charges(tmp_path: Path) -> None:
    path = tmp_path / "unified_payments.csv"
    path.write_text(
        "id,Created date (UTC),Amount,Amount Refunded,Currency,Captured,Converted Amount,Description,Fee,"
        "Refunded date (UTC),Status,Customer ID,Customer Email\n"
        'ch_1,2024-06-05 20:38:34,"1,250.00",0.00,usd,true,1250.00,Plan,36.55,,Paid,cus_A,a@example.com\n'
        "ch_2,2024-06-06 08:00:00,49.00,19.00,usd,true,49.00,Plan,1.72,2024-06-09 10:00:00,"
        "Partially refunded,,B@Example.com\n"
        "ch_3,2024-06-07 08:00:00,49.00,49.00,usd,true,49.00,Plan,1.72,,Refunded,cus_C,c@example.com\n"
        "ch_4,2024-06-08 08:00:00,49.00,0.00,usd,false,49.00,Plan,0.00,,Failed,cus_C,c@example.com\n"
        "ch_5,2024-06-08 09:00:00,49.00,0.00,usd,false,49.00,Hold,0.00,,Paid,cus_C,c@example.com\n"
        "ch_6,2024-06-08 10:00:00,49.00,0.00,eur,true,49.00,Plan,0.00,,Paid,cus_C,c@example.com\n"
    )
    assert run(path, "stripe-charges", "USD") == (
        [
            ("cus_A", "ch_1", 0, "2024-06-05 20:38:34", 125_000),
            ("b@example.com", "ch_2", 0, "2024-06-06 08:00:00", 4900),
            ("cus_C", "ch_3", 0, "2024-06-07 08:00:00", 4900),
            ("cus_C", "ch_3", 4, "2024-06-07 08:00:00", 4900),
            ("b@example.com", "ch_2", 4, "2024-06-09 10:00:00", 1900),
        ],
        [(5, "currency_mismatch")],
        2,
    )


def test_stripe_disputes_and_statuses(tmp_path: Path) -> None:
    path = tmp_path / "unified_payments.csv"
    rows = (
        ("ch_1", "Paid", "0.00", "1500.00", "2024-06-20 09:00:00", "Lost"),
        ("ch_2", "Paid", "0.00", "80.00", "2024-06-20 09:00:00", "won"),
        ("ch_3", "Disputed", "0.00", "80.00", "2024-06-20 09:00:00", "needs_response"),
        ("ch_4", "Disputed", "0.00", "80.00", "2024-06-20 09:00:00", "sold"),
        ("ch_5", "Pending", "0.00", "", "", ""),
        ("ch_6", "requires_payment_method", "0.00", "", "", ""),
        ("ch_7", "Mislaid", "5.00", "", "", ""),
        ("ch_8", "Uncaptured", "0.00", "", "", ""),
        # A dispute that only the charge's own status tells of: whole where its sum is there, else named.
        ("ch_9", "Dispute lost", "0.00", "1500.00", "2024-06-21 09:00:00", ""),
        ("ch_10", "Dispute lost", "0.00", "", "", ""),
    )
    path.write_text(
        "id,Created date (UTC),Amount,Amount Refunded,Currency,Refunded date (UTC),Status,Customer ID,Disputed Amount,"
        "Dispute Date (UTC),Dispute Status\n"
        + "".join(
            f"{charge},2024-06-05 20:38:34,1500.00,{refunded},usd,,{status},cus_A,{disputed},{at},{outcome}\n"
            for charge, status, refunded, disputed, at, outcome in rows
        )
    )
    good, bad, excluded = run(path, "stripe-charges", "USD")
    assert good == [
        *(
            ("cus_A", charge, 0, "2024-06-05 20:38:34", 150_000)
            for charge in ("ch_1", "ch_2", "ch_3", "ch_4", "ch_9", "ch_10")
        ),
        ("cus_A", "ch_1", 4, "2024-06-20 09:00:00", 150_000),
        ("cus_A", "ch_9", 4, "2024-06-21 09:00:00", 150_000),
    ]
    assert (bad, excluded) == ([(3, "unknown_type"), (6, "unknown_type"), (9, "bad_amount")], 3)


def test_stripe_amounts_with_a_decimal_comma_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "unified_payments.csv"
    path.write_text(
        "id,Created date (UTC),Amount,Amount Refunded,Currency,Refunded date (UTC),Status,Customer ID\n"
        'ch_1,2024-06-05 20:38:34,"35,82","0,00",usd,,Paid,cus_A\n'
        'ch_2,2024-06-05 20:38:34,"1.230,00",0.00,usd,,Paid,cus_A\n'
        'ch_3,2024-06-05 20:38:34,"1,234,567.80",10.00,usd,2024-06-06 10:00:00,Paid,cus_A\n'
    )
    orders, rejected, _ = run(path, "stripe-charges", "USD")
    assert [(order, kind, amount) for _, order, kind, _, amount in orders] == [
        ("ch_3", 0, 123_456_780),
        ("ch_3", 4, 1000),
    ]
    assert rejected == [(0, "bad_amount"), (0, "bad_amount"), (1, "bad_amount")]


def nightly(tmp_path: Path, name: str, header: str, nights: list[str]) -> None:
    """Replay a file a night on a checkpoint, and the last one alone: customers have the same F and M."""
    input_map, paths = load_map(name), []
    for night, rows in enumerate(nights):
        paths.append(tmp_path / f"{night}.csv")
        paths[-1].write_text(header + rows)
    ruleset = load_ruleset("rfm8", currency="USD")
    engine = Engine(ruleset)
    for path in paths:
        replay(engine, [path], input_map=input_map)
        engine.checkpoint(tmp_path / "state")
        engine = Engine.restore(tmp_path / "state")
    alone = Engine(ruleset)
    replay(alone, [paths[-1]], input_map=input_map)
    assert engine.counters.rejected == alone.counters.rejected == {}
    columns = ["customer_id", "tier", "last_paid_at", "frequency", "monetary_minor"]
    assert sort(engine, columns) == sort(alone, columns)


def sort(engine: Engine, columns: list[str]) -> list[dict]:
    return sorted(engine.snapshot().select(columns).to_pylist(), key=lambda row: row["customer_id"])


def test_refunds_told_as_sums_so_far_come_out_the_same_night_by_night(tmp_path: Path) -> None:
    header = (
        "id,Created date (UTC),Amount,Amount Refunded,Currency,Refunded date (UTC),Status,Customer ID,Disputed Amount,"
        "Dispute Date (UTC),Dispute Status\n"
    )
    first = "ch_1,2024-06-05 20:38:34,1500.00,{},usd,{},Paid,cus_A,{}\n"
    nights = [
        first.format("0.00", "", ",,"),
        first.format("200.00", "2024-06-06 10:00:00", ",,"),
        first.format("300.00", "2024-06-07 10:00:00", ",,"),
        first.format("300.00", "2024-06-07 10:00:00", "400.00,2024-06-20 10:00:00,needs_response"),
        first.format("300.00", "2024-06-07 10:00:00", "400.00,2024-06-20 10:00:00,lost"),
    ]
    nightly(tmp_path, "stripe-charges", header, nights)
    tail = "2024-03-01 09:59:00 +0100,1,Mug,{},Stripe,{},0.00,1,,\n"
    order = "#1,ann@example.com,paid,2024-03-01 10:00:00 +0100,,USD,,900.00," + tail
    (tmp_path / "state" / "manifest.json").unlink()
    for path in (tmp_path / "state").iterdir():
        path.unlink()
    nightly(
        tmp_path,
        "shopify-orders",
        SHOPIFY,
        [
            order.format("", "0.00"),
            order.format("", "100.00"),
            order.format("", "100.00"),
            order.format("2024-03-05 10:00:00 +0100", "250.00")
            + order.replace("#1", "#2").format("", "1.00"),
        ],
    )


def test_stripe_export_with_the_older_column_names(tmp_path: Path) -> None:
    path = tmp_path / "payments.csv"
    path.write_text(
        "id,Amount,Amount Refunded,Currency,Created (UTC),Customer Email,Status\n"
        "ch_1,49.00,0.00,usd,2024-07-02 15:04,jo@example.com,Paid\n"
    )
    assert run(path, "stripe-charges", "USD")[0] == [
        ("jo@example.com", "ch_1", 0, "2024-07-02 15:04:00", 4900)
    ]


def test_segment_orders(tmp_path: Path) -> None:
    path = tmp_path / "tracks.jsonl"
    path.write_text(
        '{"type":"track","event":"Order Completed","userId":"u1","messageId":"m1","timestamp":'
        '"2024-05-01T10:00:00.123Z","properties":{"order_id":"50314b8e","total":27.50,"revenue":25.00,"currency":"usd","products":[{"sku":"45790"}]}}\n'
        '{"type":"track","event":"Product Viewed","userId":"u1","messageId":"m2","timestamp":"2024-05-01T10:01:00Z",'
        '"properties":{"sku":"45790"}}\n'
        '{"type":"identify","userId":"u1","traits":{}}\n'
        '{"type":"track","event":"Order Refunded","userId":"u1","messageId":"m3","timestamp":"2024-05-02T10:00:00Z",'
        '"properties":{"order_id":"50314b8e","total":-7.50,"currency":"USD"}}\n'
        '{"type":"track","event":"Order Completed","userId":null,"anonymousId":"anon-9","messageId":"m4",'
        '"timestamp":"2024-05-03T10:00:00Z","properties":{"order_id":77,"revenue":25.000000000000004,"currency":"USD"}}\n'
        '{"type":"track","event":"Order Cancelled","anonymousId":"anon-9","messageId":"m5",'
        '"timestamp":"2024-05-04T10:00:00Z","properties":{"order_id":77,"total":25.00}}\n'
        '{"type":"track","event":"Order Completed","userId":"u2","timestamp":"2024-05-04T10:00:00Z"\n'
    )
    assert run(path, "segment-orders", "USD") == (
        [
            ("u1", "50314b8e", 0, "2024-05-01 10:00:00", 2750),
            ("u1", "50314b8e", 1, "2024-05-02 10:00:00", 750),
            ("anon-9", "77", 0, "2024-05-03 10:00:00", 2500),
            ("anon-9", "77", 2, "2024-05-04 10:00:00", 0),
        ],
        [(6, "malformed")],
        2,
    )


def test_segment_spellings_and_partial_refunds(tmp_path: Path) -> None:
    path = tmp_path / "tracks.jsonl"
    events = (
        ("order_completed", '"order_id":"A","total":1500.00'),
        ("Completed Order", '"orderId":"B","total":1500.00'),
        ("Order Partially Refunded", '"order_id":"A","refund_amount":900.00,"total":1500.00'),
        ("orderRefunded", '"order_id":"B","refund_amount":-1500.00'),
        ("Order Canceled", '"order_id":"B"'),
        ("Order Returned", '"order_id":"A","total":10'),
        ("Order Updated", '"order_id":"A","total":10'),
        ("Refund Issued", '"order_id":"A","total":10'),
        ("Signed Up", '"plan":"pro"'),
    )
    path.write_text(
        "".join(
            f'{{"type":"track","event":"{event}","userId":"u","messageId":"m{at}",'
            f'"timestamp":"2024-05-0{at + 1}T10:00:00Z","properties":{{{properties}}}}}\n'
            for at, (event, properties) in enumerate(events)
        )
    )
    good, bad, excluded = run(path, "segment-orders", "USD")
    assert [(order, kind, amount) for _, order, kind, _, amount in good] == [
        ("A", 0, 150_000),
        ("B", 0, 150_000),
        ("A", 1, 90_000),
        ("B", 1, 150_000),
        ("B", 2, 0),
    ]
    assert (bad, excluded) == ([(5, "unknown_type"), (7, "unknown_type")], 2)
