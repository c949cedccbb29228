"""The maps of public data sets that are no shop's own form. Each reads a small sample of the documented form."""

from pathlib import Path

from shop_samples import ADJUSTED, PAID, run


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
