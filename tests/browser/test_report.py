"""The report as people meet it: opened from disk in a browser without a network."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from axe import PACKAGE, assert_nothing_serious
from click.testing import CliRunner
from real_orders import cdnow
from report_cases import order_table, replayed

from rfmstream.engine.cli.app import cli
from rfmstream.engine.insight.report.words import LANGUAGES

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SIZES = [(1280, 900), (390, 844)]


@dataclass
class Opened:
    page: "Page"
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("vl_convert", reason="the extra report is not installed")
    folder = tmp_path_factory.mktemp("page")
    case = replayed(folder, order_table([dict(event) for event in cdnow()]), "rfm8-annual", currency="USD")
    words = ["report", case.changes, "--snapshot", case.snapshot, "--orders", case.orders]
    first = CliRunner().invoke(cli, [*map(str, words), "--out", str(folder / "before.json")])
    assert first.exit_code == 0, first.output
    words += ["--previous", folder / "before.json", "--out", folder / "report.html"]
    result = CliRunner().invoke(cli, [*map(str, words), "--out", str(folder / "report.json")])
    assert result.exit_code == 0, result.output
    return folder / "report.html"


def opened(browser: "Browser", path: Path, size: tuple[int, int], scheme: str) -> Opened:
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme="dark" if scheme == "dark" else "light",
        offline=True,
    )
    seen = Opened(context.new_page())
    seen.page.on("console", lambda message: seen.said.append(message.text))
    seen.page.on("pageerror", lambda error: seen.said.append(str(error)))
    seen.page.on("request", lambda request: seen.asked.append(request.url))
    seen.page.goto(path.as_uri())
    return seen


@pytest.fixture(params=SIZES, ids=["1280", "390"])
def seen(browser: "Browser", made: Path, request: pytest.FixtureRequest) -> Iterator[Opened]:
    found = opened(browser, made, request.param, "light")
    yield found
    found.page.context.close()


def test_nothing_is_said_and_nothing_is_asked(seen: Opened, made: Path) -> None:
    assert seen.said == []
    assert seen.asked == [made.as_uri()]
    assert made.stat().st_size < 2_000_000


def test_the_policy_stops_what_is_not_the_page_s_own(seen: Opened) -> None:
    seen.page.evaluate(
        """() => { const s = document.createElement('script'); s.textContent = 'window.foreign = 1';
                   document.body.append(s); }"""
    )
    assert seen.page.evaluate("window.foreign") is None
    assert seen.page.evaluate("fetch('https://example.org').then(() => 'went', () => 'stopped')") == "stopped"


def test_nothing_is_wider_than_the_window(seen: Opened) -> None:
    for lang in LANGUAGES:
        seen.page.click(f'[data-lang-button="{lang}"]')
        assert seen.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_all_languages(seen: Opened) -> None:
    heading = seen.page.locator("h1")
    assert heading.inner_text() == "Customers by recency, frequency and money"
    seen.page.locator("details:has(.book) summary").first.click()
    book = seen.page.locator(".book").first
    assert "Thank them without a discount" in book.inner_text()
    seen.page.click('[data-lang-button="zh-Hans"]')
    assert "表达感谢" in book.inner_text()
    assert "Thank them" not in book.inner_text()
    assert heading.inner_text() == "客户 RFM 分层报告"
    assert seen.page.evaluate("document.documentElement.lang") == "zh-Hans"
    text = seen.page.locator("main").inner_text()
    assert "重要价值客户" in text
    assert "Champions" not in text
    assert "运营策略" in text
    seen.page.click('[data-lang-button="zh-Hant"]')
    assert heading.inner_text() == "客戶 RFM 分群報告"
    assert seen.page.evaluate("document.documentElement.lang") == "zh-Hant"
    text = seen.page.locator("main").inner_text()
    assert "行銷策略" in text
    assert "运营策略" not in text
    for script, shown in (("hant", True), ("hans", False)):
        assert seen.page.locator(f"#pareto svg .{script}").first.is_visible() is shown


def test_the_scheme_of_the_system_is_the_first_theme(browser: "Browser", made: Path) -> None:
    dark = opened(browser, made, SIZES[0], "dark")
    assert dark.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(13, 17, 23)"
    text = dark.page.locator("#grid svg text").first
    assert text.evaluate("part => getComputedStyle(part).fill") == "rgb(230, 237, 243)"
    dark.page.click('[data-theme-button="light"]')
    assert text.evaluate("part => getComputedStyle(part).fill") != "rgb(230, 237, 243)"
    dark.page.context.close()


def test_every_view_has_a_picture_and_a_table(seen: Opened) -> None:
    keys = seen.page.locator("main > section").evaluate_all("parts => parts.map(part => part.id)")
    assert len(keys) == 16
    for key in keys:
        assert seen.page.locator(f"#{key} svg").count() >= 1, key
        assert seen.page.locator(f"#{key} table tbody tr").count() >= 1, key


def test_tables_hold_the_numbers_of_the_json(seen: Opened, made: Path) -> None:
    numbers: dict[str, Any] = json.loads(made.with_suffix(".json").read_text())
    cells = seen.page.locator("#tiers table tbody tr").evaluate_all(
        "rows => rows.map(row => [...row.children].map(cell => cell.textContent))"
    )
    assert [cell[1] for cell in cells] == [f"{tier['customers']:,}" for tier in numbers["tiers"]]
    assert [cell[4] for cell in cells] == [f"{tier['revenue_minor'] / 100:,.2f}" for tier in numbers["tiers"]]
    steps = seen.page.locator("#ladder table tbody tr").evaluate_all(
        "rows => rows.map(row => row.lastElementChild.textContent)"
    )
    assert steps == [
        f"{step['probability']:.2%}" for ladder in numbers["ladders"] for step in ladder["steps"]
    ]


def test_tiles_by_customers_or_by_revenue(seen: Opened) -> None:
    shown = seen.page.locator('[data-measure="revenue"]')
    assert not shown.is_visible()
    seen.page.click('[data-measure-button="revenue"]')
    assert shown.is_visible()
    assert not seen.page.locator('[data-measure="customers"]').is_visible()


def test_the_time_machine_by_keyboard(seen: Opened, made: Path) -> None:
    numbers = json.loads(made.with_suffix(".json").read_text())
    sizes, ahead = numbers["sizes"], numbers["ahead"]

    def levels() -> list[int]:
        texts = seen.page.locator("[data-count]").all_inner_texts()
        return [int(text.replace(",", "")) for text in texts]

    assert levels() == sizes["customers"][-1]
    seen.page.focus("#machine")
    seen.page.keyboard.press("ArrowLeft")
    assert seen.page.inner_text("#day") == sizes["days"][-2]
    assert levels() == sizes["customers"][-2]
    seen.page.keyboard.press("End")
    assert seen.page.inner_text("#day") == ahead["days"][-1]
    assert levels() == ahead["sizes"][-1]
    assert seen.page.locator("#is-ahead").is_visible()
    seen.page.keyboard.press("Home")
    assert levels() == sizes["customers"][0]


def test_all_controls_can_be_reached_by_keyboard(seen: Opened) -> None:
    reached = set()
    for _ in range(200):
        seen.page.keyboard.press("Tab")
        reached.add(
            seen.page.evaluate(
                "[...document.querySelectorAll('button, summary, input, a, .scroll')].indexOf(document.activeElement)"
            )
        )
    controls = seen.page.evaluate(
        """[...document.querySelectorAll('button, summary, input, a, .scroll')]
           .map((part, at) => part.checkVisibility() ? at : -1).filter(at => at >= 0)"""
    )
    assert set(controls) <= reached


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("lang", LANGUAGES)
def test_axe_finds_nothing_serious(browser: "Browser", made: Path, scheme: str, lang: str) -> None:
    pytest.importorskip(PACKAGE, reason="no axe here: make setup-browser installs it")
    found = opened(browser, made, SIZES[0], scheme)
    found.page.click(f'[data-lang-button="{lang}"]')
    found.page.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true; })")
    assert_nothing_serious(found.page)
    found.page.context.close()


def test_without_a_script_all_of_it_is_there(browser: "Browser", made: Path) -> None:
    context = browser.new_context(java_script_enabled=False, offline=True)
    page = context.new_page()
    page.goto(made.as_uri())
    assert page.locator("#sizes svg").is_visible()
    page.click("#sizes summary")
    assert page.locator("#sizes table").is_visible()
    context.close()
