"""Read, run and write golden scripts: one directive a line, what comes of it indented below.

    ruleset rfm8 time_zone=Europe/Berlin        begin anew, with fields of the oracle's Rules changed
    ruleset rfm8 warn_days.100=3,7 orders=1,2   likewise, with what asks for signals; dwell_days, spend, single_order
    paid ada o1 2024-03-01T10:00+01:00 99.90 event_id=e1
    refunded, refunded_total, cancelled (without an amount), adjusted, erased (without an amount): likewise
    advance 2024-04-01T00:00+02:00
    snapshot 2024-05-01T00:00+02:00             without an instant: as of the clock
    counters

An event tells its outcome, then each tier change and signal that came with it, by instant. Instants are written in the
ruleset's zone, amounts in major units of two decimals, an absent value as a dash. A # begins a comment.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from oracle import BUILT_IN, Oracle, Row, Rules
from oracle_days import EPOCH
from oracle_signals import SignalOracle, SignalRules
from twins import Driven

INDENT = "    "
EVENTS = ("paid", "refunded", "cancelled", "adjusted", "refunded_total", "erased")
INTEGERS = ("recency_cuts_days", "frequency_cuts", "monetary_cuts_minor")

Machine = Oracle | Driven


@dataclass
class Directive:
    """A line of a script and the lines expected below it; a comment is a directive without words."""

    line: str
    expected: list[str] = field(default_factory=list)

    @property
    def words(self) -> list[str]:
        return self.line.split("#", 1)[0].split()


def read_script(path: Path) -> list[Directive]:
    directives: list[Directive] = []
    for line in path.read_text("utf-8").splitlines():
        if line.startswith(INDENT):
            directives[-1].expected.append(line.removeprefix(INDENT))
        else:
            directives.append(Directive(line))
    return directives


def write_script(path: Path, directives: list[Directive], told: list[list[str]]) -> None:
    lines = [
        line
        for directive, below in zip(directives, told, strict=True)
        for line in [directive.line, *(INDENT + text for text in below)]
    ]
    path.write_text("\n".join(lines) + "\n", "utf-8")


def oracle_of(rules: Rules) -> Oracle:
    """Return the oracle of some rules, which tells signals where they ask for some."""
    return SignalOracle(rules) if isinstance(rules, SignalRules) else Oracle(rules)


def run_script(directives: list[Directive], build: Callable[[Rules], Machine]) -> list[list[str]]:
    """Return the lines each directive tells when ``build``'s machine runs the script."""
    told = []
    for directive in directives:
        match directive.words:
            case []:
                told.append([])
            case ["ruleset", name, *options]:
                rules = _rules(name, options)
                machine = build(rules)
                told.append([])
            case _:
                told.append(_obey(machine, rules, directive.words))
    return told


def _rules(name: str, options: list[str]) -> Rules:
    changed: dict[str, object] = {}
    asked: dict[str, Any] = {}
    for option in options:
        key, value = option.split("=")
        if "." in key:
            name_of_days, tier = key.split(".")
            asked.setdefault(name_of_days, {})[tier] = tuple(int(number) for number in value.split(","))
        elif key in ("spend", "single_order"):
            asked[f"{key}_minor"] = tuple(int(Decimal(amount) * 100) for amount in value.split(","))
        elif key == "orders":
            asked[key] = tuple(int(number) for number in value.split(","))
        elif key in INTEGERS:
            changed[key] = tuple(int(number) for number in value.split(","))
        elif key == "window_days":
            changed[key] = None if value == "lifetime" else int(value)
        else:
            changed[key] = value
    rules = BUILT_IN[name](**changed)
    if not asked:
        return rules
    return SignalRules(**{field.name: getattr(rules, field.name) for field in fields(rules)}, **asked)


