"""The table under each picture: the same numbers, to read and to copy."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from rfmstream.engine.insight.report.model import Distribution, ListedCustomer, Report
from rfmstream.engine.insight.report.picture import chinese_label
from rfmstream.engine.insight.report.pictures import (
    bin_label,
    frequency_band,
    money_range,
    recency_band,
)
from rfmstream.engine.insight.report.words import money, number, percent, worded

_SIZE_ROWS_MAX = 60


@dataclass(frozen=True)
class Table:
    """A table: its caption and cells are HTML.

    Fields  columns  heads of columns in English, as the words of texts.toml
            heads    so many of the first columns are heads of their rows
            tiers    heads of the columns after those, as HTML
            words    so many of the last columns hold words
    """

    caption: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    heads: int = 1
    tiers: tuple[str, ...] = ()
    words: int = 0

    def html(self) -> str:
        """Return it as HTML, in a part that scrolls by itself where there is no room."""
        top = "".join(
            f'<th scope="col"{_text_class(at < self.heads or self._is_word(at))}>{name}</th>'
            for at, name in enumerate((*map(worded, self.columns), *self.tiers))
        )
        body = "".join(
            f"<tr>{''.join(self._cell(at, cell) for at, cell in enumerate(row))}</tr>" for row in self.rows
        )
        return (
            f'<div class="scroll" tabindex="0" role="group" aria-label="table"><table><caption>{self.caption}</caption>'
            f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
        )

    def _cell(self, at: int, cell: str) -> str:
        if at < self.heads:
            return f'<th scope="row" class="text">{cell}</th>'
        return f"<td{_text_class(self._is_word(at))}>{cell}</td>"

    def _is_word(self, at: int) -> bool:
        return at >= len(self.columns) + len(self.tiers) - self.words


def _text_class(is_text: bool) -> str:  # noqa: FBT001 - of a column
    return ' class="text"' if is_text else ""


def tier_name(report: Report, tier: str | None) -> str:
    """Return a tier's id and label in all languages."""
    for given in report.tiers:
        if given.id == tier and tier is not None:
            return f"{escape(tier)} {worded(given.label_en, chinese_label(given))}"
    return worded("No tier")


def tiers(report: Report) -> Table:
    """Return the tiers with orders, revenue, averages and playbook."""
    exponent = report.currency_exponent
    rows = [
        (
            tier_name(report, tier.id),
            number(tier.customers),
            percent(tier.customer_share),
            number(tier.orders),
            money(tier.revenue_minor, exponent),
            percent(tier.revenue_share),
            money(tier.average_order_minor, exponent),
            money(tier.average_customer_minor, exponent),
            escape(tier.playbook.key) if tier.playbook else "–",
        )
        for tier in report.tiers
    ]
    columns = ("Tier", "Customers", "Share of customers", "Orders", "Revenue", "Share of revenue")
    caption = f"{worded('Tiers')}, {report.currency}"
    return Table(caption, (*columns, "Average order", "Average customer", "Playbook"), rows, words=1)


def listed(report: Report, customers: Sequence[ListedCustomer]) -> Table:
    """Return customers by id, with R, F and M; an id is a stranger's text, and stays within its cell."""
    exponent = report.currency_exponent
    has_populations = any(customer.population is not None for customer in customers)
    rows = [
        (
            tier_name(report, customer.tier),
            f"<bdi>{escape(customer.customer_id)}</bdi>",
            *((f"<bdi>{escape(customer.population or '–')}</bdi>",) if has_populations else ()),
            number(customer.recency_days),
            number(customer.frequency),
            money(customer.monetary_minor, exponent),
            number(customer.orders),
            money(customer.revenue_minor, exponent),
        )
        for customer in customers
    ]
    names = ("Tier", "Customer", *(("Population",) if has_populations else ()))
    measures = ("Days since the last order", "Orders (F)", "Spend (M)", "Orders", "Revenue")
    caption = f"{worded('Best customers of each tier')}, {report.currency}"
    return Table(caption, (*names, *measures), rows, len(names))


