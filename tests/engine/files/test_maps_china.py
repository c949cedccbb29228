"""The maps of shops in China and around: Taobao, Youzan, SHOPLINE. Each reads a small sample of the documented form."""

import json
from pathlib import Path

from shop_samples import CANCELLED, PAID, REFUNDED, TOTAL, run

from rfmstream import Engine
from rfmstream.engine.files.mapping import load_map
from rfmstream.engine.replay.replay import replay
from rfmstream.schemas.ruleset import load_ruleset


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
