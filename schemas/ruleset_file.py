"""The ruleset file: TOML in, checked frozen dataclasses out.

docs/rulesets.md describes the file to its writers. `extends` puts one file on top of another: tables merge
key by key, everything else replaces, and inherited tiers and playbooks that nothing names any more fall away.
"""

import os
import re
from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, cast

from rfmstream.schemas.currencies import currency_exponent
from rfmstream.schemas.ruleset_model import DayUnit, Playbook, Rule, RulesetFile, Span, Tier
from rfmstream.schemas.toml_table import TomlTable, read_toml
from rfmstream.schemas.zones import zone_of

MEASURES: Final = ("r", "f", "m")
TIERS_MAX: Final = 127
"""Tier codes are int8 and -1 means none."""
DAYS_MAX: Final = 3_652_058
"""Days between the first and the last date there is."""
ORDERS_MAX: Final = 10**12
WEIGHT_MAX: Final = 10**6
WEIGHT_DECIMALS_MAX: Final = 6
"""With these two limits a weighted sum over a common denominator stays within int64."""
SIGNAL_DAYS_MAX: Final = 32
"""warn_days or dwell_days of a tier: each may give a customer a signal at the same instant."""
MILESTONES_MAX: Final = 128
MILESTONE_ORDERS_MAX: Final = 2**31 - 1
HOLDOUT_PARTS: Final = 10_000
CELLS_MAX: Final = 2**20
"""Combinations of bands: the lookup table has two bytes for each."""

SHIPPED: Final = Path(__file__).parent / "rulesets"

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_DAY_UNITS: Final = ("calendar_day", "duration")
_PLAYBOOK_TEXTS: Final = ("audience", "actions", "channels")
_TOP_KEYS: Final = (
    *("name", "extends", "title", "source", "time_zone", "currency", "day_unit", "window_days"),
    *("forget_orders_after_days", "cuts", "weights", "rules", "tiers", "playbooks", "milestones"),
)


def read_ruleset_file(path: Path) -> RulesetFile:
    """Read and check a ruleset file and all it extends.

    Errors  ConfigError  naming the file, the key and the fix
    """
    return _parse(_read_extended(path, ()), str(path))


def shipped_path(name: str) -> Path | None:
    """Return the file of a built-in ruleset, or None if there is none of that name."""
    path = SHIPPED / f"{name}.toml"
    return path if _NAME.fullmatch(name) and path.is_file() else None


