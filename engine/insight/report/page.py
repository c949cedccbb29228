"""The page: one file of pictures and tables that loads nothing and opens from disk.

Its Content-Security-Policy lets in nothing but the one style and the one script it carries, by their hashes.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from html import escape

from rfmstream.engine.insight.report import pictures, tables
from rfmstream.engine.insight.report import pictures_movement as moving
from rfmstream.engine.insight.report.local_time import local_text
from rfmstream.engine.insight.report.model import Report, TierTile
from rfmstream.engine.insight.report.picture import Picture, chinese_label
from rfmstream.engine.insight.report.tables import Table
from rfmstream.engine.insight.report.vega import data_block, draw, for_file, for_page
from rfmstream.engine.insight.report.words import (
    ENGLISH,
    LANGUAGES,
    asset,
    money,
    number,
    percent,
    said,
    same,
    texts,
    worded,
)

_FIGURE_CHARS = 9
"""So many fit beside each other in a figure of ordinary width."""


def page(report: Report, lang: str) -> str:
    """Return a report as HTML.

    In      lang  of LANGUAGES: which is shown first
    """
    style, script = asset("page.css"), asset("page.js")
    views = sections(report)
    contents = "".join(f'<li><a href="#{key}">{title}</a></li>' for key, title, _ in views)
    parts = "".join(section(key, title, body) for key, title, body in views)
    name = texts()["page"]["title"][LANGUAGES.index(lang)]
    title = f"{name} · {report.ruleset} · {report.as_of[:10]}"
    return (
        f'<!DOCTYPE html>\n<html lang="{lang}" data-lang="{lang}" data-theme="light">\n'
        f'<head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy(style, script)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="generator" content="rfmstream"><title>{escape(title)}</title><style>{style}</style></head>\n'
        f'<body>{_header(report)}<nav aria-label="Views" class="contents"><ul>{contents}</ul></nav>'
        f"<main>{parts}</main>{_footer(report)}<script>{script}</script></body></html>\n"
    )


def sections(
    report: Report, *, has_pictures: bool = True, draws: Callable[[str], str] | None = None
) -> list[tuple[str, str, str]]:
    """Return each view's key, its title and what it shows, as HTML.

    has_pictures  False: its table alone
    draws         draws a specification that is JSON; None: `vega.draw`
    """
    return [
        (
            key,
            said(key, "title"),
            _body(report, key, [_figure(picture, draws) for picture in drawn] if has_pictures else [], found),
        )
        for key, drawn, found in _views(report)
    ]


def section(key: str, title: str, body: str) -> str:
    """Return a part of the page."""
    return f'<section id="{key}" aria-labelledby="{key}-title"><h2 id="{key}-title">{title}</h2>{body}</section>\n'


def pictures_as_png(report: Report, lang: str) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the PNG of each picture, in one of LANGUAGES."""
    for picture in (picture for _, drawn, _ in _views(report) for picture in drawn):
        yield picture.name, for_file(draw(picture.spec), {} if lang == ENGLISH else picture.texts_in(lang))


def policy(style: str, script: str, *more: str) -> str:
    """Return a Content-Security-Policy that lets in nothing but one style and one script, and what is named."""
    parts = ("default-src 'none'", f"style-src '{_hash(style)}'", f"script-src '{_hash(script)}'")
    return "; ".join((*parts, *more, "base-uri 'none'", "form-action 'none'"))


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _header(report: Report) -> str:
    exponent = report.currency_exponent
    orders = report.ladders[0]
    figures = (
        (worded("Customers"), number(report.customers)),
        (worded("Orders"), number(report.orders)),
        (f"{worded('Revenue')} {report.currency}", money(report.revenue_minor, exponent)),
        (worded("One-time customers"), percent(orders.one_time_share)),
        (worded("Repeat customers"), percent(orders.repeat_share)),
        (worded("Undone within 30 days"), percent(report.flaps.undone_share[-1])),
    )
    shown = "".join(
        f'<div class="{"wide" if len(value) > _FIGURE_CHARS else "short"}"><dt>{name}</dt><dd>{value}</dd></div>'
        for name, value in figures
    )
    return (
        f"<header><h1>{said('page', 'title')}</h1>"
        f'<p class="muted">{escape(report.ruleset_title or report.ruleset)} ({escape(_short(report.ruleset))}) · '
        f"{said('page', 'as_of')} {_local(report, report.as_of)} ({escape(report.time_zone)})</p>"
        f"{buttons()}"
        f'<dl class="figures">{shown}</dl></header>'
    )


def buttons() -> str:
    """Return what chooses language and theme."""
    return (
        '<div class="bar" role="group" aria-label="Language and theme">'
        '<button type="button" data-lang-button="en" lang="en">English</button>'
        '<button type="button" data-lang-button="zh-Hans" lang="zh-Hans">简体中文</button>'
        '<button type="button" data-lang-button="zh-Hant" lang="zh-Hant">繁體中文</button>'
        f'<button type="button" data-theme-button="light">{worded("Light")}</button>'
        f'<button type="button" data-theme-button="dark">{worded("Dark")}</button>'
        "</div>"
    )


def _footer(report: Report) -> str:
    ids = said("page", "no_ids" if report.listed is None else "has_ids")
    rules = f"{escape(report.ruleset)} {escape(report.fingerprint[:12])}"
    return f"<footer><p>{said('page', 'footer')} {ids}</p><p>{rules}</p></footer>"


