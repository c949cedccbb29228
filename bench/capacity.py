"""How many workers, how much memory and how large a broker some customers and their orders need.

    python -m bench.capacity --customers 100M --orders-per-second 100k

A machine that is measured in two regimes, one in which most orders bring a tier change and one in which few do, says
what an order costs and what a change costs; a small state and a large one say what a customer and an order take. Those
figures are read from two result files, by default of the runs that are kept in bench/kept: --engine of `make bench` and
--live of `make bench-live`. Give it files of your own machine for figures of your own.

What is counted: processor time of worker and broker, memory, checkpoints, what the log takes, and how long the
partitions of a worker that was killed are away. What is not: latency, the network's own costs, reading the topics by
others, a history that is worked off (which goes as fast as the workers can), and skew beyond --spare.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from typing import Any, Final

from rfmstream.engine.core.shard import HANDLES_MAX

KEPT: Final = Path(__file__).parent / "kept"
_UNITS: Final = {"k": 10**3, "M": 10**6, "G": 10**9}
_DAY_S: Final = 86_400

_STATE: Final = "replay rfm8-annual, uniform 500 k, 1 thread"
_SMALL, _LARGE = "500 k customers, an order each", "500 k customers, 5 M orders"
_MANY_CHANGES, _FEW_CHANGES = "rfm8-annual, uniform, json", "rfm8-annual, zipf:1.2, json"
_CUSTOMERS, _ORDERS = 500_000, 5_000_000
_CUSTOMER_ID_BYTES, _ORDER_ID_BYTES = 12, 11
"""Of the benches' loads."""


@dataclass(frozen=True)
class Figures:
    """What was measured.

    Fields  customer_bytes, order_bytes  of memory, without their ids
            resident           what the system really gives, over what the engine says it uses
            saved_customer_bytes, saved_order_bytes  of a checkpoint, without their ids
            *_us               processor time, of the worker or the broker, an order or a change
            order_log_bytes, change_log_bytes  on one broker's disk, as packed as they are
            change_share       tier changes an order where keys are uniform
            checkpoint_ns, restore_ns  of one thread, a byte of a checkpoint
            takeover_s         from the end of the session timeout to the first change, less what a state's size costs
    """

    customer_bytes: float
    order_bytes: float
    resident: float
    saved_customer_bytes: float
    saved_order_bytes: float
    worker_order_us: float
    worker_change_us: float
    broker_order_us: float
    broker_change_us: float
    order_log_bytes: float
    change_log_bytes: float
    change_share: float
    checkpoint_ns: float
    restore_ns: float
    takeover_s: float


@dataclass(frozen=True)
class Asked:
    """What a user has, and how the machines are: the options of the command."""

    customers: int
    orders_per_second: int
    orders_a_customer: float
    changes_an_order: float
    customer_id_bytes: int
    order_id_bytes: int
    cores: int
    memory_gib: float
    spare: float
    checkpoint_interval_s: int
    store_megabytes_per_s: float
    session_timeout_s: int
    replicas: int
    days_kept: float


@dataclass(frozen=True)
class Needed:
    """What that needs.

    Fields  state_bytes, checkpoint_bytes  of all customers
            workers            the larger of workers_for_memory and workers_for_time
            checkpoint_interval_s  as asked, or longer where the store could not take one in that time
            away_s             until all partitions of a worker that was killed emit again
            *_bytes_per_s      of all brokers together, replicas included
    """

    state_bytes: int
    checkpoint_bytes: int
    worker_cores: float
    workers_for_time: int
    workers_for_memory: int
    workers: int
    partitions: int
    broker_cores: float
    order_bytes_per_s: int
    change_bytes_per_s: int
    log_bytes_kept: int
    checkpoint_interval_s: int
    checkpoint_bytes_per_s: int
    away_s: float


