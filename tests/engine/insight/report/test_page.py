"""What the page says beside its numbers, without a picture and without a browser."""

from dataclasses import replace

from report_cases import Case

from rfmstream.engine.insight.report.page import sections


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
