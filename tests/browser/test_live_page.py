"""The page of a running worker as people meet it: it moves, finds a customer, and asks nobody but the worker."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from served_workers import watched

from rfmstream.engine.core.engine import Engine
from rfmstream.engine.insight.report.live_page import LivePage
from rfmstream.engine.live.board import Board
from rfmstream.engine.live.feed import Feed
from rfmstream.engine.live.http import StatusServer
from rfmstream.engine.live.model import Source
from rfmstream.engine.live.stats import tiers_of
from rfmstream.schemas.ruleset import load_ruleset
from rfmstream.schemas.ruleset_file import read_ruleset_file, shipped_path

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SIZES = [(1280, 900), (390, 844)]

ANSWER_MS = 60_000
"""Generous: what is waited for appears within a second on a machine that does nothing else."""


class Shop:
    """A worker's board over engines of two partitions that the test feeds, served from a thread of its own."""

    def __init__(self, token: str | None = None) -> None:
        ruleset = load_ruleset("rfm8", time_zone="Asia/Shanghai")
        path = shipped_path("rfm8")
        assert path is not None
        self.feed = Feed(ruleset)
        self.board = Board(ruleset, "event", joined=True, rules=read_ruleset_file(path), feed=self.feed)
        self.engines = [Engine(ruleset, mode="live", threads=1) for _ in range(2)]
        self.board.expected = [Source("orders.v1", number) for number in range(2)]
        for source, engine in zip(self.board.expected, self.engines, strict=True):
            self.board.partitions[source] = watched(engine)
        self._loop = asyncio.new_event_loop()
        self.server = StatusServer(("127.0.0.1", 0), self.board, token, draws=LivePage())
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self.server.start(), self._loop).result(60)

    def order(self, rows: Sequence[tuple[str, str, str, str]], partition: int = 0) -> None:
        """Apply orders and tell their changes, as a committed step does."""
        names = ("customer_id", "order_id", "occurred_at", "amount")
        table = pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))
        engine, stats = self.engines[partition], list(self.board.partitions.values())[partition].stats
        done: Future[None] = Future()

        def apply() -> None:
            changes = engine.step(table).changes
            stats.tiers, stats.customers = tiers_of(engine), engine.customers
            stats.applied, stats.clock_us = stats.applied + len(rows), engine.clock_us
            self.feed.add(changes)
            done.set_result(None)

        self._loop.call_soon_threadsafe(apply)
        done.result(60)

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self.server.stop(), self._loop).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@dataclass
class Seen:
    page: "Page"
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    # A busy machine draws for long, and would draw again only much later.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rfmstream.engine.live.page.VIEWS_S_MAX", 1.0)
        yield from full_shop()


def full_shop() -> Iterator[Shop]:
    shop = Shop()
    for partition in range(2):
        shop.order(
            [
                (
                    f"c{partition}-{at % 90}",
                    f"o{at}",
                    f"2026-0{1 + at // 100}-{1 + at % 28:02d}T02:00:00Z",
                    f"{(at * 37) % 900 + 5}.50",
                )
                for at in range(400)
            ],
            partition,
        )
    yield shop
    shop.close()


def opened(browser: "Browser", shop: Shop, size: tuple[int, int] = SIZES[0], scheme: str = "light") -> Seen:
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme="dark" if scheme == "dark" else "light"
    )
    seen = Seen(context.new_page())
    seen.page.set_default_timeout(ANSWER_MS)
    seen.page.on("console", lambda message: seen.said.append(message.text))
    seen.page.on("pageerror", lambda error: seen.said.append(str(error)))
    seen.page.on("request", lambda request: seen.asked.append(request.url))
    seen.page.goto(shop.server.url)
    seen.page.wait_for_selector("#cohorts")
    return seen


@pytest.fixture(params=SIZES, ids=["1280", "390"])
def seen(browser: "Browser", shop: Shop, request: pytest.FixtureRequest) -> Iterator[Seen]:
    found = opened(browser, shop, request.param)
    yield found
    found.page.context.close()


def counted(seen: Seen) -> int:
    return sum(
        int(text.replace(",", "")) for text in seen.page.locator("#tier-levels .count").all_inner_texts()
    )


def test_it_shows_what_is_there_and_asks_nobody_else(seen: Seen, shop: Shop) -> None:
    pytest.importorskip("vl_convert", reason="the extra report is not installed")
    assert seen.page.inner_text('[data-figure="state"]') == "ready"
    assert seen.page.inner_text('[data-figure="partitions"]') == "2 / 2"
    assert counted(seen) == sum(engine.customers for engine in shop.engines)
    for key in ("tiers", "grid", "recency", "months", "pareto", "sizes", "ahead", "cohorts"):
        assert seen.page.locator(f"#{key} svg").count() >= 1, key
        assert seen.page.locator(f"#{key} table tbody tr").count() >= 1, key
    assert seen.said == []
    assert [url for url in seen.asked if not url.startswith((shop.server.url, "data:"))] == []


