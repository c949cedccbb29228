"""Pictures of the customers as they are: Vega specifications of a report's numbers, and of nothing else."""

from typing import Any, Final

from rfmstream.engine.insight.report.model import Distribution, Report
from rfmstream.engine.insight.report.picture import (
    LITE,
    WIDTH,
    Picture,
    chart,
    chinese_labels,
    count_axis,
    month_axis,
    opacity_of,
    share_axis,
)
from rfmstream.engine.insight.report.vega import ACCENT, CUT, INK, LINE, SECOND, SERIES, Spec
from rfmstream.engine.insight.report.words import money, number, percent

_VEGA: Final = "https://vega.github.io/schema/vega/v6.json"
_TREE: Final = (800, 340)
_COHORTS_DRAWN: Final = 24
_MEASURES: Final = {
    "recency": "Days since the last order",
    "frequency": "Orders (F)",
    "monetary": "Spend (M)",
}


def tiles(report: Report, measure: str) -> Picture:
    """Draw the tiers as tiles by `customers` or `revenue_minor`."""
    share = "customer_share" if measure == "customers" else "revenue_share"
    values: list[dict[str, Any]] = [{"id": "all", "up": None}]
    for at, tier in enumerate(report.tiers):
        if (size := getattr(tier, measure)) > 0:
            amount = number(size) if measure == "customers" else f"{money(size, report.currency_exponent)}"
            values.append(
                {
                    "id": tier.id or "-",
                    "up": "all",
                    "size": float(size),
                    "label": tier.label_en,
                    "amount": amount,
                    "share": percent(getattr(tier, share)),
                    "fill": SERIES[at % len(SERIES)],
                }
            )
    wide = "datum.x1-datum.x0"
    high = "datum.y1-datum.y0"
    label = f"{wide} > 24 + 9 * length(datum.label) && {high} > 26"
    id_ = f"{wide} > 4 + 8 * length(datum.id) && {high} > 16"
    lines = [
        # Where there is no room for the label, the id is what the table below has, too. Even an empty text has a place,
        # by which the picture would grow where it lay beyond the tile.
        (f"{label} ? datum.label : {id_} ? datum.id : ''", f"min(20, ({high}) / 2 + 5)", 14, "bold"),
        (f"{wide} > 60 && {high} > 46 ? datum.share : ''", f"min(40, {high})", 13, "normal"),
        (f"{wide} > 90 && {high} > 64 ? datum.amount : ''", f"min(58, {high})", 12, "normal"),
    ]
    marks: list[Spec] = [
        {
            "type": "rect",
            "from": {"data": "leaves"},
            "encode": {
                "enter": {
                    **{name: {"field": name + "0"} for name in ("x", "y")},
                    **{name + "2": {"field": name + "1"} for name in ("x", "y")},
                    "fill": {"field": "fill"},
                    "fillOpacity": {"value": 0.3},
                    "stroke": {"field": "fill"},
                    "strokeWidth": {"value": 2},
                }
            },
        },
        *(
            {
                "type": "text",
                "from": {"data": "leaves"},
                "encode": {
                    "enter": {
                        "x": {"signal": f"datum.x0 + min(10, ({wide}) / 8)"},
                        "y": {"signal": f"datum.y0 + {down}"},
                        "text": {"signal": text},
                        "fill": {"value": INK},
                        "fontSize": {"value": size},
                        "fontWeight": {"value": weight},
                        "font": {"value": "sans-serif"},
                    }
                },
            }
            for text, down, size, weight in lines
        ),
    ]
    spec = {
        "$schema": _VEGA,
        "width": _TREE[0],
        "height": _TREE[1],
        "padding": 2,
        "data": [
            {
                "name": "tree",
                "values": values,
                "transform": [
                    {"type": "stratify", "key": "id", "parentKey": "up"},
                    {
                        "type": "treemap",
                        "field": "size",
                        "sort": {"field": "value", "order": "descending"},
                        "size": list(_TREE),
                        "paddingInner": 6,
                        "round": True,
                    },
                ],
            },
            {
                "name": "leaves",
                "source": "tree",
                "transform": [{"type": "filter", "expr": "datum.up != null"}],
            },
        ],
        "marks": marks,
    }
    name = "tiers-by-customers" if measure == "customers" else "tiers-by-revenue"
    return Picture(name, spec, chinese_labels(report))


