import json
import re
from dataclasses import FrozenInstanceError, fields
from hashlib import sha256
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from rfmstream.schemas.errors import ConfigError
from rfmstream.schemas.ruleset import Ruleset, list_rulesets, load_ruleset

EIGHT = {
    "111": ("重要价值客户", "Champions"),
    "011": ("重要保持客户", "Lapsing VIPs"),
    "101": ("重要发展客户", "High-value Developing"),
    "001": ("重要挽留客户", "High-value Win-back"),
    "110": ("一般价值客户", "Loyal Low-spend"),
    "010": ("一般保持客户", "Lapsing Regulars"),
    "100": ("一般发展客户", "Recent Low-value"),
    "000": ("一般挽留客户", "Low-value Lapsed"),
}
GROUPS = {"111": "high_value", "011": "potential", "000": "at_risk"}
TYPES = {
    "110": "general_value",
    "101": "key_develop",
    "111": "vip",
    "011": "key_keep",
    "001": "key_win_back",
    "000": "dormant",
}

TINY = """
name = "tiny"
title = "Two tiers"
currency = "CNY"
window_days = "lifetime"
cuts = { recency_days = [30], frequency = [3], monetary = ["1000"] }
rules = [{ tier = "good", m_band = 1 }, { tier = "rest" }]
tiers.good = { zh = "好", en = "Good", playbook = "all" }
tiers.rest = { zh = "其他", en = "Rest", playbook = "all" }
playbooks.all = { audience = "Everybody.", actions = ["Write."], channels = ["email"] }
"""


def load_text(directory: Path, text: str, **overrides: str) -> Ruleset:
    path = directory / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return load_ruleset(path, **overrides)


def tier_of(ruleset: Ruleset, bands: tuple[int, int, int], *, first_order: bool = False) -> str:
    return ruleset.tiers[ruleset.lookup[(int(first_order), *bands)]].id


def test_list_rulesets_names_the_built_ins() -> None:
    assert list_rulesets() == ("groups3", "rfm8", "rfm8-annual", "rfm8-grace", "scores4", "types7")


@pytest.mark.parametrize(
    ("name", "window_days"),
    [
        ("rfm8", None),
        ("rfm8-annual", 365),
        ("rfm8-grace", 365),
        ("groups3", 365),
        ("types7", 365),
        ("scores4", 365),
    ],
)
def test_built_ins_have_the_cuts_of_the_contract(name: str, window_days: int | None) -> None:
    ruleset = load_ruleset(name)
    assert (ruleset.name, ruleset.identity) == (name, name)
    assert (ruleset.time_zone, ruleset.currency, ruleset.day_unit) == ("UTC", "CNY", "calendar_day")
    assert ruleset.window_days == window_days
    cuts = ruleset.recency_cuts_days, ruleset.frequency_cuts, ruleset.monetary_cuts_minor
    if name == "rfm8-grace":
        assert cuts == ((30, 90), (3,), (100_000,))
    elif name == "scores4":
        assert cuts == ((30, 60, 90, 120), (2, 3, 4, 5), (100_000, 500_000, 1_000_000, 5_000_000))
    else:
        assert cuts == ((30,), (3,), (100_000,))


@pytest.mark.parametrize("name", ["rfm8", "rfm8-annual"])
def test_rfm8_ids_are_the_bits(name: str) -> None:
    ruleset = load_ruleset(name)
    assert {tier.id: (tier.label_zh, tier.label_en) for tier in ruleset.tiers} == EIGHT
    for first_order, *bands in product((False, True), *[(0, 1)] * 3):
        r, f, m = bands
        assert tier_of(ruleset, (r, f, m), first_order=first_order) == f"{r}{f}{m}"


def test_rfm8_grace_holds_champions_one_recency_band_longer() -> None:
    ruleset = load_ruleset("rfm8-grace")
    assert {tier.id: (tier.label_zh, tier.label_en) for tier in ruleset.tiers} == EIGHT
    for first_order, *bands in product((False, True), range(3), (0, 1), (0, 1)):
        r, f, m = bands
        is_recent = r >= 1 if f and m else r == 2
        assert tier_of(ruleset, (r, f, m), first_order=first_order) == f"{int(is_recent)}{f}{m}"


def test_groups3_and_types7_follow_their_lists() -> None:
    groups, types = load_ruleset("groups3"), load_ruleset("types7")
    for first_order, r, f, m in product((False, True), (0, 1), (0, 1), (0, 1)):
        bits = f"{r}{f}{m}"
        assert tier_of(groups, (r, f, m), first_order=first_order) == GROUPS.get(bits, "other")
        expected = "new" if first_order and r else TYPES.get(bits, "other")
        assert tier_of(types, (r, f, m), first_order=first_order) == expected