def figures_of(engine: dict[str, Any], live: dict[str, Any]) -> Figures:
    """Return what two result files say.

    Errors  ValueError  one lacks a bench that is needed
    """
    memory = _memory_of(engine)
    value = {name: _value_of(engine, name) for name in _names()}
    small, large = (1e6 * value[f"checkpoint {state}, 1 thread: on disk"] for state in (_SMALL, _LARGE))
    saved_order = (large - small) / (_ORDERS - _CUSTOMERS) - _ORDER_ID_BYTES
    saved_customer = small / _CUSTOMERS - saved_order - _ORDER_ID_BYTES - _CUSTOMER_ID_BYTES
    many, few = _run_of(live, _MANY_CHANGES), _run_of(live, _FEW_CHANGES)
    worker_order, worker_change = _parted(many, few, "worker_s")
    broker_order, broker_change = _parted(many, few, "broker_s")
    order_log = many["input_bytes"] / many["orders"]
    recovery = live["recovery"][0]
    restore_ns = 1e9 * value[f"restore {_LARGE}, 1 thread"] / large
    return Figures(
        customer_bytes=memory["customer_bytes"],
        order_bytes=memory["order_bytes"],
        resident=max(memory["resident_of_bound"] / memory["of_bound"], 1.0),
        saved_customer_bytes=saved_customer,
        saved_order_bytes=saved_order,
        worker_order_us=worker_order,
        worker_change_us=worker_change,
        broker_order_us=broker_order,
        broker_change_us=broker_change,
        order_log_bytes=order_log,
        change_log_bytes=many["output_bytes"] / many["changes"],
        change_share=many["changes"] / many["orders"],
        checkpoint_ns=1e9 * value[f"checkpoint {_LARGE}, 1 thread"] / large,
        restore_ns=restore_ns,
        takeover_s=max(recovery["beyond_s"] - restore_ns * recovery["checkpoint_bytes"] / 1e9, 0.0),
    )


def _names() -> tuple[str, ...]:
    return (
        *(f"checkpoint {state}, 1 thread: on disk" for state in (_SMALL, _LARGE)),
        f"checkpoint {_LARGE}, 1 thread",
        f"restore {_LARGE}, 1 thread",
    )


def _memory_of(engine: dict[str, Any]) -> dict[str, float]:
    for bench in engine["benchmarks"]:
        memory: dict[str, float] = bench["extra_info"].get("memory", {})
        if memory.get("regime") == _STATE:
            return memory
    raise ValueError(f"lacks the memory of {_STATE!r}")


def _value_of(engine: dict[str, Any], name: str) -> float:
    for bench in engine["benchmarks"]:
        if name in bench["extra_info"]:
            return float(bench["extra_info"][name]["value"])
    raise ValueError(f"lacks {name!r}")


def _run_of(live: dict[str, Any], regime: str) -> dict[str, Any]:
    if not live.get("recovery"):
        raise ValueError("lacks a recovery")
    for row in live.get("throughput", ()):
        if row["regime"] == regime:
            found: dict[str, Any] = row
            return found
    raise ValueError(f"lacks the throughput of {regime!r}")


def _parted(many: dict[str, Any], few: dict[str, Any], key: str) -> tuple[float, float]:
    """Return what an order costs and what a change costs, in µs, of two runs with many and with few changes."""
    costs = [1e6 * row[key] / row["orders"] for row in (many, few)]
    shares = [row["changes"] / row["orders"] for row in (many, few)]
    of_change = (costs[0] - costs[1]) / (shares[0] - shares[1])
    return costs[1] - of_change * shares[1], of_change


