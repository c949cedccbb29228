"""The maps of marketplaces: Etsy, Amazon. Each reads a small sample of the documented form."""

from pathlib import Path

from shop_samples import CANCELLED, PAID, TOTAL, run


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