def test_scores4_calls_4_and_5_high() -> None:
    ruleset = load_ruleset("scores4")
    for first_order, *bands in product((False, True), *[range(5)] * 3):
        r, f, m = (band + 1 in (4, 5) for band in bands)
        words = {
            (True, True, True): "high_value",
            (True, False, False): "potential",
            (False, True, True): "dormant",
            (False, False, True): "dormant",
            (False, False, False): "lost",
        }
        assert tier_of(ruleset, tuple(bands), first_order=first_order) == words.get((r, f, m), "regular")


@pytest.mark.parametrize("name", list_rulesets())
def test_every_built_in_tier_tells_what_to_do(name: str) -> None:
    ruleset = load_ruleset(name)
    assert ruleset.title
    assert ruleset.source.startswith("S")
    for tier in ruleset.tiers:
        assert tier.label_zh
        assert tier.label_en
        assert tier.playbook.key
        assert tier.playbook.audience.endswith(".")
        assert len(tier.playbook.actions) >= 2
        assert tier.playbook.channels


@pytest.mark.parametrize("name", list_rulesets())
def test_every_built_in_tier_tells_what_to_do_in_chinese(name: str) -> None:
    for tier in load_ruleset(name).tiers:
        book = tier.playbook
        assert book.audience_zh is not None
        assert book.audience_zh.endswith("。")
        assert all(action.endswith("。") for action in book.actions_zh)
        assert (len(book.actions_zh), len(book.channels_zh)) == (len(book.actions), len(book.channels))
        # What a text names of a signal or a column, it names in both languages.
        for english, chinese in zip(book.actions, book.actions_zh, strict=True):
            assert re.findall(r"`[a-z_]+`", english) == re.findall(r"`[a-z_]+`", chinese)


def test_chinese_texts_decide_nothing(tmp_path: Path) -> None:
    without = load_text(tmp_path, TINY)
    with_ = load_text(tmp_path, TINY.replace('["email"]', '["email"], zh_audience = "所有人。"'))
    assert without.tiers[0].playbook.audience_zh is None
    assert with_.tiers[0].playbook.audience_zh == "所有人。"
    assert (with_.identity, with_.fingerprint) == (without.identity, without.fingerprint)


def test_lookup_is_int8_and_frozen() -> None:
    ruleset = load_ruleset("scores4")
    assert ruleset.lookup.dtype == np.int8
    assert ruleset.lookup.shape == (2, 5, 5, 5)
    assert ruleset.lookup.flags.c_contiguous
    with pytest.raises(ValueError, match="read-only"):
        ruleset.lookup[0, 0, 0, 0] = 1
    with pytest.raises(FrozenInstanceError):
        ruleset.name = "other"  # type: ignore[misc]
    assert ruleset == load_ruleset("scores4")
    assert len({ruleset, load_ruleset("scores4")}) == 1


def test_overrides_are_appended_to_the_identity_where_they_differ() -> None:
    both = load_ruleset("rfm8", time_zone="Europe/London", currency="GBP")
    assert both.identity == "rfm8[currency=GBP,time_zone=Europe/London]"
    assert (both.name, both.time_zone, both.currency) == ("rfm8", "Europe/London", "GBP")
    assert load_ruleset("rfm8", time_zone="Asia/Tokyo").identity == "rfm8[time_zone=Asia/Tokyo]"
    same = load_ruleset("rfm8", time_zone="UTC", currency="CNY")
    assert same == load_ruleset("rfm8")


@pytest.mark.parametrize(("currency", "exponent"), [("JPY", 0), ("GBP", 2), ("BHD", 3), ("CLF", 4)])
def test_monetary_cuts_follow_the_currency(currency: str, exponent: int) -> None:
    ruleset = load_ruleset("rfm8", currency=currency)
    assert ruleset.currency_exponent == exponent
    assert ruleset.monetary_cuts_minor == (1000 * 10**exponent,)


def test_a_users_file_carries_its_fingerprint(tmp_path: Path) -> None:
    ruleset = load_text(tmp_path, TINY)
    assert ruleset.identity == f"tiny@{ruleset.fingerprint[:8]}"
    assert (ruleset.time_zone, ruleset.day_unit, ruleset.source) == ("UTC", "calendar_day", "")
    overridden = load_text(tmp_path, TINY, currency="EUR")
    assert overridden.identity == f"tiny@{overridden.fingerprint[:8]}[currency=EUR]"
    assert overridden.fingerprint != ruleset.fingerprint
    assert load_ruleset(str(tmp_path / "mine.toml")) == ruleset


