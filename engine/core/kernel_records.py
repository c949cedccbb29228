"""Fill the records kernels receive: addresses and lengths of arrays, and the arrays kept alive beside them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


class KernelRecord:
    """One record of a `kernels.layout` dtype, and the arrays it points to.

    Fields  rows  the record as an array of length 1, the form kernels take it in
            row   the record itself
    """

    def __init__(self, dtype: np.dtype[Any], **scalars: int) -> None:
        self.rows: NDArray[Any] = np.zeros(1, dtype=dtype)
        self.row: Any = self.rows[0]
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