def grid(report: Report) -> Table:
    """Return the R x F grid."""
    rows = [
        (
            escape(f"{cell.r_band} ({recency_band(report, cell.r_band)})"),
            escape(f"{cell.f_band} ({frequency_band(report, cell.f_band)})"),
            number(cell.customers),
            money(cell.monetary_minor, report.currency_exponent),
            money(cell.average_monetary_minor, report.currency_exponent),
        )
        for cell in report.grid
    ]
    return Table(
        worded("R × F, with M"),
        ("R band", "F band", "Customers", "Spend (M)", "Average M"),
        rows,
        2,
    )


def distribution(report: Report, found: Distribution) -> Table:
    """Return the bins of a measure."""
    exponent = report.currency_exponent
    rows = [
        (
            escape(bin_label(found, bin_.low, bin_.high, exponent)),
            number(bin_.customers),
            percent(bin_.customer_share),
            money(bin_.revenue_minor, exponent),
            percent(bin_.revenue_share),
        )
        for bin_ in found.bins
    ]
    first = {"recency": "Days since the last order", "frequency": "Orders (F)", "monetary": "Spend (M)"}[
        found.measure
    ]
    shown = money(found.median, exponent) if found.measure == "monetary" else number(found.median)
    caption = f"{worded('median')} {shown}"
    return Table(caption, (first, "Customers", "Share of customers", "Revenue", "Share of revenue"), rows)


def months(report: Report) -> Table:
    """Return the months."""
    rows = [
        (
            month.month,
            number(month.orders),
            money(month.revenue_minor, report.currency_exponent),
            number(month.buyers),
            number(month.first_orders),
            number(month.last_orders),
        )
        for month in report.months
    ]
    return Table(
        worded("Months"),
        ("Month", "Orders", "Revenue", "Buyers", "First orders", "Newest orders"),
        rows,
    )


def bands(report: Report) -> Table:
    """Return the spend bands."""
    rows = [
        (
            escape(money_range(band.low_minor, band.high_minor, report.currency_exponent)),
            number(band.customers),
            percent(band.customer_share),
            money(band.revenue_minor, report.currency_exponent),
            percent(band.revenue_share),
            percent(band.below_customer_share),
            percent(band.below_revenue_share),
        )
        for band in report.bands
    ]
    columns = ("Spend", "Customers", "Share of customers", "Revenue", "Share of revenue")
    return Table(worded("Spend bands"), (*columns, "Below: customers", "Below: revenue"), rows)


def pareto(report: Report) -> Table:
    """Return the points of the Pareto curve."""
    rows = [
        (
            f"{point.customer_share:.0%}",
            number(point.customers),
            money(point.revenue_minor, report.currency_exponent),
            percent(point.revenue_share),
        )
        for point in report.pareto
    ]
    return Table(worded("Pareto"), ("Best customers", "Customers", "Revenue", "Share of revenue"), rows)


def ladders(report: Report) -> Table:
    """Return the steps of the ladders."""
    rows = [
        (
            worded(f"by {ladder.unit}"),
            str(step.count),
            number(step.customers),
            number(step.repeated),
            percent(step.probability),
        )
        for ladder in report.ladders
        for step in ladder.steps
    ]
    told = "; ".join(
        f"{worded(f'by {ladder.unit}')}: {worded('one-time')} {percent(ladder.one_time_share)}, "
        f"{worded('repeat')} {percent(ladder.repeat_share)}"
        for ladder in report.ladders
    )
    return Table(told, ("Counted", "Bought so often", "Customers", "Came again", "Probability"), rows, 2)


def transitions(report: Report) -> Table:
    """Return who was where and is where."""
    rows = [
        (tier_name(report, move.from_tier), tier_name(report, move.to_tier), number(move.customers))
        for move in report.transitions.moves
    ]
    return Table(worded("From and to"), ("From", "To", "Customers"), rows, 2)