def test_fingerprint_is_the_documented_hash(tmp_path: Path) -> None:
    text = (
        '{"currency":"CNY","day_unit":"calendar_day","frequency_cuts":[3],"lookup":"01000100010001000100010001000100",'
        '"monetary_cuts_minor":[100000],"recency_cuts_days":[30],"tiers":["good","rest"],"time_zone":"UTC",'
        '"window_days":null}'
    )
    assert json.loads(text)
    assert load_text(tmp_path, TINY).fingerprint == sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"lifetime"', "365"),
        ("[30]", "[31]"),
        ("[3]", "[4]"),
        ('["1000"]', '["1000.01"]'),
        ('currency = "CNY"', 'currency = "EUR"'),
        ('currency = "CNY"', 'currency = "CNY"\ntime_zone = "Asia/Shanghai"'),
        ('currency = "CNY"', 'currency = "CNY"\nday_unit = "duration"'),
        ("m_band = 1", "f_band = 1"),
        ("good", "fine"),
    ],
)
def test_what_decides_changes_the_fingerprint(tmp_path: Path, old: str, new: str) -> None:
    changed = load_text(tmp_path, TINY.replace(old, new)).fingerprint
    assert changed != load_text(tmp_path, TINY).fingerprint


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"Good"', '"Better"'),
        ('"好"', '"很好"'),
        ("Two tiers", "2 tiers"),
        ("Everybody.", "All."),
        ("m_band = 1", "m_score = 2"),
        ("m_band = 1", "m_score = { min = 2 }"),
        ('["1000"]', "[1000]"),
        ('["1000"]', '["1000.00"]'),
        ('["1000"]', '{ average_order = "250", times = [4] }'),
    ],
)
def test_words_do_not_change_the_fingerprint(tmp_path: Path, old: str, new: str) -> None:
    changed = load_text(tmp_path, TINY.replace(old, new)).fingerprint
    assert changed == load_text(tmp_path, TINY).fingerprint


@pytest.mark.parametrize("name", ["rfm9", "", "../rfm8", "rulesets"])
def test_an_unknown_ruleset_is_refused(name: str) -> None:
    with pytest.raises(ConfigError):
        load_ruleset(name)


def test_the_refusal_of_an_unknown_name_lists_the_built_ins() -> None:
    with pytest.raises(ConfigError, match="rfm8-annual") as caught:
        load_ruleset("rfm")
    assert caught.value.key == "ruleset"


@pytest.mark.parametrize(
    ("overrides", "key", "message"),
    [
        ({"currency": "gbp"}, "currency", "did you mean GBP?"),
        ({"currency": "XAU"}, "currency", "no minor unit"),
        ({"currency": ""}, "currency", "ISO 4217"),
        ({"time_zone": "Europe/Lodon"}, "time_zone", "did you mean Europe/London?"),
        ({"time_zone": "localtime"}, "time_zone", "IANA"),
        ({"time_zone": ""}, "time_zone", "IANA"),
        ({"time_zone": "../../etc/passwd"}, "time_zone", "IANA"),
        ({"time_zone": "Europe"}, "time_zone", "IANA"),
    ],
)
def test_bad_overrides_are_refused(overrides: dict[str, str], key: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_ruleset("rfm8", **overrides)
    assert caught.value.key == key
    assert message in str(caught.value)


def test_a_cut_finer_than_the_overriding_currency_is_refused(tmp_path: Path) -> None:
    text = TINY.replace('"1000"', '"99.90"')
    assert load_text(tmp_path, text).monetary_cuts_minor == (9990,)
    with pytest.raises(ConfigError, match=r"99\.9 has more decimals than JPY") as caught:
        load_text(tmp_path, text, currency="JPY")
    assert caught.value.key == "cuts.monetary"


def test_metadata_tells_how_to_read_the_amounts() -> None:
    metadata = load_ruleset("rfm8", currency="BHD").metadata
    assert metadata["rfmstream.currency"] == "BHD"
    assert metadata["rfmstream.currency_exponent"] == "3"
    assert metadata["rfmstream.ruleset"] == "rfm8[currency=BHD]"


def test_the_fields_are_those_of_the_contract() -> None:
    assert {field.name for field in fields(Ruleset)} >= {
        *("name", "identity", "fingerprint", "source", "title", "time_zone", "currency", "day_unit"),
        *("window_days", "recency_cuts_days", "frequency_cuts", "monetary_cuts_minor", "tiers", "lookup"),
    }
