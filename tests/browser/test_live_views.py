"""The page of a worker with several views: whoever looks chooses one, and everything follows."""

from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from axe import PACKAGE, assert_nothing_serious
from live_pages import SIZES, Seen, counted, opened
from shop import Shop

from rfmstream.schemas.plan import Plan, View
from rfmstream.schemas.ruleset import load_ruleset

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PLAN = Plan(
    (
        View("next-quarter", load_ruleset("types7", time_zone="Asia/Shanghai"), shadow=True),
        View("all", load_ruleset("rfm8", time_zone="Asia/Shanghai")),
        View("greater-china", load_ruleset("groups3"), where=(("store", ("hk", "tw")),)),
        View("by-category", load_ruleset("scores4", currency="JPY"), per="category"),
    )
)
CATEGORIES = ("books", "食品", "toys & games")


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with pytest.MonkeyPatch.context() as patch:
        # A busy machine draws for long, and would draw again only much later.
        patch.setattr("rfmstream.engine.live.page.VIEWS_S_MAX", 1.0)
        shop = Shop(PLAN)
        for partition in range(2):
            places = range(300)
            shop.order(
                [
                    (
                        f"c{partition}-{at % 60}",
                        f"o{at}",
                        f"2026-0{1 + at // 100}-{1 + at % 28:02d}T02:00:00Z",
                        f"{(at * 37) % 900 + 5}",
                    )
                    for at in places
                ],
                partition,
                category=[CATEGORIES[at * 7 // 5 % 3] for at in places],
                store=[("hk", "tw", "sh")[at % 3] for at in places],
            )
        yield shop
        shop.close()


@pytest.fixture(params=SIZES, ids=["1280", "390"])
def seen(browser: "Browser", shop: Shop, request: pytest.FixtureRequest) -> Iterator[Seen]:
    found = opened(browser, shop, request.param)
    yield found
    # What was chosen, and searched, brought no message and no request to anybody else.
    assert found.said == []
    assert [url for url in found.asked if not url.startswith((shop.server.url, "data:"))] == []
    found.page.context.close()


def chosen(seen: Seen, view: str, population: str | None = None) -> None:
    """Choose as a reader does, and wait until all of the page is of the choice."""
    if seen.page.input_value("#view") != view:
        seen.page.select_option("#view", view)
        wait_for_pictures(seen)
    if population is not None:
        seen.page.locator("#population option", has_text=population).wait_for(state="attached")
        seen.page.select_option("#population", population)
        wait_for_pictures(seen)


def wait_for_pictures(seen: Seen) -> None:
    seen.page.wait_for_function("() => document.getElementById('views-as-of').textContent !== '\u2013'")


def drawn(seen: Seen) -> int:
    """Return the customers that the pictures' own table counts."""
    cells = seen.page.locator("#tiers tbody tr td:nth-of-type(1)").all_inner_texts()
    return sum(int(cell.replace(",", "")) for cell in cells)


def customers_in(shop: Shop, population: str) -> int:
    tables = [views.snapshot(view="by-category") for views in shop.views]
    return sum(table["population"].to_pylist().count(population) for table in tables)


def test_the_first_view_that_is_no_shadow_is_shown(seen: Seen, shop: Shop) -> None:
    options = seen.page.locator("#view option").all_inner_texts()
    assert options == ["next-quarter", "all", "greater-china", "by-category"]
    assert seen.page.input_value("#view") == "all"
    assert not seen.page.locator("#population-choice").is_visible()
    assert counted(seen) == drawn(seen) == shop.customers("all")
    assert urlsplit(seen.page.url).query == ""


def test_pictures_and_tiers_follow_the_choice(seen: Seen, shop: Shop) -> None:
    for view, tier in (("greater-china", "Potential"), ("next-quarter", "New"), ("by-category", "Regular")):
        chosen(seen, view)
        assert counted(seen) == drawn(seen) == shop.customers(view), view
        assert tier in seen.page.inner_text("#tier-levels"), view
        assert tier in seen.page.inner_text("#tiers table"), view
        assert urlsplit(seen.page.url).query == f"view={view}"
    for population in CATEGORIES:
        chosen(seen, "by-category", population)
        assert counted(seen) == drawn(seen) == customers_in(shop, population) > 0, population
        assert seen.page.inner_text('[data-figure="customers"]') == f"{counted(seen):,}"
        assert "population=" in urlsplit(seen.page.url).query
    seen.page.select_option("#population", "")
    wait_for_pictures(seen)
    assert drawn(seen) == shop.customers("by-category")


def test_what_was_chosen_is_said_in_all_languages(seen: Seen) -> None:
    chosen(seen, "greater-china")
    for lang, view, words in (
        ("en", "View", "Only orders with store = hk / tw."),
        ("zh-Hans", "视图", "仅统计 store = hk / tw 的订单。"),
        ("zh-Hant", "檢視", "僅計入 store = hk / tw 的訂單。"),
    ):
        seen.page.click(f'[data-lang-button="{lang}"]')
        assert view in seen.page.inner_text("#choice")
        assert words in seen.page.inner_text("#choice-text")
        assert seen.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    chosen(seen, "next-quarter")
    assert "影子檢視" in seen.page.inner_text("#choice-text")
    chosen(seen, "by-category", "食品")
    assert seen.page.locator("#population option").first.inner_text() == "全部"
    # The address has it all, so that a bookmark and a reload show it again.
    assert seen.page.url.endswith("?view=by-category&population=%E9%A3%9F%E5%93%81&lang=zh-Hant")
    seen.page.reload()
    wait_for_pictures(seen)
    assert seen.page.evaluate("document.documentElement.lang") == "zh-Hant"
    seen.page.wait_for_function("() => document.getElementById('population').value === '食品'")
    assert seen.page.input_value("#view") == "by-category"


def test_back_leads_to_the_choice_before(seen: Seen, shop: Shop) -> None:
    chosen(seen, "greater-china")
    chosen(seen, "by-category", "books")
    for view, population in (("by-category", ""), ("greater-china", None), ("all", None)):
        seen.page.go_back()
        wait_for_pictures(seen)
        assert seen.page.input_value("#view") == view
        if population is not None:
            assert seen.page.input_value("#population") == population
        assert drawn(seen) == shop.customers(view)


def test_a_change_is_shown_where_it_belongs(seen: Seen, shop: Shop) -> None:
    id_ = f"new-{seen.page.viewport_size}"
    chosen(seen, "by-category", "食品")
    before = counted(seen)
    shop.order([(id_, "o1", "2026-05-01T08:00:00Z", "12")], category=["books"], store=["hk"])
    shop.order([(id_, "o2", "2026-05-01T08:00:00Z", "12")], category=["食品"], store=["hk"])
    row = seen.page.locator("#newest-table tbody tr").filter(has_text=id_)
    row.wait_for()
    # Once: the order of books is another population's.
    assert row.count() == 1
    seen.page.wait_for_function(
        """count => [...document.querySelectorAll('#tier-levels .count')].reduce(
             (sum, one) => sum + Number(one.textContent), 0) === count""",
        arg=before + 1,
    )
    seen.page.select_option("#population", "")
    wait_for_pictures(seen)
    rows = seen.page.locator("#newest-table tbody tr").filter(has_text=id_)
    assert sorted(text.split("\t")[2] for text in rows.all_inner_texts()) == ["books", "食品"]
    # A shadow tells whoever looks at it.
    chosen(seen, "next-quarter")
    row.first.wait_for()
    assert "New" in row.first.inner_text()


def test_a_new_population_can_be_chosen_at_once(seen: Seen, shop: Shop) -> None:
    chosen(seen, "by-category")
    name = f"shoes {seen.page.viewport_size}"
    shop.order([("ann", name, "2026-05-02T08:00:00Z", "99")], category=[name], store=["hk"])
    chosen(seen, "by-category", name)
    assert counted(seen) == drawn(seen) == 1


def test_a_customer_is_found_in_the_view_and_the_population(seen: Seen, shop: Shop) -> None:
    id_ = f"京东/{seen.page.viewport_size}"
    shop.order(
        [(id_, f"o{at}", f"2026-05-0{3 + at}T08:00:00Z", "900") for at in range(3)],
        1,
        category=["books", "books", "食品"],
        store=["hk", "sh", "sh"],
    )
    result = seen.page.locator("#result")

    def searched(text: str) -> str:
        result.get_by_text(text).first.wait_for()
        return result.inner_text()

    seen.page.fill("#customer", id_)
    seen.page.keyboard.press("Enter")
    assert "Champions" in searched("2,700.00 CNY")
    # What is looked for stays when the view changes.
    chosen(seen, "greater-china")
    assert "Champions" not in searched("900.00 CNY")
    chosen(seen, "by-category")
    assert "books" in searched("In 2 populations")
    result.get_by_role("button", name="books").click()
    assert f"{id_} · books" in searched("1,800 JPY")
    # No figure of the other population is in its story.
    assert "2,700" not in result.inner_text()
    chosen(seen, "by-category", "食品")
    assert f"{id_} · 食品" in searched("900 JPY")
    chosen(seen, "next-quarter")
    searched("2,700.00 CNY")
    assert result.locator("table").last.locator("tbody tr").count() == 3


def test_a_bookmark_of_a_view_that_is_no_more_leads_to_the_first(browser: "Browser", shop: Shop) -> None:
    page = browser.new_page()
    page.goto(f"{shop.server.url}/?view=gone&population=x")
    page.wait_for_selector("#choice-note:not(:empty)")
    page.wait_for_selector("#cohorts")
    assert page.input_value("#view") == "all"
    assert page.url == f"{shop.server.url}/"
    assert "is not there" in page.inner_text("#choice-note")
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", ["by-category", "next-quarter"])
def test_axe_finds_nothing_serious(browser: "Browser", shop: Shop, scheme: str, view: str) -> None:
    pytest.importorskip(PACKAGE, reason="no axe here: make setup-browser installs it")
    found = opened(browser, shop, SIZES[0], scheme)
    chosen(found, view)
    found.page.fill("#customer", "c0-1")
    found.page.keyboard.press("Enter")
    found.page.wait_for_selector("#result table")
    assert_nothing_serious(found.page)
    found.page.context.close()


def test_the_choice_can_be_made_by_keyboard(browser: "Browser", shop: Shop) -> None:
    found = opened(browser, shop)
    found.page.focus("#view")
    found.page.keyboard.type("by")
    found.page.wait_for_function("() => location.search === '?view=by-category'")
    wait_for_pictures(found)
    found.page.keyboard.press("Tab")
    assert found.page.evaluate("document.activeElement.id") == "population"
    found.page.context.close()