def test_a_change_is_seen_soon_after_it_was_committed(seen: Seen, shop: Shop) -> None:
    before = counted(seen)
    id_ = f"new-{before}-{seen.page.viewport_size}"
    shop.order([(id_, "o1", "2026-05-01T08:00:00Z", "12.00")])
    row = seen.page.locator("#newest-table tbody tr").filter(has_text=id_)
    row.wait_for()
    assert "Recent Low-value" in row.inner_text()
    assert "2026-05-01 16:00:00" in row.inner_text()
    assert counted(seen) == before + 1
    # The pictures follow by themselves, with the customer counted.
    seen.page.wait_for_function(
        """count => [...document.querySelectorAll('#tiers tbody tr')].reduce(
             (sum, row) => sum + Number(row.children[1].textContent.replaceAll(',', '')), 0) === count""",
        arg=before + 1,
    )


def test_a_customer_is_found_and_explained(seen: Seen, shop: Shop) -> None:
    shop.order([("京东/7", "o1", "2026-05-02T08:00:00Z", "1500.00")], 1)
    seen.page.fill("#customer", "京东/7")
    seen.page.keyboard.press("Enter")
    seen.page.wait_for_selector("#result table")
    text = seen.page.inner_text("#result")
    for part in (
        "京东/7",
        "101 High-value Developing",
        "✓ 1,000.00 · reached",
        "✗ 3 · missing 2",
        "first order o1",
    ):
        assert part in text, part
    assert "111 Champions" in text
    assert seen.page.locator("#result table").last.locator("tbody tr").count() == 1
    book = seen.page.locator("#result .book")
    assert "Invite them into the member programme" in book.inner_text()
    seen.page.click('[data-lang-button="zh-Hans"]')
    assert "邀请加入会员" in book.inner_text()
    assert "Invite them" not in book.inner_text()
    seen.page.click('[data-lang-button="en"]')
    seen.page.fill("#customer", "nobody")
    seen.page.click("#search-form button")
    seen.page.wait_for_selector("#result .note")
    assert seen.page.inner_text("#result") == "there is no such customer"
    # The browser tells of every answer that is no success; that one is not known is one.
    assert [text for text in seen.said if "404" not in text] == []


def test_all_languages_and_nothing_wider_than_the_window(seen: Seen) -> None:
    for lang, word in (("zh-Hans", "当前分层"), ("zh-Hant", "目前分群"), ("en", "Tiers now")):
        seen.page.click(f'[data-lang-button="{lang}"]')
        assert word in seen.page.inner_text("main")
        assert seen.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_all_controls_can_be_reached_by_keyboard(seen: Seen) -> None:
    # Nothing is drawn anew meanwhile: nobody orders.
    what = "button, summary, input, a, .scroll"
    controls = seen.page.evaluate(
        f"[...document.querySelectorAll('{what}')].map((part, at) => part.checkVisibility() ? at : -1)"
    )
    reached = set()
    for _ in range(2 * len(controls) + 20):
        seen.page.keyboard.press("Tab")
        reached.add(
            seen.page.evaluate(f"[...document.querySelectorAll('{what}')].indexOf(document.activeElement)")
        )
    assert {at for at in controls if at >= 0} <= reached


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("lang", ["en", "zh-Hans", "zh-Hant"])
def test_axe_finds_nothing_serious(browser: "Browser", shop: Shop, scheme: str, lang: str) -> None:
    pytest.importorskip("axe_playwright_python", reason="no axe here: make setup-browser installs it")
    found = opened(browser, shop, SIZES[0], scheme)
    found.page.click(f'[data-lang-button="{lang}"]')
    found.page.fill("#customer", "c0-1")
    found.page.keyboard.press("Enter")
    found.page.wait_for_selector("#result table")
    found.page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8"))
    result: dict[str, Any] = found.page.evaluate("axe.run()")
    bad = [
        (violation["id"], violation["impact"], violation["nodes"][0]["html"][:200], len(violation["nodes"]))
        for violation in result["violations"]
        if violation["impact"] in {"serious", "critical"}
    ]
    assert bad == []
    assert len(result["passes"]) > 15
    found.page.context.close()


def test_the_policy_stops_what_is_not_the_page_s_own(browser: "Browser", shop: Shop) -> None:
    found = opened(browser, shop)
    found.page.evaluate(
        """() => { const s = document.createElement('script'); s.textContent = 'window.foreign = 1';
                   document.body.append(s); }"""
    )
    assert found.page.evaluate("window.foreign") is None
    assert (
        found.page.evaluate("fetch('https://example.org').then(() => 'went', () => 'stopped')") == "stopped"
    )
    found.page.context.close()


def test_where_a_token_is_asked_for_the_page_asks_for_it(browser: "Browser") -> None:
    shop = Shop("sésame")
    shop.order([("ann", "o1", "2026-05-02T08:00:00Z", "1500.00")])
    page = browser.new_page()
    page.set_default_timeout(ANSWER_MS)
    page.goto(shop.server.url)
    page.wait_for_selector("#login:not(.hidden)")
    assert "ann" not in page.content()
    page.fill("#token", "sésame")
    page.click("#login button")
    page.locator("#newest-table tbody tr").filter(has_text="ann").wait_for()
    page.close()
    shop.close()
