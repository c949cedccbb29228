import tempfile
from collections.abc import Callable
from decimal import Decimal
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfmstream.schemas.errors import ConfigError
from rfmstream.schemas.ruleset import Ruleset, load_ruleset


def toml_of(cuts: tuple[int, int, int], weights: tuple[str, ...], rules: list[dict[str, Any]]) -> str:
    """Write a ruleset with so many cuts per measure; a condition is a number or (min, max), None open."""

    def condition(name: str, value: Any) -> str:  # noqa: ANN401
        if isinstance(value, bool):
            return f"{name} = {str(value).lower()}"
        if isinstance(value, tuple):
            ends = [
                f"{end} = {_quoted(x)}" for end, x in zip(("min", "max"), value, strict=True) if x is not None
            ]
            return f"{name} = {{ {', '.join(ends)} }}"
        return f"{name} = {_quoted(value)}"

    lines = [
        'name = "t"\ntitle = "t"\ncurrency = "CNY"\nwindow_days = 365',
        f"cuts.recency_days = {[10 * (i + 1) for i in range(cuts[0])]}",
        f"cuts.frequency = {[i + 1 for i in range(cuts[1])]}",
        f"cuts.monetary = {[100 * (i + 1) for i in range(cuts[2])]}",
        "weights = { " + ", ".join(f'{m} = "{w}"' for m, w in zip("rfm", weights, strict=True)) + " }",
    ]
    for rule in rules:
        lines += ["[[rules]]", f'tier = "{rule["tier"]}"']
        lines += [condition(name, value) for name, value in rule.items() if name != "tier"]
    for tier in dict.fromkeys(rule["tier"] for rule in rules):
        lines += [f"[tiers.{tier}]", 'zh = "x"', 'en = "x"', 'playbook = "p"']
    lines += ["[playbooks.p]", 'audience = "x"', 'actions = ["x"]', 'channels = ["x"]']
    return "\n".join(lines)


def _quoted(value: int | Decimal) -> str:
    return f'"{value}"' if isinstance(value, Decimal) else str(value)


def load_text(text: str) -> Ruleset:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "t.toml"
        path.write_text(text, encoding="utf-8")
        return load_ruleset(path)


def holds(condition: Any, value: int | Decimal) -> bool:  # noqa: ANN401
    low, high = condition if isinstance(condition, tuple) else (condition, condition)
    return (low is None or value >= low) and (high is None or value <= high)


def first_match(
    rules: list[dict[str, Any]], weights: tuple[str, ...], first_order: int, bands: tuple[int, ...]
) -> int | None:
    """Evaluate the rules directly for one customer: position of the first rule that matches."""
    scores = [band + 1 for band in bands]
    values: dict[str, int | Decimal] = {f"{m}_band": band for m, band in zip("rfm", bands, strict=True)}
    values |= {f"{m}_score": score for m, score in zip("rfm", scores, strict=True)}
    values["weighted_score"] = sum(
        (Decimal(w) * score for w, score in zip(weights, scores, strict=True)), start=Decimal(0)
    )
    values["first_order"] = first_order
    for position, rule in enumerate(rules):
        if all(holds(wanted, values[name]) for name, wanted in rule.items() if name != "tier"):
            return position
    return None


