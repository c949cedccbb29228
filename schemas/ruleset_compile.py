"""Rules to lookup table: the tier of every combination of bands, first order or not.

Source  docs/semantics.md section 4
"""

from math import ceil, lcm
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rfmstream.schemas.codes import NO_TIER
from rfmstream.schemas.errors import ConfigError
from rfmstream.schemas.ruleset_model import Milestones, Rule, RulesetFile, Span
from rfmstream.schemas.toml_table import show_decimal

MINOR_MAX: Final = 10**18
"""Largest cut in minor units, well inside int64."""


def compile_lookup(ruleset: RulesetFile) -> NDArray[np.int8]:
    """Compile the rules to i8[2, n_r+1, n_f+1, n_m+1], read-only, C order: positions in `ruleset.tiers`.

    The first axis is 1 for customers with exactly one lifetime order that is not void; then r, f and m band.
    The first rule that matches wins.

    Errors  ConfigError  a rule that never is the first to match, or a combination that no rule matches
    """
    lookup = np.full((2, *ruleset.band_counts), NO_TIER, np.int8)
    codes = {tier.id: code for code, tier in enumerate(ruleset.tiers)}
    for rule in ruleset.rules:
        matches = _matches(rule, ruleset)
        won = matches & (lookup == NO_TIER)
        if not won.any():
            why = "earlier rules take all it matches" if matches.any() else "nothing meets its conditions"
            raise ConfigError(
                f"this rule never gives its tier {rule.tier!r}: {why}",
                file=ruleset.file,
                key=rule.key,
                fix="move it up, widen its conditions or remove it",
            )
        lookup[won] = codes[rule.tier]
    _require_complete(lookup, ruleset)
    lookup.flags.writeable = False
    return lookup


def compile_milestones(ruleset: RulesetFile, exponent: int) -> Milestones:
    """Turn the amounts of the milestones into minor units of a currency with `exponent` decimals.

    Errors  ConfigError  an amount with more decimals than the currency, or beyond MINOR_MAX
    """
    made = []
    for key, amounts in (("spend", ruleset.spend_milestones), ("single_order", ruleset.single_milestones)):
        minors = [amount * 10**exponent for amount in amounts]
        for amount, minor in zip(amounts, minors, strict=True):
            if minor.denominator != 1 or minor > MINOR_MAX:
                raise ConfigError(
                    f"{show_decimal(amount)} is no amount in {ruleset.currency}",
                    file=ruleset.file,
                    key=f"milestones.{key}",
                    fix=f"use at most {exponent} decimals, and stay within {MINOR_MAX} minor units",
                )
        made.append(tuple(map(int, minors)))
    return Milestones(ruleset.order_milestones, *made)


def compile_monetary_cuts(ruleset: RulesetFile, exponent: int) -> tuple[int, ...]:
    """Turn the M cuts into integer minor units of a currency with `exponent` decimals.

    M is an integer of minor units, so it reaches a multiple of an average order exactly when it reaches the
    next integer above.

    Errors  ConfigError  a cut with more decimals than the currency, or beyond MINOR_MAX
    """
    cuts = []
    for cut in ruleset.monetary_cuts:
        minor = cut * 10**exponent
        if minor.denominator != 1 and not ruleset.monetary_is_multiple:
            raise _monetary_error(
                ruleset,
                f"{show_decimal(cut)} has more decimals than {ruleset.currency}",
                f"use at most {exponent}",
            )
        if abs(minor) > MINOR_MAX:
            raise _monetary_error(
                ruleset, f"{show_decimal(cut)} is too large", f"stay within {MINOR_MAX} minor units"
            )
        cuts.append(ceil(minor))
    if len(set(cuts)) < len(cuts):
        raise _monetary_error(ruleset, "two cuts are the same minor unit", "move them apart")
    return tuple(cuts)


def _monetary_error(ruleset: RulesetFile, problem: str, fix: str) -> ConfigError:
    return ConfigError(problem, file=ruleset.file, key="cuts.monetary", fix=fix)


def _matches(rule: Rule, ruleset: RulesetFile) -> NDArray[np.bool_]:
    """Return, for every cell of the lookup table, whether it meets all conditions of `rule`."""
    first_order, *bands = np.ogrid[tuple(slice(size) for size in (2, *ruleset.band_counts))]
    match = np.ones((2, *ruleset.band_counts), np.bool_)
    for axis, span in rule.bands:
        match &= _within(bands[axis], span, 1)
    if rule.weighted_score is not None:
        assert ruleset.weights is not None, "such a rule without weights is refused"
        # Over their common denominator the weights are integers, and the sum is exact.
        scale = lcm(*(weight.denominator for weight in ruleset.weights))
        total = sum(
            int(weight * scale) * (band + 1) for weight, band in zip(ruleset.weights, bands, strict=True)
        )
        match &= _within(np.asarray(total), rule.weighted_score, scale)
    if rule.first_order is not None:
        match &= first_order == int(rule.first_order)
    return match


def _within(values: NDArray[np.int64], span: Span, scale: int) -> NDArray[np.bool_]:
    """Return where `values`, in units of 1/scale, lie within `span`."""
    inside = np.ones(values.shape, np.bool_)
    if span.low is not None:
        inside &= values >= ceil(span.low * scale)
    if span.high is not None:
        inside &= values <= span.high.numerator * scale // span.high.denominator
    return inside


def _require_complete(lookup: NDArray[np.int8], ruleset: RulesetFile) -> None:
    gaps = lookup == NO_TIER
    gap_count = int(gaps.sum())
    if not gap_count:
        return
    first_order, *bands = (int(position) for position in np.unravel_index(int(gaps.argmax()), gaps.shape))
    whose = "a first order" if first_order else "more than a first order"
    if gaps[:, *bands].all():
        whose = "first order or not"
    named = ", ".join(f"{measure}_band {band}" for measure, band in zip("rfm", bands, strict=True))
    scores = ", ".join(str(band + 1) for band in bands)
    others = f" nor {gap_count - 1} more of the {gaps.size} combinations" if gap_count > 1 else ""
    raise ConfigError(
        f"no rule matches {named} (scores {scores}; {whose}){others}",
        file=ruleset.file,
        key="rules",
        fix="add a rule for it, or a last rule with nothing but a tier for all the rest",
    )
