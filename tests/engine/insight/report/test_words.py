"""The texts of report and live page in English, simplified and traditional Chinese."""

import re
from collections.abc import Iterator

import pytest

from rfmstream.engine.insight.report.words import Chinese, asset, said, texts, worded, words

_BY_ENGLISH = ("words", "live_words")


def all_texts() -> Iterator[tuple[str, str, str]]:
    for part, table in texts().items():
        for key, given in table.items():
            yield tuple([key, *given] if part in _BY_ENGLISH else given)


def test_each_text_is_there_in_each_language_with_the_same_names_to_fill_in() -> None:
    for given in all_texts():
        assert len(given) == 3, given
        assert all(text.strip() for text in given), given
        assert len({tuple(sorted(re.findall(r"\{\w+\}", text))) for text in given}) == 1, given


def test_simplified_is_simplified_and_traditional_is_traditional() -> None:
    # GB 2312 has no traditional forms, Big5 no simplified ones.
    for _, hans, hant in all_texts():
        hans.encode("gb2312")
        hant.encode("big5")


def test_all_that_the_script_says_is_among_the_texts() -> None:
    script = asset("live.js")
    known = {key for part in _BY_ENGLISH for key in texts()[part]}
    says = re.findall(r'\b(?:word|table|measureRow)\(\s*"([^"]*)"', script)
    assert len(says) > 25
    assert [text for text in says if text not in known] == []
    assert not re.search("[一-鿿]", script)


def test_a_text_stands_in_all_languages_and_what_is_the_same_once() -> None:
    assert worded("Orders") == (
        '<span class="en" lang="en">Orders</span><span class="hans" lang="zh-Hans">订单数</span>'
        '<span class="hant" lang="zh-Hant">訂單數</span>'
    )
    given = worded("<Gold>", Chinese("金<", "金<"))
    assert given == '<span class="en" lang="en">&lt;Gold&gt;</span><span class="zh" lang="zh">金&lt;</span>'
    assert worded("A & B") == "A &amp; B"
    assert "<b>" not in said("transitions", "text", since="<b>", until="", stayed="", moved="")


@pytest.mark.parametrize("reason", ["recency expired", "rules changed", "No tier"])
def test_words_of_numbers_have_both_scripts(reason: str) -> None:
    assert words()[reason].hans != words()[reason].hant
