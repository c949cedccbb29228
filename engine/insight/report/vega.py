"""Vega pictures as SVG: drawn once, shown in each language and theme.

vl-convert draws at build time, so a page holds no library and needs no script to show its pictures. What differs
between themes is drawn in stand-in colours that become CSS variables; what differs between languages is drawn in
English and becomes several texts of which the page shows one.
"""

import json
import re
from collections.abc import Mapping
from html import escape, unescape
from typing import Any, Final

from rfmstream.engine.insight.report.words import Chinese
from rfmstream.schemas.errors import ConfigError

Spec = dict[str, Any]

INK: Final = "#010101"
MUTED: Final = "#010102"
LINE: Final = "#010103"
PAPER: Final = "#010104"
ACCENT: Final = "#010105"
SECOND: Final = "#010106"
CUT: Final = "#010107"
SERIES: Final = tuple(f"#0102{at:02x}" for at in range(8))
"""Stand-ins, by number: the palette of Okabe and Ito, which people with any colour vision tell apart."""

LIGHT: Final[Mapping[str, str]] = {
    INK: "#1b1f24",
    MUTED: "#57606a",
    LINE: "#d0d7de",
    PAPER: "#ffffff",
    ACCENT: "#0072b2",
    SECOND: "#d55e00",
    CUT: "#a0005a",
    **dict(
        zip(
            SERIES,
            ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c8c00", "#6e6e6e"),
            strict=True,
        )
    ),
}

_VARIABLES: Final = {
    INK: "ink",
    MUTED: "muted",
    LINE: "line",
    PAPER: "paper",
    ACCENT: "accent",
    SECOND: "second",
    CUT: "cut",
    **{stand_in: f"s{at}" for at, stand_in in enumerate(SERIES)},
}
_FONT: Final = "system-ui, 'Noto Sans CJK SC', 'PingFang SC', 'Microsoft YaHei', sans-serif"
_STAND_IN: Final = re.compile("|".join(map(re.escape, _VARIABLES)))
_TEXT: Final = re.compile(r"(<text[^>]*>)([^<]+)(</text>)")
_OPENING: Final = re.compile(r'<svg [^>]*?class="marks"')
_ROLES: Final = re.compile(r' (?:role|aria-[a-z]+)="[^"]*"')

_CONFIG: Final[Spec] = {
    "background": None,
    "font": "sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": INK,
        "titleColor": MUTED,
        "gridColor": LINE,
        "domainColor": LINE,
        "tickColor": LINE,
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "labelLimit": 260,
    },
    "legend": {
        "labelColor": INK,
        "titleColor": MUTED,
        "labelFontSize": 12,
        "orient": "top",
        "title": None,
        "labelLimit": 260,
        "columns": 4,
        "columnPadding": 34,
    },
    "header": {"labelColor": INK, "titleColor": MUTED, "labelFontSize": 12, "labelFontWeight": "bold"},
    "title": {"color": INK, "fontSize": 13, "anchor": "start"},
    "bar": {"fill": ACCENT},
    "text": {"fill": INK, "fontSize": 12},
}


def check_renderer() -> None:
    """Load what draws.

    Errors  ConfigError  the extra `report` is not installed
    """
    try:
        import vl_convert  # noqa: F401, PLC0415 - an extra: 84 MB that only pages need
    except ImportError as error:
        raise ConfigError(
            "pictures are drawn by vl-convert-python, which is not installed",
            fix="pip install 'rfmstream[report]', or write .json instead of .html",
        ) from error


def draw(spec: Spec) -> str:
    """Draw a Vega or Vega-Lite specification as SVG, in English and stand-in colours."""
    import vl_convert  # noqa: PLC0415 - see check_renderer

    if spec["$schema"].endswith("vega/v6.json"):
        return str(vl_convert.vega_to_svg(spec))
    return str(vl_convert.vegalite_to_svg({"config": _CONFIG, **spec}))


def for_page(svg: str, chinese: Mapping[str, Chinese]) -> str:
    """Return a drawn picture for a page of all languages and two themes.

    In      chinese  for the English texts that have another word
    """
    svg = _OPENING.sub('<svg aria-hidden="true" focusable="false"', _ROLES.sub("", svg), count=1)
    svg = _TEXT.sub(lambda match: _in_all(match, chinese), svg)
    svg = _STAND_IN.sub(lambda match: f"var(--{_VARIABLES[match[0]]})", svg)
    return re.sub(r' font-family="[^"]*"', "", svg)


def for_file(svg: str, texts: Mapping[str, str]) -> bytes:
    """Return a drawn picture as a PNG of twice its size, light.

    In      texts  what stands instead of the English texts; none: English
    """
    import vl_convert  # noqa: PLC0415 - see check_renderer

    svg = _TEXT.sub(lambda match: match[1] + _instead(match[2], texts) + match[3], svg)
    svg = _STAND_IN.sub(lambda match: LIGHT[match[0]], svg).replace(
        'font-family="sans-serif"', f'font-family="{_FONT}"'
    )
    svg = re.sub(r"(<svg[^>]*>)", r'\1<rect width="100%" height="100%" fill="#ffffff"/>', svg, count=1)
    return bytes(vl_convert.svg_to_png(svg, scale=2))


def data_block(value: object) -> str:
    """Return JSON that may stand inside a script element."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def _in_all(match: "re.Match[str]", chinese: Mapping[str, Chinese]) -> str:
    found = chinese.get(unescape(match[2]))
    if found is None or match[2] == found.hans == found.hant:
        return match[0]
    hans, hant = (escape(text, quote=False) for text in found)
    texts = {"zh": hans} if hans == hant else {"hans": hans, "hant": hant}
    parts = (f'<tspan class="{name}">{text}</tspan>' for name, text in {"en": match[2], **texts}.items())
    return f"{match[1]}{''.join(parts)}{match[3]}"


def _instead(text: str, texts: Mapping[str, str]) -> str:
    plain = unescape(text)
    return escape(texts[plain], quote=False) if plain in texts else text
