"""One column of a table that crosses a boundary, and the two forms of a list of them: Arrow and JSON Schema.

Every schema of the product is written once, as a tuple of `Column`; the Arrow schema carries unit and
description as field metadata, the JSON Schema is derived from the same tuple.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa

TIMESTAMP: Final = pa.timestamp("us", tz="UTC")
WORD: Final = pa.dictionary(pa.int8(), pa.string())
"""A string out of a small closed set, such as a tier id."""

JSON_SCHEMA_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


@dataclass(frozen=True)
class Column:
    """A column: its name, Arrow type, whether it may be null, its unit and what it says.

    Fields  unit  what one of the value stands for: "minor units", "days", "µs since 1970 UTC", "id", ...
            json  what JSON Schema must know beyond the Arrow type; if it has a "type", all it must know
    """

    name: str
    type: pa.DataType
    unit: str
    description: str
    nullable: bool = True
    json: Mapping[str, Any] = field(default_factory=dict)


def arrow_schema(columns: Iterable[Column]) -> pa.Schema:
    """Build the Arrow schema of `columns`, in order, with field metadata b"unit" and b"description"."""
    return pa.schema(
        [
            pa.field(
                column.name,
                column.type,
                nullable=column.nullable,
                metadata={"unit": column.unit, "description": column.description},
            )
            for column in columns
        ]
    )


def json_object(columns: Iterable[Column], *, title: str, description: str) -> dict[str, Any]:
    """Build the JSON Schema (draft 2020-12) of one row as an object: null stands for an absent value."""
    columns = tuple(columns)
    return {
        "$schema": JSON_SCHEMA_DIALECT,
        "title": title,
        "description": description,
        "type": "object",
        "properties": {column.name: json_property(column) for column in columns},
        "required": [column.name for column in columns if not column.nullable],
    }


def json_property(column: Column) -> dict[str, Any]:
    """Build the JSON Schema of one column's value."""
    rules = dict(column.json) if "type" in column.json else {**_json_of_type(column.type), **column.json}
    types = [rules["type"]] if isinstance(rules["type"], str) else list(rules["type"])
    if column.nullable:
        types.append("null")
        if "enum" in rules:
            rules["enum"] = [*rules["enum"], None]
    rules["type"] = types if len(types) > 1 else types[0]
    # In JSON an instant is text, so the unit of the Arrow column would mislead.
    unit = "" if pa.types.is_timestamp(column.type) else f" Unit: {column.unit}."
    return {"description": column.description + unit, **rules}


def _json_of_type(arrow_type: pa.DataType) -> dict[str, Any]:
    if pa.types.is_dictionary(arrow_type):
        arrow_type = arrow_type.value_type
    if pa.types.is_integer(arrow_type):
        limit = 2 ** (arrow_type.bit_width - 1)
        return {"type": "integer", "minimum": -limit, "maximum": limit - 1}
    if pa.types.is_boolean(arrow_type):
        return {"type": "boolean"}
    if pa.types.is_decimal(arrow_type):
        # A string keeps the digits whatever the reader of the JSON does to numbers.
        return {"type": ["string", "number"]}
    if pa.types.is_timestamp(arrow_type):
        return {"type": "string", "format": "date-time"}
    return {"type": "string"}
