"""Pictures of movement: Vega specifications of a report's numbers, and of nothing else."""

from collections.abc import Sequence
from typing import Final

from rfmstream.engine.insight.report.model import Report
from rfmstream.engine.insight.report.picture import (
    LABELS_LEFT,
    LITE,
    SHORT,
    WIDTH,
    Picture,
    chart,
    chinese_labels,
    count_axis,
    label,
    month_axis,
    opacity_of,
)
from rfmstream.engine.insight.report.vega import ACCENT, MUTED, PAPER, SECOND, SERIES, Spec
from rfmstream.engine.insight.report.words import NO_TIER, Chinese, number, percent, words

_FLAP_PAIRS: Final = 10


def transitions(report: Report) -> Picture:
    """Draw the matrix of the tiers at two instants; the shade is the share of its row."""
    order: list[str | None] = [tier.id for tier in report.tiers]
    if None not in order:
        order.append(None)
    names = [label(report, tier) for tier in order]
    whole: dict[str | None, int] = {}
    for move in report.transitions.moves:
        whole[move.from_tier] = whole.get(move.from_tier, 0) + move.customers
    values = [
        {
            "from": label(report, move.from_tier),
            "to": label(report, move.to_tier),
            "n": move.customers,
            "share": move.customers / whole[move.from_tier],
            "text": number(move.customers),
        }
        for move in report.transitions.moves
    ]
    place = {
        "x": {
            "field": "to",
            "type": "ordinal",
            "scale": {"domain": names},
            "title": "To",
            "axis": {"labelAngle": -40, "orient": "top"},
        },
        "y": {"field": "from", "type": "ordinal", "scale": {"domain": names}, "title": "From"},
    }
    opacity = {**opacity_of("share"), "scale": {"domain": [0, 1], "range": [0.06, 0.6]}}
    spec = chart(
        values,
        width=58 * len(names),
        padding=LABELS_LEFT,
        height=34 * len(names),
        layer=[
            {"mark": {"type": "rect", "fill": ACCENT}, "encoding": {**place, "fillOpacity": opacity}},
            {"mark": {"type": "text", "fontSize": 11}, "encoding": {**place, "text": {"field": "text"}}},
        ],
    )
    return Picture("transitions", spec, chinese_labels(report))


def flows(report: Report) -> Picture:
    """Draw the changes of each month by what brought them."""
    reasons = list(
        dict.fromkeys(reason.replace("_", " ") for month in report.flows for reason in month.by_reason)
    )
    values = [
        {"month": month.month, "reason": reason.replace("_", " "), "n": count}
        for month in report.flows
        for reason, count in month.by_reason.items()
    ]
    colours = _colours("reason", reasons, SERIES[: len(reasons)])
    spec = chart(
        values,
        width=WIDTH,
        height=240,
        mark={"type": "bar", "stroke": PAPER, "strokeWidth": 0.7},
        encoding={"x": month_axis("month"), "y": count_axis("n", "Changes"), "fill": colours},
    )
    return Picture("flows", spec)


def sizes(report: Report) -> Picture:
    """Draw every tier's size over time, and dashed over the days ahead: a panel each, so no colour has to be told."""
    shown = [
        at for at, tier in enumerate(report.sizes.tiers) if any(row[at] for row in report.sizes.customers)
    ]
    panels = []
    for at in shown:
        past = [
            {"day": day, "n": row[at]}
            for day, row in zip(report.sizes.days, report.sizes.customers, strict=True)
        ]
        future = [
            {"day": day, "n": row[at]} for day, row in zip(report.ahead.days, report.ahead.sizes, strict=True)
        ]
        x = {
            "field": "day",
            "type": "temporal",
            "title": None,
            "axis": {"format": "%Y-%m", "tickCount": 3, "grid": False, "labelFlush": True},
        }
        y = {
            "field": "n",
            "type": "quantitative",
            "title": None,
            "axis": {"tickCount": 3, "labelExpr": SHORT},
        }
        panels.append(
            {
                "title": label(report, report.sizes.tiers[at]),
                "width": 320,
                "height": 90,
                "layer": [
                    {
                        "data": {"values": past},
                        "mark": {
                            "type": "area",
                            "fill": ACCENT,
                            "fillOpacity": 0.25,
                            "line": {"stroke": ACCENT},
                        },
                        "encoding": {"x": x, "y": y},
                    },
                    {
                        "data": {"values": future},
                        "mark": {"type": "line", "stroke": SECOND, "strokeDash": [4, 3]},
                        "encoding": {"x": x, "y": y},
                    },
                ],
            }
        )
    spec = {"$schema": LITE, "concat": panels or [_nothing()], "columns": 2, "spacing": 26}
    return Picture("sizes", spec, chinese_labels(report))


