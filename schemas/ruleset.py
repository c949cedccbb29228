"""The ruleset: everything that decides which tier a customer has, read from a file, checked and compiled.

Source  docs/semantics.md section 4; the file itself is described in docs/rulesets.md
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfmstream.schemas.currencies import CURRENCY_EXPONENTS, currency_exponent
from rfmstream.schemas.errors import ConfigError
from rfmstream.schemas.ruleset_compile import compile_lookup, compile_milestones, compile_monetary_cuts
from rfmstream.schemas.ruleset_file import SHIPPED, read_ruleset_file, shipped_path
from rfmstream.schemas.ruleset_model import DayUnit, Milestones, Playbook, RulesetFile, Tier
from rfmstream.schemas.zones import zone_of

__all__ = ["Milestones", "Playbook", "Ruleset", "Tier", "list_rulesets", "load_ruleset"]


@dataclass(frozen=True)
class Ruleset:
    """A compiled ruleset.

    Fields  name                 the file's own name for it
            identity             what the `ruleset` column says: see `load_ruleset`
            fingerprint          sha256, hex, over all that decides tiers and, where there are any, signals and
                                 holdouts; not over labels and playbooks
            tier_fingerprint     the same over what decides tiers alone
            title, source        what it is, and whose practice it follows; "" if the file names none
            time_zone            IANA name; its calendar tells the days apart
            currency             ISO 4217; amounts in another one are rejected
            day_unit             what "within D days" means: docs/semantics.md section 2
            window_days          orders and adjustments within it count in F and M; None: all of them
            forget_orders_after_days  of an older order nothing but its sums is kept; None: every order is kept
            recency_cuts_days    ascending; r_band = how many of them the last payment is within
            frequency_cuts       ascending, orders; f_band = how many of them F has reached
            monetary_cuts_minor  ascending, minor units; m_band = how many of them M has reached
            tiers                tier code = position
            lookup               i8[2, n_r+1, n_f+1, n_m+1], read-only, C order: tier code. First axis: 1
                                 where the customer has exactly one lifetime order that is not void
            milestones           what gives a signal when it is reached
    Holds   every combination of bands has a tier
    """

    name: str
    identity: str
    fingerprint: str
    title: str
    source: str
    time_zone: str
    currency: str
    day_unit: DayUnit
    window_days: int | None
    recency_cuts_days: tuple[int, ...]
    frequency_cuts: tuple[int, ...]
    monetary_cuts_minor: tuple[int, ...]
    tiers: tuple[Tier, ...]
    lookup: NDArray[np.int8] = field(compare=False, repr=False)
    milestones: Milestones = field(default_factory=Milestones)
    tier_fingerprint: str = ""
    forget_orders_after_days: int | None = None

    @property
    def asks_signals(self) -> bool:
        """Whether there is anything to be told besides changes of tier."""
        return not self.milestones.is_empty or any(tier.warn_days or tier.dwell_days for tier in self.tiers)

    def without_signals(self) -> "Ruleset":
        """Return the ruleset that decides the same tiers and gives no signal."""
        tiers = tuple(replace(tier, warn_days=(), dwell_days=()) for tier in self.tiers)
        return replace(self, tiers=tiers, milestones=Milestones())

    @property
    def currency_exponent(self) -> int:
        """Decimals of the currency: a major unit is ten to this power of minor units."""
        return CURRENCY_EXPONENTS[self.currency]

    @property
    def metadata(self) -> dict[str, str]:
        """What a table of tier changes says of its ruleset, as Arrow schema metadata."""
        return {
            "rfmstream.ruleset": self.identity,
            "rfmstream.fingerprint": self.fingerprint,
            "rfmstream.currency": self.currency,
            "rfmstream.currency_exponent": str(self.currency_exponent),
            "rfmstream.time_zone": self.time_zone,
        }


def list_rulesets() -> tuple[str, ...]:
    """Return the names of the built-in rulesets, in alphabetical order."""
    return tuple(sorted(path.stem for path in SHIPPED.glob("*.toml")))


def load_ruleset(
    name_or_path: str | PathLike[str], *, time_zone: str | None = None, currency: str | None = None
) -> Ruleset:
    """Load a built-in ruleset by name, or a user's file by path, and compile it.

    A `time_zone` or `currency` takes the place of the file's own. M cuts keep their digits: 1000 CNY become
    1000 GBP.

    The identity of a built-in is its name, that of a user's file name@<first 8 of tier_fingerprint>: a consumer of tier
    changes need not know that signals were asked for besides, or that a built-in it extends now does. A time
    zone or currency that differs from the file's own is appended: rfm8[currency=GBP,time_zone=Europe/London].

    Errors  ConfigError  no such ruleset, or a file that is wrong; it names the file, the key and the fix
    """
    shipped = shipped_path(name_or_path) if isinstance(name_or_path, str) else None
    if shipped is None and isinstance(name_or_path, str) and not _looks_like_path(name_or_path):
        raise ConfigError(
            f"there is no built-in ruleset {name_or_path!r}",
            key="ruleset",
            fix=f"use one of {', '.join(list_rulesets())}, or the path of a .toml file",
        )
    own = read_ruleset_file(shipped or Path(name_or_path))
    if time_zone is not None:
        zone_of(time_zone)
    effective = replace(
        own,
        time_zone=own.time_zone if time_zone is None else time_zone,
        currency=own.currency if currency is None else currency,
    )
    monetary_cuts_minor = compile_monetary_cuts(effective, currency_exponent(effective.currency))
    lookup = compile_lookup(effective)
    milestones = compile_milestones(effective, currency_exponent(effective.currency))
    decisive = _decisive(effective, monetary_cuts_minor, lookup)
    tier_fingerprint = _fingerprint(decisive)
    base = own.name if shipped else f"{own.name}@{tier_fingerprint[:8]}"
    return Ruleset(
        name=effective.name,
        identity=base + _overrides(own, effective),
        fingerprint=_fingerprint(decisive | _asked_besides(effective, milestones)),
        title=effective.title,
        source=effective.source,
        time_zone=effective.time_zone,
        currency=effective.currency,
        day_unit=effective.day_unit,
        window_days=effective.window_days,
        recency_cuts_days=effective.recency_cuts_days,
        frequency_cuts=effective.frequency_cuts,
        monetary_cuts_minor=monetary_cuts_minor,
        tiers=effective.tiers,
        lookup=lookup,
        milestones=milestones,
        tier_fingerprint=tier_fingerprint,
        forget_orders_after_days=effective.forget_orders_after_days,
    )


def _looks_like_path(text: str) -> bool:
    return text.endswith(".toml") or "/" in text or "\\" in text or os.path.isfile(text)  # noqa: PTH113 - any name


def _overrides(own: RulesetFile, effective: RulesetFile) -> str:
    differing = [
        f"{key}={getattr(effective, key)}"
        for key in ("currency", "time_zone")
        if getattr(effective, key) != getattr(own, key)
    ]
    return f"[{','.join(differing)}]" if differing else ""


def _decisive(
    ruleset: RulesetFile, monetary_cuts_minor: tuple[int, ...], lookup: NDArray[np.int8]
) -> dict[str, Any]:
    """Return all that decides tiers, the lookup table in C order as hex.

    Rules that are written otherwise but decide the same have the same fingerprint.
    """
    forgets = ruleset.forget_orders_after_days
    return {
        "time_zone": ruleset.time_zone,
        "currency": ruleset.currency,
        "day_unit": ruleset.day_unit,
        "window_days": ruleset.window_days,
        "recency_cuts_days": ruleset.recency_cuts_days,
        "frequency_cuts": ruleset.frequency_cuts,
        "monetary_cuts_minor": monetary_cuts_minor,
        "tiers": [tier.id for tier in ruleset.tiers],
        "lookup": lookup.tobytes().hex(),
        **({} if forgets is None else {"forget_orders_after_days": forgets}),
    }


def _asked_besides(ruleset: RulesetFile, milestones: Milestones) -> dict[str, Any]:
    """Return what a ruleset says of signals and holdouts; nothing where it says nothing of them."""
    asked = {
        "warn_days": {tier.id: tier.warn_days for tier in ruleset.tiers if tier.warn_days},
        "dwell_days": {tier.id: tier.dwell_days for tier in ruleset.tiers if tier.dwell_days},
        "milestones": {} if milestones.is_empty else asdict(milestones),
        "holdout": {
            tier.id: (tier.playbook.key, tier.playbook.holdout_parts)
            for tier in ruleset.tiers
            if tier.playbook.holdout_parts is not None
        },
    }
    return {name: value for name, value in asked.items() if value}


def _fingerprint(decisive: dict[str, Any]) -> str:
    """Hash what decides: a JSON text with sorted keys."""
    return hashlib.sha256(json.dumps(decisive, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
