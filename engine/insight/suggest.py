"""Cuts for a ruleset out of a shop's own history: from the gaps between purchases, from orders, from basket values.

R cuts are quantiles of the gaps between purchase days: within a cut so many of those who came back had come back.
F cuts are quantiles of orders a customer. M cuts are multiples of the average order value, or natural breaks of M.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rfmstream.engine.insight.purchases import Purchases
from rfmstream.schemas.errors import ConfigError, InputError
from rfmstream.schemas.ruleset import Ruleset

Monetary = Literal["multiples", "breaks"]

GAP_SHARES: Final = (0.5, 0.8, 0.9, 0.95)
"""Quantiles of the gaps that are shown, and from which R cuts are taken."""
F_SHARES: Final = (0.2, 0.4, 0.6, 0.8)
MULTIPLES: Final = (3, 5)
BREAK_VALUES_MAX: Final = 10_000
"""Natural breaks take time by the square of the values: of more customers a sample, evenly over their order by M."""

_R_SHARES: Final = {1: (0.8,), 2: (0.5, 0.9), 3: (0.5, 0.8, 0.95), 4: GAP_SHARES}


@dataclass(frozen=True)
class Suggestion:
    """Cuts, and what they were found from.

    Fields  gaps_days        quantiles GAP_SHARES of the gaps between purchase days
            gaps             how many there are
            frequency        quantiles F_SHARES of F, over the window, of customers who ever ordered
            average_minor    average order value: what is left of all purchases, divided by their number
            recency_cuts, frequency_cuts, monetary_cuts_minor  as many as the ruleset to be like has
            notes            what had to be done otherwise than by the book, a sentence each
    """

    gaps_days: tuple[float, ...]
    gaps: int
    frequency: tuple[float, ...]
    average_minor: Fraction
    recency_cuts: tuple[int, ...]
    frequency_cuts: tuple[int, ...]
    monetary_cuts_minor: tuple[int, ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return it as `--json` prints it: money in minor units."""
        low, high = (round_half_up(self.average_minor * times) for times in MULTIPLES)
        return {
            "gaps_days": {
                f"p{share * 100:g}": days for share, days in zip(GAP_SHARES, self.gaps_days, strict=True)
            },
            "gaps": self.gaps,
            "frequency": {f"p{share * 100:g}": f for share, f in zip(F_SHARES, self.frequency, strict=True)},
            "average_order_minor": float(self.average_minor),
            "multiples_minor": [low, high],
            "recency_days_cuts": self.recency_cuts,
            "frequency_cuts": self.frequency_cuts,
            "monetary_minor_cuts": self.monetary_cuts_minor,
            "notes": self.notes,
        }


def suggest(
    purchases: Purchases, snapshot: pa.Table, like: Ruleset, monetary: Monetary = "multiples"
) -> Suggestion:
    """Find cuts, as many of each measure as a ruleset has.

    In      snapshot  by that ruleset, after the same orders: its F and M are over the ruleset's window
    Errors  InputError   too few customers came back to tell a gap, or nobody bought for money
            ConfigError  jenkspy, which finds natural breaks, is not installed
    """
    gaps = purchases.gap_days(like.time_zone)
    has_orders = snapshot["lifetime_orders"].to_numpy() > 0
    frequency = snapshot["frequency"].to_numpy()[has_orders]
    amounts_minor = snapshot["monetary_minor"].to_numpy()[has_orders]
    if gaps.size < 2 or purchases.amount_minor <= 0:
        raise InputError(
            "too little history to find cuts in: customers must have come back, and have paid",
            fix="give all orders there are",
        )
    average = Fraction(purchases.amount_minor, purchases.count)
    shown = _quantiles(frequency, F_SHARES)
    frequency_cuts, notes = _frequency_cuts(frequency, len(like.frequency_cuts))
    if (classes := len(set(shown)) + (min(shown) > frequency.min())) <= len(shown):
        listed = ", ".join(f"{value:g}" for value in shown)
        notes = (f"F quintiles {listed} collapse by ties: {classes} classes of {len(shown) + 1}", *notes)
    find = _breaks if monetary == "breaks" else _multiples
    recency_cuts = _recency_cuts(gaps, len(like.recency_cuts_days))
    return Suggestion(
        gaps_days=_quantiles(gaps, GAP_SHARES),
        gaps=int(gaps.size),
        frequency=shown,
        average_minor=average,
        recency_cuts=recency_cuts,
        frequency_cuts=frequency_cuts,
        monetary_cuts_minor=find(average, amounts_minor, len(like.monetary_cuts_minor)),
        notes=notes,
    )


