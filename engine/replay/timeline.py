"""The tier changes of one customer, out of a file of changes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from rfmstream.engine.files.dataset_formats import format_of
from rfmstream.engine.files.own_tables import names_of, plain_schema, reading
from rfmstream.engine.files.readers import read_arrow
from rfmstream.schemas.changes import CHANGE_REASONS, CHANGE_SCHEMA
from rfmstream.schemas.errors import ConfigError, InputError


@dataclass(frozen=True)
class Timeline:
    """The changes of one customer, oldest first, as dicts of CHANGE_SCHEMA."""

    customer_id: str
    changes: tuple[dict[str, Any], ...]

    @property
    def identity(self) -> str:
        """The identity of the ruleset of the newest change."""
        return str(self.changes[-1]["ruleset"])


def read_timeline(
    path: Path, customer_id: str | None = None, *, view: str | None = None, population: str | None = None
) -> Timeline:
    """Read the changes of a customer from a .parquet, .arrow, .csv or .jsonl file.

    In      customer_id  None: one with the most changes, the first by id of several
            view, population  which of the customer's, where the file holds those of several
    Errors  InputError   no such file, not a file of changes, or the customer has no change in it
            ConfigError  the customer has changes in several views or populations, and which is not said
    """
    with reading(path, "tier changes", "name a file of replay --changes"):
        chosen = _busiest(path) if customer_id is None else customer_id
        found = _scan(path, filter=pc.field("customer_id") == chosen).to_table().sort_by("seq").to_pylist()
    found = _of_one(found, path, {"view": view, "population": population})
    if chosen is None or not found:
        problem = "holds no changes" if chosen is None else f"holds no change of customer {chosen!r}"
        raise InputError(problem, source=path, fix="ids are text: 00042 is not 42" if chosen else None)
    for change in found:
        missing = [
            field.name
            for field in list(CHANGE_SCHEMA)[: _OLD_COLUMNS[0]]
            if change[field.name] is None and not field.nullable
        ]
        if missing or change["reason"] not in CHANGE_REASONS:
            problem = f"has no {missing[0]}" if missing else f"has the unknown reason {change['reason']!r}"
            raise InputError(
                f"is damaged: change {change['seq']} of customer {chosen!r} {problem}", source=path
            )
    return Timeline(chosen, tuple(found))


def _of_one(found: list[dict[str, Any]], path: Path, chosen: dict[str, str | None]) -> list[dict[str, Any]]:
    """Return the changes of one view and population.

    Errors  ConfigError  there are several and none is chosen, or another one
    """
    for key, value in chosen.items():
        there = sorted({change[key] for change in found}, key=str)
        if value is not None and value not in there and any(name is not None for name in there):
            raise ConfigError(
                f"the customer has no changes in the {key} {value!r}",
                file=path,
                key=f"--{key}",
                fix=f"name one of {', '.join(map(str, there))}",
            )
        if value is None and len(there) > 1:
            raise ConfigError(
                f"the customer has changes in several: {', '.join(map(str, there))}",
                file=path,
                key=f"--{key}",
                fix="name one of them",
            )
        found = [change for change in found if value is None or change[key] in (value, None)]
    return found


_OLD_COLUMNS: Final = tuple(CHANGE_SCHEMA.get_field_index(name) for name in ("holdout", "view"))
"""How many columns a file of changes had before there was a holdout, and before there were views."""


def _scan(path: Path, **options: Any) -> ds.Scanner:  # noqa: ANN401 - the scanner's own
    """Return a scanner of a file of changes.

    In      options  its `columns` and `filter`
    Errors  InputError  it is none
    """
    # What an older file has not is null.
    plain = plain_schema(
        field.with_nullable(field.nullable or at >= _OLD_COLUMNS[0]) for at, field in enumerate(CHANGE_SCHEMA)
    )
    form = format_of(path, "tier changes", plain)
    # A snapshot holds all of these columns and more.
    names = names_of(path, "tier changes")
    if names not in [CHANGE_SCHEMA.names, *(CHANGE_SCHEMA.names[:count] for count in _OLD_COLUMNS)]:
        raise InputError("is not a file of tier changes", source=path, fix="name one of replay --changes")
    if path.suffix.lower() == ".arrow":
        # Arrow itself follows the offsets of a damaged file wherever they lead.
        # What is missing is null: the columns to come are the last ones, and may be.
        batches = (_completed(batch, plain) for _, batch, _ in read_arrow(path, names))
        return ds.Scanner.from_batches(batches, schema=plain, **options)
    return ds.dataset(path, schema=plain, format=form).scanner(**options)


def _completed(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    for field in list(schema)[batch.num_columns :]:
        batch = batch.append_column(field, pa.nulls(batch.num_rows, field.type))
    return batch.cast(schema)


def _busiest(path: Path) -> str | None:
    """Return the customer whose newest change has the highest number, the first by id of several."""
    best_seq, best = 0, None
    for batch in _scan(path, columns=["customer_id", "seq"]).to_batches():
        seq = pc.max(batch["seq"]).as_py()
        if seq is None or seq < best_seq:
            continue
        first = pc.min(batch.filter(pc.field("seq") == seq)["customer_id"]).as_py()
        best = first if best is None or seq > best_seq else min(best, first)
        best_seq = seq
    return best