def grid(report: Report) -> Picture:
    """Draw customers and average M of every R and F band."""
    recent = [recency_band(report, band) for band in range(len(report.recency_cuts_days) + 1)]
    frequent = [frequency_band(report, band) for band in range(len(report.frequency_cuts) + 1)]
    values = [
        {
            "r": recent[cell.r_band],
            "f": frequent[cell.f_band],
            "n": cell.customers,
            "customers": number(cell.customers),
            "m": f"M {money(cell.average_monetary_minor, report.currency_exponent)}",
        }
        for cell in report.grid
    ]
    place = {
        "x": {
            "field": "f",
            "type": "ordinal",
            "title": "Orders (F)",
            "sort": frequent,
            "axis": {"labelAngle": 0},
        },
        "y": {"field": "r", "type": "ordinal", "title": "Days since the last order", "sort": recent[::-1]},
    }
    return Picture(
        "r-by-f",
        chart(
            values,
            width=max(300, 120 * len(frequent)),
            height=max(160, 80 * len(recent)),
            layer=[
                {
                    "mark": {"type": "rect", "fill": ACCENT, "stroke": LINE},
                    "encoding": {**place, "fillOpacity": opacity_of("n")},
                },
                {
                    "mark": {"type": "text", "dy": -9, "fontSize": 14, "fontWeight": "bold"},
                    "encoding": {**place, "text": {"field": "customers"}},
                },
                {"mark": {"type": "text", "dy": 11}, "encoding": {**place, "text": {"field": "m"}}},
            ],
        ),
    )


def recency_band(report: Report, band: int) -> str:
    """Return the days of an R band as people read them: ≤ 30, 31–60, > 60."""
    cuts = report.recency_cuts_days
    if not cuts:
        return "≥ 0"
    if band == len(cuts):
        return f"≤ {cuts[0]:,}"
    return f"> {cuts[-1]:,}" if band == 0 else f"{cuts[-band - 1] + 1:,}–{cuts[-band]:,}"


def frequency_band(report: Report, band: int) -> str:
    """Return the orders of an F band as people read them: < 3, 3–4, ≥ 5."""
    cuts = report.frequency_cuts
    if not cuts:
        return "≥ 0"
    if band == 0:
        return f"< {cuts[0]:,}"
    low, high = cuts[band - 1], cuts[band] - 1 if band < len(cuts) else None
    if high is None:
        return f"≥ {low:,}"
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"


def bin_label(found: Distribution, low: int | None, high: int | None, exponent: int) -> str:
    """Return a bin as people read it: 31–40, 7, 1,000.00 and so on."""
    if found.measure == "monetary":
        return money_range(low, None if high is None else high + 1, exponent)
    if low is None or high is None:
        return f"< {high + 1:,}" if high is not None else f"≥ {low or 0:,}"
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"


def money_range(low: int | None, high: int | None, exponent: int) -> str:
    """Return a range of money as people read it, without decimals that are zero."""

    def short(minor: int) -> str:
        return money(minor, exponent).removesuffix("." + "0" * exponent)

    if low is None or high is None:
        return f"< {short(high)}" if high is not None else f"≥ {short(low or 0)}"
    return f"{short(low)}–{short(high)}"


def distribution(report: Report, found: Distribution) -> Picture:
    """Draw how many customers have how much of a measure, with the ruleset's cuts."""
    exponent = report.currency_exponent
    names = [bin_label(found, bin_.low, bin_.high, exponent) for bin_ in found.bins]
    values = [{"bin": name, "n": bin_.customers} for name, bin_ in zip(names, found.bins, strict=True)]
    begins = {cut + 1 if found.measure == "recency" else cut for cut in found.cuts}
    cuts = [{"bin": name} for name, bin_ in zip(names, found.bins, strict=True) if bin_.low in begins]
    x = {
        "field": "bin",
        "type": "ordinal",
        "sort": names,
        "title": _MEASURES[found.measure],
        "axis": {"labelAngle": -45, "labelOverlap": True},
    }
    spec = chart(
        values,
        width=WIDTH,
        height=200,
        layer=[
            {"mark": "bar", "encoding": {"x": x, "y": count_axis("n", "Customers")}},
            {
                "data": {"values": cuts},
                "mark": {"type": "rule", "stroke": CUT, "strokeWidth": 2, "strokeDash": [5, 3]},
                "encoding": {"x": {**x, "bandPosition": 0}},
            },
            {
                "data": {"values": cuts},
                "mark": {
                    "type": "text",
                    "fill": CUT,
                    "align": "left",
                    "dx": 4,
                    "dy": 4,
                    "text": "cut",
                    "baseline": "top",
                },
                "encoding": {"x": {**x, "bandPosition": 0}, "y": {"value": 0}},
            },
        ],
    )
    return Picture(f"distribution-{found.measure}", spec)


def months(report: Report) -> Picture:
    """Draw orders, first orders and newest orders by month."""
    drawn = [("First orders", "first_orders"), ("Newest orders", "last_orders")]
    if report.months and report.months[0].orders is not None:
        drawn.insert(0, ("Orders", "orders"))
    values = [
        {"month": month.month, **{name: getattr(month, name) for _, name in drawn}} for month in report.months
    ]
    spec = {
        "$schema": LITE,
        "data": {"values": values},
        "vconcat": [
            {
                "width": WIDTH,
                "height": 110,
                "title": title,
                "mark": "bar",
                "encoding": {"x": month_axis("month"), "y": count_axis(name, None)},
            }
            for title, name in drawn
        ],
    }
    return Picture("months", spec)


