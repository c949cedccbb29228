"""How large the benches are: RFM_BENCH_SCALE = tiny, small (default) or full.

Tiny only shows that the benches run; small takes about five minutes; full has the sizes the targets are stated for
and takes most of an hour and 18 GiB of memory.
"""

import os
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Scale:
    """The sizes of one run.

    Fields  customers, orders  of the usual load; customers_many is the load with few orders a customer
            drained            customers that age out at one midnight, out of `customers`
            ticked             customers of the engines whose quiet ticks are compared
            peer_customers, peer_orders  of the file that all programs read: the peers hold it in memory several times
            cores              given to each program in turn
            rounds, long_rounds, peer_rounds  of which the median counts; long: of what takes seconds each
            first_runs         formats of the first run, which compiles, for a quarter of a minute each
            is_quick           leaves out what takes longer than a test may, such as the first run, which compiles
    """

    name: str
    customers: int
    orders: int
    customers_many: int
    drained: int
    ticked: tuple[int, ...]
    peer_customers: int
    peer_orders: int
    cores: tuple[int, ...]
    rounds: int
    long_rounds: int
    peer_rounds: int
    first_runs: tuple[str, ...]
    is_quick: bool = False

    @property
    def whole(self) -> float:
        """What a target in seconds, which is stated for 5 M customers, is multiplied by."""
        return self.customers / SCALES["full"].customers


SCALES: Final = {
    scale.name: scale
    for scale in (
        Scale(
            name="tiny",
            customers=400,
            orders=2_000,
            customers_many=1_600,
            drained=100,
            ticked=(10, 200),
            peer_customers=200,
            peer_orders=1_000,
            cores=(1,),
            rounds=1,
            long_rounds=1,
            peer_rounds=1,
            first_runs=(),
            is_quick=True,
        ),
        Scale(
            name="small",
            customers=500_000,
            orders=5_000_000,
            customers_many=2_000_000,
            drained=100_000,
            ticked=(10_000, 500_000),
            peer_customers=200_000,
            peer_orders=2_000_000,
            cores=(1, 2),
            rounds=3,
            long_rounds=1,
            peer_rounds=1,
            first_runs=(".csv",),
        ),
        Scale(
            name="full",
            customers=5_000_000,
            orders=50_000_000,
            customers_many=20_000_000,
            drained=1_000_000,
            ticked=(10_000, 1_000_000, 5_000_000),
            peer_customers=2_000_000,
            peer_orders=20_000_000,
            cores=(1, 2),
            rounds=3,
            long_rounds=3,
            peer_rounds=3,
            first_runs=(".csv", ".parquet"),
        ),
    )
}

SCALE: Final = SCALES[os.environ.get("RFM_BENCH_SCALE") or "small"]


def short(count: int) -> str:
    """Return a count as in the names of regimes: 5 M, 500 k, 400."""
    for size, letter in ((1_000_000, " M"), (1_000, " k")):
        if count >= size:
            return f"{count / size:g}{letter}"
    return str(count)


def several(count: int, word: str) -> str:
    """Return a count with its word: 1 thread, 2 threads."""
    return f"{count} {word}{'' if count == 1 else 's'}"
