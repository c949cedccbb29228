"""The maps of payment services: Square, PayPal, Stripe. Each reads a small sample of the documented form."""

import json
from pathlib import Path

from shop_samples import PAID, REFUNDED, TOTAL, run


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


def test_paypal_activity_of_older_accounts_and_other_zones(tmp_path: Path) -> None:
    path = tmp_path / "Download.csv"
    path.write_text(
        "Date, Time, Time Zone, Name, Type, Status, Currency, Gross, Fee, Net, From Email Address, To Email Address,"
        " Transaction ID, Reference Txn ID\n"
        '"11/09/2012","09:00:00","AEDT","Bo","Web Accept Payment Received","Completed","USD","1,500.00","-3.50",'
        '"1,496.50","bo@example.com","shop@example.com","T3",""\n'
    )
    paid = ("bo@example.com", "T3", PAID, "2012-11-08 22:00", 150_000)
    assert run(path, "paypal-activity", "USD") == ([paid], [], 0)


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
