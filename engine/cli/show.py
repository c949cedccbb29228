"""What commands print for people, as rich tables, and for programs, as one JSON object."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import product
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

import click
import orjson
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rfmstream.engine.cli.hints import hints
from rfmstream.engine.events.instants import to_text
from rfmstream.engine.replay.summary import Summary, in_order
from rfmstream.schemas.changes import CHANGE_REASONS
from rfmstream.schemas.currencies import CURRENCY_EXPONENTS
from rfmstream.schemas.errors import printable, printable_json
from rfmstream.schemas.orders import REJECTION_REASONS
from rfmstream.schemas.plan import View
from rfmstream.schemas.ruleset import Ruleset, Tier
from rfmstream.schemas.signals import SIGNAL_KINDS

if TYPE_CHECKING:
    from rfmstream.engine.replay.timeline import Timeline  # loads what reads folders, which few commands do

_WIDTH_ELSEWHERE: Final = 120
_WIDTH_UNBOUNDED: Final = 10_000
"""Columns when stdout is no terminal."""

_WIDTH_WIDE: Final = 112
"""Columns from which on the table of tiers has room for both labels."""

_COMBINATIONS_LISTED: Final = 4

_WHY: Final = {
    "first_order": "first order {order_id}",
    "order": "order {order_id}",
    "refund": "refund of order {order_id}",
    "cancellation": "order {order_id} cancelled",
    "adjustment": "adjustment {order_id}",
    "recency_expired": "no longer recent",
    "window_expired": "orders left the window",
    "rules_changed": "the rules changed",
    "erased": "erased",
}


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON object on stdout."""
    click.echo(printable_json(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()))