def ahead(report: Report) -> Picture:
    """Draw how many customers leave their tier on each of the days ahead."""
    values = [
        {"day": day, "tier": label(report, tier), "n": row[at]}
        for day, row in zip(report.ahead.days, report.ahead.leaving, strict=True)
        for at, tier in enumerate(report.sizes.tiers)
        if row[at]
    ]
    names = [label(report, tier) for tier in report.sizes.tiers]
    used = [name for name in names if any(value["tier"] == name for value in values)]
    colours = _colours("tier", used, [SERIES[names.index(name) % len(SERIES)] for name in used])
    days = {
        "field": "day",
        "type": "ordinal",
        "title": None,
        "scale": {"domain": list(report.ahead.days)},
        "axis": {"labelAngle": -45, "values": list(report.ahead.days[::10])},
    }
    spec = chart(
        values,
        width=WIDTH,
        height=220,
        mark="bar",
        encoding={"x": days, "y": count_axis("n", "Leaving"), "fill": colours},
    )
    return Picture("ahead", spec, chinese_labels(report))


def flaps(report: Report) -> Picture:
    """Draw the pairs of tiers with the most changes that were undone."""
    chinese = {NO_TIER: words()[NO_TIER], **chinese_labels(report)}
    pairs = report.flaps.pairs[:_FLAP_PAIRS]
    ends = [(label(report, pair.from_tier), label(report, pair.to_tier)) for pair in pairs]
    names = [f"{before} → {after}" for before, after in ends]
    more = {
        f"{before} → {after}": Chinese(*map(" → ".join, zip(chinese[before], chinese[after], strict=True)))
        for before, after in ends
    }
    values = [
        {
            "pair": name,
            "of": of,
            "n": count,
            "text": f"{percent(pair.undone[-1] / pair.changes)}" if of != "Changes" else "",
        }
        for name, pair in zip(names, pairs, strict=True)
        for of, count in (("Changes", pair.changes), ("Undone within 30 days", pair.undone[-1]))
    ]
    y = {"field": "pair", "type": "ordinal", "sort": names, "title": None, "axis": {"labelLimit": 340}}
    offset = {"yOffset": {"field": "of", "sort": ["Changes", "Undone within 30 days"]}}
    fill = {
        "field": "of",
        "type": "nominal",
        "scale": {"domain": ["Changes", "Undone within 30 days"], "range": [ACCENT, SECOND]},
    }
    spec = chart(
        values,
        width=420,
        padding=LABELS_LEFT,
        height={"step": 16},
        layer=[
            {"mark": "bar", "encoding": {"y": y, **offset, "x": count_axis("n", None), "fill": fill}},
            {
                "mark": {"type": "text", "align": "left", "dx": 4, "fontSize": 11},
                "encoding": {"y": y, **offset, "x": count_axis("n", None), "text": {"field": "text"}},
            },
        ],
    )
    return Picture("flaps", spec, more)


def since(report: Report) -> Picture | None:
    """Draw the tiers then and now."""
    if report.since is None:
        return None
    values = [
        {"tier": label(report, tier.id), "of": of, "n": count}
        for tier in report.since.tiers
        for of, count in (("Before", tier.customers_before), ("Now", tier.customers))
    ]
    names = [label(report, tier.id) for tier in report.since.tiers]
    spec = chart(
        values,
        width=440,
        padding=LABELS_LEFT,
        height={"step": 14},
        mark="bar",
        encoding={
            "y": {"field": "tier", "type": "ordinal", "sort": names, "title": None},
            "yOffset": {"field": "of", "sort": ["Before", "Now"]},
            "x": count_axis("n", "Customers"),
            "fill": {
                "field": "of",
                "type": "nominal",
                "scale": {"domain": ["Before", "Now"], "range": [MUTED, ACCENT]},
            },
        },
    )
    return Picture("since", spec, chinese_labels(report))


def _colours(field: str, names: Sequence[str], range_: Sequence[str]) -> Spec:
    """Return a colour for each of a field's values, and the legend that says so."""
    colours = {"field": field, "type": "nominal", "scale": {"domain": list(names), "range": list(range_)}}
    # The legend of no value would have no size, and the picture an endless one.
    return colours if names else colours | {"legend": None}


def _nothing() -> Spec:
    return {"data": {"values": []}, "mark": "bar", "width": 320, "height": 90, "encoding": {}}
