"""The live page: its shell, which follows a worker, and the pictures it asks for again and again.

A picture is drawn only where its numbers have changed.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

import pyarrow as pa

from rfmstream.engine.events.instants import to_text
from rfmstream.engine.insight.report import page as report_page
from rfmstream.engine.insight.report.build import SINCE_DAYS, assemble
from rfmstream.engine.insight.report.local_time import DAY_US
from rfmstream.engine.insight.report.page import policy, section, sections
from rfmstream.engine.insight.report.sources import changes_of, snapshot_of
from rfmstream.engine.insight.report.vega import check_renderer, data_block, draw
from rfmstream.engine.insight.report.warm import warm_up
from rfmstream.engine.insight.report.words import ENGLISH, asset, said, texts, words
from rfmstream.schemas.codes import NEVER_US
from rfmstream.schemas.errors import ConfigError, InputError
from rfmstream.schemas.ruleset import Ruleset

_SOURCE: Final = Path("worker")
_DRAWN_MAX: Final = 64


class LivePage:
    """Makes the page and its parts; from any thread.

    In      lang  of LANGUAGES: which is shown first
    """

    def __init__(self, lang: str = ENGLISH) -> None:
        self._lang = lang
        self._draw = lru_cache(_DRAWN_MAX)(_drawn)

    @staticmethod
    def warm_up() -> None:
        """Have compiled what pictures need: a worker's orders would wait for it."""
        warm_up()

    def shell(self) -> tuple[str, str]:
        """Return the page without any data, and the Content-Security-Policy it is to be sent with."""
        style = asset("page.css") + asset("live.css")
        script = asset("page.js") + asset("live.js")
        told = data_block({"words": words() | texts()["live_words"], "notes": texts()["live_notes"]})
        html = (
            f'<!DOCTYPE html>\n<html lang="{self._lang}" data-lang="{self._lang}" '
            'data-theme="light">\n<head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
            f"<title>rfmstream</title><style>{style}</style></head>\n<body>{_header()}"
            f"<main>{''.join(section(*part) for part in _parts())}"
            '<div id="views"></div></main>'
            f"<footer>{said('live', 'footer')}</footer>"
            f'<script type="application/json" id="words">{told}</script><script>{script}</script></body></html>\n'
        )
        return html, policy(style, script, "connect-src 'self'", "img-src data:", "frame-ancestors 'none'")

    def views(
        self, tables: Sequence[pa.Table], changes: Sequence[pa.Table], ruleset: Ruleset, as_of_us: int
    ) -> bytes:
        """Return the pictures and tables of what partitions hold, as JSON.

        In      tables   the partitions' snapshots
                changes  since the worker started, of one partition after the other's each customer's in order
        """
        try:
            check_renderer()
            note = None
        except ConfigError:
            note = texts()["live"]["missing"]
        made: list[tuple[str, str, str]] = []
        table = pa.concat_tables(tables) if tables else None
        if table is not None and table.num_rows:
            snapshot = snapshot_of(table, ruleset, source=_SOURCE)
            as_of_us = max(as_of_us, snapshot.as_of_us)
            span_us = (as_of_us - SINCE_DAYS * DAY_US, as_of_us)
            try:
                found = assemble(snapshot, changes_of(changes, ruleset, source=_SOURCE), span_us)
            except InputError:
                # Changes that were committed while the partitions were asked one after another.
                found = assemble(snapshot, changes_of([], ruleset, source=_SOURCE), span_us)
            made = sections(found, has_pictures=note is None, draws=self._draw)
        views = [{"key": key, "title": title, "html": section(key, title, body)} for key, title, body in made]
        as_of = None if as_of_us == NEVER_US else to_text(as_of_us)
        return json.dumps({"as_of": as_of, "note": note, "views": views}).encode()

    @staticmethod
    def many() -> bytes:
        """Return what is said instead of pictures where there are too many customers to draw them here."""
        return json.dumps({"as_of": None, "note": texts()["live"]["many"], "views": []}).encode()


def _drawn(spec: str) -> str:
    return draw(json.loads(spec))


def _header() -> str:
    figures = "".join(
        f'<div><dt>{said("live_figures", name)}</dt><dd data-figure="{name}">–</dd></div>'
        for name in texts()["live_figures"]
    )
    links = "".join(f'<li><a href="#{key}">{title}</a></li>' for key, title, _ in _parts())
    return (
        f"<header><h1>{said('live', 'title')}</h1>"
        f'<p class="muted"><span id="link" role="status"></span> {said("live", "told")} '
        f'<span id="told">–</span> (<span id="zone">–</span>)</p>{report_page.buttons()}'
        f'<form id="login" class="hidden"><label>{said("live", "token")}'
        '<input type="password" id="token" autocomplete="off"></label>'
        f'<button type="submit">{said("live", "show")}</button></form>'
        f'{_choice()}<dl class="figures health">{figures}</dl><div id="notes"></div></header>'
        '<nav aria-label="Views" class="contents">'
        f'<ul>{links}</ul><ul id="contents"></ul></nav>'
    )


def _choice() -> str:
    """Return what chooses a view, and a population where the view has some; the script fills it in."""
    return (
        f'<form id="choice" class="hidden"><label>{said("live", "view")}<select id="view"></select></label>'
        f'<label id="population-choice" class="hidden"><span>{said("live", "population")} '
        '(<span id="per"></span>)</span><select id="population"></select></label></form>'
        '<p id="choice-note" role="status" class="bad"></p><p id="choice-text" class="muted"></p>'
    )


def _parts() -> list[tuple[str, str, str]]:
    """Return the parts above the pictures: key, title and what is in it."""
    form = (
        f'<form id="search-form"><label>{said("live", "customer")}'
        '<input type="text" id="customer" autocomplete="off" spellcheck="false"></label>'
        f'<button type="submit">{said("live", "find")}</button></form><div id="result" aria-live="polite"></div>'
    )
    as_of = '<span id="views-as-of">–</span>'
    bodies = {
        "now": f'<p>{said("live", "now_text")}</p><div class="levels" id="tier-levels"></div>',
        "newest": f'<p>{said("live", "newest_text")}</p><div id="newest-table"></div>',
        "search": f"<p>{said('live', 'search_text')}</p>{form}",
        "partitions": f'<p>{said("live", "partitions_text")}</p><div id="partition-table"></div>',
        "pictures": f'<p>{said("live", "pictures_text")} {as_of}</p><p class="note" id="views-note"></p>',
    }
    return [(key, said("live", key), body) for key, body in bodies.items()]
