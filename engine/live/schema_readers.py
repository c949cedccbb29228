"""Avro and Protobuf by a registry's schemas: bytes to what JSON could hold, with digits as text.

fastavro and protobuf are the extra `registry`; without them such records are refused by name.
"""

import base64
import io
import json
import math
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, Final

_EXTRA: Final = "which needs the extra: pip install 'rfmstream[registry]'"
_NESTED_MAX: Final = 100


def avro_reader(text: str, references: Mapping[str, str]) -> Callable[[bytes], Any]:
    """Return what reads bytes of an Avro schema.

    In      references  the schemas it names, the innermost first
    Errors  ValueError  no Avro schema, one that can hold endless rows in no bytes, or no library
    """
    try:
        import fastavro  # noqa: PLC0415 - an extra
        from fastavro.schema import SchemaParseException, UnknownType  # noqa: PLC0415
    except ImportError:
        raise ValueError(f"it is Avro, {_EXTRA}") from None
    named: dict[str, Any] = {}
    try:
        for inner in references.values():
            fastavro.parse_schema(json.loads(inner), named_schemas=named)
        given = json.loads(text)
        schema = fastavro.parse_schema(given, named_schemas=named)
    except (SchemaParseException, UnknownType, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(str(error) or type(error).__name__) from error
    for one in (*map(json.loads, references.values()), given):
        _refuse_endless(one)

    def read(data: bytes) -> Any:  # noqa: ANN401
        source = io.BytesIO(data)
        try:
            value = fastavro.schemaless_reader(source, schema, None)
        except Exception as error:
            raise ValueError(f"is not what its Avro schema says: {type(error).__name__}") from error
        if source.tell() != len(data):
            raise ValueError("goes on behind what its Avro schema says")
        return as_json(value)

    return read


def _refuse_endless(schema: Any, depth: int = 0) -> None:  # noqa: ANN401
    """Refuse a schema with lists of what takes no bytes: a record of ten bytes could hold 2**60 of them."""
    if depth > _NESTED_MAX:
        raise ValueError("it nests too deep")
    if isinstance(schema, list):
        for inner in schema:
            _refuse_endless(inner, depth + 1)
    elif isinstance(schema, dict):
        if schema.get("type") == "array" and _takes_nothing(schema.get("items")):
            raise ValueError("it has arrays of what takes no bytes")
        for key in ("type", "items", "values", "fields"):
            if isinstance(schema.get(key), dict | list):
                _refuse_endless(schema[key], depth + 1)


def _takes_nothing(items: Any) -> bool:  # noqa: ANN401
    if isinstance(items, dict):
        fields = items.get("fields")
        if items.get("type") == "record":
            return not fields or all(_takes_nothing(field.get("type")) for field in fields)
        return bool(items.get("size") == 0) or _takes_nothing(items.get("type"))
    return bool(items == "null")


def protobuf_reader(serialized: str, references: Mapping[str, str]) -> Callable[[bytes], Any]:
    """Return what reads bytes of a Protobuf schema, the numbers of the message in front of them.

    In      serialized, references  FileDescriptorProtos in base64; references by the names they are imported by
    Errors  ValueError  no such descriptors, or no library
    """
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # noqa: PLC0415
        from google.protobuf.json_format import MessageToJson  # noqa: PLC0415
        from google.protobuf.message import DecodeError  # noqa: PLC0415
    except ImportError:
        raise ValueError(f"it is Protobuf, {_EXTRA}") from None
    pool = descriptor_pool.DescriptorPool()
    try:
        file = _file(descriptor_pb2.FileDescriptorProto(), serialized, "schema.proto")
        files = [
            *_well_known(descriptor_pb2),
            *(_file(descriptor_pb2.FileDescriptorProto(), text, name) for name, text in references.items()),
            file,
        ]
        for one in files:
            pool.AddSerializedFile(one.SerializeToString())
        messages = list(pool.FindFileByName(file.name).message_types_by_name.values())
        # In the order of the file, which the numbers count by.
        order = [message.name for message in file.message_type]
        messages.sort(key=lambda message: order.index(message.name))
    except Exception as error:
        raise ValueError(str(error) or type(error).__name__) from error

    def read(data: bytes) -> Any:  # noqa: ANN401
        numbers, at = _numbers(data)
        try:
            kind = messages[numbers[0]]
            for number in numbers[1:]:
                kind = kind.nested_types[number]
            message = message_factory.GetMessageClass(kind)()
            message.ParseFromString(data[at:])
            text = MessageToJson(
                message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
            )
        except (DecodeError, IndexError, ValueError) as error:
            raise ValueError("is not what its Protobuf schema says") from error
        return json.loads(text, parse_float=str, parse_int=str)

    return read


def _file(file: Any, serialized: str, name: str) -> Any:  # noqa: ANN401 - protobuf's classes
    file.ParseFromString(base64.b64decode(serialized, validate=True))
    file.name = name
    return file


def _well_known(descriptor_pb2: Any) -> list[Any]:  # noqa: ANN401 - protobuf's classes
    """Return Google's own files, such as that of timestamps, which any file may import."""
    from google.protobuf import (  # noqa: PLC0415
        any_pb2,
        duration_pb2,
        empty_pb2,
        field_mask_pb2,
        struct_pb2,
        timestamp_pb2,
        wrappers_pb2,
    )

    known = (any_pb2, duration_pb2, empty_pb2, field_mask_pb2, struct_pb2, timestamp_pb2, wrappers_pb2)
    files = []
    for module in known:
        one = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(one)
        files.append(one)
    return files


def _numbers(data: bytes) -> tuple[list[int], int]:
    """Return which message the bytes are, as the path of numbers in front of them, and where they begin.

    Errors  ValueError  there are no such numbers
    """
    count, at = _varint(data, 0)
    if count == 0:
        return [0], at
    if not 0 < count <= _NESTED_MAX:
        raise ValueError("has no numbers of a message in front")
    numbers = []
    for _ in range(count):
        number, at = _varint(data, at)
        if number < 0:
            raise ValueError("has no numbers of a message in front")
        numbers.append(number)
    return numbers, at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 35:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), at
        shift += 7
    raise ValueError("has no numbers of a message in front")


def as_json(value: Any) -> Any:  # noqa: ANN401
    """Return what Avro holds as JSON could hold it: numbers as their digits, times as ISO 8601, bytes as base64."""
    if isinstance(value, dict):
        return {key: as_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(inner) for inner in value]
    if value is None or isinstance(value, bool | str):
        return value
    return _text(value)


def _text(value: Any) -> str | None:  # noqa: ANN401
    match value:
        case float():
            return format(Decimal(repr(value)), "f") if math.isfinite(value) else None
        case Decimal():
            return format(value, "f")
        case datetime() | date() | time():
            return value.isoformat()
        case bytes() | bytearray():
            return base64.b64encode(value).decode()
        case _:
            return str(value)