def print_columns(names: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a plain table of text."""
    table = Table(box=box.SIMPLE_HEAD)
    for name in names:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console = _console()
    if not console.is_terminal:
        # Whoever searches a file or a pipe for a name finds it in one piece.
        unbounded = console.options.update(max_width=_WIDTH_UNBOUNDED)
        console.width = max(console.width, console.measure(table, options=unbounded).maximum)
    console.print(table)


def print_table(table: Table) -> None:
    """Print a table that somebody else has made."""
    _console().print(table)


def print_view(view: View, populations: int | None) -> None:
    """Print the heading of a view: its name, which events are its own, and how many populations they have."""
    where = " and ".join(f"{name} is {' or '.join(values)}" for name, values in view.where)
    parts = [f"where {where}"] if where else []
    if populations is not None:
        parts.append(f"per {view.per}: {populations:,} of them")
    if view.shadow:
        parts.append("shadow: for nobody to act on")
    line = Text(f"view {view.name}", style="bold")
    _console().print(
        line.append(f" · {' · '.join(parts)}" if parts else "", style="not bold"), soft_wrap=True
    )


def print_summary(summary: Summary) -> None:
    """Print the closing summary of a replay."""
    rows, exponent = summary.rows, summary.ruleset.currency_exponent
    rejected = sum(rows.rejected.values())
    console = _console()
    _print_left_out(console, summary)
    console.print(
        f"[bold]{rows.read:,}[/] rows read = {rows.applied:,} applied + {rows.duplicates:,} duplicates"
        f" + {rejected:,} rejected{_listed(in_order(rows.rejected, REJECTION_REASONS))}"
    )
    if rows.rejected.get("currency_mismatch"):
        console.print(f"  the ruleset counts in {summary.ruleset.currency}; --currency makes it another one")
    if rows.rejected.get("unknown_order") and (days := summary.ruleset.forget_orders_after_days) is not None:
        console.print(
            f"  unknown_order: the ruleset forgets orders after {days:,} days; what repeats or refunds one that is "
            "older comes too late",
            soft_wrap=True,
        )
    if rows.rejected.get("no_rate"):
        console.print(
            "  no_rate: the rates have no such day, or it is a refund and the input does not hold its order: "
            "replay both together, an order that was applied before only lends its rate",
            soft_wrap=True,
        )
    for hint in hints(summary.rejected):
        console.print(Text(f"  {hint}"), soft_wrap=True)
    changes = in_order(rows.changes, CHANGE_REASONS)
    console.print(f"[bold]{sum(changes.values()):,}[/] tier changes{_listed(changes)}")
    if summary.ruleset.asks_signals:
        signals = in_order(rows.signals, SIGNAL_KINDS)
        console.print(f"[bold]{sum(signals.values()):,}[/] signals{_listed(signals)}")
    console.print(_tier_table(summary, exponent, is_wide=console.width >= _WIDTH_WIDE))
    console.print(
        f"{_memory_of(summary)} {summary.memory_bytes_total / 1e6:,.1f} MB: "
        f"{_bytes(summary.bytes_per_customer)} a customer, "
        f"{_bytes(summary.bytes_per_order)} a retained order, {summary.memory_bytes['ids'] / 1e6:,.1f} MB of ids"
        f" · {summary.elapsed_s:,.1f} s · {summary.rows_per_s:,.0f} orders/s"
    )
    for path, count in summary.files.items():
        console.print(Text(f"wrote {count:,} rows: {path}"), soft_wrap=True)


def _memory_of(summary: Summary) -> str:
    return (
        "memory" if summary.parts is None else f"replayed in {summary.parts} parts on disk, a state in all of"
    )


def _print_left_out(console: Console, summary: Summary) -> None:
    """Print what did not come to be counted as it stands: by the map, by --until, or as others are alike."""
    rows = summary.rows
    if summary.input_rows != rows.read:
        by_map = f", {summary.rows_excluded:,} of them left out by the map" if summary.rows_excluded else ""
        after_until = (
            f", {summary.rows_after_until:,} left out by --until" if summary.rows_after_until else ""
        )
        console.print(f"{summary.input_rows:,} input rows{by_map}{after_until} → {rows.read:,} order events")
    if summary.lines_repeated:
        console.print(f"  {summary.lines_repeated:,} lines repeat one of an earlier file and count once")
    if summary.sheets_unread:
        console.print(
            Text.assemble(
                (f"{len(summary.sheets_unread):,} sheets were not read", "bold yellow"),
                f", {', '.join(summary.sheets_unread)} · a map names one in [input] sheet",
            ),
            soft_wrap=True,
        )
    if summary.alike:
        console.print(
            f"[bold yellow]{summary.alike:,} refunds or adjustments[/] are like another one in customer, order, time "
            "and amount, and have no event_id: they count once · give an event_id where they are two",
            soft_wrap=True,
        )
    for why, left_out in summary.excluded:
        if left_out:
            console.print(Text(f"  {left_out:,} left out: {why}"), soft_wrap=True)
    if summary.rows_ahead:
        console.print(
            f"[bold red]{summary.rows_ahead:,} rows are dated after now[/], "
            f"the newest {to_text(summary.newest_ahead_us)}: they let everybody age · --until INSTANT leaves them out"
        )


def _tier_table(summary: Summary, exponent: int, *, is_wide: bool) -> Table:
    table = Table(
        # Text, because the brackets of an identity would be read as markup.
        title=Text(f"{summary.ruleset.identity} as of {to_text(summary.as_of_us)}"),
        caption="orders and revenue over each customer's lifetime, refunds taken off; average: revenue an order",
        box=box.SIMPLE_HEAD,
        padding=(0, 1) if is_wide else (0, 0),
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("tier", no_wrap=True)
    table.add_column("label")
    # Where room is short the labels are broken, never a number.
    for name in ("customers", "share", "orders", f"revenue {summary.ruleset.currency}", "share", "average"):
        table.add_column(name, justify="right", no_wrap=True)
    for tier in summary.tiers:
        average = tier.average_order_minor
        table.add_row(
            Text(tier.id or "-"),
            Text(f"{tier.label_zh} {tier.label_en}" if is_wide else tier.label_en),
            f"{tier.customers:,}",
            _percent(tier.customer_share),
            f"{tier.orders:,}",
            money(tier.revenue_minor, exponent),
            _percent(tier.revenue_share),
            "-" if average is None else money(average, exponent),
        )
    return table


def print_rulesets(rulesets: Iterable[Ruleset]) -> None:
    """Print a line a ruleset."""
    print_columns(
        ("name", "R cuts, days", "F cuts", "M cuts", "window", "tiers", "title"),
        [
            (
                ruleset.name,
                _numbers(ruleset.recency_cuts_days),
                _numbers(ruleset.frequency_cuts),
                _money_cuts(ruleset),
                _window(ruleset),
                str(len(ruleset.tiers)),
                ruleset.title,
            )
            for ruleset in rulesets
        ],
    )


def print_ruleset(ruleset: Ruleset, lang: str = "en") -> None:
    """Print everything a ruleset says; its playbooks in `lang`, en, zh-Hans or zh-Hant, as far as they are in it."""
    console = _console()
    days = "calendar days" if ruleset.day_unit == "calendar_day" else "spans of 24 hours"
    facts = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in (
        ("identity", ruleset.identity),
        ("title", ruleset.title),
        ("source", ruleset.source),
        ("R cuts", f"{_numbers(ruleset.recency_cuts_days)} days since the last payment"),
        ("F cuts", f"{_numbers(ruleset.frequency_cuts)} orders"),
        ("M cuts", f"{_money_cuts(ruleset)} {ruleset.currency}"),
        ("window", f"F and M over {_window(ruleset)}"),
        ("forgets", _forgets(ruleset)),
        ("days", f"{days}, {ruleset.time_zone}"),
        ("fingerprint", ruleset.fingerprint),
    ):
        facts.add_row(name, Text(value))
    console.print(facts)
    for name, value in _signals_asked(ruleset):
        console.print(Text(f"{name}  {value}"))
    tiers = Table("tier", "label", "bands R F M", box=box.SIMPLE_HEAD)
    for code, tier in enumerate(ruleset.tiers):
        tiers.add_row(Text(tier.id), Text(f"{tier.label_zh} {tier.label_en}"), _combinations(ruleset, code))
    console.print(tiers)
    for tier in ruleset.tiers:
        _print_playbook(console, tier, lang)


def _signals_asked(ruleset: Ruleset) -> list[tuple[str, str]]:
    """Say in words what signals a ruleset asks for."""
    exponent, asked = ruleset.currency_exponent, []
    for tier in ruleset.tiers:
        if tier.warn_days:
            asked.append(("signal", f"{tier.id}: warning {_numbers(tier.warn_days)} days before it is lost"))
        if tier.dwell_days:
            asked.append(("signal", f"{tier.id}: dwell after {_numbers(tier.dwell_days)} days in it"))
        if tier.playbook.holdout_parts is not None:
            share = f"{tier.playbook.holdout_parts / 100:g} %"
            asked.append(("holdout", f"{tier.id}: {share} of the customers by playbook {tier.playbook.key}"))
    made = ruleset.milestones
    if made.orders:
        asked.append(("signal", f"orders {_numbers(made.orders)} of a customer"))
    for name, cuts in (("spend", made.spend_minor), ("single_order", made.single_order_minor)):
        if cuts:
            amounts = ", ".join(money(cut, exponent) for cut in cuts)
            asked.append(("signal", f"{name} of {amounts} {ruleset.currency}"))
    return asked


def _print_playbook(console: Console, tier: Tier, lang: str) -> None:
    book, is_zh = tier.playbook, lang != "en"
    audience = (is_zh and book.audience_zh) or book.audience
    label = tier.label_zh if is_zh else tier.label_en
    console.print(Text(f"{tier.id} {label}", style="bold"), Text(f"· {audience}"))
    for action in (is_zh and book.actions_zh) or book.actions:
        console.print(Text(f"  - {action}"))
    via = (
        f"渠道 {'、'.join(book.channels_zh)}"
        if is_zh and book.channels_zh
        else f"via {', '.join(book.channels)}"
    )
    console.print(Text(f"  {via}"))


def _combinations(ruleset: Ruleset, code: int) -> str:
    """Tell which combinations of bands lead to a tier, or how many where they are many."""
    found = []
    for r, f, m in product(*map(range, ruleset.lookup.shape[1:])):
        is_later, is_first = (int(ruleset.lookup[axis, r, f, m]) == code for axis in (0, 1))
        if is_later or is_first:
            note = "" if is_later and is_first else " first order" if is_first else " not the first order"
            found.append(f"{r}{f}{m}{note}")
    if len(found) > _COMBINATIONS_LISTED:
        return f"{len(found)} combinations"
    return ", ".join(found) or "none"


def view_words(event: Mapping[str, Any]) -> str:
    """Return what stands before an event of a view, and of a population; nothing for a ruleset's only view."""
    view, population = event.get("view"), event.get("population")
    if population is None and (view is None or view == re.split(r"[\[@]", event["ruleset"])[0]):
        return ""
    return f"{view}, " if population is None else f"{view}, {population}, "


def change_line(change: Mapping[str, Any], zone: str) -> str:
    """Write a tier change, as its JSON event has it, in one line; times in `zone`."""
    before, after = (
        _tier_name(change[name], {change[name]: change[f"{name}_en"] or ""})
        for name in ("from_tier", "to_tier")
    )
    amount = money(change["monetary_minor"], CURRENCY_EXPONENTS[change["currency"]])
    mode = "" if change["mode"] == "live" else f"  ({change['mode']})"
    return printable(
        f"{local_time(datetime.fromisoformat(change['effective_at']), zone, 'seconds')}  "
        f"{view_words(change)}customer {change['customer_id']}: {before} → {after}  "
        f"({_why(change)}; {_orders(change['frequency'])}, "
        f"{amount} {change['currency']}){mode}"
    )


def print_timeline(story: "Timeline", ruleset: Ruleset | None, limit: int) -> None:
    """Print the newest `limit` changes of a customer, oldest first."""
    zone = ruleset.time_zone if ruleset else "UTC"
    labels = {tier.id: tier.label_en for tier in ruleset.tiers} if ruleset else {}
    console = _console()
    shown = story.changes[-limit:]
    table = Table(
        title=Text(
            f"Customer {printable(story.customer_id)}: {len(shown)} of {len(story.changes)} tier changes "
            f"by {story.identity}"
        ),
        caption=f"times in {zone}; orders and amount as the ruleset's window counts them",
        box=box.SIMPLE_HEAD,
        padding=(0, 1) if console.width >= _WIDTH_WIDE else (0, 0),
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("when", no_wrap=True)
    table.add_column("tier", overflow="fold")
    table.add_column("why", overflow="fold")
    table.add_column("RFM", no_wrap=True)
    table.add_column("orders", justify="right", no_wrap=True)
    table.add_column(f"amount {ruleset.currency if ruleset else 'minor'}", justify="right", no_wrap=True)
    table.add_column("next if no order", overflow="fold")
    for change in shown:
        amount = change["monetary_minor"]
        table.add_row(
            str(change["seq"]),
            local_time(change["effective_at"], zone),
            Text(_tier_name(change["to_tier"], labels)),
            Text(_why(change)),
            f"{change['r_band']}{change['f_band']}{change['m_band']}",
            f"{change['frequency']:,}",
            money(amount, ruleset.currency_exponent) if ruleset else f"{amount:,}",
            Text(_next(change, zone)),
        )
    console.print(table)


def _why(change: Mapping[str, Any]) -> str:
    return printable(_WHY[change["reason"]].format(order_id=change["order_id"]))


def _next(change: Mapping[str, Any], zone: str) -> str:
    if change["next_change_at"] is None:
        return "stays"
    return f"{change['next_tier'] or 'no tier'} {local_time(change['next_change_at'], zone)[:10]}"


def _tier_name(tier_id: str | None, labels: Mapping[str, str]) -> str:
    return "no tier" if tier_id is None else f"{tier_id} {labels.get(tier_id, '')}".rstrip()


def local_time(moment: datetime, zone: str, timespec: str = "minutes") -> str:
    """Write an instant as the clocks of a time zone show it."""
    try:
        return moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None).isoformat(" ", timespec)
    except OverflowError:  # the zone's clocks are in a year before the first or after the last already
        return f"{moment.replace(tzinfo=None).isoformat(' ', timespec)} UTC"


def _orders(count: int) -> str:
    return f"{count:,} order" if count == 1 else f"{count:,} orders"


def money(amount_minor: int, exponent: int) -> str:
    """Write minor units as major ones, digit by digit: 123456 with exponent 2 is 1,234.56."""
    major, minor = divmod(abs(amount_minor), 10**exponent)
    sign = "-" if amount_minor < 0 else ""
    return f"{sign}{major:,}" + (f".{minor:0{exponent}d}" if exponent else "")


def _listed(counts: Mapping[str, int]) -> str:
    words = ", ".join(f"{word} {count:,}" for word, count in counts.items())
    return f" ({words})" if words else ""


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _bytes(count: float | None) -> str:
    return "-" if count is None else f"{count:,.0f} bytes"


def _numbers(cuts: Iterable[int]) -> str:
    return ", ".join(f"{cut:,}" for cut in cuts) or "none"


def _money_cuts(ruleset: Ruleset) -> str:
    return ", ".join(money(cut, ruleset.currency_exponent) for cut in ruleset.monetary_cuts_minor) or "none"


def _window(ruleset: Ruleset) -> str:
    return "a lifetime" if ruleset.window_days is None else f"{ruleset.window_days} days"


def _forgets(ruleset: Ruleset) -> str:
    days = ruleset.forget_orders_after_days
    return "no order" if days is None else f"orders after {days:,} days, but for their sums"


def _console() -> Console:
    # Elsewhere than on a terminal rich assumes 80 columns and would break the tables of a log file.
    elsewhere = not Console().is_terminal and "COLUMNS" not in os.environ
    return Console(width=_WIDTH_ELSEWHERE if elsewhere else None, highlight=False)