@st.composite
def rulesets(draw: st.DrawFn) -> tuple[tuple[int, int, int], tuple[str, ...], list[dict[str, Any]]]:
    cuts = draw(st.tuples(*[st.integers(0, 4)] * 3))
    weights = draw(
        st.tuples(*[st.sampled_from(["0", "1", "0.5", "2", "0.3", "0.000001"])] * 3).filter(
            lambda chosen: any(weight != "0" for weight in chosen)
        )
    )

    def span(numbers: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        ends = st.tuples(numbers, numbers).map(lambda pair: (min(pair), max(pair)))
        return st.one_of(numbers, ends, numbers.map(lambda x: (x, None)), numbers.map(lambda x: (None, x)))

    conditions: dict[str, st.SearchStrategy[Any]] = {"first_order": st.booleans()}
    for measure, count in zip("rfm", cuts, strict=True):
        conditions[f"{measure}_band"] = span(st.integers(0, count))
        conditions[f"{measure}_score"] = span(st.integers(1, count + 1))
    conditions["weighted_score"] = span(st.decimals(0, 20, places=2))
    rule = st.fixed_dictionaries({"tier": st.sampled_from("abcd")}, optional=conditions)
    return cuts, weights, draw(st.lists(rule, max_size=6)) + draw(st.sampled_from([[], [{"tier": "e"}]]))


@given(rulesets())
def test_lookup_equals_the_rules_read_one_by_one(
    case: tuple[tuple[int, int, int], tuple[str, ...], list[dict[str, Any]]],
) -> None:
    cuts, weights, rules = case
    cells = list(product(range(2), *(range(count + 1) for count in cuts)))
    matches = {cell: first_match(rules, weights, cell[0], cell[1:]) for cell in cells}
    idle = set(range(len(rules))) - set(matches.values())
    gaps = [cell for cell in cells if matches[cell] is None]
    text = toml_of(cuts, weights, rules)
    if idle or gaps:
        with pytest.raises(ConfigError) as caught:
            load_text(text)
        if not rules:
            assert caught.value.key in {"rules", "tiers"}
        elif idle:
            assert caught.value.key == f"rules[{min(idle) + 1}]"
        else:
            assert caught.value.key == "rules"
            _, r, f, m = gaps[0]
            assert f"r_band {r}, f_band {f}, m_band {m} " in caught.value.problem
        return
    ruleset = load_text(text)
    for cell in cells:
        assert ruleset.tiers[ruleset.lookup[cell]].id == rules[matches[cell]]["tier"]


ONE_EACH = (1, 1, 1)
FLAT = ("1", "1", "1")


@pytest.mark.parametrize(
    ("rules", "combination"),
    [
        (
            [{"tier": "a", "r_band": 1}],
            "r_band 0, f_band 0, m_band 0 (scores 1, 1, 1; first order or not) nor 7 more",
        ),
        (
            [{"tier": "a", "first_order": True}, {"tier": "b", "r_band": 0}, {"tier": "b", "f_band": 0}],
            "r_band 1, f_band 1, m_band 0 (scores 2, 2, 1; more than a first order) nor 1 more",
        ),
        (
            [
                {"tier": "a", "first_order": False},
                {"tier": "b", "r_band": 0},
                {"tier": "b", "f_band": 0},
                {"tier": "c", "m_band": 0},
            ],
            "r_band 1, f_band 1, m_band 1 (scores 2, 2, 2; a first order)",
        ),
    ],
)
def test_a_combination_without_a_rule_is_named(rules: list[dict[str, Any]], combination: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_text(toml_of(ONE_EACH, FLAT, rules))
    assert combination in str(caught.value)
    assert caught.value.key == "rules"
    assert caught.value.fix is not None


def test_a_rule_that_never_comes_first_is_refused() -> None:
    rules = [{"tier": "a", "r_band": 1}, {"tier": "b", "r_score": 2, "m_band": 1}, {"tier": "c"}]
    with pytest.raises(ConfigError, match="'b': earlier rules take all it matches") as caught:
        load_text(toml_of(ONE_EACH, FLAT, rules))
    assert caught.value.key == "rules[2]"


@pytest.mark.parametrize(
    ("bound", "reached"),
    [
        ("0.6", lambda total: total >= 6),
        ("0.61", lambda total: total > 6),
        ("0.59", lambda total: total >= 6),
    ],
)
def test_weighted_sums_are_exact(bound: str, reached: Callable[[int], bool]) -> None:
    # In binary floats 0.1 * 1 + 0.1 * 2 + 0.1 * 3 is 0.6000000000000001.
    rules = [{"tier": "a", "weighted_score": (Decimal(bound), None)}, {"tier": "b"}]
    ruleset = load_text(toml_of((2, 2, 2), ("0.1", "0.1", "0.1"), rules))
    for r, f, m in product(range(3), repeat=3):
        expected = "a" if reached(r + f + m + 3) else "b"
        assert ruleset.tiers[ruleset.lookup[0, r, f, m]].id == expected


def test_extreme_weights_and_bounds_do_not_wrap() -> None:
    rules = [
        {"tier": "a", "weighted_score": (Decimal(10**18 - 1), None), "r_band": 0},
        {"tier": "b", "weighted_score": (None, Decimal(1 - 10**18))},
        {"tier": "c"},
    ]
    with pytest.raises(ConfigError, match="nothing meets its conditions") as caught:
        load_text(toml_of((2, 2, 2), ("1000000", "0.000001", "999999.999999"), rules))
    assert caught.value.key == "rules[1]"
