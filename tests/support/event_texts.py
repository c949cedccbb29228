"""Values of events, hostile ones among them, and how CloudEvents are to write them: letter by letter."""

from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import orjson
import pyarrow as pa
from hypothesis import strategies as st

from rfmstream.engine.live.encode import Record
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


def batches_of(schema: pa.Schema, *chunks: list[dict[str, Any]]) -> pa.Table:
    """Lay rows out in batches with dictionaries of their own, each a slice of a longer one."""
    batches = []
    for rows in chunks:
        around = rows[:1] * 3
        whole = pa.RecordBatch.from_pylist(around + rows + around, schema=schema)
        batches.append(whole.slice(len(around), len(rows)))
    return pa.Table.from_batches(batches, schema=schema)


def binary_record(row: dict[str, Any], type_: str, event_id: str, data: dict[str, Any]) -> Record:
    """Return the record of a row in CloudEvents' binary mode, letter by letter."""
    attributes = {
        "ce_specversion": "1.0",
        "ce_id": event_id,
        "ce_source": SOURCE,
        "ce_type": type_,
        "ce_subject": attribute(row["customer_id"]),
        "ce_time": instant(row["effective_at"]) or "",
        "content-type": "application/json",
    }
    headers = [(name, value.encode()) for name, value in attributes.items()]
    return Record(row["customer_id"].encode(), orjson.dumps(data), headers)


def structured_record(row: dict[str, Any], type_: str, event_id: str, data: dict[str, Any]) -> Record:
    """Return the record of a row in CloudEvents' structured mode."""
    envelope = {
        "specversion": "1.0",
        "id": event_id,
        "source": SOURCE,
        "type": type_,
        "subject": attribute(row["customer_id"]),
        "time": instant(row["effective_at"]),
        "datacontenttype": "application/json",
        "data": data,
    }
    headers = [("content-type", b"application/cloudevents+json; charset=utf-8")]
    return Record(row["customer_id"].encode(), orjson.dumps(envelope), headers)