def toml_of(suggestion: Suggestion, *, name: str, base: str, like: Ruleset) -> str:
    """Write the ruleset file: the cuts, and everything else of the ruleset it extends.

    In      base  what `extends` says: a built-in's name, or a path from the file's directory
    """
    exponent = like.currency_exponent
    average = _major(round_half_up(suggestion.average_minor), exponent)
    gaps = ", ".join(
        f"{share:.0%} {days:g}" for share, days in zip(GAP_SHARES, suggestion.gaps_days, strict=True)
    )
    f_quantiles = ", ".join(f"{value:g}" for value in suggestion.frequency)
    lines = [
        "# Cuts found in our own orders by `rfmstream rulesets suggest`. Evidence:",
        f"#   days from one purchase day to the customer's next, shares of {suggestion.gaps:,}: {gaps}",
        f"#   orders a customer, quintiles: {f_quantiles}",
        f"#   average order value: {average} {like.currency}",
        *(f"#   {note}" for note in suggestion.notes),
        f"name = {_text(name)}",
        f"extends = {_text(base)}",
        f"title = {_text(f'Like {like.name}, with cuts from our own orders')}",
        'source = "rfmstream rulesets suggest"',
        f"time_zone = {_text(like.time_zone)}",
        f"currency = {_text(like.currency)}",
        "",
        "[cuts]",
        f"recency_days = [{', '.join(map(str, suggestion.recency_cuts))}]",
        f"frequency = [{', '.join(map(str, suggestion.frequency_cuts))}]",
        "monetary = ["
        + ", ".join(f'"{_major(cut, exponent)}"' for cut in suggestion.monetary_cuts_minor)
        + "]",
    ]
    return "\n".join(lines) + "\n"


def _quantiles(values: NDArray[np.int64], shares: Sequence[float]) -> tuple[float, ...]:
    return tuple(float(value) for value in np.quantile(values, shares))


def _recency_cuts(gaps: NDArray[np.int64], count: int) -> tuple[int, ...]:
    """Return the quantiles of the gaps, in whole days upwards, each at least a day after the one before."""
    shares = _R_SHARES.get(count) or tuple(np.linspace(GAP_SHARES[0], GAP_SHARES[-1], count).tolist())
    return _ascending([ceil(days) for days in _quantiles(gaps, shares)])


def _frequency_cuts(frequency: NDArray[np.int64], count: int) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return the distinct quantiles of F above 1, and medians of those beyond them where ties leave too few."""
    if not count:
        return (), ()
    found = [ceil(value) for value in _quantiles(frequency, [(i + 1) / (count + 1) for i in range(count)])]
    cuts = sorted({value for value in found if value > 1})
    notes = []
    if len(cuts) < count:
        kept = ", ".join(map(str, cuts)) or "none"
        listed = ", ".join(map(str, found))
        notes.append(f"F cuts from quantiles {listed}: those above 1 and distinct are {kept}")
    while len(cuts) < count:
        last = cuts[-1] if cuts else 1
        beyond = frequency[frequency > last]
        cuts.append(max(ceil(np.median(beyond)), last + 1) if beyond.size else last + 1)
        notes.append(f"F cut {cuts[-1]}: the median of the customers with more than {last}")
    return tuple(cuts), tuple(notes)


def _multiples(average: Fraction, _: NDArray[np.int64], count: int) -> tuple[int, ...]:
    low, high = MULTIPLES
    times = (
        [Fraction(low + high, 2)]
        if count == 1
        else [low + Fraction(high - low) * i / max(count - 1, 1) for i in range(count)]
    )
    return _ascending([round_half_up(average * each) for each in times])


def _breaks(_: Fraction, amounts_minor: NDArray[np.int64], count: int) -> tuple[int, ...]:
    """Return natural breaks (Jenks): each cut is the least value of its class."""
    if not count:
        return ()
    try:
        import jenkspy  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise ConfigError(
            "natural breaks need jenkspy, which is not installed",
            key="--monetary",
            fix="pip install 'rfmstream[suggest]', or use --monetary multiples",
        ) from error
    values = np.sort(amounts_minor)
    values = values[:: ceil(values.size / BREAK_VALUES_MAX)]
    distinct = np.unique(values)
    if distinct.size <= count:
        raise InputError(
            f"{distinct.size} different amounts make no {count + 1} classes", fix="use --monetary multiples"
        )
    ends = jenkspy.jenks_breaks(values.tolist(), n_classes=count + 1)[1:-1]
    least = distinct[np.searchsorted(distinct, np.array(ends, np.int64), side="right")]
    return _ascending([int(value) for value in least])


def _ascending(cuts: Sequence[int]) -> tuple[int, ...]:
    found: list[int] = []
    for cut in cuts:
        found.append(max(cut, found[-1] + 1) if found else cut)
    return tuple(found)


def round_half_up(value: Fraction) -> int:
    """Round to the next integer, a half upwards."""
    return (value + Fraction(1, 2)).__floor__()


def _major(minor: int, exponent: int) -> str:
    digits = str(abs(minor)).rjust(exponent + 1, "0")
    sign = "-" if minor < 0 else ""
    return sign + (f"{digits[:-exponent]}.{digits[-exponent:]}" if exponent else digits)


def _text(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