def needed(asked: Asked, found: Figures) -> Needed:
    """Return what customers and orders need by what was measured."""
    orders = asked.customers * asked.orders_a_customer
    ids = asked.customers * asked.customer_id_bytes + orders * asked.order_id_bytes
    state = found.resident * (asked.customers * found.customer_bytes + orders * found.order_bytes + ids)
    saved = asked.customers * found.saved_customer_bytes + orders * found.saved_order_bytes + ids
    worker_us = found.worker_order_us + asked.changes_an_order * found.worker_change_us
    broker_us = found.broker_order_us + asked.changes_an_order * found.broker_change_us
    worker_cores = asked.orders_per_second * worker_us / 1e6
    usable = 1 - asked.spare
    for_time = ceil(worker_cores / (asked.cores * usable))
    for_memory = ceil(state / (asked.memory_gib * 2**30 * usable))
    workers = max(for_time, for_memory, 1)
    interval = max(asked.checkpoint_interval_s, ceil(saved / workers / (1e6 * asked.store_megabytes_per_s)))
    # Two a core, so that as many workers again can join; and each far from as many entries as a shard can number.
    partitions = max(2 * workers * asked.cores, ceil(2 * (orders + asked.customers) / HANDLES_MAX))
    # One worker's state is read and restored by the others, each a part, and what came since a checkpoint applied.
    survivors = max(workers - 1, 1)
    read_s = (
        saved
        / workers
        / survivors
        * max(1 / (1e6 * asked.store_megabytes_per_s), found.restore_ns / 1e9 / asked.cores)
    )
    replayed_s = interval * asked.orders_per_second * worker_us / 1e6 / workers / survivors / asked.cores
    order_bytes = asked.orders_per_second * found.order_log_bytes * asked.replicas
    change_bytes = asked.orders_per_second * asked.changes_an_order * found.change_log_bytes * asked.replicas
    return Needed(
        state_bytes=round(state),
        checkpoint_bytes=round(saved),
        worker_cores=round(worker_cores, 2),
        workers_for_time=for_time,
        workers_for_memory=for_memory,
        workers=workers,
        partitions=partitions,
        broker_cores=round(asked.replicas * asked.orders_per_second * broker_us / 1e6, 2),
        order_bytes_per_s=round(order_bytes),
        change_bytes_per_s=round(change_bytes),
        log_bytes_kept=round((order_bytes + change_bytes) * asked.days_kept * _DAY_S),
        checkpoint_interval_s=interval,
        checkpoint_bytes_per_s=round(saved / interval),
        away_s=round(asked.session_timeout_s + found.takeover_s + read_s + replayed_s, 1),
    )


def lines(asked: Asked, found: Figures, needs: Needed) -> list[str]:
    """Return all that as a table; behind each figure where it comes from."""
    rows = [
        (
            "state in memory",
            _bytes(needs.state_bytes),
            (
                f"{found.customer_bytes:.0f} B a customer, "
                f"{found.order_bytes:.0f} B an order, their ids; x {found.resident:.2f} resident [1]"
            ),
        ),
        (
            "processor time of workers",
            f"{needs.worker_cores:,.1f} cores",
            (
                f"{found.worker_order_us:.2f} µs an order, "
                f"{found.worker_change_us:.2f} µs a change, {asked.changes_an_order:.2f} changes an order [2]"
            ),
        ),
        (
            "workers",
            f"{needs.workers:,}",
            (
                f"{needs.workers_for_time:,} for time, {needs.workers_for_memory:,} for memory: "
                f"{asked.cores} cores, {asked.memory_gib:g} GiB each, {asked.spare:.0%} to spare"
            ),
        ),
        ("partitions", f"{needs.partitions:,}", "two a core, so that as many workers again may join"),
        (
            "processor time of brokers",
            f"{needs.broker_cores:,.1f} cores",
            (
                f"{found.broker_order_us:.2f} µs an order, "
                f"{found.broker_change_us:.2f} µs a change, each of {asked.replicas} replicas [2]"
            ),
        ),
        (
            "written to the log",
            f"{_bytes(needs.order_bytes_per_s + needs.change_bytes_per_s)}/s",
            (
                f"{found.order_log_bytes:.0f} B an order, {found.change_log_bytes:.0f} B a change, "
                f"{asked.replicas} replicas [2]"
            ),
        ),
        ("kept in the log", _bytes(needs.log_bytes_kept), f"{asked.days_kept:g} days at that pace"),
        (
            "a checkpoint of all",
            _bytes(needs.checkpoint_bytes),
            (
                f"{found.saved_customer_bytes:.0f} B a customer, "
                f"{found.saved_order_bytes:.0f} B an order, their ids [3]"
            ),
        ),
        (
            "checkpoint interval",
            f"{needs.checkpoint_interval_s:,} s",
            f"{asked.checkpoint_interval_s} s, or what {asked.store_megabytes_per_s:g} MB/s a worker take",
        ),
        (
            "written to the store",
            f"{_bytes(needs.checkpoint_bytes_per_s)}/s",
            f"{found.checkpoint_ns:.2f} ns of a core a byte [3]",
        ),
        (
            "a killed worker is away",
            f"{needs.away_s:,.1f} s",
            (
                f"session timeout {asked.session_timeout_s} s, takeover {found.takeover_s:.1f} s [4], "
                f"{found.restore_ns:.2f} ns of a core a byte [3], orders since a checkpoint"
            ),
        ),
    ]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return [
        f"{asked.customers:,} customers, {asked.orders_a_customer:g} orders each; {asked.orders_per_second:,} orders/s",
        "",
        *(f"{name.ljust(widths[0])}  {value.rjust(widths[1])}   {why}" for name, value, why in rows),
        "",
        f"[1] make bench: {_STATE}",
        f"[2] make bench-live: {_MANY_CHANGES} beside {_FEW_CHANGES}",
        f"[3] make bench: checkpoint and restore of {_SMALL}, and of {_LARGE}",
        "[4] make bench-live: recovery",
    ]


