"""Rows grouped by the values of several columns."""

from typing import Any

import numpy as np
import pyarrow as pa


def grouped(*keys: pa.Array | np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return i64[n]: the group of each row, numbered in order of first appearance; null is a value, too."""
    group, *others = (_codes(key) for key in keys)
    for code in others:
        # Compressed after each step, so that the product of two counts stays far inside int64.
        group = _codes(group * (int(code.max(initial=0)) + 1) + code)
    return group


def _codes(key: pa.Array | np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    array = pa.array(key) if isinstance(key, np.ndarray) else key
    encoded = array.dictionary_encode(null_encoding="encode")
    codes: np.ndarray[Any, Any] = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return codes
