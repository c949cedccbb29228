"""How browser tests open the page of a running worker, and what they read from it."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shop import Shop

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SIZES = [(1280, 900), (390, 844)]

ANSWER_MS = 180_000
"""Generous: what is waited for appears within a second on a machine that does nothing else."""


@dataclass
class Seen:
    page: "Page"
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


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


def counted(seen: Seen) -> int:
    return sum(
        int(text.replace(",", "")) for text in seen.page.locator("#tier-levels .count").all_inner_texts()
    )
