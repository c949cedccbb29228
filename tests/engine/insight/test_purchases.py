from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from twins import canonical_batch

from rfmstream import Engine
from rfmstream.engine.insight.purchases import Purchases
from rfmstream.schemas.codes import NEVER_US
from rfmstream.schemas.ruleset import Ruleset, load_ruleset

HOUR_US = 3_600_000_000
RFM8 = load_ruleset("rfm8")
FORGETS = [
    replace(RFM8, time_zone="America/New_York", forget_orders_after_days=1),
    replace(RFM8, day_unit="duration", forget_orders_after_days=1),
]


def event(customer: str, order: str, hour: int, amount: int, kind: str = "paid") -> dict[str, Any]:
    return {
        "customer_id": customer,
        "order_id": order,
        "type": kind,
        "occurred_at_us": hour * HOUR_US,
        "amount_minor": amount,
        "event_id": None,
    }


def bought(
    events: Sequence[dict[str, Any]],
    customer: str,
    after_hour: int,
    hours: int,
    ruleset: Ruleset | None = None,
) -> tuple[int, int]:
    purchases = Purchases.of([canonical_batch(events)], ruleset)
    code = purchases.codes_of(pa.chunked_array([[customer]]))
    count, minor = purchases.within(code, np.array([after_hour * HOUR_US]), hours * HOUR_US)
    return int(count[0]), int(minor[0])


def test_after_the_instant_and_up_to_the_end_of_the_window() -> None:
    events = [event("x", str(hour), hour, 10**hour) for hour in range(6)] + [event("y", "0", 2, 7)]
    assert bought(events, "x", 1, 3) == (3, 11_100)
    assert bought(events, "x", -5, 100) == (6, 111_111)
    assert bought(events, "y", 1, 1) == (1, 7)
    assert bought(events, "y", 2, 9) == (0, 0)
    assert bought(events, "nobody", 0, 9) == (0, 0)


def test_what_is_left_of_orders_counts() -> None:
    events = [
        event("x", "kept", 1, 100),
        event("x", "kept", 1, 100),
        event("x", "part", 2, 200),
        event("x", "part", 3, 50, "refunded"),
        event("x", "whole", 2, 300),
        event("x", "whole", 4, 100, "refunded"),
        event("x", "whole", 5, 200, "refunded"),
        event("x", "void", 2, 400),
        event("x", "void", 9, 0, "cancelled"),
        event("x", "gift", 3, 0),
        event("x", "note", 3, -70, "adjusted"),
        event("x", "unknown", 3, 70, "refunded"),
        event("y", "part", 2, 1_000),
    ]
    assert bought(events, "x", 0, 20) == (3, 250)


def test_refunds_so_far_and_single_ones() -> None:
    for refunds, left in (
        ([("refunded_total", 30), ("refunded_total", 30), ("refunded_total", 70)], 30),
        ([("refunded", 10), ("refunded_total", 30)], 70),
        ([("refunded_total", 30), ("refunded", 10)], 60),
        ([("refunded", 10), ("refunded_total", 30), ("refunded", 20), ("refunded_total", 40)], 50),
    ):
        events = [event("x", "1", 1, 100)]
        events += [event("x", "1", 2 + at, amount, kind) for at, (kind, amount) in enumerate(refunds)]
        assert bought(events, "x", 0, 20) == (1, left)
        engine = Engine("rfm8")
        engine.step_canonical(canonical_batch(events))
        assert engine.snapshot()["lifetime_monetary_minor"].to_pylist() == [left]
    whole = [event("x", "1", 1, 100), event("x", "1", 2, 100, "refunded_total")]
    assert bought(whole, "x", 0, 20) == (0, 0)


def test_what_was_erased_was_never_bought() -> None:
    events = [
        event("x", "1", 1, 100),
        event("y", "1", 1, 5),
        event("x", "", 2, 0, "erased"),
        event("x", "2", 3, 7),
    ]
    assert bought(events, "x", 0, 20) == (1, 7)
    assert bought(events, "y", 0, 20) == (1, 5)


def test_the_newest_event_ends_what_is_known() -> None:
    assert Purchases.of([canonical_batch([event("x", "1", 3, 1)])]).newest_us == 3 * HOUR_US
    nothing = Purchases.of([])
    assert nothing.newest_us == NEVER_US
    code = nothing.codes_of(pa.chunked_array([["x"]]))
    assert nothing.within(code, np.array([0]), HOUR_US)[0].tolist() == [0]


def test_nothing_takes_off_an_order_that_is_forgotten_and_its_id_is_free() -> None:
    forgets = FORGETS[1]
    events = [event("x", "1", 0, 100), event("x", "2", 0, 10), event("x", "1", 23, 1, "refunded")]
    events += [event("x", "1", 24, 1, "refunded"), event("x", "2", 24, 0, "cancelled")]
    assert bought(events, "x", -1, 100, forgets) == (2, 109)
    events += [event("x", "1", 25, 1_000), event("x", "1", 26, 200, "refunded")]
    assert bought(events, "x", -1, 100, forgets) == (3, 909)
    assert bought(events, "x", -1, 100) == (0, 0)


EVENTS = st.lists(
    st.builds(
        event,
        st.sampled_from("xyz"),
        st.sampled_from("123"),
        st.integers(0, 100),
        st.integers(1, 3),
        st.sampled_from(["paid", "paid", "refunded", "refunded_total", "cancelled", "adjusted"]),
    ),
    max_size=30,
)


@settings(deadline=None)
@given(EVENTS, st.sampled_from([RFM8, *FORGETS]))
def test_over_all_time_they_are_the_lifetime_orders_of_the_engine(
    events: list[dict[str, Any]], ruleset: Ruleset
) -> None:
    # Refunds beyond an order are rejected there, and make it void here: such histories are left out.
    # Adjustments are no purchases, and the engine's amount has them.
    events.sort(key=lambda row: row["occurred_at_us"])
    engine = Engine(ruleset)
    result = engine.step_canonical(canonical_batch(events))
    if "refund_exceeds_order" in result.rejected["reason"].to_pylist():
        return
    for row in engine.snapshot().to_pylist():
        count, minor = bought(events, row["customer_id"], -1, 200, ruleset)
        noted = sum(
            other["amount_minor"]
            for other in {
                (other["customer_id"], other["order_id"], other["occurred_at_us"]): other
                for other in reversed(events)
                if other["type"] == "adjusted"
            }.values()
            if other["customer_id"] == row["customer_id"]
        )
        assert (count, minor + noted) == (row["lifetime_orders"], row["lifetime_monetary_minor"])
