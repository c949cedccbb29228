"""Arrow columns as the numpy arrays kernels read, without copying."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def offsets_and_data(column: pa.StringArray) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Return the offsets i32[n + 1] and bytes u8[] of a string column, where it begins and ends."""
    _, offset_buffer, data_buffer = column.buffers()
    offsets = np.frombuffer(offset_buffer, dtype=np.int32, count=len(column) + 1, offset=4 * column.offset)
    data = np.frombuffer(data_buffer, dtype=np.uint8) if data_buffer else np.empty(0, dtype=np.uint8)
    return offsets, data


def values_of(column: pa.Array, dtype: Any) -> NDArray[Any]:  # noqa: ANN401 - any numpy dtype
    """Return the values of a column of fixed width without nulls as `dtype`."""
    size = np.dtype(dtype).itemsize
    return np.frombuffer(column.buffers()[1], dtype=dtype, count=len(column), offset=size * column.offset)