def flows(report: Report) -> Table:
    """Return the changes of each month by reason."""
    reasons = list(dict.fromkeys(reason for month in report.flows for reason in month.by_reason))
    rows = [
        (month.month, number(month.changes), *(number(month.by_reason.get(reason, 0)) for reason in reasons))
        for month in report.flows
    ]
    return Table(
        worded("Tier changes by month"),
        ("Month", "Changes", *(reason.replace("_", " ") for reason in reasons)),
        rows,
    )


def sizes(report: Report) -> Table:
    """Return the tiers' sizes: of a long history every so many days, which all are in the numbers (`--json`)."""
    found = report.sizes
    step = -(-len(found.days) // _SIZE_ROWS_MAX)
    chosen = range((len(found.days) - 1) % step, len(found.days), step)
    rows = [(found.days[at], *map(number, found.customers[at])) for at in chosen]
    return _by_tier(report, worded("Customers at the end of the day"), rows)


def ahead(report: Report) -> Table:
    """Return how many leave each tier on each day ahead."""
    found = report.ahead
    rows = [(day, *map(number, row)) for day, row in zip(found.days, found.leaving, strict=True) if any(row)]
    return _by_tier(report, worded("Leaving each tier on that day"), rows)


def _by_tier(report: Report, caption: str, rows: Sequence[Sequence[str]]) -> Table:
    names = {tier.id: tier for tier in report.tiers}
    heads = tuple(worded(names[tier].label_en, chinese_label(names[tier])) for tier in report.sizes.tiers)
    return Table(caption, ("Day",), rows, tiers=heads)


def flaps(report: Report) -> Table:
    """Return the pairs of tiers whose changes were undone."""
    rows = [
        (
            tier_name(report, pair.from_tier),
            tier_name(report, pair.to_tier),
            number(pair.changes),
            *map(number, pair.undone),
            percent(pair.undone[-1] / pair.changes),
        )
        for pair in report.flaps.pairs
    ]
    undone = tuple(f"Undone within {days} days" for days in report.flaps.within_days)
    told = ", ".join(
        f"{days} {worded('days')}: {percent(share)}"
        for days, share in zip(report.flaps.within_days, report.flaps.undone_share, strict=True)
    )
    return Table(f"{worded('undone within')} {told}", ("From", "To", "Changes", *undone, "Share"), rows, 2)


def cohorts(report: Report) -> Table:
    """Return the cohorts."""
    rows = [
        (
            cohort.month,
            number(cohort.customers),
            number(cohort.repeated),
            percent(cohort.repeat_share),
            number(cohort.recent),
            percent(cohort.recent_share),
            money(cohort.revenue_minor, report.currency_exponent),
            money(cohort.average_customer_minor, report.currency_exponent),
        )
        for cohort in report.cohorts
    ]
    columns = (
        "Month",
        "Customers",
        "Bought again",
        "Share",
        "Recent",
        "Share",
        "Revenue",
        "Average customer",
    )
    return Table(worded("Cohorts by first order"), columns, rows)


def since(report: Report) -> Table:
    """Return the tiers then and now."""
    found = report.since
    assert found is not None, "no earlier report"
    rows = [
        (
            tier_name(report, tier.id),
            number(tier.customers_before),
            number(tier.customers),
            f"{tier.customers - tier.customers_before:+,}",
            money(tier.revenue_minor_before, report.currency_exponent),
            money(tier.revenue_minor, report.currency_exponent),
        )
        for tier in found.tiers
    ]
    money_before, money_now = (
        money(minor, report.currency_exponent) for minor in (found.revenue_minor_before, found.revenue_minor)
    )
    caption = (
        f"{worded('since')} {escape(found.as_of_before)}: "
        f"{worded('Customers')} {number(found.customers_before)} → {number(found.customers)}, "
        f"{worded('Revenue')} {money_before} → {money_now}, {worded('Bought again')} "
        f"{percent(found.repeat_share_before)} → {percent(found.repeat_share)}"
    )
    return Table(caption, ("Tier", "Before", "Now", "Difference", "Revenue", "Revenue"), rows)
