import re
from pathlib import Path

import pytest

from rfmstream.schemas.errors import ConfigError
from rfmstream.schemas.ruleset import load_ruleset

DOCS = Path(__file__).parents[2] / "docs" / "rulesets.md"

GOOD = """
name = "mine"
title = "Mine"
time_zone = "UTC"
currency = "CNY"
day_unit = "calendar_day"
window_days = 365

[cuts]
recency_days = [30, 60]
frequency = [2, 3]
monetary = ["99.90", 250]

[weights]
r = 2
f = 1
m = "0.5"

[[rules]]
tier = "high"
r_score = 3

[[rules]]
tier = "low"

[tiers.high]
zh = "高"
en = "High"
playbook = "p"

[tiers.low]
zh = "低"
en = "Low"
playbook = "p"

[playbooks.p]
audience = "All."
actions = ["Do."]
channels = ["email"]
"""


def refusal(directory: Path, text: str, name: str = "mine.toml") -> ConfigError:
    path = directory / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_ruleset(path)
    assert caught.value.file == str(path)
    assert str(path) in str(caught.value)
    return caught.value


def changed(old: str, new: str) -> str:
    assert GOOD.count(old) == 1, f"{old!r} is there {GOOD.count(old)} times"
    return GOOD.replace(old, new)


