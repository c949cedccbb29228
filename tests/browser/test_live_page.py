"""The page of a running worker as people meet it: it moves, finds a customer, and asks nobody but the worker."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from axe import PACKAGE, assert_nothing_serious
from live_pages import ANSWER_MS, SIZES, Seen, counted, opened
from shop import Shop

from rfmstream.schemas.plan import plan_of
from rfmstream.schemas.ruleset import load_ruleset

if TYPE_CHECKING:
    from playwright.sync_api import Browser

RFM8 = plan_of([load_ruleset("rfm8", time_zone="Asia/Shanghai")])


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    # A busy machine draws for long, and would draw again only much later.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rfmstream.engine.live.page.VIEWS_S_MAX", 1.0)
        yield from full_shop()


def full_shop() -> Iterator[Shop]:
    shop = Shop(RFM8)
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


@pytest.fixture(params=SIZES, ids=["1280", "390"])
def seen(browser: "Browser", shop: Shop, request: pytest.FixtureRequest) -> Iterator[Seen]:
    found = opened(browser, shop, request.param)
    yield found
    found.page.context.close()


def test_it_shows_what_is_there_and_asks_nobody_else(seen: Seen, shop: Shop) -> None:
    pytest.importorskip("vl_convert", reason="the extra report is not installed")
    assert seen.page.inner_text('[data-figure="state"]') == "ready"
    assert seen.page.inner_text('[data-figure="partitions"]') == "2 / 2"
    assert counted(seen) == shop.customers("rfm8")
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
        "High-value Developing 101",
        "✓ 1,000.00 · reached",
        "✗ 3 · missing 2",
        "first order o1",
    ):
        assert part in text, part
    assert "Champions\t2\tany amount" in text
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
    assert seen.page.inner_text("#result") == "No such customer."
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
    pytest.importorskip(PACKAGE, reason="no axe here: make setup-browser installs it")
    found = opened(browser, shop, SIZES[0], scheme)
    found.page.click(f'[data-lang-button="{lang}"]')
    found.page.fill("#customer", "c0-1")
    found.page.keyboard.press("Enter")
    found.page.wait_for_selector("#result table")
    assert_nothing_serious(found.page)
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
    shop = Shop(RFM8, "sésame")
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
