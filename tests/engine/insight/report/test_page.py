"""What the page says beside its numbers, without a picture and without a browser."""

import re
from dataclasses import replace

import pytest
from report_cases import Case

from rfmstream.engine.insight.report.model import ListedCustomer
from rfmstream.engine.insight.report.page import page, sections


def test_playbooks_in_both_languages(shop: Case) -> None:
    (tiers,) = [body for key, _, body in sections(shop.report, has_pictures=False) if key == "tiers"]
    for tier in shop.report.tiers:
        if tier.playbook is not None:
            assert f'<span class="zh" lang="zh">{tier.playbook.audience_zh}</span>' in tiers
            assert f'<span class="zh" lang="zh">{tier.playbook.actions_zh[0]}</span>' in tiers


def test_a_playbook_in_english_alone_stands_in_both_languages(shop: Case) -> None:
    first = shop.report.tiers[0]
    assert first.playbook is not None
    english = replace(first.playbook, audience="All <b>", audience_zh=None, actions_zh=(), channels_zh=())
    report = replace(shop.report, tiers=(replace(first, playbook=english), *shop.report.tiers[1:]))
    (tiers,) = [body for key, _, body in sections(report, has_pictures=False) if key == "tiers"]
    assert f"<p>All &lt;b&gt;</p><ul><li>{english.actions[0]}</li>" in tiers


def test_ids_stand_in_it_only_when_asked_for_and_then_as_text(shop: Case) -> None:
    pytest.importorskip("vl_convert", reason="the extra report is not installed")
    strange = ListedCustomer("111", "</td><script>x", "<b>eu", None, 1, -250, 2, 1_234_56)
    without, with_ = page(shop.report, "en"), page(replace(shop.report, listed=(strange,)), "en")
    assert "It holds no customer ids." in without
    assert 'id="listed"' not in without
    assert "It holds no customer ids." not in with_
    assert "It holds customer ids" in with_
    for cell in (
        "<bdi>&lt;/td&gt;&lt;script&gt;x</bdi>",
        "<bdi>&lt;b&gt;eu</bdi>",
        ">-2.50<",
        ">1,234.56<",
    ):
        assert cell in with_
    assert "<script>x" not in with_
    policies = {re.search(r'Security-Policy" content="([^"]*)"', text)[1] for text in (without, with_)}
    assert len(policies) == 1


def test_a_picture_of_nothing_has_a_size(shop: Case) -> None:
    pytest.importorskip("vl_convert", reason="the extra report is not installed")
    ahead, flaps = shop.report.ahead, shop.report.flaps
    nobody = tuple(tuple(0 for _ in row) for row in ahead.leaving)
    report = replace(
        shop.report, ahead=replace(ahead, leaving=nobody), flaps=replace(flaps, pairs=()), flows=()
    )
    sizes = re.findall(r'<svg [^>]*width="([^"]*)" height="([^"]*)"', page(report, "en"))
    assert len(sizes) > 10
    assert [size for size in sizes if not all(1 < float(side) < 5_000 for side in size)] == []
