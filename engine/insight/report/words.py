"""The words of a page in its languages, and numbers as people read them."""

import tomllib
from collections.abc import Mapping
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any, Final, NamedTuple

ENGLISH: Final = "en"
HANT: Final = "zh-Hant"
LANGUAGES: Final = (ENGLISH, "zh-Hans", HANT)
"""The languages of a page, as HTML names them: English, simplified and traditional Chinese."""


NO_TIER: Final = "No tier"
"""Instead of a label, for customers without a tier."""


class Chinese(NamedTuple):
    """A text in Chinese, simplified and traditional. What a ruleset gives in one script stands in both."""

    hans: str
    hant: str

    def of(self, lang: str) -> str:
        """Return it in one of LANGUAGES that is Chinese."""
        return self.hant if lang == HANT else self.hans

    def filled(self, **values: str) -> "Chinese":
        """Return it with what stands in braces filled in."""
        return Chinese(*(text.format_map(values) for text in self))


def same(text: str) -> Chinese:
    """Return what a ruleset says in one Chinese."""
    return Chinese(text, text)


def asset(name: str) -> str:
    """Return a file of this folder."""
    return files("rfmstream.engine.insight.report").joinpath(name).read_text(encoding="utf-8")


@cache
def texts() -> dict[str, Any]:
    """Return all of texts.toml."""
    return tomllib.loads(asset("texts.toml"))


@cache
def words() -> Mapping[str, Chinese]:
    """Return the Chinese for what stands in pictures and heads of columns, by the English."""
    return {english: Chinese(*pair) for english, pair in texts()["words"].items()}


def said(part: str, key: str, **values: str) -> str:
    """Return a text of texts.toml in all languages, with what stands in braces filled in."""
    english, *chinese = texts()[part][key]
    if not values:
        return worded(english, Chinese(*chinese))
    return worded(english.format_map(values), Chinese(*chinese).filled(**values))


def worded(english: str, chinese: Chinese | None = None) -> str:
    """Return a text in all languages, as HTML of which the page shows one; Chinese None: that of `words`."""
    hans, hant = chinese or words().get(english) or same(english)
    if english == hans == hant:
        return escape(english)
    shown = f'<span class="en" lang="en">{escape(english)}</span>'
    if hans == hant:
        return f'{shown}<span class="zh" lang="zh">{escape(hans)}</span>'
    return (
        f'{shown}<span class="hans" lang="zh-Hans">{escape(hans)}</span>'
        f'<span class="hant" lang="zh-Hant">{escape(hant)}</span>'
    )


def money(minor: int | None, exponent: int) -> str:
    """Return an amount in major units, exactly; a dash for none."""
    if minor is None:
        return "–"
    whole, part = divmod(abs(minor), 10**exponent)
    sign = "-" if minor < 0 else ""
    return f"{sign}{whole:,}" + (f".{part:0{exponent}d}" if exponent else "")


def percent(share: float | None) -> str:
    """Return a share in per cent; a dash for none."""
    return "–" if share is None else f"{share:.2%}"


def number(count: int | None) -> str:
    """Return a count; a dash for none."""
    return "–" if count is None else f"{count:,}"
