"""Tier changes and signals as CloudEvents 1.0: which text and which columns make a Kafka record.

`ce_id` is unique for ever within its source. Of a tier change it is ruleset/customer/seq, and where there are several
views view/population%2Fcustomer/seq; of a signal view/kind/effective_at/days/count/amount_minor/
population%2Fcustomer%2Forder. Nothing stands for null.

A record's key is the customer id. In the topic of the newest changes, where there are several views or populations, it
is the JSON array of view, population and customer id: of each of those compaction is to keep one.

The Kafka binding of CloudEvents takes attributes as plain UTF-8. But no attribute may hold control characters, so in
`ce_id` and `ce_subject` those of an id are percent-encoded, and the percent sign with them. A slash of an id stays: so
%2F is found between ids alone. In `ce_id` a slash of the ruleset's identity is percent-encoded, too. The key and the
value hold the customer id as it is.

Source  docs/semantics.md sections 6 and 9; CloudEvents 1.0.2, its JSON format and its Kafka protocol binding
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final
from urllib.parse import quote

import orjson

from rfmstream.engine.live.encode_layout import (
    ID,
    KEY,
    SUBJECT,
    TIME,
    VALUE,
    Layout,
    LayoutBuilder,
    sized,
    varint,
)
from rfmstream.kernels.encode_records import ATTRIBUTE, INSTANT, INTEGER, JSON_ATTRIBUTE, JSON_TEXT, TEXT
from rfmstream.schemas.changes import CHANGE_COLUMNS, CHANGE_SCHEMA, CHANGE_TYPE
from rfmstream.schemas.ruleset import Ruleset
from rfmstream.schemas.signals import SIGNAL_COLUMNS, SIGNAL_SCHEMA, SIGNAL_TYPE

JSON_TYPE: Final = "application/json"
CLOUDEVENT_TYPE: Final = "application/cloudevents+json; charset=utf-8"

Words = Mapping[str, Sequence[str]]
"""Of each column of words its dictionary."""

_Part = Callable[[LayoutBuilder, Words, int, int], None]
"""Adds an event's id: the words, the kind of field that an id is, the group."""

_Data = Callable[[LayoutBuilder, Words], None]