def documented() -> list[str]:
    return re.findall(r"```toml\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)


def test_the_documented_example_loads(tmp_path: Path) -> None:
    path = tmp_path / "coffee.toml"
    path.write_text(documented()[0], encoding="utf-8")
    ruleset = load_ruleset(path)
    assert (ruleset.currency, ruleset.time_zone, ruleset.window_days) == ("GBP", "Europe/London", 180)
    assert ruleset.monetary_cuts_minor == (4900, 12250, 24500)

    def tier(first_order: int, r: int, f: int, m: int) -> str:
        return ruleset.tiers[ruleset.lookup[first_order, r, f, m]].id

    assert tier(1, 3, 0, 3) == tier(1, 2, 0, 0) == "newcomer"
    assert tier(0, 3, 2, 2) == "regular"  # 0.5 * 4 + 0.25 * 3 + 0.25 * 3 = 3.5
    assert tier(0, 3, 1, 1) == "slipping"  # 0.5 * 4 + 0.25 * 2 + 0.25 * 2 = 3.0
    assert tier(0, 3, 2, 1) == "regular"  # 3.25 exactly
    assert tier(0, 1, 3, 3) == "slipping"  # 3.0
    assert tier(0, 0, 3, 3) == "gone"


def test_the_documented_extension_loads(tmp_path: Path) -> None:
    path = tmp_path / "groceries.toml"
    path.write_text(documented()[1], encoding="utf-8")
    ruleset, base = load_ruleset(path), load_ruleset("rfm8")
    assert ruleset.identity == f"rfm8-groceries@{ruleset.tier_fingerprint[:8]}"
    cuts = ruleset.recency_cuts_days, ruleset.frequency_cuts, ruleset.monetary_cuts_minor
    assert cuts == ((10,), (8,), (40_000,))
    assert ruleset.window_days == 90
    assert (ruleset.lookup == base.lookup).all()
    assert ruleset.tiers[0].label_en == "Weekly shoppers"
    assert ruleset.tiers[0].label_zh == "重要价值客户"
    assert ruleset.tiers[1:] == base.tiers[1:]


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        (changed('title = "Mine"', 'titel = "Mine"'), "titel", "did you mean title?"),
        (changed('title = "Mine"', ""), "title", "is missing"),
        (changed('title = "Mine"', "title = 3"), "title", "must be a string, not an integer"),
        (changed('title = "Mine"', 'title = " "'), "title", "is empty"),
        (changed('name = "mine"', 'name = "my rules"'), "name", "is not a name"),
        (changed('"UTC"', '"Asia/Shangai"'), "time_zone", "did you mean Asia/Shanghai?"),
        (changed('"CNY"', '"RMB"'), "currency", "not an ISO 4217"),
        (changed('"CNY"', '"XXX"'), "currency", "no minor unit"),
        (changed('"calendar_day"', '"day"'), "day_unit", "one of calendar_day, duration"),
        (changed("365", "0"), "window_days", "out of range"),
        (changed("365", "true"), "window_days", "must be an integer, not true or false"),
        (changed("365", '"forever"'), "window_days", 'or "lifetime"'),
        (changed("window_days = 365", ""), "window_days", 'or "lifetime"'),
        (changed("[30, 60]", "[60, 30]"), "cuts.recency_days", "30 follows 60"),
        (changed("[30, 60]", "[30, 30]"), "cuts.recency_days", "30 follows 30"),
        (changed("[30, 60]", "[-1]"), "cuts.recency_days[1]", "out of range"),
        (changed("[30, 60]", "30"), "cuts.recency_days", "must be a list of integers"),
        (changed("[30, 60]", '[30, "60"]'), "cuts.recency_days[2]", "must be an integer, not a string"),
        (changed("[2, 3]", "[0]"), "cuts.frequency[1]", "out of range"),
        (changed("[2, 3]", "[2.0]"), "cuts.frequency[1]", "not a float"),
        (changed('["99.90", 250]', "[99.9]"), "cuts.monetary[1]", 'as a string: "99.9"'),
        (changed('["99.90", 250]', '["1e3"]'), "cuts.monetary[1]", "not a decimal number"),
        (changed('["99.90", 250]', '["٣"]'), "cuts.monetary[1]", "not a decimal number"),
        (changed('["99.90", 250]', '["99.905"]'), "cuts.monetary", "more decimals than CNY"),
        (changed('["99.90", 250]', '["250", "99.90"]'), "cuts.monetary", "99.9 follows 250"),
        (changed('["99.90", 250]', "[100_000_000_000_000_000]"), "cuts.monetary", "too large"),
        (
            changed('["99.90", 250]', '{ average_order = 0, times = ["3"] }'),
            "cuts.monetary.average_order",
            "more than 0",
        ),
        (
            changed('["99.90", 250]', '{ average_order = 1, times = ["0.001", "0.002"] }'),
            "cuts.monetary",
            "same minor unit",
        ),
        (
            changed('["99.90", 250]', "{ average = 1 }"),
            "cuts.monetary.average",
            "did you mean average_order?",
        ),
        (changed("[2, 3]", str(list(range(1, 2**17)))), "cuts", "combinations"),
        (changed('m = "0.5"', ""), "weights.m", "is missing"),
        (changed('m = "0.5"', "m = 0.5"), "weights.m", "float"),
        (changed('m = "0.5"', "m = -1"), "weights.m", "out of range"),
        (changed('m = "0.5"', 'm = "0.0000001"'), "weights.m", "decimals"),
        (changed('r = 2\nf = 1\nm = "0.5"', "r = 0\nf = 0\nm = 0"), "weights", "all 0"),
        (changed("r_score = 3", "r_score = 4"), "rules[1].r_score", "from 1 to 3"),
        (changed("r_score = 3", "r_band = 3"), "rules[1].r_band", "from 0 to 2"),
        (changed("r_score = 3", "r_score = {}"), "rules[1].r_score", "neither min nor max"),
        (changed("r_score = 3", "r_score = { min = 2, max = 1 }"), "rules[1].r_score", "greater than max"),
        (changed("r_score = 3", "r_score = { from = 1 }"), "rules[1].r_score.from", "unknown key"),
        (changed("r_score = 3", "R_score = 3"), "rules[1].R_score", "did you mean r_score?"),
        (changed("r_score = 3", "first_order = 1"), "rules[1].first_order", "must be true or false"),
        (changed("r_score = 3", "weighted_score = 3.5"), "rules[1].weighted_score", "float"),
        (changed('tier = "high"', 'tier = "hihg"'), "rules[1].tier", "use one of high, low"),
        (changed("[tiers.high]", '[tiers."very high"]'), "tiers.very high", "not a tier id"),
        (changed('en = "High"', ""), "tiers.high.en", "is missing"),
        (changed('en = "High"\nplaybook = "p"', 'en = "High"\nplaybook = "q"'), "tiers.high.playbook", "'q'"),
        (changed('actions = ["Do."]', 'actions = "Do."'), "playbooks.p.actions", "must be a list of strings"),
        (changed('actions = ["Do."]', "actions = []"), "playbooks.p.actions", "list of strings"),
        (changed('actions = ["Do."]', 'actions = ["Do.", 3]'), "playbooks.p.actions[2]", "must be a string"),
        (
            changed('actions = ["Do."]', 'actions = ["Do."]\nzh_actions = ["做。", "再做。"]'),
            "playbooks.p.zh_actions",
            "has 2, but actions has 1",
        ),
        (
            GOOD + '[playbooks.q]\naudience = "x"\nactions = ["x"]\nchannels = ["x"]\n',
            "playbooks.q",
            "no tier",
        ),
        (GOOD + '[tiers.mid]\nzh = "x"\nen = "x"\nplaybook = "p"\n', "tiers.mid", "no rule gives this tier"),
        (GOOD + '[tiers.low]\nzh = "x"\n', None, "not valid TOML"),
        (GOOD + "x", None, "not valid TOML"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, key: str | None, message: str) -> None:
    error = refusal(tmp_path, text)
    assert error.key == key
    assert message in str(error)


def test_every_refusal_says_what_to_do(tmp_path: Path) -> None:
    assert (
        refusal(tmp_path, changed("[30, 60]", "[60, 30]")).fix
        == "write the cuts in ascending order, each once"
    )


def test_weighted_conditions_need_weights(tmp_path: Path) -> None:
    text = changed('[weights]\nr = 2\nf = 1\nm = "0.5"\n', "").replace("r_score = 3", "weighted_score = 3")
    error = refusal(tmp_path, text)
    assert error.key == "rules[1].weighted_score"
    assert "add [weights]" in str(error)


def test_at_most_127_tiers(tmp_path: Path) -> None:
    def text(count: int) -> str:
        cuts = list(range(1, count))
        rules = "\n".join(f'[[rules]]\ntier = "t{i}"\nf_band = {i}' for i in range(count))
        tiers = "\n".join(f'[tiers.t{i}]\nzh = "x"\nen = "x"\nplaybook = "p"' for i in range(count))
        head = GOOD[: GOOD.index("[cuts]")]
        tail = GOOD[GOOD.index("[playbooks.p]") :]
        return f"{head}[cuts]\nrecency_days = []\nfrequency = {cuts}\nmonetary = []\n{rules}\n{tiers}\n{tail}"

    path = tmp_path / "many.toml"
    path.write_text(text(127), encoding="utf-8")
    ruleset = load_ruleset(path)
    assert ruleset.lookup.shape == (2, 1, 127, 1)
    assert ruleset.lookup[0, 0, :, 0].tolist() == list(range(127))
    assert "at most 127" in str(refusal(tmp_path, text(128)))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_ruleset(tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_ruleset(tmp_path)
    path = tmp_path / "latin.toml"
    path.write_bytes(GOOD.encode().replace("高".encode(), b"\xe9"))
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_ruleset(path)


def test_windows_line_ends_and_a_byte_order_mark_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "windows.toml"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert load_ruleset(path).name == "mine"


class TestForgetting:
    """Orders are never forgotten before the window is over; where it is asked for it is part of what decides."""

    @pytest.mark.parametrize(
        ("value", "problem", "fix"),
        [
            ("0", "0 is out of range", "write a number from 1 to 3652058"),
            ("-1", "-1 is out of range", "write a number from 1 to 3652058"),
            ("400.5", "must be an integer, not a float", "write a number from 1 to 3652058"),
            ('"400"', "'400' is no number of days", 'write one such as 400, or "never"'),
            ("true", "must be an integer, not true or false", "write a number from 1 to 3652058"),
            (
                "364",
                "is 364, but window_days = 365 still counts orders that are older",
                "write 365 or more, or leave it out to keep every order",
            ),
        ],
    )
    def test_refuses_what_is_no_such_number_of_days(
        self, tmp_path: Path, value: str, problem: str, fix: str
    ) -> None:
        text = changed("window_days = 365", f"window_days = 365\nforget_orders_after_days = {value}")
        error = refusal(tmp_path, text)
        assert (error.key, error.problem, error.fix) == ("forget_orders_after_days", problem, fix)
        assert "\n" not in str(error)

    @pytest.mark.parametrize(("window", "days"), [("365", 365), ("365", 3_652_058), ('"lifetime"', 1)])
    def test_is_the_window_or_more(self, tmp_path: Path, window: str, days: int) -> None:
        path = tmp_path / "mine.toml"
        path.write_text(
            changed("window_days = 365", f"window_days = {window}\nforget_orders_after_days = {days}"),
            encoding="utf-8",
        )
        assert load_ruleset(path).forget_orders_after_days == days

    def test_decides(self, tmp_path: Path) -> None:
        path, made = tmp_path / "mine.toml", {}
        for line in ("", "forget_orders_after_days = 400", "forget_orders_after_days = 401"):
            path.write_text(changed("window_days = 365", f"window_days = 365\n{line}"), encoding="utf-8")
            made[line] = load_ruleset(path)
        identities = {ruleset.identity for ruleset in made.values()}
        fingerprints = {ruleset.fingerprint for ruleset in made.values()}
        assert len(identities) == len(fingerprints) == 3

    def test_never_takes_an_inherited_one_away(self, tmp_path: Path) -> None:
        (tmp_path / "base.toml").write_text(
            changed("window_days = 365", "window_days = 365\nforget_orders_after_days = 400"),
            encoding="utf-8",
        )
        child = tmp_path / "child.toml"
        for line, days in (("", 400), ('forget_orders_after_days = "never"', None)):
            child.write_text(f'name = "mine"\nextends = "base.toml"\n{line}', encoding="utf-8")
            assert load_ruleset(child).forget_orders_after_days == days


class TestExtends:
    def test_replaces_lists_and_merges_tables(self, tmp_path: Path) -> None:
        (tmp_path / "base.toml").write_text(GOOD, encoding="utf-8")
        child = tmp_path / "child.toml"
        child.write_text(
            'name = "child"\nextends = "base.toml"\ncuts.frequency = [10]\ntiers.low.en = "Rest"',
            encoding="utf-8",
        )
        ruleset = load_ruleset(child)
        assert ruleset.name == "child"
        assert ruleset.title == "Mine"
        assert ruleset.frequency_cuts == (10,)
        assert ruleset.recency_cuts_days == (30, 60)
        assert [(tier.label_zh, tier.label_en) for tier in ruleset.tiers] == [("高", "High"), ("低", "Rest")]

    def test_multiples_take_the_place_of_amounts(self, tmp_path: Path) -> None:
        child = tmp_path / "child.toml"
        child.write_text(
            'name = "c"\nextends = "rfm8"\ncuts.monetary = { average_order = "239.99", times = ["3.5"] }',
            encoding="utf-8",
        )
        # 3.5 * 23,999 fen = 83,996.5 fen, which an integer reaches at 83,997.
        assert load_ruleset(child).monetary_cuts_minor == (83_997,)

    def test_drops_what_is_no_longer_named(self, tmp_path: Path) -> None:
        child = tmp_path / "child.toml"
        child.write_text(
            'name = "c"\nextends = "rfm8"\nrules = [{ tier = "111", r_band = 1 }, { tier = "000" }]',
            encoding="utf-8",
        )
        assert [tier.id for tier in load_ruleset(child).tiers] == ["111", "000"]

    def test_drops_the_chinese_of_what_is_worded_anew(self, tmp_path: Path) -> None:
        child = tmp_path / "child.toml"
        text = 'name = "c"\nextends = "rfm8"\n[playbooks.retain]\nactions = ["Call."]\n'
        child.write_text(text, encoding="utf-8")
        book = load_ruleset(child).tiers[1].playbook
        assert (book.key, book.actions, book.actions_zh) == ("retain", ("Call.",), ())
        assert book.audience_zh is not None
        child.write_text(f'{text}zh_actions = ["打电话。"]\n', encoding="utf-8")
        assert load_ruleset(child).tiers[1].playbook.actions_zh == ("打电话。",)

    def test_needs_a_name_of_its_own(self, tmp_path: Path) -> None:
        error = refusal(tmp_path, 'extends = "rfm8"')
        assert (error.key, error.problem) == ("name", "is missing")

    def test_refuses_loops(self, tmp_path: Path) -> None:
        (tmp_path / "a.toml").write_text('name = "a"\nextends = "b.toml"', encoding="utf-8")
        (tmp_path / "b.toml").write_text('name = "b"\nextends = "a.toml"', encoding="utf-8")
        with pytest.raises(ConfigError, match=r"a.toml -> b.toml -> a.toml") as caught:
            load_ruleset(tmp_path / "a.toml")
        assert caught.value.key == "extends"
        assert "loop" in str(refusal(tmp_path, 'name = "mine"\nextends = "mine.toml"'))

    def test_refuses_an_unknown_base(self, tmp_path: Path) -> None:
        error = refusal(tmp_path, 'name = "c"\nextends = "rfm9"')
        assert error.key == "extends"
        assert "'rfm9'" in str(error)
        assert refusal(tmp_path, f'name = "c"\nextends = "{"x" * 5000}"').key == "extends"

    def test_blames_the_base_for_its_own_mistakes(self, tmp_path: Path) -> None:
        base = tmp_path / "base.toml"
        base.write_text(changed("[30, 60]", "[60, 30]"), encoding="utf-8")
        (tmp_path / "c.toml").write_text('name = "c"\nextends = "base.toml"', encoding="utf-8")
        with pytest.raises(ConfigError) as caught:
            load_ruleset(tmp_path / "c.toml")
        assert caught.value.file == str(base)