def _short(identity: str) -> str:
    """Return a ruleset's identity without what was set for it: the footer has all of it."""
    return identity.partition("[")[0]


def _local(report: Report, instant: str) -> str:
    """Return an instant as the clocks of the ruleset's zone show it."""
    return local_text(instant, report.time_zone)


def _views(report: Report) -> Iterator[tuple[str, list[Picture], Table]]:
    """Yield each view's key in texts.toml, its pictures and its table."""
    yield (
        "tiers",
        [pictures.tiles(report, "customers"), pictures.tiles(report, "revenue_minor")],
        tables.tiers(report),
    )
    if report.listed is not None:
        yield "listed", [], tables.listed(report, report.listed)
    if (since := moving.since(report)) is not None:
        yield "since", [since], tables.since(report)
    yield "grid", [pictures.grid(report)], tables.grid(report)
    for found in report.distributions:
        yield found.measure, [pictures.distribution(report, found)], tables.distribution(report, found)
    yield "months", [pictures.months(report)], tables.months(report)
    yield "bands", [pictures.bands(report)], tables.bands(report)
    yield "pareto", [pictures.pareto(report)], tables.pareto(report)
    yield "ladder", [pictures.ladders(report)], tables.ladders(report)
    yield "transitions", [moving.transitions(report)], tables.transitions(report)
    yield "flows", [moving.flows(report)], tables.flows(report)
    yield "sizes", [moving.sizes(report)], tables.sizes(report)
    yield "ahead", [moving.ahead(report)], tables.ahead(report)
    yield "flaps", [moving.flaps(report)], tables.flaps(report)
    yield "cohorts", [pictures.cohorts(report)], tables.cohorts(report)


def _body(report: Report, key: str, drawn: Sequence[str], found: Table) -> str:
    moves = report.transitions
    text = said(
        *(key, "text"),
        since=_local(report, moves.since),
        until=_local(report, moves.until),
        stayed=number(moves.stayed),
        moved=number(moves.moved),
    )
    if key == "tiers":
        shown = _tiles(*drawn) if drawn else ""
        return f"<p>{text}</p>{shown}{found.html()}{_books(report)}"
    if key == "listed":
        return f"<p>{text}</p>{found.html()}"
    more = _machine(report) if key == "sizes" else ""
    table = f"<details><summary>{worded('Table')}: {found.caption}</summary>{found.html()}</details>"
    return f"<p>{text}</p>{''.join(drawn)}{more}{table}"


def _figure(picture: Picture, draws: Callable[[str], str] | None) -> str:
    drawn = draw(picture.spec) if draws is None else draws(json.dumps(picture.spec))
    svg = for_page(drawn, picture.chinese)
    name = escape(picture.name)
    return f'<figure><div class="scroll" tabindex="0" role="group" aria-label="{name}">{svg}</div></figure>'


def _tiles(by_customers: str, by_revenue: str) -> str:
    return (
        '<div class="bar" role="group" aria-label="Size of tiles">'
        f'<button type="button" data-measure-button="customers" aria-pressed="true">{worded("Customers")}</button>'
        f'<button type="button" data-measure-button="revenue" aria-pressed="false">{worded("Revenue")}</button></div>'
        f'<div data-measure="customers">{by_customers}</div>'
        f'<div data-measure="revenue" class="hidden">{by_revenue}</div>'
    )


def _books(report: Report) -> str:
    return f"<h3>{said('page', 'playbooks')}</h3>" + "".join(map(_book, report.tiers))


def _book(tier: TierTile) -> str:
    book = tier.playbook
    if book is None:
        return ""
    # What a ruleset says in English alone stands in all languages.
    pairs = zip(book.actions, book.actions_zh or book.actions, strict=True)
    actions = "".join(f"<li>{worded(action, same(chinese))}</li>" for action, chinese in pairs)
    audience = worded(book.audience, same(book.audience_zh or book.audience))
    channels = "、".join(book.channels_zh) or ", ".join(book.channels)
    return (
        f"<details><summary>{worded(tier.label_en, chinese_label(tier))} · {escape(book.key)}</summary>"
        f'<div class="book" lang="en"><p>{audience}</p><ul>{actions}</ul>'
        f'<p class="muted">{worded(", ".join(book.channels), same(channels))}</p></div></details>'
    )


def _machine(report: Report) -> str:
    """Return the slider through the days listed and those ahead, and its levels."""
    past, future = report.sizes, report.ahead
    data = data_block(
        {
            "days": [*past.days, *future.days[1:]],
            "customers": [*past.customers, *future.sizes[1:]],
            "last": len(past.days) - 1,
        }
    )
    names = {tier.id: tier for tier in report.tiers}
    levels = "".join(
        f"<div>{worded(names[tier].label_en, chinese_label(names[tier]))}</div>"
        '<div class="track"><div class="fill" data-fill></div></div><div class="count" data-count></div>'
        for tier in past.tiers
    )
    last = len(past.days) - 1
    return (
        f'<div class="machine"><h3><label for="machine">{said("page", "machine")}: <span id="day"></span></label> '
        f'<span id="is-ahead" class="hidden">({said("page", "is_ahead")})</span></h3>'
        f'<input type="range" id="machine" min="0" max="{last + len(future.days) - 1}" value="{last}">'
        f'<div class="levels">{levels}</div></div><script type="application/json" id="sizes-data">{data}</script>'
    )
