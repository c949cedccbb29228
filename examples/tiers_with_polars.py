"""Tiers in a notebook or a script, with Polars: orders in, tier changes out, and a look ahead.

pip install rfmstream polars
python tiers_with_polars.py
"""

import polars as pl

from rfmstream import Engine, load_ruleset

ORDERS = pl.DataFrame(
    {
        "customer_id": ["ann", "ann", "bob", "cid", "ann", "cid"],
        "order_id": ["a1", "a2", "b1", "c1", "a3", "c1"],
        "type": ["paid", "paid", "paid", "paid", "paid", "refunded"],
        "occurred_at": [
            *("2026-01-01T10:00Z", "2026-01-05T10:00Z", "2026-01-06T10:00Z"),
            *("2026-01-09T10:00Z", "2026-01-12T10:00Z", "2026-01-15T10:00Z"),
        ],
        # Text, or a decimal, never a float: money has all its digits.
        "amount": ["600.00", "700.00", "50.00", "1200.00", "20.00", "400.00"],
    }
)


def main() -> None:
    ruleset = load_ruleset("rfm8", currency="EUR", time_zone="Europe/Berlin")
    engine = Engine(ruleset)

    result = engine.step(ORDERS)
    assert result.rejected.num_rows == 0, result.rejected.to_pylist()
    changes = pl.from_arrow(result.changes)
    print(changes.select("customer_id", "effective_at", "from_tier", "to_tier", "reason", "order_id"))

    # A snapshot of a future instant is the forecast if nobody orders.
    labels = pl.DataFrame(
        {"tier": [tier.id for tier in ruleset.tiers], "label": [tier.label_en for tier in ruleset.tiers]}
    )
    for as_of in (None, "2026-03-01T00:00:00Z"):
        tiers = pl.from_arrow(engine.snapshot(as_of)).with_columns(pl.col("tier").cast(pl.String))
        shown = tiers.join(labels, on="tier").sort("customer_id")
        print(shown.select("customer_id", "tier", "label", "frequency", "monetary_minor", "next_change_at"))


if __name__ == "__main__":
    main()
