"""Values of events, hostile ones among them, and how CloudEvents are to write them: letter by letter."""

from datetime import UTC, datetime
from urllib.parse import quote

from hypothesis import strategies as st

from rfmstream.schemas.ruleset import load_ruleset

RULESET = load_ruleset("rfm8", time_zone="Europe/London", currency="GBP")
TIERS = {tier.id: tier for tier in RULESET.tiers}
SOURCE = "/rfmstream/shop/orders.v1/0"

CHARACTERS = st.characters(exclude_categories=["Cs"])
HOSTILE = st.sampled_from(
    [
        *('"', "\\", "/", "%", "%2F", "\x00", "\x1f", "\x7f", "\x80", "\x9f", "\xa0", "\b\t\n\f\r", "\u2028"),
        *(
            "\ufdd0",
            "\ufdef",
            "\ufdcf",
            "\ufffd",
            "\ufffe",
            "\uffff",
            "\U0001f600",
            "\U0001ffff",
            "\U0010fffe",
        ),
        *("客户", "\U00012345", "é", " ", "'", "<", "\u07ff", "\u0800", "\U00010000"),
    ]
)
IDS = st.lists(HOSTILE | st.text(CHARACTERS, max_size=9), min_size=1, max_size=5).map("".join).filter(len)
INSTANTS = st.datetimes(timezones=st.just(UTC))
TIER = st.sampled_from([*TIERS, None, "gone"])
INT64 = st.integers(-(2**63), 2**63 - 1)


def instant(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat(timespec="microseconds").replace("+00:00", "Z")


def attribute(text: str) -> str:
    """Encode what CloudEvents forbids in a String, and the percent sign."""

    def is_forbidden(code: int) -> bool:
        control = code < 0x20 or 0x7F <= code <= 0x9F
        return control or 0xFDD0 <= code <= 0xFDEF or code & 0xFFFE == 0xFFFE or code == ord("%")

    return "".join(quote(letter, safe="") if is_forbidden(ord(letter)) else letter for letter in text)