def _bytes(count: float) -> str:
    for size, unit in ((1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count / 1e3:,.1f} kB"


def _count(text: str) -> int:
    """Return a count such as 1000, 500k, 2.5M or 1G."""
    number, unit = (text[:-1], _UNITS[text[-1]]) if text[-1:] in _UNITS else (text, 1)
    try:
        count = round(float(number) * unit)
    except (ValueError, OverflowError):
        count = 0
    if count < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no count; write for example 500k, 2.5M or 1G")
    return count


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return number


def _share(text: str) -> float:
    number = _positive(text)
    if number >= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no share below 1")
    return number


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    made = argparse.ArgumentParser(
        prog="python -m bench.capacity",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    add(
        "--customers", type=_count, required=True, help="all that were ever seen and not erased, such as 100M"
    )
    add("--orders-per-second", type=_count, required=True, help="at the busiest time, such as 100k")
    add("--orders-a-customer", type=_positive, default=10.0, help="retained, of all history [10]")
    add("--changes-an-order", type=_positive, help="tier changes, ageing included [as uniform keys bring]")
    add("--customer-id-bytes", type=_count, default=_CUSTOMER_ID_BYTES, help=f"[{_CUSTOMER_ID_BYTES}]")
    add("--order-id-bytes", type=_count, default=_ORDER_ID_BYTES, help=f"[{_ORDER_ID_BYTES}]")
    add("--cores", type=_count, default=8, help="of a worker [8]")
    add("--memory-gib", type=_positive, default=64.0, help="of a worker [64]")
    add("--spare", type=_share, default=0.4, help="of a worker's cores and memory, left free [0.4]")
    add("--checkpoint-interval-s", type=_count, default=60, help="the worker's setting [60]")
    add(
        "--store-megabytes-per-s",
        type=_positive,
        default=100.0,
        help="to or from the checkpoints, a worker [100]",
    )
    add("--session-timeout-s", type=_count, default=20, help="the worker's setting [20]")
    add("--replicas", type=_count, default=3, help="of the topics [3]")
    add("--days-kept", type=_positive, default=7.0, help="of orders and changes in the log [7]")
    add(
        "--engine",
        type=Path,
        default=KEPT / "small.json",
        help="results of make bench [bench/kept/small.json]",
    )
    add(
        "--live",
        type=Path,
        default=KEPT / "live.json",
        help="results of make bench-live [bench/kept/live.json]",
    )
    add("--json", action="store_true", help="figures and needs as JSON")
    return made


def main(arguments: Sequence[str]) -> int:
    """Print what is needed; return the exit code."""
    options = vars(parser().parse_args(arguments))
    paths = [options.pop(name) for name in ("engine", "live")]
    try:
        found = figures_of(*(json.loads(path.read_text(encoding="utf-8")) for path in paths))
    except (OSError, ValueError, KeyError, TypeError) as error:
        words = f"has no {error}" if isinstance(error, KeyError) else str(error)
        told = " and ".join(map(str, paths))
        print(
            f"bench.capacity: {told}: {words}; name results of make bench and make bench-live",
            file=sys.stderr,
        )
        return 3
    as_json = options.pop("json")
    options["changes_an_order"] = options["changes_an_order"] or found.change_share
    asked = Asked(**options)
    needs = needed(asked, found)
    if as_json:
        told = {"asked": asdict(asked), "measured": asdict(found), "needed": asdict(needs)}
        print(json.dumps(told, indent=2))
    else:
        print("\n".join(lines(asked, found, needs)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
