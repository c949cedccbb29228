"""Arrow columns as the buffers kernels read, and as the text a rejected row shows."""

from typing import Any

import numpy as np
import pyarrow as pa

from rfmstream.schemas.errors import InputError

_NO_BYTES = np.zeros(0, dtype=np.uint8)
_NO_MASK = np.zeros(0, dtype=np.bool_)
_NO_BYTES.flags.writeable = False
_NO_MASK.flags.writeable = False

Buffers = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]


def text_buffers(text: pa.Array) -> Buffers:
    """Return offsets i32[n+1], data u8[] and validity bool[n] ([0]: no nulls) of a string array, no copy."""
    _, offsets, data = text.buffers()
    if len(text) == 0 or offsets is None:
        edges = np.zeros(1, dtype=np.int32)
        edges.flags.writeable = False
        return edges, _NO_BYTES, _NO_MASK
    edges = _read_only(np.frombuffer(offsets, np.int32, text.offset + len(text) + 1))[text.offset :]
    return edges, _NO_BYTES if not data else _read_only(np.frombuffer(data, np.uint8)), validity(text)


def _read_only(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Keep others from writing: Arrow lets them in some of its arrays, and kernels would need a signature for these."""
    values.flags.writeable = False
    return values


def validity(array: pa.Array) -> np.ndarray[Any, Any]:
    """Return bool[n], true where the row is not null; empty when no row is."""
    if array.null_count == 0:
        return _NO_MASK
    mask: np.ndarray[Any, Any] = array.is_valid().to_numpy(zero_copy_only=False)
    mask.flags.writeable = False
    return mask


def fixed_width(array: pa.Array, dtype: str) -> np.ndarray[Any, Any]:
    """Return the values of a fixed-width array without a copy; what stands at nulls is anything."""
    data = array.buffers()[1]
    if len(array) == 0 or data is None:
        values = np.zeros(0, dtype=dtype)
        values.flags.writeable = False
        return values
    # A buffer may end amidst a value that is not the column's.
    return _read_only(np.frombuffer(data, dtype, array.offset + len(array)))[array.offset :]


def nulls(count: int) -> pa.Array:
    """Return `count` null strings."""
    return pa.nulls(count, pa.string())


def repeat(text: str, count: int) -> pa.Array:
    """Return `text` as a column of `count` rows."""
    return pa.repeat(pa.scalar(text, pa.string()), count)


def plain(array: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return one contiguous array without dictionary, run-end or extension wrapping.

    Errors  InputError  its values are more than fit into one array, or of a type that cannot be unwrapped
    """
    try:
        return _plain(array)
    except (pa.ArrowNotImplementedError, pa.ArrowCapacityError, pa.ArrowInvalid) as error:
        raise InputError(
            f"a column of type {array.type} cannot be read: {error}",
            fix="write it as text, numbers or timestamps, in smaller batches if it holds more than 2 GiB",
        ) from error


def _plain(array: pa.Array | pa.ChunkedArray) -> pa.Array:
    if isinstance(array, pa.ChunkedArray) and array.num_chunks > 1 and _is_wrapped(array.type):
        # Dictionaries of different chunks differ, and those of views cannot be unified.
        array = pa.chunked_array([_plain(chunk) for chunk in array.chunks])
    if isinstance(array, pa.ChunkedArray):
        # Arrow copies even a single chunk when it combines them.
        array = array.chunk(0) if array.num_chunks == 1 else array.combine_chunks()
        if isinstance(array, pa.ChunkedArray):
            raise InputError(
                "a column holds more than 2 GiB of text in one batch", fix="feed smaller batches"
            )
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pa.types.is_dictionary(array.type):
        # Arrow picks no rows out of views.
        array = pa.DictionaryArray.from_arrays(
            array.indices, _plain(array.dictionary), safe=False
        ).dictionary_decode()
    elif pa.types.is_run_end_encoded(array.type):
        array = _run_end_decoded(array)
    if pa.types.is_string_view(array.type) or pa.types.is_binary_view(array.type):
        # Views have few compute functions: a rejected row could not be picked out of them.
        array = _with_blank_nulls(array).cast(
            pa.string() if pa.types.is_string_view(array.type) else pa.binary()
        )
    return array


def _is_wrapped(kind: pa.DataType) -> bool:
    return (
        isinstance(kind, pa.BaseExtensionType)
        or pa.types.is_dictionary(kind)
        or pa.types.is_run_end_encoded(kind)
        or kind in (pa.string_view(), pa.binary_view())
    )


def _run_end_decoded(array: pa.Array) -> pa.Array:
    """Return the rows of runs one after another, whatever the runs' values are."""
    ends = np.clip(array.run_ends.to_numpy().astype(np.int64), array.offset, array.offset + len(array))
    lengths = np.diff(ends, prepend=array.offset)
    return _plain(array.values).take(pa.array(np.repeat(np.arange(len(ends)), lengths)))


def _with_blank_nulls(views: pa.Array) -> pa.Array:
    """Return views whose null slots show nothing: Arrow's cast follows what stands there, unchecked."""
    if views.null_count == 0:
        return views
    mask, places, *texts = views.buffers()
    # What follows the last view, if anything does, is nobody's.
    shown = np.frombuffer(places, np.int64, 2 * (views.offset + len(views))).reshape(-1, 2).copy()
    shown[views.offset :][~validity(views)] = 0
    return pa.Array.from_buffers(
        views.type, len(views), [mask, pa.py_buffer(shown), *texts], views.null_count, views.offset
    )


def to_text(array: pa.Array, name: str) -> pa.Array:
    """Return a plain column as a string array whose bytes are the column's own, not yet checked to be UTF-8.

    Integers, decimals without fraction, booleans, dates and times become their text.

    Errors  InputError  a type that has no faithful text: floats (an id would lose digits), lists, structs
    """
    kind = array.type
    if pa.types.is_string(kind):
        return array
    if (
        pa.types.is_large_string(kind)
        or pa.types.is_large_binary(kind)
        or kind in (pa.string_view(), pa.binary_view())
    ):
        # Through binary, because a cast to string checks UTF-8 and would refuse the whole batch for one bad
        # row.
        array, kind = array.cast(pa.binary()), pa.binary()
    if pa.types.is_binary(kind):
        return pa.Array.from_buffers(pa.string(), len(array), array.buffers(), offset=array.offset)
    if pa.types.is_floating(kind):
        raise InputError(
            f"column {name} is {kind}: a float cannot hold an id exactly",
            fix=f"write {name} as text or integers (pandas floats integers that have gaps: use Int64 or str)",
        )
    if pa.types.is_null(kind):
        return nulls(len(array))
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        array = array.cast(pa.timestamp(kind.unit, "UTC"))
    is_time = pa.types.is_timestamp(kind) or pa.types.is_date(kind) or pa.types.is_time(kind)
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind) or is_time:
        return array.cast(pa.string())
    if pa.types.is_decimal(kind) and kind.scale == 0:
        return array.cast(pa.string())
    raise InputError(f"column {name} is {kind}, which is no text", fix=f"write {name} as text")


def shown_text(array: pa.Array) -> pa.Array:
    """Return any column as valid UTF-8 for a rejected row, replacing what cannot be decoded."""
    if pa.types.is_floating(array.type) or pa.types.is_decimal(array.type):
        return array.cast(pa.string())
    try:
        text = to_text(array, "")
    except InputError:
        return pa.array([None if value is None else str(value) for value in array.to_pylist()], pa.string())
    try:
        text.validate(full=True)
    except pa.ArrowInvalid:
        raw = pa.Array.from_buffers(pa.binary(), len(text), text.buffers(), offset=text.offset).to_pylist()
        return pa.array(
            [None if value is None else value.decode(errors="replace") for value in raw], pa.string()
        )
    return text
