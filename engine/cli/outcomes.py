"""`rfmstream outcomes`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from rfmstream.engine.cli.options import (
    FILE,
    SUFFIXES,
    chosen_ruleset,
    csv_safe_option,
    memory_option,
    ruleset_options,
)
from rfmstream.engine.cli.spans import SPAN, span_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pyarrow as pa

    from rfmstream.engine.insight.outcomes import Arm, Outcome, Outcomes
    from rfmstream.engine.insight.purchases import Purchases
    from rfmstream.schemas.mapping import InputMap
    from rfmstream.schemas.ruleset import Ruleset

_DAY_US = 86_400_000_000


@click.command(
    short_help="Did acting help? Who bought after a tier change, a signal or a campaign.",
    epilog=f"""
\b
Examples:
  # of those who entered each tier: who bought within 30 days, and for how much
  rfmstream outcomes changes.parquet orders.parquet
  # the same two weeks after each signal, too
  rfmstream outcomes changes.parquet orders.parquet --signals signals.parquet --within 14d
  # response and conversion of the campaigns that a mailing system exported
  rfmstream outcomes changes.parquet orders.parquet --contacts sent.csv --out outcomes.parquet

\b
What is counted: an entry is one tier change or signal. Its window begins after its instant (the order that brought a
change about counts for nothing) and ends --within later. A purchase is an order that was not voided, with what is left
of its amount. A customer is counted once a tier, by the first entry. Entries whose window is still open at the end of
ORDERS are left out, because their customers still may buy.

