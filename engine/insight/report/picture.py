"""A picture, and the parts of its Vega-Lite specification that pictures share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from rfmstream.engine.insight.report.model import Report, TierTile
from rfmstream.engine.insight.report.vega import Spec
from rfmstream.engine.insight.report.words import NO_TIER, Chinese, same, words

LITE: Final = "https://vega.github.io/schema/vega-lite/v6.json"
WIDTH: Final = 720
SHORT: Final = "format(datum.value, '~s')"
LABELS_LEFT: Final = {"left": 40, "top": 5, "right": 20, "bottom": 5}
"""Room for fonts wider than those that pictures are measured with."""


@dataclass(frozen=True)
class Picture:
    """A picture: the name of its file, its specification, and Chinese for its texts beyond `words`."""

    name: str
    spec: Spec
    more: Mapping[str, Chinese] = field(default_factory=dict)

    @property
    def chinese(self) -> Mapping[str, Chinese]:
        """Chinese for every text of the picture that has another word."""
        return {**words(), **self.more}

    def texts_in(self, lang: str) -> Mapping[str, str]:
        """Return its texts in one Chinese, by the English."""
        return {english: chinese.of(lang) for english, chinese in self.chinese.items()}


def label(report: Report, tier: str | None) -> str:
    """Return a tier's label in English."""
    return next((given.label_en for given in report.tiers if given.id == tier), tier or NO_TIER)


def chinese_label(tier: TierTile) -> Chinese:
    """Return a tier's label in Chinese."""
    return words()[NO_TIER] if tier.id is None else same(tier.label_zh)


def chinese_labels(report: Report) -> dict[str, Chinese]:
    """Return the Chinese labels of tiers by the English ones."""
    return {given.label_en: chinese_label(given) for given in report.tiers}


def chart(values: Sequence[Mapping[str, Any]], **parts: Any) -> Spec:  # noqa: ANN401 - what Vega-Lite takes
    """Return a Vega-Lite specification of the values."""
    return {"$schema": LITE, "data": {"values": list(values)}, **parts}


def count_axis(name: str, title: str | None) -> Spec:
    """Return an axis of counts, short: 1.5k."""
    return {
        "field": name,
        "type": "quantitative",
        "title": title,
        "axis": {"labelExpr": SHORT, "tickCount": 5},
    }


def share_axis(name: str, title: str | None) -> Spec:
    """Return an axis of shares in per cent."""
    return {"field": name, "type": "quantitative", "title": title, "axis": {"format": ".0%", "tickCount": 5}}


def month_axis(name: str) -> Spec:
    """Return an axis of months."""
    return {
        "field": name,
        "type": "ordinal",
        "title": None,
        "axis": {"labelAngle": -45, "labelOverlap": True},
    }


def opacity_of(name: str) -> Spec:
    """Return shades: the more, the darker, and none so dark that its text cannot be read."""
    return {
        "field": name,
        "type": "quantitative",
        "scale": {"range": [0.06, 0.6], "domainMin": 0},
        "legend": None,
    }