def _read_extended(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """Read a file and merge it over what it extends; `seen` are the files that led here."""
    document = read_toml(path)
    if "extends" not in document:
        return document
    top = TomlTable(document, str(path))
    base_name = top.text("extends")
    base_path = shipped_path(base_name) or path.parent / base_name
    if not os.path.isfile(base_path):  # noqa: PTH113 - a name too long for the system is none
        problem = f"there is no built-in ruleset and no file {base_name!r}"
        raise top.error("extends", problem, "name a built-in, or a path from this file's directory")
    seen = (*seen, path.resolve())
    if base_path.resolve() in seen:
        loop = " -> ".join(step.name for step in (*seen, base_path))
        raise top.error("extends", f"goes round in a loop ({loop})", "let one of them stand alone")
    base = _read_extended(base_path, seen)
    _parse(base, str(base_path))  # a mistake in there is reported with that file's name
    own_name = document.get("name")
    _drop_outdated_chinese(base, document)
    merged = _merge(base, document)
    merged["name"] = own_name
    # What the base brought along and this file's rules no longer name is not a mistake of this file.
    _drop_unnamed(
        merged, "tiers", keep=document, names=(rule.get("tier") for rule in _dicts(merged.get("rules")))
    )
    named = (tier.get("playbook") for tier in _dicts(merged.get("tiers")))
    _drop_unnamed(merged, "playbooks", keep=document, names=named)
    return merged


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _drop_outdated_chinese(base: Mapping[str, Any], over: Mapping[str, Any]) -> None:
    """Drop the Chinese of a base's texts that `over` words anew in English alone: it would say something else."""
    books, own = base.get("playbooks"), over.get("playbooks")
    if not isinstance(books, dict) or not isinstance(own, dict):
        return
    for key, entry in own.items():
        if isinstance(entry, dict) and isinstance(books.get(key), dict):
            for name in _PLAYBOOK_TEXTS:
                if name in entry:
                    books[key].pop(f"zh_{name}", None)


def _dicts(values: object) -> list[dict[str, Any]]:
    items = values.values() if isinstance(values, dict) else values if isinstance(values, list) else ()
    return [item for item in items if isinstance(item, dict)]


def _drop_unnamed(
    merged: dict[str, Any], section: str, *, keep: Mapping[str, Any], names: Iterable[object]
) -> None:
    if not isinstance(merged.get(section), dict):
        return
    kept = {*(name for name in names if isinstance(name, str)), *(keep.get(section) or ())}
    merged[section] = {key: value for key, value in merged[section].items() if key in kept}


def _parse(document: Mapping[str, Any], file: str) -> RulesetFile:
    top = TomlTable(document, file)
    top.allow(*_TOP_KEYS)
    name = top.text("name")
    if not _NAME.fullmatch(name):
        raise top.error("name", f"{name!r} is not a name", "use letters, digits, - and _, at most 64")
    time_zone = top.text("time_zone", "UTC")
    zone_of(time_zone, file=file)
    currency = top.text("currency")
    currency_exponent(currency, file=file)
    cuts = top.table("cuts")
    cuts.allow("recency_days", "frequency", "monetary")
    recency = cuts.integers("recency_days", 0, DAYS_MAX)
    frequency = cuts.integers("frequency", 1, ORDERS_MAX)
    monetary, is_multiple = _parse_monetary(cuts)
    band_counts = (len(recency) + 1, len(frequency) + 1, len(monetary) + 1)
    if band_counts[0] * band_counts[1] * band_counts[2] > CELLS_MAX:
        raise top.error("cuts", f"make more than {CELLS_MAX:,} combinations of bands", "use fewer cuts")
    weights = _parse_weights(top)
    tiers = _parse_tiers(top)
    rules = tuple(
        _parse_rule(rule, band_counts, tiers, weighted=weights is not None) for rule in top.tables("rules")
    )
    named = {rule.tier for rule in rules}
    for tier in tiers:
        if tier not in named:
            raise top.error(
                f"tiers.{tier}", "no rule gives this tier", f'add a rule with tier = "{tier}", or remove it'
            )
    window_days = _parse_window(top)
    return RulesetFile(
        file=file,
        name=name,
        title=top.text("title"),
        source=top.text("source", ""),
        time_zone=time_zone,
        currency=currency,
        day_unit=cast("DayUnit", top.choice("day_unit", _DAY_UNITS, "calendar_day")),
        window_days=window_days,
        forget_orders_after_days=_parse_forget(top, window_days),
        recency_cuts_days=recency,
        frequency_cuts=frequency,
        monetary_cuts=monetary,
        monetary_is_multiple=is_multiple,
        weights=weights,
        tiers=tuple(tiers.values()),
        rules=rules,
        **_parse_milestones(top),
    )


def _parse_milestones(top: TomlTable) -> dict[str, Any]:
    if "milestones" not in top:
        return {}
    table = top.table("milestones")
    table.allow("orders", "spend", "single_order")
    made: dict[str, Any] = {}
    if "orders" in table:
        made["order_milestones"] = table.integers("orders", 1, MILESTONE_ORDERS_MAX)
    for key, name in (("spend", "spend_milestones"), ("single_order", "single_milestones")):
        if key in table:
            made[name] = table.decimals(key)
            if any(amount <= 0 for amount in made[name]):
                raise table.error(key, "must be more than 0", "write amounts in major units, ascending")
    for key in table.values:
        if len(table.values[key]) > MILESTONES_MAX:
            raise table.error(key, f"has {len(table.values[key])} of them", f"use at most {MILESTONES_MAX}")
    return made


def _parse_signal_days(tier: TomlTable, name: str) -> tuple[int, ...]:
    """Read the days of a tier's signals; they may be written from the longest to the shortest, too."""
    if name not in tier:
        return ()
    values = tier.values[name]
    if isinstance(values, list) and len(values) > 1 and values == sorted(values, key=_descending):
        tier = TomlTable({**tier.values, name: values[::-1]}, tier.file, tier.path)
    days = tier.integers(name, 1, DAYS_MAX)
    if len(days) > SIGNAL_DAYS_MAX:
        raise tier.error(name, f"has {len(days)} of them", f"use at most {SIGNAL_DAYS_MAX}")
    return days


def _descending(value: object) -> int:
    return -value if isinstance(value, int) else 0


def _parse_window(top: TomlTable) -> int | None:
    value = top.values.get("window_days")
    if value == "lifetime":
        return None
    if value is None or isinstance(value, str):
        found = "is missing" if value is None else f"{value!r} is not a window"
        raise top.error("window_days", found, 'write a number of days such as 365, or "lifetime"')
    return top.integer("window_days", 1, DAYS_MAX)


def _parse_forget(top: TomlTable, window_days: int | None) -> int | None:
    """Read after how many days orders are forgotten: not while the window still counts them.

    Over a lifetime F and M are running sums, which need no order.
    """
    name = "forget_orders_after_days"
    value = top.values.get(name, "never")
    if value == "never":
        return None
    if isinstance(value, str):
        raise top.error(name, f"{value!r} is no number of days", 'write one such as 400, or "never"')
    days = top.integer(name, 1, DAYS_MAX)
    if window_days is not None and days < window_days:
        raise top.error(
            name,
            f"is {days}, but window_days = {window_days} still counts orders that are older",
            f"write {window_days} or more, or leave it out to keep every order",
        )
    return days


def _parse_monetary(cuts: TomlTable) -> tuple[tuple[Fraction, ...], bool]:
    if not isinstance(cuts.values.get("monetary"), dict):
        return cuts.decimals("monetary"), False
    multiple = cuts.table("monetary")
    multiple.allow("average_order", "times")
    average_order = multiple.decimal("average_order")
    if average_order <= 0:
        raise multiple.error(
            "average_order", "must be more than 0", "write the average order value in major units"
        )
    return tuple(average_order * times for times in multiple.decimals("times")), True


def _parse_weights(top: TomlTable) -> tuple[Fraction, ...] | None:
    if "weights" not in top:
        return None
    table = top.table("weights")
    table.allow(*MEASURES)
    weights = tuple(table.decimal(measure) for measure in MEASURES)
    for measure, weight in zip(MEASURES, weights, strict=True):
        if not 0 <= weight <= WEIGHT_MAX:
            raise table.error(measure, "is out of range", f"write a weight from 0 to {WEIGHT_MAX}")
        if (weight * 10**WEIGHT_DECIMALS_MAX).denominator != 1:
            raise table.error(measure, "has too many decimals", f"use at most {WEIGHT_DECIMALS_MAX}")
    if not any(weights):
        raise top.error("weights", "are all 0", "give at least one measure a weight")
    return weights


def _parse_tiers(top: TomlTable) -> dict[str, Tier]:
    playbooks = _parse_playbooks(top)
    tiers = {}
    table = top.table("tiers")
    if len(table.values) > TIERS_MAX:
        raise top.error("tiers", f"there are {len(table.values)} of them", f"use at most {TIERS_MAX}")
    for tier_id in table.values:
        tier = table.table(tier_id)
        tier.allow("zh", "en", "playbook", "warn_days", "dwell_days")
        if not _NAME.fullmatch(tier_id):
            raise table.error(tier_id, "is not a tier id", "use letters, digits, - and _, at most 64")
        playbook = tier.text("playbook")
        if playbook not in playbooks:
            raise tier.error("playbook", f"there is no playbook {playbook!r}", f"add [playbooks.{playbook}]")
        days = (_parse_signal_days(tier, name) for name in ("warn_days", "dwell_days"))
        tiers[tier_id] = Tier(tier_id, tier.text("zh"), tier.text("en"), playbooks[playbook], *days)
    named = {tier.playbook.key for tier in tiers.values()}
    for key in playbooks:
        if key not in named:
            raise top.error(
                f"playbooks.{key}", "no tier has this playbook", "name it in a tier, or remove it"
            )
    return tiers


def _parse_playbooks(top: TomlTable) -> dict[str, Playbook]:
    table = top.table("playbooks")
    playbooks = {}
    for key in table.values:
        entry = table.table(key)
        entry.allow(*_PLAYBOOK_TEXTS, "holdout", *(f"zh_{name}" for name in _PLAYBOOK_TEXTS))
        playbooks[key] = Playbook(
            key,
            entry.text("audience"),
            entry.texts("actions"),
            entry.texts("channels"),
            _parse_holdout(entry),
            entry.text("zh_audience") if "zh_audience" in entry else None,
            _parse_chinese(entry, "actions"),
            _parse_chinese(entry, "channels"),
        )
    return playbooks


def _parse_chinese(playbook: TomlTable, name: str) -> tuple[str, ...]:
    """Read the Chinese of a list of texts: one for each, or none at all."""
    key = f"zh_{name}"
    if key not in playbook:
        return ()
    texts, english = playbook.texts(key), playbook.texts(name)
    if len(texts) != len(english):
        raise playbook.error(
            key,
            f"has {len(texts)}, but {name} has {len(english)}",
            f"write the Chinese of each of the {name}, in their order",
        )
    return texts


def _parse_holdout(playbook: TomlTable) -> int | None:
    if "holdout" not in playbook:
        return None
    parts = playbook.decimal("holdout") * HOLDOUT_PARTS
    if parts.denominator != 1 or not 0 <= parts <= HOLDOUT_PARTS:
        raise playbook.error(
            "holdout", "is not a share of the customers", 'write one of at most 4 decimals: "0.10"'
        )
    return int(parts)


def _parse_rule(
    rule: TomlTable, band_counts: tuple[int, int, int], tiers: Mapping[str, Tier], *, weighted: bool
) -> Rule:
    conditions = [f"{measure}_{kind}" for measure in MEASURES for kind in ("band", "score")]
    rule.allow("tier", "weighted_score", "first_order", *conditions)
    tier = rule.text("tier")
    if tier not in tiers:
        raise rule.error(
            "tier", f"there is no tier {tier!r}", f"add [tiers.{tier}] or use one of {', '.join(tiers)}"
        )
    if "weighted_score" in rule and not weighted:
        raise rule.error("weighted_score", "needs weights", "add [weights] with r, f and m")
    bands = []
    for axis, measure in enumerate(MEASURES):
        for name, lowest in ((f"{measure}_band", 0), (f"{measure}_score", 1)):
            if name in rule:
                span = _parse_span(rule, name, (lowest, lowest + band_counts[axis] - 1))
                bands.append(
                    (axis, Span(*(None if end is None else end - lowest for end in (span.low, span.high))))
                )
    return Rule(
        key=rule.path,
        tier=tier,
        bands=tuple(bands),
        weighted_score=_parse_span(rule, "weighted_score", None) if "weighted_score" in rule else None,
        first_order=rule.flag("first_order") if "first_order" in rule else None,
    )


def _parse_span(rule: TomlTable, name: str, limits: tuple[int, int] | None) -> Span:
    """Read a condition: one number, or a table with min, max or both; with `limits`, integers."""

    def number(table: TomlTable, key: str) -> Fraction:
        return table.decimal(key) if limits is None else Fraction(table.integer(key, *limits))

    if not isinstance(rule.values[name], dict):
        exactly = number(rule, name)
        return Span(exactly, exactly)
    table = rule.table(name)
    table.allow("min", "max")
    if not table.values:
        raise rule.error(name, "has neither min nor max", f"write {name} = {{ min = 4 }}")
    low, high = (number(table, end) if end in table else None for end in ("min", "max"))
    if low is not None and high is not None and low > high:
        raise rule.error(name, "min is greater than max", "swap them")
    return Span(low, high)
