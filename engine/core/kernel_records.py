"""Fill the records kernels receive: addresses and lengths of arrays, and the arrays kept alive beside them."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Words:
    """The fields of a record whose every field is a word of 64 bits, by name: as numbers of Python.

    numpy's own way to a field takes three microseconds, this one a tenth of that.
    """

    __slots__ = ("_places", "_words")
    _places: Mapping[str, int]
    _words: "memoryview[int]"

    def __init__(self, rows: NDArray[Any]) -> None:
        object.__setattr__(self, "_words", rows.view(np.int64).data)
        object.__setattr__(self, "_places", _places_of(rows.dtype))

    def __getitem__(self, name: str) -> int:
        return self._words[self._places[name]]

    def __setitem__(self, name: str, value: int) -> None:
        self._words[self._places[name]] = value

    def __getattr__(self, name: str) -> int:
        return self._words[self._places[name]]

    def __setattr__(self, name: str, value: int) -> None:
        self._words[self._places[name]] = value


@cache
def _places_of(dtype: np.dtype[Any]) -> Mapping[str, int]:
    assert dtype.fields is not None
    assert all(kind == np.int64 for kind, *_ in dtype.fields.values())
    return {name: place for place, name in enumerate(dtype.fields)}


class KernelRecord:
    """One record of a `kernels.layout` dtype, and the arrays it points to.

    Fields  rows  the record as an array of length 1, the form kernels take it in
            row   its fields
    """

    def __init__(self, dtype: np.dtype[Any], **scalars: int) -> None:
        self.rows: NDArray[Any] = np.zeros(1, dtype=dtype)
        self.row = Words(self.rows)
        self._kept: dict[str, NDArray[Any]] = {}
        for name, value in scalars.items():
            self.row[name] = value

    def point(self, **arrays: NDArray[Any]) -> None:
        """Let fields `<name>_at` and `<name>_size` say where each array is and how long its first axis."""
        for name, array in arrays.items():
            assert array.flags.c_contiguous
            self.row[name + "_at"] = array.__array_interface__["data"][0]
            self.row[name + "_size"] = array.shape[0]
            self._kept[name] = array

    def release(self, name: str) -> None:
        """Forget an array, so that its memory can be moved."""
        self._kept.pop(name, None)

    def aside(self) -> NDArray[Any]:
        """Return a copy of the record alone, for a kernel; the arrays stay alive by this one."""
        # Byte by byte: numpy would copy a record field by field.
        return self.rows.view(np.uint8).copy().view(self.rows.dtype)

    def copy(self) -> "KernelRecord":
        """Return a record of its own that points to the same arrays."""
        other = KernelRecord(self.rows.dtype)
        other.rows[:] = self.rows
        other._kept.update(self._kept)
        return other
