"""Customers' rows of a snapshot as JSON, with what their tiers are called, by the kernel that writes tier changes."""

from collections.abc import Sequence
from typing import Any, Final

import pyarrow as pa

from rfmstream.engine.live.encode import TableEncoder
from rfmstream.engine.live.encode_events import Words
from rfmstream.engine.live.encode_layout import OUTSIDE, Layout, LayoutBuilder
from rfmstream.schemas.columns import WORD, Column, arrow_schema
from rfmstream.schemas.ruleset import Ruleset
from rfmstream.schemas.snapshots import SNAPSHOT_COLUMNS

_NAMES: Final = (
    Column("tier_zh", WORD, "text", "What the tier is called in Chinese; null: no tier."),
    Column("tier_en", WORD, "text", "What the tier is called in English; null: no tier."),
    Column("playbook", WORD, "key", "The playbook of the tier; null: no tier."),
)
_COLUMNS: Final = (*SNAPSHOT_COLUMNS, *_NAMES)
_SCHEMA: Final = arrow_schema(_COLUMNS)


class CustomerRows:
    """Writes customers' rows, by one ruleset.

    >>> rows = CustomerRows(ruleset)
    >>> b"[%s]" % b",".join(rows.as_json(engine.snapshot()))
    """

    def __init__(self, ruleset: Ruleset) -> None:
        tiers = ruleset.tiers
        self._codes = {tier.id: code for code, tier in enumerate(tiers)}
        words = (
            [tier.label_zh for tier in tiers],
            [tier.label_en for tier in tiers],
            [tier.playbook.key for tier in tiers],
        )
        self._words = {column.name: some for column, some in zip(_NAMES, words, strict=True)}
        self._arrays = [pa.array(some, pa.string()) for some in words]
        self._encoder = TableEncoder(_SCHEMA, _layout)

    def names_of(self, tier: str | None) -> dict[str, Any]:
        """Return what a tier is called; None: no tier."""
        code = None if tier is None else self._codes[tier]
        return {name: None if code is None else words[code] for name, words in self._words.items()}

    def as_json(self, table: pa.Table) -> Sequence[bytes]:
        """Return pieces of JSON text: objects, of the rows in their order, with commas between them.

        In      table  of schemas.snapshots.SNAPSHOT_SCHEMA, its tiers those of the ruleset
        """
        pieces = []
        for batch in table.to_batches():
            tiers = batch.column("tier").indices
            columns = [
                *batch.columns,
                *(pa.DictionaryArray.from_arrays(tiers, words) for words in self._arrays),
            ]
            named = pa.Table.from_arrays(columns, schema=_SCHEMA)
            for records in self._encoder.encode(named):
                data = records.data.data
                rows = zip(records.starts.tolist(), records.sizes.tolist(), strict=True)
                pieces.append(b",".join([data[start : start + size] for start, size in rows]))
        return pieces


def _layout(words: Words) -> Layout:
    build = LayoutBuilder(_SCHEMA)
    build.json_object(_COLUMNS, words, OUTSIDE)
    build.text(b"}")
    return build.build()
