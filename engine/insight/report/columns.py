"""Columns of rfmstream's own tables as numbers: instants, codes of words, hashes of ids, and the view of rows."""

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rfmstream.engine.core.buffers import offsets_and_data
from rfmstream.engine.insight.report.local_time import Ints
from rfmstream.kernels.ids import hash_ids
from rfmstream.schemas.codes import NEVER_US
from rfmstream.schemas.errors import ConfigError, InputError

_Scalar = TypeVar("_Scalar", bound=np.generic)
Codes = NDArray[np.int8]
Hashes = NDArray[np.uint64]


def seeds(number: int) -> Hashes:
    """Return four keys for `hash_column`: fixed ones, since nobody gains by a collision in a report."""
    return np.frombuffer(blake2b(b"%d" % number, digest_size=32).digest(), np.uint64).copy()


_CUSTOMER: Final = seeds(0)
_POPULATION: Final = seeds(1)
_VIEW: Final = seeds(2)


def hash_customers(table: pa.Table) -> Hashes:
    """Hash the customers of tier changes: one view's, and one population's, customer is another's stranger."""
    customer = hash_column(table["customer_id"], _CUSTOMER)
    if "view" in table.column_names and len(pc.unique(table["view"])) > 1:
        customer ^= _hash_words(table["view"], _VIEW)
    if "population" in table.column_names and table["population"].null_count < table.num_rows:
        customer ^= _hash_words(table["population"], _POPULATION)
    return customer


def _hash_words(column: pa.ChunkedArray, keys: Hashes) -> Hashes:
    """Hash a column of few words; null adds nothing, whatever the other rows have."""
    hashes = np.empty(len(column), np.uint64)
    at = 0
    for chunk in column.chunks:
        words = chunk if pa.types.is_dictionary(chunk.type) else chunk.dictionary_encode()
        of_word: Hashes = np.append(hash_column(pa.chunked_array([words.dictionary]), keys), np.uint64(0))
        hashes[at : at + len(chunk)] = of_word[_indices(words)]
        at += len(chunk)
    return hashes


def hash_column(column: pa.ChunkedArray, keys: Hashes) -> Hashes:
    """Hash a column of strings, 64 bits each; null is the empty one.

    Of ten million customers two are taken for one in one of 370,000 reports.
    """
    hashes = np.empty(len(column), np.uint64)
    at = 0
    for chunk in column.chunks:
        values = chunk.cast(pa.string())
        values = values.fill_null("") if values.null_count else values
        if len(values):
            hash_ids(*offsets_and_data(values), keys, hashes[at : at + len(values)])
        at += len(values)
    return hashes


def instants_of(column: pa.ChunkedArray) -> Ints:
    """Return instants, µs since 1970 UTC, NEVER_US where there is none."""
    return ints_of(column.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()), NEVER_US)


def ints_of(column: pa.ChunkedArray, absent: int) -> Ints:
    """Return integers, and `absent` in place of null."""
    column = column.cast(pa.int64())
    values: Ints = (column.fill_null(absent) if column.null_count else column).to_numpy()
    return read_only(values)


def read_only(values: NDArray[_Scalar]) -> NDArray[_Scalar]:
    """Return an array that nobody writes to: kernels are compiled for those, as Arrow's memory gives them."""
    values.flags.writeable = False
    return values


def fixed(values: NDArray[_Scalar]) -> NDArray[_Scalar]:
    """Return an array as `read_only` does, and as neighbours in memory; whoever holds it may write to it."""
    return read_only(np.ascontiguousarray(values).view())


def codes_of(column: pa.ChunkedArray, words: Sequence[str], path: Path) -> Codes:
    """Return the positions of a dictionary's words in `words`; null is one beyond the last.

    Errors  InputError  a row names a word that is not among them
    """
    absent = len(words)
    place = {word: at for at, word in enumerate(words)}
    codes = np.empty(len(column), np.int8)
    at = 0
    for chunk in column.chunks:
        own = chunk.dictionary.to_pylist()
        if any(word not in place for word in own):
            used = set(pc.unique(chunk.indices).to_pylist()) - {None}
            strange = [own[index] for index in used if own[index] not in place]
            if strange:
                raise InputError(
                    f"names {strange[0]!r}, which the ruleset does not", source=path, fix="give --ruleset"
                )
        known = np.array([place.get(word, absent) for word in own] + [absent], np.int8)
        known.take(_indices(chunk), out=codes[at : at + len(chunk)], mode="clip")
        at += len(chunk)
    return read_only(codes)


def _indices(chunk: pa.DictionaryArray) -> NDArray[np.signedinteger[Any]]:
    """Return the indices of a dictionary's words; null is one beyond the last."""
    indices = chunk.indices
    found: NDArray[np.signedinteger[Any]] = (
        indices.fill_null(len(chunk.dictionary)) if indices.null_count else indices
    ).to_numpy()
    return found


def views_in(table: pa.Table) -> set[str | None] | None:
    """Return the views that rows are of; None: the table has none."""
    if "view" not in table.column_names:
        return None
    found: set[str | None] = set()
    for chunk in table["view"].chunks:
        words = chunk if pa.types.is_dictionary(chunk.type) else chunk.dictionary_encode()
        names = words.dictionary.to_pylist()
        is_one = len(names) == 1 and not words.null_count and len(words)
        used = [0] if is_one else pc.unique(words.indices).to_pylist()
        found |= {None if index is None else names[index] for index in used}
    return found


def check_view(there: Iterable[set[str | None] | None], view: str | None, path: Path) -> None:
    """Refuse a view that a file has not, and none where it has several.

    In      there  the views of each of its pieces, as `views_in` returns them
    Errors  ConfigError  names those it has
    """
    pieces = list(there)
    if None in pieces:
        if view is not None:
            raise ConfigError("the file has no views", file=path, key="--view", fix="leave it out")
        return
    found = set[str | None]().union(*(piece for piece in pieces if piece is not None))
    if (view is None and len(found) > 1) or (view is not None and view not in found):
        names = ", ".join(sorted(str(name) for name in found))
        raise ConfigError(
            f"the file holds the views {names}", file=path, key="--view", fix="name one of them"
        )


def of_view(table: pa.Table, view: str | None) -> pa.Table:
    """Return the rows of a view; None: all."""
    if view is None or views_in(table) == {view}:
        return table
    return table.filter(pc.equal(table["view"].cast(pa.string()), view))
