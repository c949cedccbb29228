"""Several ids of one customer: orders under an alias count under the customer's own id, from the first row on.

Source  docs/input-maps.md: --ids
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from rfmstream.engine.events.normalise import id_faults
from rfmstream.engine.files.side_tables import read_texts
from rfmstream.schemas.codes import ID_BYTES_MAX
from rfmstream.schemas.errors import InputError

_COLUMNS: Final = ("alias", "customer_id")


@dataclass(frozen=True)
class Identities:
    """Aliases and the customer each stands for; no alias is such a customer."""

    aliases: pa.Array
    customers: pa.Array

    def applied(self, orders: pa.RecordBatch) -> pa.RecordBatch:
        """Return canonical orders with the customers' own ids."""
        if not orders.num_rows or not len(self.aliases):
            return orders
        at = orders.schema.get_field_index("customer_id")
        ids = orders.column(at)
        place = pc.index_in(ids, value_set=self.aliases)
        if place.null_count == len(place):
            return orders
        own = pc.coalesce(self.customers.take(place), ids)
        return orders.set_column(at, orders.schema.field(at), own)


def load_identities(path: Path) -> Identities:
    """Read a table with the columns alias and customer_id. A row that maps an id to itself says nothing.

    Errors  InputError  the table cannot be read, an id is missing or none, an alias stands for two customers, or for
                        one that is an alias itself
    """
    aliases, customers = read_texts(path, _COLUMNS)
    for name, ids in zip(_COLUMNS, (aliases, customers), strict=True):
        faults = id_faults(ids)
        if faults is not None:
            raise InputError(
                f"has no {name}, or none that is an id of 1 to {ID_BYTES_MAX} bytes of UTF-8",
                source=path,
                row=int(faults.nonzero()[0][0]),
            )
    pairs = pa.table({"alias": aliases, "customer_id": customers})
    pairs = pairs.filter(pc.not_equal(pairs["alias"], pairs["customer_id"]))
    pairs = pairs.group_by(["alias", "customer_id"], use_threads=False).aggregate([])
    aliases, customers = (pairs[name].combine_chunks() for name in _COLUMNS)
    counts = pc.value_counts(aliases)
    twice = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    if len(twice):
        others = customers.filter(pc.equal(aliases, twice[0])).to_pylist()
        raise InputError(
            f"{twice[0].as_py()!r} stands for {others[0]!r} and for {others[1]!r}",
            source=path,
            fix="name one customer for each alias",
        )
    chained = pc.is_in(customers, value_set=aliases)
    if pc.any(chained).as_py():
        at = pc.index(chained, value=True).as_py()
        alias, between = aliases[at].as_py(), customers[at].as_py()
        end = customers[pc.index(aliases, value=between).as_py()].as_py()
        what = "a circle" if end == alias else "a chain"
        raise InputError(
            f"{alias!r} stands for {between!r}, which stands for {end!r}: {what}",
            source=path,
            fix="name the last customer for every alias, and none of those as an alias",
        )
    return Identities(aliases, customers)
