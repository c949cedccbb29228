"""The maps of shops and payment services, each on a small sample of the documented form."""

import json
from pathlib import Path

from rfmstream import Engine
from rfmstream.engine.files.mapping import load_map
from rfmstream.engine.files.source import open_orders
from rfmstream.engine.replay.replay import replay
from rfmstream.schemas.ruleset import load_ruleset

PAID, REFUNDED, CANCELLED, ADJUSTED, TOTAL = range(5)


def run(path: Path, name: str, currency: str) -> tuple[list[tuple], list[tuple], int]:
    stream = open_orders([path], input_map=load_map(name), currency=currency)
    good, bad = [], []
    for orders, rejected in stream:
        for row in orders.to_pylist():
            at = str(row["occurred_at"])[:16]
            good.append((row["customer_id"], row["order_id"], row["type"], at, row["amount_minor"]))
        bad += [(row["row"], row["reason"]) for row in rejected.to_pylist()]
    return good, bad, stream.rows_excluded


def test_online_retail_ii(tmp_path: Path) -> None:
    path = tmp_path / "online_retail_II.csv"
    path.write_text(
        "Invoice,StockCode,Description,Quantity,InvoiceDate,Price,Customer ID,Country\n"
        "489434,85048,LIGHTS,12,2009-12-01 07:45:00,6.95,13085.0,United Kingdom\n"
        "489434,79323P,CHERRY,12,2009-12-01 07:45:00,6.75,13085.0,United Kingdom\n"
        "C489449,22087,CHAINS,-12,2009-12-01 10:33:00,2.95,16321.0,Australia\n"
        "489525,85226C,,1,2009-12-01 11:34:00,0,,United Kingdom\n"
        "A506401,B,Adjust bad debt,1,2010-04-29 13:36:00,-53594.36,,United Kingdom\n"
    )
    assert run(path, "online-retail-ii", "GBP") == (
        [
            ("13085", "489434", PAID, "2009-12-01 07:45", 16440),
            ("16321", "C489449", ADJUSTED, "2009-12-01 10:33", -3540),
        ],
        [(3, "missing_customer_id")],
        1,
    )


def test_complete_journey_raw(tmp_path: Path) -> None:
    path = tmp_path / "transaction_data.csv"
    path.write_text(
        "household_key,BASKET_ID,DAY,PRODUCT_ID,QUANTITY,SALES_VALUE,STORE_ID,RETAIL_DISC,TRANS_TIME,WEEK_NO,"
        "COUPON_DISC,COUPON_MATCH_DISC\n"
        "2375,26984851472,1,1004906,1,1.39,364,-0.6,1631,1,0,0\n"
        "2375,26984851472,1,1033142,1,0.82,364,0,1631,1,0,0\n"
        "1364,26984896261,711,842930,1,2.19,31742,0,1520,1,0,0\n"
    )
    assert run(path, "complete-journey-raw", "USD")[0] == [
        ("2375", "26984851472", PAID, "2015-01-01 00:00", 221),
        ("1364", "26984896261", PAID, "2016-12-11 00:00", 219),
    ]


