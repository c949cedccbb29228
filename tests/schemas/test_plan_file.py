from pathlib import Path

import pytest

from rfmstream.schemas.errors import ConfigError
from rfmstream.schemas.plan import Plan, View, plan_of
from rfmstream.schemas.plan_file import load_plan
from rfmstream.schemas.ruleset import load_ruleset

PLAN = """
[[view]]
name = "china"
ruleset = "rfm8"
where = { store = ["hk", "tw"], floor = [1, 2], vip = true }

[[view]]
ruleset = "own/mine.toml"
per = "category"
shadow = true
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "mine.toml").write_text('name = "mine"\nextends = "rfm8"\ntime_zone = "Asia/Tokyo"\n')
    return tmp_path


def plan(folder: Path, text: str, **options: str) -> Plan:
    path = folder / "views.toml"
    path.write_text(text, encoding="utf-8")
    return load_plan(path, **options)


def test_a_plan(folder: Path) -> None:
    china, mine = plan(folder, PLAN).views
    assert (china.name, china.ruleset.identity, china.per, china.shadow) == ("china", "rfm8", None, False)
    # Numbers and flags are compared by their text, as columns are.
    assert china.where == (("store", ("hk", "tw")), ("floor", ("1", "2")), ("vip", ("true",)))
    assert (mine.name, mine.per, mine.shadow) == ("mine", "category", True)
    assert mine.ruleset.time_zone == "Asia/Tokyo"
    assert plan(folder, PLAN).attributes == ("store", "floor", "vip", "category")


def test_zone_and_currency_of_the_command_override_all(folder: Path) -> None:
    made = plan(folder, PLAN, time_zone="Europe/London", currency="GBP")
    assert {(view.ruleset.time_zone, view.ruleset.currency) for view in made.views} == {
        ("Europe/London", "GBP")
    }


@pytest.mark.parametrize(
    ("old", "new", "key", "words"),
    [
        ("[[view]]", "[[views]]", "views", "did you mean view?"),
        ('name = "china"\nruleset = "rfm8"', 'name = "china"', "view[1].ruleset", "is missing"),
        ('ruleset = "rfm8"', 'ruleset = "rfm9"', "view[1].ruleset", "no built-in ruleset and no file 'rfm9'"),
        (
            'ruleset = "rfm8"',
            f'ruleset = "{"x" * 5000}"',
            "view[1].ruleset",
            "no built-in ruleset and no file",
        ),
        ('name = "china"', 'name = "mine"', "view[2].name", "two views 'mine'"),
        ('name = "china"', 'name = "a/b"', "view[1].name", "is not a name"),
        ('["hk", "tw"]', "[]", "view[1].where.store", "empty list"),
        ('["hk", "tw"]', '["hk", ""]', "view[1].where.store", "empty value"),
        ('["hk", "tw"]', "[1.5]", "view[1].where.store", "no text"),
        (
            '{ store = ["hk", "tw"], floor = [1, 2], vip = true }',
            "{}",
            "view[1].where",
            "is empty; write where",
        ),
        ("store =", '"" =', "view[1].where", "a column without a name"),
        ("where = {", "were = {", "view[1].were", "did you mean where?"),
        ('per = "category"', "per = 1", "view[2].per", "must be a string"),
        ("shadow = true", 'shadow = "yes"', "view[2].shadow", "must be true or false"),
    ],
)
def test_what_is_wrong_is_named(folder: Path, old: str, new: str, key: str, words: str) -> None:
    assert old in PLAN
    with pytest.raises(ConfigError) as caught:
        plan(folder, PLAN.replace(old, new))
    assert (caught.value.file, caught.value.key) == (str(folder / "views.toml"), key)
    assert words in str(caught.value)


@pytest.mark.parametrize("text", ["", "view = []", "[view]\nruleset = 'rfm8'"])
def test_no_view_at_all(folder: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="view"):
        plan(folder, text)


def test_rulesets_are_views_named_after_them() -> None:
    rulesets = [load_ruleset("rfm8"), load_ruleset("scores4")]
    assert plan_of(rulesets) == Plan((View("rfm8", rulesets[0]), View("scores4", rulesets[1])))
    with pytest.raises(ConfigError, match="two views 'rfm8'"):
        plan_of([rulesets[0], load_ruleset("rfm8", currency="USD")])
