"""Real orders, replayed once, as they are and with refunds, cancellations and credit notes among them."""

import numpy as np
import pytest
from real_orders import cdnow
from report_cases import Case, order_table, replayed


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """CDNOW in New York: cut in March 1998, with every 20th order refunded in part, every 70th in whole, and so on."""
    end_us = int(np.datetime64("1998-03-05", "us").astype(np.int64))
    rows = [dict(event) for event in cdnow() if event["occurred_at_us"] < end_us]
    after = []
    for at, event in enumerate(rows):
        later = event | {"occurred_at_us": event["occurred_at_us"] + 40_000_000_000}
        if at % 70 == 0:
            after.append(later | {"type": "refunded"})
        elif at % 20 == 0:
            after.append(later | {"type": "refunded", "amount_minor": int(event["amount_minor"]) // 3})
        elif at % 333 == 0:
            after.append(later | {"type": "cancelled"})
        elif at % 500 == 1:
            after.append(later | {"type": "adjusted", "order_id": f"note-{at}", "amount_minor": -250})
    folder = tmp_path_factory.mktemp("shop")
    return replayed(
        folder, order_table(rows + after), "rfm8-annual", currency="USD", time_zone="America/New_York"
    )


@pytest.fixture(scope="session")
def whole_cdnow(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """CDNOW as it is."""
    return replayed(
        tmp_path_factory.mktemp("cdnow"), order_table([dict(e) for e in cdnow()]), "rfm8", currency="USD"
    )