\b
Holdout: where the ruleset holds customers out (holdout in its playbooks), they stand beside the treated ones, with the
difference of the two shares and its 95 % interval (Newcombe's). An interval that holds 0 shows no effect.

\b
--contacts has the columns customer_id, campaign, contacted_at and, where it is known, responded_at. Response: contacts
answered within the window, as responded_at says, or else by a purchase. Conversion: customers who bought in it.

\b
FILE's suffix chooses the format: {SUFFIXES}.
Exit codes: 0 done · 2 usage or configuration · 3 a file cannot be read
""",
)
@click.argument("changes", metavar="CHANGES", type=FILE)
@click.argument("orders", metavar="ORDERS...", nargs=-1, required=True, type=FILE)
@click.option("--map", "map_name", metavar="NAME|FILE", help="Input map of the orders: rfmstream maps list.")
@click.option(
    "--within", metavar="SPAN", type=SPAN, default="30d", show_default=True, help="Window: 30d, 12h, 45m."
)
@click.option("--signals", metavar="FILE", type=FILE, help="Signals of the same run, to be measured as well.")
@click.option("--contacts", metavar="FILE", type=FILE, help="Contacts of campaigns, to be measured as well.")
@click.option("--include-open", is_flag=True, help="Count entries whose window is still open, too.")
@ruleset_options("the built-in the changes name; give the FILE if it was your own")
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object, nothing else; money in minor units."
)
@click.option("--out", metavar="FILE", type=FILE, help="Write the outcomes as a table, too.")
@memory_option
@csv_safe_option
def outcomes(
    *,
    changes: Path,
    orders: tuple[Path, ...],
    map_name: str | None,
    within: int,
    signals: Path | None,
    contacts: Path | None,
    include_open: bool,
    ruleset: str | None,
    time_zone: str | None,
    currency: str | None,
    as_json: bool,
    out: Path | None,
) -> None:
    """Tell what customers did after they entered a tier, after a signal, or after a campaign reached them.

    CHANGES is a file of rfmstream replay --changes, ORDERS are the orders of that time and after it, as for replay.
    """
    from rfmstream.engine.cli.show import print_json
    from rfmstream.engine.files.mapping import load_map
    from rfmstream.engine.files.output import check_outputs, write_table
    from rfmstream.engine.files.own_tables import read_fields
    from rfmstream.engine.insight.contacts import read_contacts
    from rfmstream.engine.insight.flaps import count_flaps
    from rfmstream.engine.insight.outcomes import (
        CHANGE_FIELDS,
        SIGNAL_FIELDS,
        Outcome,
        Outcomes,
        Response,
        Window,
        outcome_table,
    )
    from rfmstream.schemas.changes import CHANGE_SCHEMA
    from rfmstream.schemas.ruleset_identity import ruleset_of

    if out is not None:
        given = [path for path in (changes, *orders, signals, contacts) if path is not None]
        check_outputs([out], given)
    input_map = None if map_name is None else load_map(map_name)
    table = read_fields(
        changes,
        (*CHANGE_FIELDS, CHANGE_SCHEMA.field("ruleset")),
        what="tier changes",
        fix="name a file of replay --changes",
    )
    identity = table["ruleset"][-1].as_py() if table.num_rows else "rfm8"
    own = ruleset_of(identity)
    rules = chosen_ruleset(ruleset, time_zone, currency, default=own.name if own else "rfm8") or own
    purchases = _purchases(orders, input_map, rules)
    window = Window(purchases, within, is_open_kept=include_open)
    of_tiers = window.of_changes(table)
    of_signals: tuple[Outcome, ...] = ()
    if signals is not None:
        of_signals = window.of_signals(
            read_fields(signals, SIGNAL_FIELDS, what="signals", fix="name a file of replay --signals")
        )
    of_contacts: tuple[Response, ...] = ()
    if contacts is not None:
        sent = read_contacts(contacts, time_zone=rules.time_zone if rules else "UTC")
        of_contacts = window.of_contacts(sent, table)
    flaps = count_flaps(table, within // _DAY_US) if within >= _DAY_US else None
    found = Outcomes(within, window.until_us, window.left_out, of_tiers, of_signals, of_contacts, flaps)
    if out is not None:
        write_table(out, outcome_table(found))
    if as_json:
        document = {"ruleset": identity, "currency": rules.currency if rules else None, **found.as_dict()}
        print_json(document)
    else:
        _print(found, identity, rules)


def _purchases(
    orders: tuple[Path, ...], input_map: "InputMap | None", rules: "Ruleset | None"
) -> "Purchases":
    from rfmstream.engine.files.source import open_orders
    from rfmstream.engine.insight.purchases import Purchases

    refused = 0

    def batches() -> "Iterable[pa.RecordBatch]":
        nonlocal refused
        currency, zone = (rules.currency, rules.time_zone) if rules else ("CNY", None)
        for batch, rejected in open_orders(orders, input_map=input_map, currency=currency, time_zone=zone):
            refused += rejected.num_rows
            yield batch

    found = Purchases.of(batches(), rules)
    if refused:
        click.echo(f"{refused:,} rows of the orders are rejected (rfmstream replay tells why)", err=True)
    return found


def _print(found: "Outcomes", identity: str, rules: "Ruleset | None") -> None:
    from rfmstream.engine.cli.show import money, print_columns
    from rfmstream.engine.events.instants import to_text

    labels = {tier.id: tier.label_en for tier in rules.tiers} if rules else {}
    exponent = rules.currency_exponent if rules else 0
    unit = rules.currency if rules else "minor"
    has_holdout = any(outcome.held.entries for outcome in (*found.tiers, *found.signals))

    def revenue(arm: "Arm") -> str:
        each = arm.revenue_per_customer_minor
        return "-" if each is None else money(round(each), exponent)

    def numbers(outcome: "Outcome") -> list[str]:
        arms = (outcome.treated, outcome.held) if has_holdout else (outcome.treated,)
        cells = []
        for arm in arms:
            cells += [f"{arm.customers:,}", f"{arm.bought:,}", _percent(arm.rate), revenue(arm)]
        return [*cells, _difference(outcome)] if has_holdout else cells

    def tier_name(tier: str | None) -> str:
        return "no tier" if tier is None else f"{tier} {labels.get(tier, '')}".rstrip()

    arm_names = ("customers", "bought", "share", f"{unit} a customer")
    names = (*arm_names, *(f"held out: {name}" for name in arm_names), "difference, 95 %")
    names = names if has_holdout else arm_names
    several_views = len({outcome.view for outcome in found.tiers}) > 1

    def view_of(outcome: "Outcome") -> list[str]:
        return [outcome.view or "-"] if several_views else []

    views = ["view"] if several_views else []
    click.echo(
        f"within {span_text(found.within_us)} of each entry, by {identity}; orders up to {to_text(found.until_us)}"
        + (f"; {found.left_out:,} entries left out, whose windows are still open" if found.left_out else "")
    )
    print_columns(
        (*views, "tier entered", *names),
        [(*view_of(outcome), tier_name(outcome.tier), *numbers(outcome)) for outcome in found.tiers],
    )
    if found.signals:
        print_columns(
            (*views, "signal", "tier", *names),
            [
                (
                    *view_of(outcome),
                    str(outcome.kind),
                    "any" if outcome.tier is None else tier_name(outcome.tier),
                    *numbers(outcome),
                )
                for outcome in found.signals
            ],
        )
    if found.contacts:
        print_columns(
            ("campaign", "tier then", "contacts", "response", "customers", "bought", "conversion"),
            [
                (
                    each.campaign,
                    tier_name(each.tier),
                    f"{each.contacts:,}",
                    _percent(each.response_rate),
                    f"{each.customers:,}",
                    f"{each.bought:,}",
                    _percent(each.conversion_rate),
                )
                for each in found.contacts
            ],
        )
    if found.flaps is not None and found.flaps.changes:
        most = found.flaps.pairs[0]
        click.echo(
            f"{found.flaps.undone:,} of {found.flaps.changes:,} changes ({_percent(found.flaps.share)}) were undone"
            f" within {found.flaps.within_days} days"
            + (
                f", most of them {most.from_tier or 'no tier'} → {most.to_tier or 'no tier'}:"
                f" {most.undone:,} of {most.changes:,}"
                if most.undone
                else ""
            )
        )


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _difference(outcome: "Outcome") -> str:
    if outcome.difference is None:
        return "-"
    return f"{outcome.difference:+.1%} ({outcome.low:+.1%} to {outcome.high:+.1%})"