def bands(report: Report) -> Picture:
    """Draw each spend band's share of customers and of revenue."""
    names = [money_range(band.low_minor, band.high_minor, report.currency_exponent) for band in report.bands]
    values = [
        {"band": name, "of": of, "share": share or 0}
        for name, band in zip(names, report.bands, strict=True)
        for of, share in (
            ("Share of customers", band.customer_share),
            ("Share of revenue", band.revenue_share),
        )
    ]
    spec = chart(
        values,
        width=WIDTH,
        height=220,
        mark="bar",
        encoding={
            "x": {
                "field": "band",
                "type": "ordinal",
                "sort": names,
                "title": "Spend",
                "axis": {"labelAngle": -35},
            },
            "xOffset": {"field": "of"},
            "y": share_axis("share", None),
            "fill": {
                "field": "of",
                "type": "nominal",
                "scale": {"domain": ["Share of customers", "Share of revenue"], "range": [ACCENT, SECOND]},
            },
        },
    )
    return Picture("spend-bands", spec)


def pareto(report: Report) -> Picture:
    """Draw which share of the revenue the best customers bring, with the mark at a fifth of them."""
    values = [{"c": 0.0, "r": 0.0}] + [
        {"c": point.customer_share, "r": point.revenue_share or 0} for point in report.pareto
    ]
    fifth = [
        {
            "c": point.customer_share,
            "r": point.revenue_share or 0,
            "text": f"20% → {percent(point.revenue_share)}",
        }
        for point in report.pareto
        if point.customer_share == 0.2
    ]
    x, y = share_axis("c", "Best customers"), share_axis("r", "Share of revenue")
    spec = chart(
        values,
        width=420,
        height=260,
        layer=[
            {"mark": {"type": "line", "stroke": ACCENT, "strokeWidth": 2.5}, "encoding": {"x": x, "y": y}},
            {
                "data": {"values": fifth},
                "mark": {"type": "point", "fill": SECOND, "stroke": SECOND, "size": 70},
                "encoding": {"x": x, "y": y},
            },
            {
                "data": {"values": fifth},
                "mark": {"type": "text", "align": "left", "dx": 10, "dy": 10},
                "encoding": {"x": x, "y": y, "text": {"field": "text"}},
            },
        ],
    )
    return Picture("pareto", spec)


def ladders(report: Report) -> Picture:
    """Draw how likely the next order is after so many."""
    values = [
        {
            "unit": f"by {ladder.unit}",
            "k": step.count,
            "p": step.probability or 0,
            "text": f"{step.probability or 0:.1%}",
        }
        for ladder in report.ladders
        for step in ladder.steps
    ]
    again = {**share_axis("p", "Came again"), "scale": {"domain": [0, 1.1]}}
    x = {"field": "k", "type": "ordinal", "title": "Bought so often", "axis": {"labelAngle": 0}}
    spec = {
        "$schema": LITE,
        "data": {"values": values},
        "facet": {
            "row": {"field": "unit", "title": None, "header": {"labelOrient": "top", "labelAnchor": "start"}}
        },
        "spec": {
            "width": WIDTH,
            "height": 130,
            "layer": [
                {"mark": "bar", "encoding": {"x": x, "y": again}},
                {
                    "mark": {"type": "text", "dy": -7},
                    "encoding": {"x": x, "y": again, "text": {"field": "text"}},
                },
            ],
        },
    }
    return Picture("ladder", spec)


def cohorts(report: Report) -> Picture:
    """Draw each cohort's share of customers who ordered again in later months, or who ever did."""
    drawn = report.cohorts[-_COHORTS_DRAWN:]
    if drawn and drawn[0].active is not None:
        values = [
            {
                "month": cohort.month,
                "since": since,
                "share": count / cohort.customers,
                "text": f"{count / cohort.customers:.0%}",
            }
            for cohort in drawn
            for since, count in enumerate(cohort.active or ())
            if since <= 18
        ]
        place = {
            "x": {
                "field": "since",
                "type": "ordinal",
                "title": "Months since the first order",
                "axis": {"orient": "top", "labelAngle": 0},
            },
            "y": {"field": "month", "type": "ordinal", "title": None},
        }
        opacity = {
            "field": "share",
            "type": "quantitative",
            "scale": {"type": "sqrt", "domain": [0, 1], "range": [0.04, 0.6]},
            "legend": None,
        }
        layers = [
            {"mark": {"type": "rect", "fill": ACCENT}, "encoding": {**place, "fillOpacity": opacity}},
            {"mark": {"type": "text", "fontSize": 10}, "encoding": {**place, "text": {"field": "text"}}},
        ]
        return Picture("cohorts", chart(values, width={"step": 34}, height={"step": 22}, layer=layers))
    values = [{"month": cohort.month, "share": cohort.repeat_share or 0} for cohort in drawn]
    spec = chart(
        values,
        width=WIDTH,
        height=200,
        mark="bar",
        encoding={"x": month_axis("month"), "y": share_axis("share", "Bought again")},
    )
    return Picture("cohorts", spec)
