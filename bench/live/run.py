"""Measure the live worker against a broker of its own, on this machine.

    python -m bench.live.run [--only throughput,latency,recovery] [--out out/bench-live.json]

The sizes are those of RFM_BENCH_SCALE: tiny, small (default) or full, for which the targets are stated. The broker, the
worker and whoever measures share the same cores.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from bench.live import latency, recovery, throughput
from bench.live.feed import History
from bench.live.site import ROOT, Site, site
from bench.machine import machine
from rfmstream.engine.core.processors import usable_cores


@dataclass(frozen=True)
class Scale:
    """Sizes.

    Fields  customers, orders  of the topic that is worked off
            recovered          customers and orders of the state that is recovered: 63 in 100 get one
            paced              seconds of a pace
    """

    customers: int
    orders: int
    recovered: int
    paced: latency.Times


SCALES: Final = {
    "tiny": Scale(500, 5_000, 500, latency.Times(4, 2)),
    "small": Scale(200_000, 2_000_000, 500_000, latency.Times(40, 15)),
    "full": Scale(1_000_000, 10_000_000, 8_000_000, latency.Times(40, 30)),
}
ZIPF: Final = "zipf:1.2"
PACED_CUSTOMERS: Final = 2_000_000
"""So many that most orders are among the first of their customer, and bring a change, at every pace."""


async def throughputs(at: Site, scale: Scale, threads: int, which: list[str]) -> list[dict[str, Any]]:
    loads = {
        "uniform": (History(scale.customers, scale.orders), ["rfm8-annual"]),
        "zipf": (History(scale.customers, scale.orders, ZIPF), ["rfm8-annual", "rfm8"]),
        "ndjson": (History(scale.customers, scale.orders, ZIPF, "ndjson"), ["rfm8"]),
        "arrow": (History(scale.customers, scale.orders, ZIPF, "arrow"), ["rfm8"]),
    }
    rows = []
    for name in which:
        history, rulesets = loads[name]
        pairs = [(ruleset, history.expected(ruleset)) for ruleset in rulesets]
        results = await throughput.measure(at, history, pairs, threads=threads, name=name)
        rows += [
            asdict(each)
            | {"orders_per_s": round(each.orders_per_s), "orders_per_cpu_s": round(each.orders_per_cpu_s)}
            for each in results
        ]
    return rows


async def latencies(at: Site, times: latency.Times, threads: int, rates: str) -> list[dict[str, Any]]:
    results = await latency.measure(
        at,
        ruleset="rfm8-annual",
        customers=PACED_CUSTOMERS,
        rates=[int(rate) for rate in rates.split(",")],
        times=times,
        threads=threads,
    )
    return [asdict(each) for each in results]


def table(rows: list[dict[str, Any]]) -> str:
    """Return rows of one kind as text."""
    if not rows:
        return ""
    cells = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in cells)


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="throughput,latency,recovery")
    parser.add_argument("--loads", default="uniform,zipf,ndjson,arrow")
    parser.add_argument("--rates", default="10000,20000,50000,100000,200000", help="orders a second")
    parser.add_argument("--threads", type=int, default=usable_cores(), help="of the worker")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "bench-live.json")
    options = parser.parse_args()
    scale_name = os.environ.get("RFM_BENCH_SCALE") or "small"
    scale = SCALES[scale_name]
    # Whatever ends the run, its worker and its broker end with it.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    found: dict[str, Any] = {
        "scale": scale_name,
        "machine": machine(),
        "threads": options.threads,
        "load": os.getloadavg(),
    }
    with site() as at:
        if "throughput" in options.only:
            found["throughput"] = asyncio.run(
                throughputs(at, scale, options.threads, options.loads.split(","))
            )
            print(table(found["throughput"]))
        if "latency" in options.only:
            found["latency"] = asyncio.run(latencies(at, scale.paced, options.threads, options.rates))
            print(table(found["latency"]))
        if "recovery" in options.only:
            killed = recovery.measure(
                at, ruleset="rfm8-annual", customers=scale.recovered, threads=options.threads
            )
            found["recovery"] = [asdict(asyncio.run(killed))]
            print(table(found["recovery"]))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
