"""Populations: customers that are parted by the value of a column, so that (value, customer) is a customer of its own.

Inside an engine such a customer's key is four bytes that number its population and then its id: one engine holds all
populations of a view, however many, at four bytes a customer. Populations are numbered in the order of their first
event, which no size of batches and no restart changes. Keys are turned into ids again where rows leave.

Source  docs/semantics.md section 10
"""

from collections.abc import Iterable
from hashlib import sha256
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rfmstream.engine.core.buffers import offsets_and_data
from rfmstream.schemas.codes import ID_BYTES_MAX
from rfmstream.schemas.errors import ConfigError

PREFIX_BYTES: Final = 4
_SHIFTS: Final = np.array([21, 14, 7, 0], dtype=np.int64)
_LONG: Final = 0x40
"""In the first byte of a key: what follows is the digest of an id too long for the kernels to hold it and a prefix."""
_NUMBERS_MAX: Final = 1 << 27
_PLAIN_BYTES_MAX: Final = ID_BYTES_MAX - PREFIX_BYTES

Ids = tuple[NDArray[np.int32], NDArray[np.uint8]]


class Populations:
    """The populations of a view, and the keys of their customers.

    Fields  names      by number; 0 is nobody's: there an erasure is remembered that names no population
            erased_us  customers who were erased by an event that names no population, and when, µs since 1970 UTC: the
                       populations they were not yet in are to know it, too
    """

    def __init__(
        self, names: Iterable[str] = (), long_ids: Iterable[str] = (), erased_us: dict[str, int] | None = None
    ) -> None:
        self.names = ["", *names]
        self.erased_us = {} if erased_us is None else dict(erased_us)
        self._numbers = {name: number for number, name in enumerate(self.names)}
        self._long_ids = {_digest(customer): customer for customer in long_ids}
        self._texts = pa.array(self.names, pa.string())

    @property
    def long_ids(self) -> list[str]:
        """The customers' ids that keys hold by their digest."""
        return list(self._long_ids.values())

    @property
    def memory_bytes(self) -> int:
        """About what the names take: the customers' keys are counted with the customers."""
        return int(self._texts.nbytes) + 96 * len(self.names) + sum(map(len, self._long_ids.values()))

    def frozen(self) -> "Populations":
        """Return a copy that later events leave alone."""
        return Populations(self.names[1:], self.long_ids, self.erased_us)

    def number(self, name: str) -> int | None:
        """Return a population's number; None: it has had no event."""
        return self._numbers.get(name)

    def numbers(self, names: pa.StringArray) -> NDArray[np.int64]:
        """Return the numbers of populations, string[n] without nulls; those that are new are given one.

        Errors  ConfigError  there are more than 2^27
        """
        encoded = names.dictionary_encode()
        found = np.array([self._added(name) for name in encoded.dictionary.to_pylist()], dtype=np.int64)
        numbers: NDArray[np.int64] = found[encoded.indices.to_numpy()] if len(names) else found
        return numbers

    def _added(self, name: str) -> int:
        number = self._numbers.setdefault(name, len(self.names))
        if number == len(self.names):
            if number >= _NUMBERS_MAX:
                raise ConfigError(
                    f"there are more than {_NUMBERS_MAX:,} populations",
                    key="per",
                    fix="name a column of fewer values",
                )
            self.names.append(name)
        return number

    def keys(
        self, numbers: NDArray[np.int64], customers: pa.StringArray, *, remember: bool = True
    ) -> pa.StringArray:
        """Return the keys of customers, string[n] without nulls, in populations i64[n].

        In      remember  note the ids that keys hold by their digest, so that `split` knows them: not of customers who
                          are only looked for, as there may be none of that name
        """
        n = len(customers)
        offsets, data = offsets_and_data(customers)
        flags = np.zeros(n, dtype=np.uint8)
        long = np.diff(offsets) > _PLAIN_BYTES_MAX
        if long.any():
            ids = customers.filter(pa.array(long)).to_pylist()
            digests = {customer: _digest(customer) for customer in dict.fromkeys(ids)}
            if remember:
                self._long_ids |= {digest: customer for customer, digest in digests.items()}
            customers = pc.replace_with_mask(
                customers, pa.array(long), pa.array([digests[customer] for customer in ids], pa.string())
            )
            offsets, data = offsets_and_data(customers)
            flags[long] = _LONG
        edges = (offsets.astype(np.int64) - int(offsets[0]) if n else np.zeros(1, np.int64)) + (
            PREFIX_BYTES * np.arange(n + 1)
        )
        out = np.empty(int(edges[-1]), dtype=np.uint8)
        places, is_id = _prefixes(edges)
        prefix = ((numbers[:, None] >> _SHIFTS) & 0x7F).astype(np.uint8)
        prefix[:, 0] |= flags
        out[places] = prefix.ravel()
        if n:
            out[is_id] = data[int(offsets[0]) : int(offsets[-1])]
        return pa.StringArray.from_buffers(n, pa.py_buffer(edges.astype(np.int32)), pa.py_buffer(out))

    @staticmethod
    def numbers_in(starts: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return the numbers of populations, i64[n], of keys whose first eight bytes these are (`CUSTOMER.key0`)."""
        prefix = starts.astype("<u8").view(np.uint8).reshape(-1, 8)[:, :PREFIX_BYTES].astype(np.int64)
        return _numbered(prefix)

    def split(self, keys: Ids) -> tuple[pa.StringArray, Ids]:
        """Return the populations, string[n], and the ids of customers whose keys these are: offsets and bytes."""
        offsets, data = _filled(keys)
        n = offsets.size - 1
        edges = offsets.astype(np.int64) - int(offsets[0])
        whole = data[int(offsets[0]) : int(offsets[-1])]
        places, is_id = _prefixes(edges)
        prefix = whole[places].reshape(n, PREFIX_BYTES).astype(np.int64)
        long = prefix[:, 0] & _LONG != 0
        numbers = _numbered(prefix)
        ids: Ids = (edges - PREFIX_BYTES * np.arange(n + 1)).astype(np.int32), whole[is_id]
        if long.any():
            text = pa.StringArray.from_buffers(n, pa.py_buffer(ids[0]), pa.py_buffer(ids[1]))
            found = [self._long_ids[digest] for digest in text.filter(pa.array(long)).to_pylist()]
            text = pc.replace_with_mask(text, pa.array(long), pa.array(found, pa.string()))
            ids = _copied(text)
        return self._named().take(pa.array(numbers)), ids

    def _named(self) -> pa.StringArray:
        # Threads may both make it anew; either will do.
        texts = self._texts
        if len(texts) < len(self.names):
            self._texts = texts = pa.array(self.names, pa.string())
        return texts


def _numbered(prefix: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the numbers that the first bytes of keys, i64[n, PREFIX_BYTES], stand for."""
    prefix[:, 0] &= _LONG - 1
    numbers: NDArray[np.int64] = (prefix << _SHIFTS).sum(axis=1)
    return numbers


def _filled(keys: Ids) -> Ids:
    """Return keys with four bytes in place of shorter ones: those of records that erased customers have left behind."""
    short = np.diff(keys[0]) < PREFIX_BYTES
    if not short.any():
        return keys
    text = pa.StringArray.from_buffers(short.size, pa.py_buffer(keys[0]), pa.py_buffer(keys[1]))
    blank = pa.array(["\0" * PREFIX_BYTES] * int(short.sum()), pa.string())
    return _copied(pc.replace_with_mask(text, pa.array(short), blank))


def _copied(text: pa.StringArray) -> Ids:
    # What kernels are compiled for is memory that may be written to, which Arrow's is not.
    offsets, data = offsets_and_data(text)
    return offsets.copy(), data.copy()


def _prefixes(edges: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return where the prefixes of keys between edges i64[n + 1] are, and bool[bytes]: which bytes are not theirs."""
    places = (edges[:-1, None] + np.arange(PREFIX_BYTES)).ravel()
    others = np.ones(int(edges[-1]), dtype=np.bool_)
    others[places] = False
    return places, others


def _digest(customer: str) -> str:
    return sha256(customer.encode()).hexdigest()