def _obey(machine: Machine, rules: Rules, words: list[str]) -> list[str]:
    before, changes_count = machine.counters, len(machine.changes)
    given = getattr(machine, "signals", [])
    signals_count = len(given)
    match words:
        case ["snapshot", *as_of]:
            rows = machine.snapshot(*map(_us, as_of))
            return [_snapshot_text(row, rules) for row in rows]
        case ["counters"]:
            return _counters_text(machine.counters)
        case ["advance", now]:
            machine.advance(_us(now))
            outcome = []
        case [type_, customer_id, order_id, at, *rest] if type_ in EVENTS:
            event_ids = [word.removeprefix("event_id=") for word in rest if word.startswith("event_id=")]
            amounts = [int(Decimal(word) * 100) for word in rest if not word.startswith("event_id=")]
            event = {
                "customer_id": customer_id,
                "order_id": order_id,
                "type": type_,
                "occurred_at_us": _us(at),
                "amount_minor": amounts[0] if amounts else 0,
                "event_id": event_ids[0] if event_ids else None,
            }
            machine.step([event])
            outcome = [_outcome(before, machine.counters)]
        case _:
            raise ValueError(" ".join(words))
    new = machine.changes[changes_count:] + given[signals_count:]
    new.sort(key=lambda row: (row["effective_at"], row["customer_id"], "kind" in row))
    return outcome + [(_signal_text if "kind" in row else _change_text)(row, rules) for row in new]


def _us(text: str) -> int:
    return (datetime.fromisoformat(text) - EPOCH) // timedelta(microseconds=1)


def _outcome(before: Row, after: Row) -> str:
    for count in ("applied", "duplicates"):
        if after[count] > before[count]:
            return count.removesuffix("s")
    (reason,) = (
        reason for reason, count in after["rejected"].items() if count > before["rejected"].get(reason, 0)
    )
    return f"rejected {reason}"


def _change_text(row: Row, rules: Rules) -> str:
    tiers = f"{row['from_tier'] or '-'} -> {row['to_tier'] or '-'}"
    behind = "" if row["order_id"] is None else f" by {row['order_id']}"
    return (
        f"{row['customer_id']} #{row['seq']} {_at(row['effective_at'], rules)} "
        f"{tiers} {row['reason']}{behind}; {_measures(row, rules)}"
    )


def _signal_text(row: Row, rules: Rules) -> str:
    said = {
        "days": row["days"],
        "count": row["count"],
        "amount": None if row["amount_minor"] is None else _major(row["amount_minor"]),
        "at": None if row["at"] is None else f"{_at(row['at'], rules)} -> {row['next_tier']}",
        "stay": None
        if row["stay_orders"] is None
        else f"{row['stay_orders']} orders of {_major(row['stay_minor'])}",
        "by": row["order_id"],
    }
    what = "".join(f" {name} {value}" for name, value in said.items() if value is not None)
    told = f"{row['customer_id']} ! {_at(row['effective_at'], rules)} {row['kind']}"
    return f"{told} in {row['tier'] or '-'} #{row['seq']}{what}"


def _snapshot_text(row: Row, rules: Rules) -> str:
    return (
        f"{row['customer_id']} {row['tier'] or '-'} since {_at(row['tier_since'], rules)}; "
        f"{_measures(row, rules)}; {_or_dash(row['recency_days'])} days ago, "
        f"first {_at(row['first_paid_at'], rules)}, lifetime {row['lifetime_orders']} orders "
        f"{_major(row['lifetime_monetary_minor'])}, average {_major(row['average_order_minor'])}"
    )


def _measures(row: Row, rules: Rules) -> str:
    bands = f"bands {row['r_band']}{row['f_band']}{row['m_band']}"
    last = f"last {_at(row['last_paid_at'], rules)}"
    then = "" if row["next_change_at"] is None else f" -> {row['next_tier']}"
    return (
        f"{bands}, {last}, F {row['frequency']}, M {_major(row['monetary_minor'])}; "
        f"next {_at(row['next_change_at'], rules)}{then}"
    )


def _counters_text(counters: Row) -> list[str]:
    def counts(reasons: dict[str, int]) -> str:
        return ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items())) or "none"

    lines = [f"{name} {counters[name]}" for name in ("read", "applied", "duplicates")]
    return [
        ", ".join(lines),
        f"rejected: {counts(counters['rejected'])}",
        f"changes: {counts(counters['changes'])}",
    ]


def _at(at_us: int | None, rules: Rules) -> str:
    if at_us is None:
        return "-"
    local = (EPOCH + timedelta(microseconds=at_us)).astimezone(ZoneInfo(rules.time_zone))
    return local.isoformat().replace("+00:00", "Z")


def _major(amount_minor: int | None) -> str:
    return _or_dash(None if amount_minor is None else Decimal(amount_minor).scaleb(-2))


def _or_dash(value: object) -> str:
    return "-" if value is None else str(value)
