"""A compiled kernel in a file: a shared object, behind it what it was made from and for.

    the object | JSON | u32 bytes of the JSON | MAGIC

A loader of shared objects does not look behind what the object's own header counts. So the file is one thing, written
at once, and everything about it can be checked before any of its code is loaded.
"""

import hashlib
import json
import struct
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

MAGIC: Final = b"rfm-kernel-1\n"
_TAIL: Final = struct.Struct("<I")

TABLE_SIZE: Final = 256
TABLE_FIXED: Final = 8
SLOW, ERROR, NDARRAY, LONG, FLOAT, TRUE, FALSE, NOTHING = range(TABLE_FIXED)
"""Slots of `rfm_table` that are the same for all kernels: objects of Python whose addresses the entry compares.

SLOW is called with arguments that are not what the signature says, ERROR with (status, address) where a kernel raised.
"""


class Unusable(Exception):  # noqa: N818 - said where it is caught
    """A file is not an object of these kernels; the message says why."""


@dataclass(frozen=True)
class Manifest:
    """What an object was made from and for.

    Fields  kernel   "module.kernel"
            types    of its arguments, as numba writes them
            sources  digest of the sources of all kernels
            machine  whose instructions it holds: "x86_64-v3", or a digest of this very processor's abilities
            linked   a shared object; else one that only llvmlite can load
            table    what each slot of `rfm_table` from TABLE_FIXED on holds: ["dtype", D], ["scalar", D] or
                     ["type", module, name]
            made_by  versions, to be read by people
            seconds  it took to compile
            sha256   of the object
    """

    kernel: str
    types: str
    sources: str
    machine: str
    linked: bool
    table: list[list[Any]]
    made_by: str
    seconds: float
    sha256: str = ""


def pack(code: bytes, manifest: Manifest) -> bytes:
    """Return the file of an object."""
    text = json.dumps({**asdict(manifest), "sha256": hashlib.sha256(code).hexdigest()}).encode()
    return b"".join((code, text, _TAIL.pack(len(text)), MAGIC))


def unpack(file: bytes) -> tuple[bytes, Manifest]:
    """Return an object and its manifest.

    Errors  Unusable  the file is cut off, changed, or of another format
    """
    end = len(file) - len(MAGIC) - _TAIL.size
    if end < 0 or not file.endswith(MAGIC):
        raise Unusable("its end is missing")
    start = end - _TAIL.unpack_from(file, end)[0]
    if start < 0:
        raise Unusable("its end is missing")
    try:
        manifest = Manifest(**json.loads(file[start:end]))
    except (ValueError, TypeError) as error:
        raise Unusable("its manifest cannot be read") from error
    if hashlib.sha256(file[:start]).hexdigest() != manifest.sha256:
        raise Unusable("its code is not what its manifest says")
    return file[:start], manifest


def describe_dtype(dtype: np.dtype[Any]) -> Any:
    """Return a dtype as JSON; `dtype_of` is its inverse."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return {"base": describe_dtype(base), "shape": list(shape)}
    if dtype.names is None:
        return dtype.str
    fields = [dtype.fields[name] for name in dtype.names] if dtype.fields is not None else []
    return {
        "names": list(dtype.names),
        "formats": [describe_dtype(field[0]) for field in fields],
        "offsets": [field[1] for field in fields],
        "itemsize": dtype.itemsize,
    }


def dtype_of(description: Any) -> np.dtype[Any]:
    """Return the dtype that `describe_dtype` described."""
    if isinstance(description, str):
        return np.dtype(description)
    if "base" in description:
        return np.dtype((dtype_of(description["base"]), tuple(description["shape"])))
    return np.dtype({**description, "formats": [dtype_of(field) for field in description["formats"]]})
