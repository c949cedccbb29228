"""What a ruleset file says of signals and holdouts: checked, part of what is remembered of it, not of its name."""

from pathlib import Path

import pytest

from rfmstream import ConfigError, load_ruleset
from rfmstream.schemas.ruleset import Milestones, Ruleset

EXTENDS = 'name = "mine"\nextends = "groups3"\ntitle = "t"\n'


def written(folder: Path, text: str) -> Ruleset:
    path = folder / "mine.toml"
    path.write_text(EXTENDS + text, encoding="utf-8")
    return load_ruleset(path)


def test_all_there_is_to_say(tmp_path: Path) -> None:
    ruleset = written(
        tmp_path,
        "[tiers.high_value]\nwarn_days = [14, 3]\n[tiers.at_risk]\ndwell_days = [90, 180]\n"
        '[milestones]\norders = [1, 2, 4]\nspend = ["1000", "10000.50"]\nsingle_order = [500]\n'
        '[playbooks.exclusive]\nholdout = "0.1025"\n',
    )
    tiers = {tier.id: tier for tier in ruleset.tiers}
    assert tiers["high_value"].warn_days == (3, 14)
    assert tiers["at_risk"].dwell_days == (90, 180)
    assert tiers["high_value"].playbook.holdout_parts == 1025
    assert tiers["at_risk"].playbook.holdout_parts is None
    assert ruleset.milestones == Milestones((1, 2, 4), (100_000, 1_000_050), (50_000,))
    assert ruleset.asks_signals
    assert not ruleset.without_signals().asks_signals


def test_signals_leave_the_identity_alone_and_nothing_else(tmp_path: Path) -> None:
    plain = written(tmp_path, "")
    asked = [
        written(tmp_path, text)
        for text in (
            "[tiers.high_value]\nwarn_days = [3]\n",
            "[tiers.high_value]\ndwell_days = [3]\n",
            "[milestones]\norders = [3]\n",
            '[milestones]\nspend = ["3"]\n',
            '[playbooks.exclusive]\nholdout = "0.1"\n',
        )
    ]
    assert {ruleset.identity for ruleset in [plain, *asked]} == {plain.identity}
    assert {ruleset.tier_fingerprint for ruleset in [plain, *asked]} == {plain.tier_fingerprint}
    assert len({ruleset.fingerprint for ruleset in [plain, *asked]}) == 6
    assert plain.identity == f"mine@{plain.tier_fingerprint[:8]}"


def test_a_ruleset_that_asks_nothing_is_hashed_as_before_there_were_signals(tmp_path: Path) -> None:
    plain = written(tmp_path, "")
    assert plain.fingerprint == plain.tier_fingerprint
    assert not plain.asks_signals


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[tiers.high_value]\nwarn_days = [0]\n", "tiers.high_value.warn_days[1]"),
        ("[tiers.high_value]\nwarn_days = 3\n", "must be a list of integers"),
        ("[tiers.high_value]\nwarn_days = [3, 14, 7]\n", "7 follows 14"),
        ("[tiers.high_value]\nwarn_days = [3, 3]\n", "3 follows 3"),
        ('[tiers.high_value]\ndwell_days = ["90"]\n', "must be an integer"),
        (f"[tiers.high_value]\ndwell_days = {list(range(1, 34))}\n", "use at most 32"),
        ("[tiers.high_value]\nwarm_days = [3]\n", "did you mean warn_days"),
        ("[milestones]\norder = [1]\n", "did you mean orders"),
        ("[milestones]\norders = [0]\n", "out of range"),
        ('[milestones]\nspend = ["0"]\n', "must be more than 0"),
        ("[milestones]\nspend = [9.5]\n", "write it as a string"),
        ('[milestones]\nsingle_order = ["9.999"]\n', "no amount in CNY"),
        (f"[milestones]\norders = {list(range(1, 130))}\n", "use at most 128"),
        ('[playbooks.exclusive]\nholdout = "1.5"\n', "share of the customers"),
        ('[playbooks.exclusive]\nholdout = "0.12345"\n', "at most 4 decimals"),
        ("[playbooks.exclusive]\nholdout = 0.1\n", "write it as a string"),
    ],
)
def test_a_mistake_is_named_with_its_fix(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        written(tmp_path, text)
    assert words in str(caught.value)
    assert "mine.toml" in str(caught.value)
