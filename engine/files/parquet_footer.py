"""The footer of a Parquet file whose row groups were encoded apart.

pyarrow encodes the row groups of a file one after the other, on one core. Encoded as files of their own they are made
side by side. What stands between the head and the footer of each is then a row group of one file, whose footer says
where it has come to stand. Everything else in a footer stays as it is, whether it is known here or not.

Source  https://parquet.apache.org/docs/file-format/metadata/ (parquet.thrift, format 2.12.0); Thrift's compact protocol
"""

from typing import Any, Final

MAGIC: Final = b"PAR1"

_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)
_INTEGERS: Final = (_I16, _I32, _I64)
_LONG: Final = 15
"""In the four bits of a list's length: the length follows."""

_NUM_ROWS, _ROW_GROUPS = 3, 4  # of a file
_COLUMNS, _GROUP_AT, _ORDINAL = 1, 5, 7  # of a row group
_CHUNK_AT, _CHUNK_META = 2, 3  # of a column chunk
_PAGES_AT: Final = (9, 10, 11)
"""Of a chunk's metadata: where its data, its index and its dictionary begin."""

Struct = dict[int, tuple[int, Any]]
"""The fields of a struct in order: type and value by number. A list is (type of its elements, values)."""


class Footer:
    """The footer of a file that row groups are added to.

    In  encoded  a whole file, whose schema and metadata this one has; its row groups are added by `add`
    """

    def __init__(self, encoded: memoryview) -> None:
        self._file = read_struct(bytes(_footer_of(encoded)))
        self._groups: list[Struct] = []
        self._rows = 0

    def add(self, encoded: memoryview, at: int) -> memoryview:
        """Take the row groups of a whole file, which stand at `at` of this one from now on; return their bytes."""
        footer = _footer_of(encoded)
        file = read_struct(bytes(footer))
        moved = at - len(MAGIC)
        for group in file[_ROW_GROUPS][1][1]:
            _move(group, _GROUP_AT, moved)
            for chunk in group[_COLUMNS][1][1]:
                _move(chunk, _CHUNK_AT, moved)
                for field in _PAGES_AT:
                    _move(chunk[_CHUNK_META][1], field, moved)
            if _ORDINAL in group:
                group[_ORDINAL] = (_I16, len(self._groups))
            self._groups.append(group)
        self._rows += file[_NUM_ROWS][1]
        return encoded[len(MAGIC) : len(encoded) - len(footer) - 4 - len(MAGIC)]

    def end(self) -> bytes:
        """Return what stands behind the row groups."""
        self._file[_NUM_ROWS] = (_I64, self._rows)
        self._file[_ROW_GROUPS] = (_LIST, (_STRUCT, self._groups))
        footer = write_struct(self._file)
        return footer + len(footer).to_bytes(4, "little") + MAGIC


def _footer_of(encoded: memoryview) -> memoryview:
    end = len(encoded) - 4 - len(MAGIC)
    assert bytes(encoded[: len(MAGIC)]) == bytes(encoded[-len(MAGIC) :]) == MAGIC, "no whole Parquet file"
    return encoded[end - int.from_bytes(encoded[end : end + 4], "little") : end]


def _move(struct: Struct, field: int, moved: int) -> None:
    """Move an offset; none at all, and one that is 0, say that there is nothing."""
    if struct.get(field, (_I64, 0))[1]:
        kind, offset = struct[field]
        struct[field] = (kind, offset + moved)


def read_struct(data: bytes) -> Struct:
    """Return the fields of a struct in Thrift's compact protocol."""
    return _Reader(data).struct()


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def struct(self) -> Struct:
        found: Struct = {}
        number = 0
        while (head := self._byte()) != 0:
            kind, step = head & 15, head >> 4
            number = number + step if step else _unzigzag(self._varint())
            found[number] = (kind, self._value(kind))
        return found

    def _value(self, kind: int) -> Any:  # noqa: ANN401 - whatever the type says
        value: Any = None
        if kind in _INTEGERS:
            value = _unzigzag(self._varint())
        elif kind == _BINARY:
            value = self._bytes(self._varint())
        elif kind == _STRUCT:
            value = self.struct()
        elif kind == _LIST:
            value = self._list()
        elif kind == _BYTE:
            value = self._byte()
        elif kind == _DOUBLE:
            value = self._bytes(8)
        else:
            assert kind in {_TRUE, _FALSE}, f"no type {kind} in a Parquet footer"
        return value

    def _list(self) -> tuple[int, list[Any]]:
        head = self._byte()
        kind, count = head & 15, head >> 4
        if count == _LONG:
            count = self._varint()
        return kind, [self._value(_element(kind)) for _ in range(count)]

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _bytes(self, count: int) -> bytes:
        self._at += count
        return self._data[self._at - count : self._at]

    def _varint(self) -> int:
        value, shift = 0, 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7


def write_struct(struct: Struct) -> bytes:
    """Return a struct in Thrift's compact protocol, as `read_struct` reads it."""
    out = bytearray()
    _write_struct(out, struct)
    return bytes(out)


def _write_struct(out: bytearray, struct: Struct) -> None:
    before = 0
    for number, (kind, value) in struct.items():
        step = number - before
        if 0 < step < 16:
            out.append(step << 4 | kind)
        else:
            out.append(kind)
            out += _varint(_zigzag(number))
        before = number
        _write_value(out, kind, value)
    out.append(0)


def _write_value(out: bytearray, kind: int, value: Any) -> None:  # noqa: ANN401
    if kind in _INTEGERS:
        out += _varint(_zigzag(value))
    elif kind == _BINARY:
        out += _varint(len(value))
        out += value
    elif kind == _STRUCT:
        _write_struct(out, value)
    elif kind == _LIST:
        element, values = value
        out.append(min(len(values), _LONG) << 4 | element)
        if len(values) >= _LONG:
            out += _varint(len(values))
        for one in values:
            _write_value(out, _element(element), one)
    elif kind == _BYTE:
        out.append(value)
    elif kind == _DOUBLE:
        out += value


def _element(kind: int) -> int:
    """Return how the elements of a list stand: a truth value takes a byte there; as a field it is the field's type."""
    return _BYTE if kind in {_TRUE, _FALSE} else kind


def _zigzag(value: int) -> int:
    return value << 1 if value >= 0 else (-value << 1) - 1


def _unzigzag(value: int) -> int:
    return value >> 1 if not value & 1 else -(value >> 1) - 1


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
