"""Attributes of order events, such as a store or a category: what views look at, as text.

Source  docs/semantics.md section 10; docs/views.md
"""

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from rfmstream.engine.events.text import nulls, plain, shown_text
from rfmstream.schemas.errors import InputError
from rfmstream.schemas.plan import ATTRIBUTE


def attribute_text(column: pa.Array) -> pa.Array:
    """Return an attribute as the text it is compared by: numbers and flags by theirs; empty is null, no value."""
    text = shown_text(column)
    empty = pc.equal(pc.binary_length(text), 0)
    return pc.if_else(empty, pa.scalar(None, pa.string()), text) if pc.any(empty).as_py() else text


def attribute_columns(
    table: pa.Table | pa.RecordBatch,
    attributes: Sequence[str],
    *,
    source: str | None,
    names: Sequence[str] | None = None,
    may_be_missing: bool = False,
) -> dict[str, pa.Array]:
    """Return the attributes of a table's rows, by name.

    In      names  all columns of the source, where the table has only some of them
            may_be_missing  a column that is not there says nothing of any row
    Errors  InputError  there is no such column, or several
    """
    found = {}
    for name in attributes:
        at = table.schema.get_all_field_indices(name)
        if len(at) > 1:
            raise InputError(f"there are {len(at)} columns {name}", source=source, fix="keep one of them")
        if at:
            found[name] = attribute_text(plain(table.column(at[0])))
        elif may_be_missing:
            found[name] = nulls(table.num_rows)
        else:
            raise no_attribute(name, names or table.schema.names, source)
    return found


def no_attribute(name: str, names: Sequence[str], source: str | None) -> InputError:
    """Build (not raise) the error of a column that a view looks at and the input has not."""
    return InputError(
        f"no column {name}, which a view looks at; the columns are {', '.join(names) or 'none'}",
        source=source,
        fix="correct the plan's where or per, or name the column under [attributes] in an input map",
    )


def concat(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """Concatenate batches of the same columns but for attributes: where a batch has none of them they are null."""
    widest = max(batches, key=lambda batch: batch.num_columns)
    if all(batch.num_columns == widest.num_columns for batch in batches):
        return pa.concat_batches(batches)
    return pa.concat_batches(
        [
            with_attributes(
                batch,
                {
                    name.removeprefix(ATTRIBUTE): nulls(batch.num_rows)
                    for name in widest.schema.names[batch.num_columns :]
                },
            )
            for batch in batches
        ]
    )


def attributes_of(batch: pa.RecordBatch) -> dict[str, pa.Array]:
    """Return the attributes that a batch carries, by name."""
    return {
        name.removeprefix(ATTRIBUTE): batch.column(at)
        for at, name in enumerate(batch.schema.names)
        if name.startswith(ATTRIBUTE)
    }


def with_attributes(batch: pa.RecordBatch, attributes: Mapping[str, pa.Array]) -> pa.RecordBatch:
    """Append attributes to a canonical batch or to rejected rows."""
    for name, column in attributes.items():
        batch = batch.append_column(ATTRIBUTE + name, column)
    return batch