class EventLayouts:
    """Lays the records of events out, by one ruleset.

    source      of the events
    structured  the whole event in the value instead of attributes in headers
    parted      there are several views or populations
    """

    def __init__(self, ruleset: Ruleset, *, source: str, structured: bool, parted: bool = False) -> None:
        self._ruleset = ruleset
        self._source = source
        self._structured = structured
        self._add_change_id = _add_parted_id if parted else _add_change_id

    def change(self, words: Words) -> Layout:
        """Lay out tier changes, schemas.changes.CHANGE_SCHEMA, with flags as codes."""
        build = LayoutBuilder(CHANGE_SCHEMA)
        return self._event(build, words, CHANGE_TYPE, self._add_change_id, self._add_change)

    def newest(self, words: Words) -> Layout:
        """Lay out tier changes for the topic of the newest ones of several views or populations."""
        build = LayoutBuilder(CHANGE_SCHEMA)
        return self._event(
            build, words, CHANGE_TYPE, self._add_change_id, self._add_change, add_key=_add_parted_key
        )

    def signal(self, words: Words) -> Layout:
        """Lay out signals, schemas.signals.SIGNAL_SCHEMA, with flags as codes."""
        build = LayoutBuilder(SIGNAL_SCHEMA)
        return self._event(build, words, SIGNAL_TYPE, _add_signal_id, _add_signal)

    def _event(  # noqa: PLR0913 - what an event is made of
        self,
        build: LayoutBuilder,
        words: Words,
        event_type: str,
        add_id: _Part,
        add_data: _Data,
        *,
        add_key: _Data | None = None,
    ) -> Layout:
        build.length(KEY)
        if add_key is None:
            build.field(TEXT, "customer_id", KEY)
        else:
            add_key(build, words)
        build.length(VALUE)
        if self._structured:
            self._add_envelope(build, words, event_type, add_id, add_data)
            build.text(varint(1) + sized(b"content-type") + sized(CLOUDEVENT_TYPE.encode()))
        else:
            add_data(build, words)
            self._add_attributes(build, words, event_type, add_id)
        return build.build()

    def _add_attributes(self, build: LayoutBuilder, words: Words, event_type: str, add_id: _Part) -> None:
        """Add the headers of binary mode."""
        build.text(varint(7) + sized(b"ce_specversion") + sized(b"1.0") + sized(b"ce_id"))
        build.length(ID)
        add_id(build, words, ATTRIBUTE, ID)
        build.text(sized(b"ce_source") + sized(self._source.encode()))
        build.text(sized(b"ce_type") + sized(event_type.encode()) + sized(b"ce_subject"))
        build.length(SUBJECT)
        build.field(ATTRIBUTE, "customer_id", SUBJECT)
        build.text(sized(b"ce_time"))
        build.length(TIME)
        build.field(INSTANT, "effective_at", TIME)
        build.text(sized(b"content-type") + sized(JSON_TYPE.encode()))

    def _add_envelope(
        self, build: LayoutBuilder, words: Words, event_type: str, add_id: _Part, add_data: _Data
    ) -> None:
        """Add the value of structured mode."""
        build.text(b'{"specversion":"1.0","id":"', VALUE)
        add_id(build, words, JSON_ATTRIBUTE, VALUE)
        rest = {"source": self._source, "type": event_type}
        build.text(b'",' + orjson.dumps(rest)[1:-1] + b',"subject":"', VALUE)
        build.field(JSON_ATTRIBUTE, "customer_id", VALUE)
        build.text(b'","time":"', VALUE)
        build.field(INSTANT, "effective_at", VALUE)
        build.text(b'","datacontenttype":"' + JSON_TYPE.encode() + b'","data":', VALUE)
        add_data(build, words)
        build.text(b"}", VALUE)

    def _add_change(self, build: LayoutBuilder, words: Words) -> None:
        """Add a change and its labels as JSON."""
        build.json_object(CHANGE_COLUMNS, words, VALUE)
        build.text(b',"currency":' + orjson.dumps(self._ruleset.currency), VALUE)
        labels = {
            tier.id: {"zh": tier.label_zh, "en": tier.label_en, "playbook": tier.playbook.key}
            for tier in self._ruleset.tiers
        }
        nothing = dict.fromkeys(("zh", "en", "playbook"))

        def named(column: str, *keys: str) -> None:
            def fragment(word: str | None) -> bytes:
                # A tier of the ruleset before a change of rules has no label in this one.
                of = labels.get(word, nothing) if word is not None else nothing
                names = {key if key == "playbook" else f"{column}_{key}": of[key] for key in keys}
                return b"," + orjson.dumps(names)[1:-1]

            build.word(column, fragment(None), map(fragment, words[column]), VALUE)

        named("from_tier", "zh", "en")
        named("to_tier", "zh", "en", "playbook")
        build.text(b"}", VALUE)


def _add_signal(build: LayoutBuilder, words: Words) -> None:
    """Add a signal as JSON."""
    build.json_object(SIGNAL_COLUMNS, words, VALUE)
    build.text(b"}", VALUE)


def _add_change_id(build: LayoutBuilder, words: Words, kind: int, group: int) -> None:
    build.word("ruleset", b"", _quoted(words["ruleset"]), group)
    build.text(b"/", group)
    build.field(kind, "customer_id", group)
    build.text(b"/", group)
    build.field(INTEGER, "seq", group)


def _add_parted_id(build: LayoutBuilder, words: Words, kind: int, group: int) -> None:
    build.word("view", b"", _quoted(words["view"]), group)
    build.text(b"/", group)
    build.field(kind, "population", group)
    build.text(b"%2F", group)
    build.field(kind, "customer_id", group)
    build.text(b"/", group)
    build.field(INTEGER, "seq", group)


def _add_parted_key(build: LayoutBuilder, words: Words) -> None:
    build.text(b"[", KEY)
    build.word("view", b"null", map(orjson.dumps, words["view"]), KEY)
    for name in ("population", "customer_id"):
        build.text(b",", KEY)
        build.field(JSON_TEXT, name, KEY)
    build.text(b"]", KEY)


def _add_signal_id(build: LayoutBuilder, words: Words, kind: int, group: int) -> None:
    build.word("view", b"", _quoted(words["view"]), group)
    build.text(b"/", group)
    build.word("kind", b"", _quoted(words["kind"]), group)
    build.text(b"/", group)
    build.field(INSTANT, "effective_at", group)
    for name in ("days", "count", "amount_minor"):
        build.text(b"/", group)
        build.field(INTEGER, name, group)
    separator = b"/"
    for name in ("population", "customer_id", "order_id"):
        build.text(separator, group)
        build.field(kind, name, group)
        separator = b"%2F"


def _quoted(words: Iterable[str]) -> list[bytes]:
    # Percent-encoded to ASCII, so that quotes need no thought; [=,] stay, which identities are made of.
    return [quote(word, safe="[=,]@").encode() for word in words]
