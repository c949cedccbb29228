"""Which shipped map fits a file: a sample of each says its own map first, and what is missing is named."""

import json
from pathlib import Path

import pytest

from rfmstream.engine.files.guess import guess_map
from rfmstream.engine.files.mapping import list_maps

_CSV = {
    "amazon-shipments": "amazon-order-id\tshipment-id\tshipment-item-id\tpurchase-date\tpayments-date\tbuyer-email\t"
    "currency\titem-price\titem-tax\tshipping-price\tshipping-tax",
    "complete-journey-lines": "household_id,store_id,basket_id,product_id,quantity,sales_value,transaction_timestamp",
    "complete-journey-raw": "household_key,BASKET_ID,DAY,PRODUCT_ID,QUANTITY,SALES_VALUE,STORE_ID,TRANS_TIME",
    "etsy-orders": "Sale Date,Order ID,Buyer User ID,Full Name,Currency,Order Value,Order Total,Status",
    "magento-grid": "ID,Purchase Point,Purchase Date,Bill-to Name,Ship-to Name,Grand Total (Base),"
    "Grand Total (Purchased),Status,Customer Email,Subtotal,Customer Name,Payment Method,Total Refunded",
    "online-retail": "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country",
    "online-retail-ii": "Invoice,StockCode,Description,Quantity,InvoiceDate,Price,Customer ID,Country",
    "paypal-activity": "Date,Time,TimeZone,Name,Type,Status,Currency,Gross,Fee,Net,From Email Address,To Email Address,"
    "Transaction ID,Reference Txn ID",
    "shopify-orders": "Name,Email,Financial Status,Paid at,Currency,Subtotal,Total,Created at,"
    "Lineitem name,Cancelled at,Refunded Amount,Id,Phone",
    "stripe-charges": "id,Created date (UTC),Amount,Amount Refunded,Currency,Captured,Status,"
    "Customer ID,Customer Email",
    "taobao-orders": "订单编号,买家会员名,买家实际支付金额,订单状态,订单付款时间,退款金额",
    "woocommerce-orders": "order_id,order_number,date,status,order_total,refunded_total,order_currency,"
    "customer_id,billing_email",
}
_JSON = {
    "magento-orders": {
        "items": [
            {
                "increment_id": "1",
                "state": "complete",
                "customer_id": 5,
                "customer_email": "r@example.com",
                "created_at": "2024-03-01 10:00:00",
                "base_currency_code": "USD",
                "base_total_paid": 36.39,
            }
        ]
    },
    "segment-orders": {
        "type": "track",
        "event": "Order Completed",
        "userId": "u1",
        "timestamp": "2024-05-01T10:00:00Z",
        "properties": {"order_id": "1", "total": 5, "currency": "USD"},
    },
    "shopify-api-orders": {
        "orders": [
            {
                "id": 1,
                "email": "b@example.com",
                "financial_status": "paid",
                "currency": "USD",
                "refunds": [],
                "processed_at": "2024-01-10T11:00:00-05:00",
                "total_price": "5.00",
                "total_outstanding": "0.00",
                "current_total_price": "5.00",
                "test": False,
            }
        ]
    },
    "shopline-orders": {
        "id": "1",
        "customer": {"id": "2"},
        "financial_status": "paid",
        "currency": "USD",
        "refunds": [],
        "processed_at": "2024-01-10T11:00:00+08:00",
        "current_total_price": "5.00",
        "total_outstanding": "0.00",
    },
    "square-payments": {
        "payments": [
            {
                "id": "b",
                "created_at": "2024-10-13T21:14:29.577Z",
                "status": "COMPLETED",
                "customer_id": "W",
                "amount_money": {"amount": 1, "currency": "USD"},
                "total_money": {"amount": 1, "currency": "USD"},
            }
        ]
    },
    "stripe-events": {
        "id": "evt",
        "type": "charge.succeeded",
        "created": 1709287200,
        "data": {
            "object": {"id": "ch", "customer": "cus", "amount": 5, "amount_captured": 5, "currency": "usd"}
        },
    },
    "woocommerce-rest": [
        {
            "id": 1,
            "status": "completed",
            "currency": "USD",
            "customer_id": 3,
            "total": "5.00",
            "refunds": [],
            "date_paid_gmt": "2024-03-22T16:28:08",
            "date_created_gmt": "2024-03-22T16:28:02",
        }
    ],
    "youzan-trades": {
        "data": {
            "full_order_info_list": [
                {
                    "full_order_info": {
                        "order_info": {"tid": "E1", "pay_time": "2024-03-26 10:17:08", "refund_state": 0},
                        "pay_info": {"payment": "1.00"},
                        "buyer_info": {"yz_open_id": "yz"},
                    }
                }
            ]
        }
    },
}


def sample(name: str, folder: Path) -> Path:
    if name in _JSON:
        path = folder / "in.json"
        path.write_text(json.dumps(_JSON[name]))
        return path
    path = folder / "in.csv"
    if name == "cdnow":
        path.write_text(" 00001 19970101  1  11.77\n")
        return path
    header = _CSV[name]
    mark = "\t" if "\t" in header else ","
    text = header + "\n" + mark.join("1" for _ in header.split(mark)) + "\n"
    path.write_bytes(text.encode("gb18030" if name == "taobao-orders" else "utf-8"))
    return path


@pytest.mark.parametrize("name", list_maps())
def test_a_sample_of_each_map_names_it_first(name: str, tmp_path: Path) -> None:
    best = guess_map(sample(name, tmp_path))[0]
    assert (best.name, best.missing) == (name, ())


def test_a_page_of_the_same_columns_fits_the_map_of_delimited_text(tmp_path: Path) -> None:
    cells = "".join(f"<th>{name}</th>" for name in _CSV["etsy-orders"].split(","))
    path = tmp_path / "orders.xls"
    path.write_text(f"<table><tr>{cells}</tr></table>")
    assert guess_map(path)[0].name == "etsy-orders"


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text(_CSV["paypal-activity"].replace(",Gross", ",Brutto") + "\n")
    best = guess_map(path)[0]
    assert (best.name, best.missing) == ("paypal-activity", ("Gross",))
