import pyarrow as pa
import pytest

from rfmstream.schemas.columns import TIMESTAMP, WORD, Column, arrow_schema, json_object, json_property


@pytest.mark.parametrize(
    ("arrow_type", "expected"),
    [
        (pa.string(), {"type": "string"}),
        (WORD, {"type": "string"}),
        (pa.int16(), {"type": "integer", "minimum": -32768, "maximum": 32767}),
        (pa.int64(), {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}),
        (pa.decimal128(17, 4), {"type": ["string", "number"]}),
        (TIMESTAMP, {"type": "string", "format": "date-time"}),
    ],
)
def test_json_follows_the_arrow_type(arrow_type: pa.DataType, expected: dict[str, object]) -> None:
    unit = "" if arrow_type == TIMESTAMP else " Unit: u."
    column = Column("c", arrow_type, "u", "Says.", nullable=False)
    assert json_property(column) == {"description": f"Says.{unit}", **expected}


def test_null_is_one_more_type_and_one_more_word() -> None:
    column = Column("c", pa.string(), "word", "Says.", json={"enum": ["a"]})
    assert json_property(column)["type"] == ["string", "null"]
    assert json_property(column)["enum"] == ["a", None]


def test_both_forms_have_the_columns_in_order() -> None:
    columns = [Column("b", pa.string(), "id", "B.", nullable=False), Column("a", pa.int64(), "days", "A.")]
    schema = arrow_schema(columns)
    assert schema.names == ["b", "a"]
    assert schema.field("a").metadata == {b"unit": b"days", b"description": b"A."}
    assert not schema.field("b").nullable
    json = json_object(columns, title="T", description="D")
    assert (list(json["properties"]), json["required"], json["title"]) == (["b", "a"], ["b"], "T")