def test_woocommerce_orders(tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    path.write_text(
        "order_id,order_number,order_date,status,order_total,refunded_total,order_currency,customer_id,billing_email\n"
        "101,101,2024-03-01 10:00:00,completed,600.00,0.00,USD,0,Ann@example.com\n"
        "102,102,2024-03-02 10:00:00,wc-processing,0.00,0,USD,0,bob@example.com\n"
        "103,103,2024-03-03 10:00:00,refunded,40.00,40.00,USD,17,cy@example.com\n"
        "104,104,2024-03-04 10:00:00,on-hold,40.00,0.00,USD,17,cy@example.com\n"
        "105,105,2024-03-05 10:00:00,shipped,40.00,5.00,USD,17,cy@example.com\n"
    )
    assert run(path, "woocommerce-orders", "USD") == (
        [
            ("ann@example.com", "101", PAID, "2024-03-01 10:00", 60_000),
            ("bob@example.com", "102", PAID, "2024-03-02 10:00", 0),
            ("17", "103", PAID, "2024-03-03 10:00", 4000),
            ("17", "103", TOTAL, "2024-03-03 10:00", 4000),
        ],
        [(4, "unknown_type")],
        1,
    )


def test_woocommerce_rest(tmp_path: Path) -> None:
    order = {
        "id": 727,
        "status": "processing",
        "currency": "USD",
        "date_created_gmt": "2024-03-22T16:28:02",
        "date_paid_gmt": "2024-03-22T16:28:08",
        "total": "29.35",
        "customer_id": 0,
        "billing": {"email": "John.Doe@example.com"},
        "refunds": [
            {"id": 1, "reason": "", "total": "-10.00"},
            {"id": 2, "reason": "", "total": "-4.35"},
        ],
    }
    waiting = {**order, "id": 728, "status": "on-hold", "date_paid_gmt": None, "refunds": []}
    known = {**order, "id": 729, "customer_id": 26, "refunds": [], "total": "0.00"}
    path = tmp_path / "orders.json"
    path.write_text(json.dumps([order, waiting, known]))
    assert run(path, "woocommerce-rest", "USD") == (
        [
            ("john.doe@example.com", "727", PAID, "2024-03-22 16:28", 2935),
            ("26", "729", PAID, "2024-03-22 16:28", 0),
            ("john.doe@example.com", "727", REFUNDED, "2024-03-22 16:28", 1000),
            ("john.doe@example.com", "727", REFUNDED, "2024-03-22 16:28", 435),
        ],
        [],
        1,
    )
    engine = Engine(load_ruleset("rfm8", currency="USD"))
    replay(engine, [path], input_map=load_map("woocommerce-rest"))
    assert engine.counters.rejected == {}
    assert sorted(engine.snapshot()["monetary_minor"].to_pylist()) == [0, 1500]


def test_woocommerce_orders_of_webtoffee_that_name_no_refunded_sum(tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    refund = "amount:{}|reason:|date:2024-03-03 10:00:00"
    path.write_text(
        "order_id,order_date,paid_date,status,order_total,order_currency,customer_user,billing_email,refund_items\n"
        "1,2024-03-01 10:00:00,2024-03-01T10:05:00+02:00,completed,40.00,USD,0,Guest@example.com,\n"
        f"2,2024-03-01 10:00:00,2024-03-01T10:05:00+02:00,completed,40.00,USD,5,a@example.com,{refund.format('5.00')}\n"
        f"3,2024-03-01 10:00:00,2024-03-01T10:05:00+02:00,refunded,40.00,USD,5,a@example.com,{refund.format('40')}\n"
        "4,2024-03-01 10:00:00,2024-03-01T10:05:00+02:00,cancelled,40.00,USD,5,a@example.com,\n"
        "5,2024-03-01 10:00:00,,cancelled,40.00,USD,5,a@example.com,\n"
        "6,2024-03-01 10:00:00,,packed,40.00,USD,5,a@example.com,\n"
    )
    paid_at = "2024-03-01 08:05"
    assert run(path, "woocommerce-orders", "USD") == (
        [
            ("guest@example.com", "1", PAID, paid_at, 4000),
            ("5", "3", PAID, paid_at, 4000),
            ("5", "4", PAID, paid_at, 4000),
            ("5", "3", CANCELLED, paid_at, 0),
            ("5", "4", CANCELLED, paid_at, 0),
        ],
        [(1, "unknown_type"), (5, "unknown_type")],
        1,
    )


def test_woocommerce_orders_in_the_import_format(tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    path.write_text(
        "id,order_number,created_at,status,total,total_refunded,currency,customer_user,billing_email\n"
        "7,,2024-03-01 10:00:00,completed,40.00,5.00,USD,0,g@example.com\n"
        "8,,2024-03-01 10:00:00,refunded,40.00,40.00,USD,9,g@example.com\n"
    )
    at = "2024-03-01 10:00"
    assert run(path, "woocommerce-orders", "USD") == (
        [
            ("g@example.com", "7", PAID, at, 4000),
            ("9", "8", PAID, at, 4000),
            ("g@example.com", "7", TOTAL, at, 500),
            ("9", "8", TOTAL, at, 4000),
        ],
        [],
        0,
    )


def test_woocommerce_orders_with_a_row_an_item_count_once(tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    row = "9,2024-03-01 10:00:00,completed,40.00,5.00,USD,0,g@example.com,"
    path.write_text(
        "order_id,date,status,order_total,refunded_total,order_currency,customer_id,billing_email,item_id\n"
        f"{row}1\n{row}2\n"
    )
    engine = Engine(load_ruleset("rfm8", currency="USD"))
    replay(engine, [path], input_map=load_map("woocommerce-orders"))
    table = engine.snapshot().to_pylist()
    assert [(row["frequency"], row["monetary_minor"]) for row in table] == [(1, 3500)]


def test_woocommerce_rest_orders_that_were_cancelled_or_refunded_without_a_refund(tmp_path: Path) -> None:
    order = {
        "id": 1,
        "status": "cancelled",
        "currency": "USD",
        "date_created_gmt": "2024-03-22T16:28:02",
        "date_paid_gmt": "2024-03-22T16:28:08",
        "date_modified_gmt": "2024-03-25T00:00:00",
        "total": "29.35",
        "customer_id": 26,
        "refunds": [],
    }
    orders = [
        order,
        {**order, "id": 2, "date_paid_gmt": None},
        {**order, "id": 3, "status": "refunded"},
        {**order, "id": 4, "status": "refunded", "refunds": [{"id": 9, "total": "-29.35"}]},
        {**order, "id": 5, "status": "shipped"},
    ]
    path = tmp_path / "orders.json"
    path.write_text(json.dumps(orders))
    good, bad, excluded = run(path, "woocommerce-rest", "USD")
    paid_at = "2024-03-22 16:28"
    assert sorted(good) == [
        ("26", "1", PAID, paid_at, 2935),
        ("26", "1", CANCELLED, "2024-03-25 00:00", 0),
        ("26", "3", PAID, paid_at, 2935),
        ("26", "3", CANCELLED, "2024-03-25 00:00", 0),
        ("26", "4", PAID, paid_at, 2935),
        ("26", "4", REFUNDED, paid_at, 2935),
    ]
    assert (bad, excluded) == ([(4, "unknown_type")], 1)


def test_a_shopify_refund_in_another_currency_is_never_taken_one_to_one(tmp_path: Path) -> None:
    transaction = {"id": 1, "kind": "refund", "status": "success", "amount": "5.00", "currency": "EUR"}
    order = {
        "id": 1,
        "email": "Eve@example.com",
        "financial_status": "partially_refunded",
        "created_at": "2024-01-10T11:00:00-05:00",
        "currency": "USD",
        "total_price": "10.00",
        "refunds": [{"id": 5, "created_at": "2024-03-10T11:00:00-04:00", "transactions": [transaction]}],
    }
    path = tmp_path / "orders.json"
    path.write_text(json.dumps({"orders": [order]}))
    assert run(path, "shopify-api-orders", "USD") == (
        [("eve@example.com", "1", PAID, "2024-01-10 16:00", 1000)],
        [(0, "currency_mismatch")],
        0,
    )


def test_shopify_api_orders_without_their_refunds_are_never_counted_whole(tmp_path: Path) -> None:
    order = {
        "id": 1,
        "email": "Eve@example.com",
        "financial_status": "refunded",
        "created_at": "2024-01-10T11:00:00-05:00",
        "updated_at": "2024-01-12T11:00:00-05:00",
        "currency": "USD",
        "total_price": "10.00",
    }
    partly = {**order, "id": 2, "financial_status": "partially_refunded"}
    paid = {**order, "id": 3, "financial_status": "paid"}
    path = tmp_path / "orders.json"
    path.write_text(json.dumps({"orders": [order, partly, paid, {**paid, "financial_status": "settling"}]}))
    assert run(path, "shopify-api-orders", "USD") == (
        [
            ("eve@example.com", "1", PAID, "2024-01-10 16:00", 1000),
            ("eve@example.com", "3", PAID, "2024-01-10 16:00", 1000),
            ("eve@example.com", "1", CANCELLED, "2024-01-12 16:00", 0),
        ],
        [(1, "unknown_type"), (3, "unknown_type")],
        0,
    )


def test_shopify_api_orders_in_their_envelope_and_as_webhooks(tmp_path: Path) -> None:
    refund = {
        "id": 509562969,
        "created_at": "2024-03-10T11:00:00-04:00",
        "transactions": [
            {"id": 1, "kind": "refund", "status": "success", "amount": "41.94"},
            {"id": 2, "kind": "refund", "status": "failure", "amount": "41.94"},
        ],
    }
    order = {
        "id": 450789469,
        "name": "#1001",
        "test": False,
        "email": "bob@example.com",
        "customer": {"id": 207119551},
        "financial_status": "partially_refunded",
        "created_at": "2024-01-10T11:00:00-05:00",
        "processed_at": "2024-01-10T11:00:00-05:00",
        "cancelled_at": None,
        "currency": "USD",
        "total_price": "598.94",
        "total_outstanding": "0.00",
        "refunds": [refund],
    }
    guest = {**order, "id": 2, "customer": None, "email": "Eve@example.com", "total_outstanding": "98.94"}
    guest |= {"financial_status": "partially_paid", "refunds": [], "cancelled_at": "2024-01-11T00:00:00Z"}
    pending = {**order, "id": 3, "financial_status": "pending"}
    document = tmp_path / "orders.json"
    document.write_text(json.dumps({"orders": [order, guest, pending, {**order, "id": 4, "test": True}]}))
    expected = (
        [
            ("207119551", "450789469", PAID, "2024-01-10 16:00", 59_894),
            ("eve@example.com", "2", PAID, "2024-01-10 16:00", 50_000),
            ("eve@example.com", "2", CANCELLED, "2024-01-11 00:00", 0),
            ("207119551", "450789469", REFUNDED, "2024-03-10 15:00", 4194),
        ],
        [],
    )
    assert run(document, "shopify-api-orders", "USD")[:2] == expected
    hooks = tmp_path / "hooks.jsonl"
    hooks.write_text("".join(json.dumps(one) + "\n" for one in (order, guest, pending)))
    assert run(hooks, "shopify-api-orders", "USD")[:2] == expected


def test_square_payments(tmp_path: Path) -> None:
    payment = {
        "id": "bP9mAsEMYPUGjjGNaNO5ZDVyLhSZY",
        "created_at": "2024-10-13T21:14:29.577Z",
        "updated_at": "2024-10-14T21:14:30.504Z",
        "amount_money": {"amount": 1000, "currency": "USD"},
        "total_money": {"amount": 1200, "currency": "USD"},
        "status": "COMPLETED",
        "customer_id": "W92WH6P11H4Z77CTET0RNTGFW8",
    }
    refunded = {**payment, "id": "r", "refunded_money": {"amount": 300, "currency": "USD"}}
    guest = {**payment, "id": "g", "customer_id": None, "buyer_email_address": "A@example.com"}
    path = tmp_path / "payments.json"
    path.write_text(json.dumps({"payments": [payment, refunded, guest, {**payment, "status": "FAILED"}]}))
    customer = payment["customer_id"]
    assert run(path, "square-payments", "USD") == (
        [
            (customer, payment["id"], PAID, "2024-10-13 21:14", 1200),
            (customer, "r", PAID, "2024-10-13 21:14", 1200),
            ("a@example.com", "g", PAID, "2024-10-13 21:14", 1200),
            (customer, "r", TOTAL, "2024-10-14 21:14", 300),
        ],
        [],
        1,
    )


def test_paypal_activity(tmp_path: Path) -> None:
    path = tmp_path / "Download.csv"
    path.write_text(
        '"Date","Time","TimeZone","Name","Type","Status","Currency","Gross","Fee","Net","From Email Address",'
        '"To Email Address","Transaction ID","Reference Txn ID"\n'
        '"11/09/2026","15:30:00","PST","Bo","Payment Refund","Completed","USD","-1,200.00","0.00","-1,200.00",'
        '"shop@example.com","Bo@example.com","T4","T3"\n'
        '"11/09/2026","09:00:00","PST","Bo","Express Checkout Payment","Completed","USD","1,500.00","-3.50","1,496.50",'
        '"bo@example.com","shop@example.com","T3",""\n'
        '"10/09/2026","14:30:00","PDT","","General Withdrawal","Completed","USD","-500.00","0.00","-500.00",'
        '"","","T2",""\n'
        '"10/09/2026","14:30:00","PDT","Al","Website Payment","Pending","USD","5.00","0.00","5.00",'
        '"al@example.com","shop@example.com","T1",""\n'
        '"10/09/2026","14:30:00","PDT","Al","Chargeback Reversal","Completed","USD","5.00","0.00","5.00",'
        '"al@example.com","shop@example.com","T0",""\n'
    )
    assert run(path, "paypal-activity", "USD") == (
        [
            ("bo@example.com", "T3", PAID, "2026-11-09 17:00", 150_000),
            ("bo@example.com", "T3", REFUNDED, "2026-11-09 23:30", 120_000),
        ],
        [(4, "unknown_type")],
        2,
    )


def test_etsy_orders(tmp_path: Path) -> None:
    path = tmp_path / "EtsySoldOrders2024.csv"
    path.write_text(
        '"Sale Date","Order ID","Buyer User ID","Full Name",Currency,"Order Value","Discount Amount",Shipping,'
        '"Sales Tax","Order Total",Status,"Adjusted Order Total"\n'
        '"03/01/24","3123","annknits","Ann","USD","1,000.00","0.00","5.00","0.00","1,005.00","Shipped",""\n'
        '"03/02/24","3124","annknits","Ann","USD","20.00","0.00","5.00","0.00","25.00","Shipped","10.00"\n'
        # What is not adjusted has 0.00 in some exports, and the same total in others.
        '"03/03/24","3125","annknits","Ann","USD","20.00","0.00","5.00","0.00","25.00","Completed","0.00"\n'
        '"03/04/24","3126","annknits","Ann","USD","20.00","0.00","5.00","0.00","25.00","","25.00"\n'
        '"03/05/24","3127","annknits","Ann","USD","20.00","0.00","5.00","0.00","25.00","Refunded","0.00"\n'
    )
    assert run(path, "etsy-orders", "USD") == (
        [
            ("annknits", "3123", PAID, "2024-03-01 00:00", 100_500),
            ("annknits", "3124", PAID, "2024-03-02 00:00", 2500),
            ("annknits", "3124", TOTAL, "2024-03-02 00:00", 1500),
            ("annknits", "3125", PAID, "2024-03-03 00:00", 2500),
            ("annknits", "3126", PAID, "2024-03-04 00:00", 2500),
            ("annknits", "3127", PAID, "2024-03-05 00:00", 2500),
            ("annknits", "3127", CANCELLED, "2024-03-05 00:00", 0),
        ],
        [],
        0,
    )


def test_etsy_orders_with_a_status_that_is_not_known(tmp_path: Path) -> None:
    path = tmp_path / "EtsySoldOrders2024.csv"
    rows = (
        ("1", "Paid", "76.00"),
        ("2", "Partially Refunded", "70.00"),
        ("3", "Fully Refunded", "0.00"),
        ("4", "Settling", "70.00"),
        ("5", "Payment Processing", ""),
    )
    path.write_text(
        "Sale Date,Order ID,Buyer User ID,Full Name,Currency,Order Total,Status,Adjusted Order Total,Buyer\n"
        + "".join(
            f"09/03/26,{order},,Jane,CAD,76.00,{status},{left},janedoe\n" for order, status, left in rows
        )
    )
    at = "2026-09-03 00:00"
    good, bad, excluded = run(path, "etsy-orders", "CAD")
    assert sorted(good) == [
        ("janedoe", "1", PAID, at, 7600),
        ("janedoe", "2", PAID, at, 7600),
        ("janedoe", "2", TOTAL, at, 600),
        ("janedoe", "3", PAID, at, 7600),
        ("janedoe", "3", CANCELLED, at, 0),
    ]
    assert (bad, excluded) == ([(3, "unknown_type")], 1)


def test_etsy_orders_without_status_and_adjusted_total(tmp_path: Path) -> None:
    path = tmp_path / "EtsySoldOrders2025.csv"
    path.write_text(
        "Sale Date,Order ID,Buyer User ID,Full Name,Currency,Order Total\n12/30/25,3935119409,kj7,Andrew,EUR,80.85\n"
    )
    assert run(path, "etsy-orders", "EUR") == (
        [("kj7", "3935119409", PAID, "2025-12-30 00:00", 8085)],
        [],
        0,
    )


def test_taobao_statuses(tmp_path: Path) -> None:
    path = tmp_path / "ExportOrderList.csv"
    statuses = (
        ("买家已付款\uff0c等待卖家发货", "2024-03-01 10:05:00"),
        ("卖家已发货\uff0c等待买家确认", "2024-03-01 10:05:00"),
        ("交易被淘宝关闭", "2024-03-01 10:05:00"),
        ("状态不明", "2024-03-01 10:05:00"),
        ("等待买家付款", ""),
    )
    path.write_text(
        "订单编号,买家会员名,买家实际支付金额,订单状态,订单付款时间,退款金额\n"
        + "".join(f'="{at}",小明,10.00,{status},{paid},3.00\n' for at, (status, paid) in enumerate(statuses)),
        encoding="gbk",
    )
    good, bad, excluded = run(path, "taobao-orders", "CNY")
    assert [row[1] for row in good if row[2] == PAID] == ["0", "1", "2"]
    assert [row[1] for row in good if row[2] == CANCELLED] == ["2"]
    assert (bad, excluded) == ([(3, "unknown_type")], 1)


def test_amazon_shipments(tmp_path: Path) -> None:
    path = tmp_path / "shipments.txt"
    columns = (
        *(
            "amazon-order-id",
            "shipment-id",
            "shipment-item-id",
            "purchase-date",
            "payments-date",
            "buyer-email",
        ),
        *("currency", "item-price", "item-tax", "shipping-price", "shipping-tax", "item-promotion-discount"),
    )
    start = ("2024-03-01T10:00:00+00:00", "2024-03-01T10:05:00+00:00", "A1@marketplace.amazon.com", "USD")
    rows = (
        ("111-1", "S1", "I1", *start, "20.00", "1.60", "5.00", "0.00", "2.00"),
        ("111-1", "S1", "I2", *start, "10.00", "0.80", "", "", "-1.00"),
    )
    path.write_text("".join("\t".join(cells) + "\n" for cells in (columns, *rows)))
    assert run(path, "amazon-shipments", "USD") == (
        [("a1@marketplace.amazon.com", "111-1", PAID, "2024-03-01 10:05", 3440)],
        [],
        0,
    )


def test_magento_orders(tmp_path: Path) -> None:
    order = {
        "increment_id": "000000001",
        "state": "complete",
        "customer_id": 5,
        "customer_email": "roni@example.com",
        "created_at": "2024-03-01 10:00:00",
        "updated_at": "2024-03-09 10:00:00",
        "base_currency_code": "USD",
        "base_grand_total": 36.39,
        "base_total_paid": 36.39,
    }
    refunded = {**order, "increment_id": "000000002", "customer_id": None, "base_total_refunded": 6.39}
    unpaid = {**order, "increment_id": "000000003", "state": "new", "base_total_paid": None}
    path = tmp_path / "orders.json"
    path.write_text(json.dumps({"items": [order, refunded, unpaid], "total_count": 3}))
    assert run(path, "magento-orders", "USD") == (
        [
            ("5", "000000001", PAID, "2024-03-01 10:00", 3639),
            ("roni@example.com", "000000002", PAID, "2024-03-01 10:00", 3639),
            ("roni@example.com", "000000002", TOTAL, "2024-03-09 10:00", 639),
        ],
        [],
        1,
    )


def test_magento_orders_as_the_api_leaves_fields_out(tmp_path: Path) -> None:
    guest = {
        "increment_id": "1",
        "state": "processing",
        "customer_email": "Roni@example.com",
        "customer_is_guest": 1,
        "created_at": "2024-03-01 10:00:00",
        "updated_at": "2024-03-09 10:00:00",
        "base_currency_code": "KWD",
        "base_grand_total": 10.125,
        "base_total_due": 10.125,
    }
    path = tmp_path / "authorized.json"
    path.write_text(json.dumps({"items": [guest]}))
    assert run(path, "magento-orders", "KWD") == ([], [], 1)
    paid = {**guest, "base_total_due": 0, "base_total_paid": 10.125}
    free = {**guest, "increment_id": "2", "base_total_due": 0, "base_grand_total": 0, "base_total_paid": 0}
    closed = {**paid, "increment_id": "3", "state": "closed", "base_total_refunded": "10.1250"}
    strange = {**paid, "increment_id": "4", "state": "settling"}
    path = tmp_path / "orders.json"
    path.write_text(json.dumps({"items": [paid, free, closed, strange]}))
    at, who = "2024-03-01 10:00", "roni@example.com"
    assert run(path, "magento-orders", "KWD") == (
        [
            (who, "1", PAID, at, 10_125),
            (who, "2", PAID, at, 0),
            (who, "3", PAID, at, 10_125),
            (who, "3", TOTAL, "2024-03-09 10:00", 10_125),
        ],
        [(3, "unknown_type")],
        0,
    )


def test_magento_order_grid(tmp_path: Path) -> None:
    path = tmp_path / "export.csv"
    path.write_text(
        'ID,"Purchase Point","Purchase Date","Bill-to Name","Grand Total (Base)","Grand Total (Purchased)",Status,'
        '"Customer Email","Total Refunded","Braintree Transaction Source"\n'
        '000000001,"Main","Mar 1, 2024 14:05:00 PM",Ann,36.3900,36.3900,Complete,Ann@example.com,,\n'
        '000000002,"Main","Mar 2, 2024 02:05:00 PM",Ann,1236.3900,1236.3900,Processing,Ann@example.com,6.3900,\n'
        '000000003,"Main","Mar 3, 2024 00:05:00 AM",Ann,36.3900,36.3900,Closed,Ann@example.com,36.3900,\n'
        '000000004,"Main","2024-03-04 10:00:00",Ann,36.3900,36.3900,Closed,Ann@example.com,,\n'
        '000000005,"Main","2024-03-04 10:00:00",Ann,36.3900,36.3900,Pending,Ann@example.com,,\n'
        '000000006,"Main","2024-03-04 10:00:00",Ann,36.3900,36.3900,Packed,Ann@example.com,,\n'
    )
    who = "ann@example.com"
    good, bad, excluded = run(path, "magento-grid", "USD")
    assert sorted(good) == [
        (who, "000000001", PAID, "2024-03-01 14:05", 3639),
        (who, "000000002", PAID, "2024-03-02 14:05", 123_639),
        (who, "000000002", TOTAL, "2024-03-02 14:05", 639),
        (who, "000000003", PAID, "2024-03-03 00:05", 3639),
        (who, "000000003", TOTAL, "2024-03-03 00:05", 3639),
        (who, "000000004", PAID, "2024-03-04 10:00", 3639),
        (who, "000000004", CANCELLED, "2024-03-04 10:00", 0),
    ]
    assert (bad, excluded) == ([(5, "unknown_type")], 1)


def test_square_payments_with_the_least_they_hold(tmp_path: Path) -> None:
    payment = {
        "id": "a",
        "created_at": "2024-10-13T21:14:29.577Z",
        "amount_money": {"amount": 1000, "currency": "USD"},
        "status": "COMPLETED",
        "customer_id": "C",
    }
    walk_in = {key: value for key, value in payment.items() if key != "customer_id"}
    path = tmp_path / "payments.json"
    path.write_text(json.dumps({"payments": [payment, walk_in, {**payment, "id": "b", "status": "SETTLED"}]}))
    assert run(path, "square-payments", "USD") == (
        [("C", "a", PAID, "2024-10-13 21:14", 1000)],
        [(1, "missing_customer_id"), (2, "unknown_type")],
        0,
    )


def test_taobao_orders(tmp_path: Path) -> None:
    path = tmp_path / "ExportOrderList.csv"
    text = (
        "订单编号,买家会员名,买家应付货款,买家实际支付金额,订单状态,订单创建时间,订单付款时间,退款金额\n"
        '="1234567890123456789",小明,100.00,"1,100.00",交易成功,2024-03-01 10:00:00,2024-03-01 10:05:00,0.00\n'
        '="1234567890123456790",小红,100.00,100.00,交易成功,2024-03-02 10:00:00,2024-03-02 10:05:00,40.00\n'
        '="1234567890123456791",小红,100.00,0.00,交易关闭,2024-03-02 10:00:00,,无退款申请\n'
    )
    path.write_text(text, encoding="gbk")
    assert run(path, "taobao-orders", "CNY") == (
        [
            ("小明", "1234567890123456789", PAID, "2024-03-01 02:05", 110_000),
            ("小红", "1234567890123456790", PAID, "2024-03-02 02:05", 10_000),
            ("小红", "1234567890123456790", TOTAL, "2024-03-02 02:05", 4000),
        ],
        [],
        1,
    )


def test_taobao_orders_that_were_closed_after_the_payment(tmp_path: Path) -> None:
    path = tmp_path / "ExportOrderList.csv"
    text = (
        "订单编号,买家会员名,买家实际支付金额,订单状态,订单付款时间\n"
        '="1234567890123456789",小明,1100.00,交易关闭,2024-03-01 10:05:00\n'
    )
    path.write_text(text, encoding="gbk")
    assert run(path, "taobao-orders", "CNY")[0] == [
        ("小明", "1234567890123456789", PAID, "2024-03-01 02:05", 110_000),
        ("小明", "1234567890123456789", CANCELLED, "2024-03-01 02:05", 0),
    ]


def test_paypal_fees_holds_and_memos_are_no_refunds(tmp_path: Path) -> None:
    path = tmp_path / "Download.csv"
    rows = [
        ("Chargeback Fee", "-15.00", "Debit"),
        ("Fee Reversal", "1.00", "Credit"),
        ("Hold on Balance for Dispute Investigation", "-50.00", "Debit"),
        ("Reversal of General Account Hold", "50.00", "Credit"),
        ("Order", "80.00", "Memo"),
        ("PreApproved Payment Bill User Payment", "-9.00", "Debit"),
        ("Express Checkout Payment", "80.00", "Credit"),
        ("Chargeback", "-80.00", "Debit"),
    ]
    path.write_text(
        '"Date","Time","TimeZone","Type","Status","Currency","Gross","From Email Address","Transaction ID",'
        '"Reference Txn ID","Balance Impact"\n'
        + "".join(
            f'"11/0{at + 1}/2026","09:00:00","GMT","{kind}","Completed","USD","{gross}","bo@example.com","T{at}",'
            f'"{"T6" if at != 6 else ""}","{impact}"\n'
            for at, (kind, gross, impact) in enumerate(rows)
        )
    )
    assert run(path, "paypal-activity", "USD") == (
        [
            ("bo@example.com", "T6", PAID, "2026-11-07 09:00", 8000),
            ("bo@example.com", "T6", REFUNDED, "2026-11-08 09:00", 8000),
        ],
        [],
        6,
    )


def test_youzan_trades(tmp_path: Path) -> None:
    def trade(tid: str, *, refund_state: int = 0, refunds: object = None, **more: object) -> dict:
        order = {"tid": tid, "status": "TRADE_SUCCESS", "pay_time": "2024-03-26 10:17:08", **more}
        whole = {
            "order_info": {**order, "refund_state": refund_state},
            "pay_info": {"payment": "10.00", "total_fee": "12.00", "post_fee": "0.00"},
            "buyer_info": {"yz_open_id": "yz1", "buyer_id": 0, "buyer_phone": "13800000000"},
        }
        return {"full_order_info": whole, "refund_order": refunds}

    def refund(number: int, fee: str, state: int = 60) -> dict:
        return {"refund_id": f"R{number}", "refund_fee": fee, "refund_state": state, "oids": [{"oid": "1"}]}

    trades = [
        trade("E1"),
        trade("E2", refund_state=2, refunds=[refund(1, "3.00"), refund(2, "4.00", 10)]),
        trade("E3", refund_state=12, refunds=[refund(3, "6.00"), refund(4, "4.00")], status="TRADE_CLOSED"),
        trade("E4", refund_state=12, status="TRADE_CLOSED"),
        trade("E5", refund_state=2),
        trade("E6", status="WAIT_BUYER_PAY", pay_time=""),
    ]
    del trades[3]["refund_order"]
    trades[0]["full_order_info"]["buyer_info"] = {"yz_open_id": "", "buyer_id": 7}
    path = tmp_path / "trades.json"
    document = {"success": True, "code": 200, "data": {"total_results": 6, "full_order_info_list": trades}}
    path.write_text(json.dumps(document, ensure_ascii=False))
    paid_at = "2024-03-26 02:17"
    good, bad, excluded = run(path, "youzan-trades", "CNY")
    assert sorted(good) == [
        ("7", "E1", PAID, paid_at, 1000),
        ("yz1", "E2", PAID, paid_at, 1000),
        ("yz1", "E2", REFUNDED, paid_at, 300),
        ("yz1", "E3", PAID, paid_at, 1000),
        ("yz1", "E3", REFUNDED, paid_at, 400),
        ("yz1", "E3", REFUNDED, paid_at, 600),
        ("yz1", "E3", TOTAL, paid_at, 1000),
        ("yz1", "E4", PAID, paid_at, 1000),
        ("yz1", "E4", TOTAL, paid_at, 1000),
        ("yz1", "E5", PAID, paid_at, 1000),
    ]
    assert (bad, excluded) == ([(4, "bad_amount")], 1)
    engine = Engine(load_ruleset("rfm8"))
    replay(engine, [path], input_map=load_map("youzan-trades"))
    assert sorted(engine.snapshot()["monetary_minor"].to_pylist()) == [1000, 1700]


def test_shopline_orders(tmp_path: Path) -> None:
    order = {
        "id": "21056577640603870897253153",
        "financial_status": "partially_refunded",
        "created_at": "2024-01-10T11:00:00+08:00",
        "processed_at": "2024-01-10T11:00:05+08:00",
        "cancelled_at": None,
        "currency": "HKD",
        "current_total_price": "598.94",
        "total_outstanding": "0.00",
        "customer": {"id": "4201057495"},
        "refunds": [
            {
                "id": "2605659027312156877634",
                "created_at": "2024-03-10T11:00:00+08:00",
                "transactions": [
                    {"id": "t1", "kind": "refund", "status": "success", "amount": "41.94"},
                    {"id": "t2", "kind": "refund", "status": "pending", "amount": "5.00"},
                    {"id": "t3", "kind": "sale", "status": "success", "amount": "598.94"},
                ],
            }
        ],
    }
    part = {**order, "id": "2", "financial_status": "partially_paid", "total_outstanding": "98.94"}
    part |= {
        "refunds": [],
        "customer": None,
        "email": "Eve@example.com",
        "cancelled_at": "2024-01-12T00:00:00Z",
    }
    unpaid = {**order, "id": "3", "financial_status": "unpaid"}
    strange = {**order, "id": "4", "financial_status": "settling", "refunds": []}
    path = tmp_path / "orders.json"
    path.write_text(json.dumps({"orders": [order, part, unpaid, strange]}))
    assert run(path, "shopline-orders", "HKD") == (
        [
            ("4201057495", order["id"], PAID, "2024-01-10 03:00", 59_894),
            ("eve@example.com", "2", PAID, "2024-01-10 03:00", 50_000),
            ("eve@example.com", "2", CANCELLED, "2024-01-12 00:00", 0),
            ("4201057495", order["id"], REFUNDED, "2024-03-10 03:00", 4194),
        ],
        [(3, "unknown_type")],
        1,
    )


def test_stripe_events(tmp_path: Path) -> None:
    charge = {
        "id": "ch_1",
        "object": "charge",
        "customer": "cus_1",
        "currency": "usd",
        "amount": 2000,
        "amount_captured": 2000,
        "amount_refunded": 0,
        "captured": True,
        "receipt_email": None,
        "billing_details": {"email": "Ann@example.com"},
    }

    def event(kind: str, created: int, **more: object) -> dict:
        return {
            "id": f"evt_{created}",
            "type": kind,
            "created": created,
            "data": {"object": {**charge, **more}},
        }

    events = [
        event("charge.succeeded", 1_709_287_200),
        event("charge.succeeded", 1_709_287_201, id="ch_2", captured=False, amount_captured=0),
        event("charge.captured", 1_709_287_202, id="ch_2", customer=None, amount_captured=1500),
        event("charge.refunded", 1_709_287_260, amount_refunded=500),
        event("charge.refunded", 1_709_287_320, amount_refunded=2000),
        event("charge.failed", 1_709_287_321, id="ch_3"),
        event("customer.created", 1_709_287_322),
        {
            "type": "charge.dispute.closed",
            "created": 1_709_287_380,
            "data": {
                "object": {"id": "dp", "charge": "ch_2", "amount": 1500, "currency": "usd", "status": "lost"}
            },
        },
        event("charge.teleported", 1_709_287_381),
    ]
    path = tmp_path / "events.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in events))
    assert run(path, "stripe-events", "USD") == (
        [
            ("cus_1", "ch_1", PAID, "2024-03-01 10:00", 2000),
            ("ann@example.com", "ch_2", PAID, "2024-03-01 10:00", 1500),
            ("cus_1", "ch_1", TOTAL, "2024-03-01 10:01", 500),
            ("cus_1", "ch_1", TOTAL, "2024-03-01 10:02", 2000),
        ],
        [(7, "missing_customer_id"), (8, "unknown_type")],
        3,
    )


def test_a_shopify_refund_alone_names_no_customer(tmp_path: Path) -> None:
    path = tmp_path / "hooks.jsonl"
    transaction = {"id": 1, "kind": "refund", "status": "success", "amount": "41.94", "currency": "USD"}
    body = {
        "id": 5,
        "order_id": 450789469,
        "created_at": "2024-03-10T11:00:00-04:00",
        "transactions": [transaction],
    }
    path.write_text(json.dumps(body) + "\n")
    assert run(path, "shopify-api-orders", "USD") == ([], [(0, "missing_customer_id")], 0)


def test_a_paypal_status_that_is_not_known_is_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "Download.csv"
    head = (
        '"Date","Time","TimeZone","Type","Status","Currency","Gross","From Email Address","Transaction ID",'
        '"Reference Txn ID"'
    )
    rows = "".join(
        f'"11/01/2026","09:00:00","GMT","Website Payment","{status}","USD","5.00","bo@example.com","T{status}",""\n'
        for status in ("Completed", "Cleared", "Abgeschlossen", "Voided")
    )
    path.write_text(f"{head}\n{rows}")
    good, bad, excluded = run(path, "paypal-activity", "USD")
    assert ([row[1] for row in good], bad, excluded) == (["TCompleted", "TCleared"], [(2, "unknown_type")], 1)
