"""Some customers' rows of a snapshot, found by id, in one engine or in several that share a ruleset."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rfmstream.engine.core.buffers import offsets_and_data
from rfmstream.engine.core.columns import ColumnWriter, entry_ids
from rfmstream.engine.core.engine import Engine
from rfmstream.engine.core.measured import Measured
from rfmstream.engine.core.populations import Populations
from rfmstream.kernels.lookup import find_customers
from rfmstream.schemas.errors import ConfigError

Row = dict[str, Any]


def rows_of(
    engine: Engine, ids: Sequence[str], as_of_us: int | None = None, *, population: str | None = None
) -> pa.Table:
    """Return what `engine.snapshot` says of some customers, one row each of those there are, without changing anything.

    In      as_of_us  µs since 1970 UTC, not before the clock; None: the clock
            population  of a view that has some: only there; None: in every one, which looks at all of them
    Errors  ConfigError  as_of_us lies before the clock
    """
    found = Found(ids, population=population)
    found.look_in(engine, as_of_us)
    return found.table()


class Found:
    """The customers of some ids, as far as they were found: in no engine yet.

    In      ids  in any order; one that no customer can have, or that comes again, is nothing more
            population  of a view that has some; None: all of them
    Fields  ids   those that are looked for, each once
            rows  how many were found: a customer of two engines, or of several populations, is found again
            as_of_us  the instant of each engine's rows, and how many rows there were with them
    """

    def __init__(self, ids: Sequence[str], *, population: str | None = None) -> None:
        self.ids = [id_ for id_ in dict.fromkeys(ids) if id_]
        self.as_of_us: list[tuple[int, int]] = []
        self._population = population
        self._texts = pa.array(self.ids, pa.string())
        self._measured = Measured(len(self.ids))
        self._places: list[NDArray[np.int64]] = []
        self._populations: list[pa.StringArray] = []
        self._order_ids: list[pa.StringArray] = []
        self._columns: ColumnWriter | None = None

    @property
    def rows(self) -> int:
        """How many were found."""
        return self._measured.rows

    def look_in(self, engine: Engine, as_of_us: int | None = None) -> None:
        """Look for them in an engine, at an instant; None: its clock.

        Errors  ConfigError  as_of_us lies before the clock
        Cost    O(ids), a microsecond or two where none of them is there
        """
        clock_us = engine.clock_us
        as_of_us = clock_us if as_of_us is None else as_of_us
        if as_of_us < clock_us:
            raise ConfigError("lies before the clock", key="as_of", fix="ask for the clock or later")
        self._columns = engine.columns
        if not self.ids:
            return
        keys = self._keys(engine)
        offset, data = offsets_and_data(keys)
        measured = self._measured
        for shard in engine.shards:
            handles = np.zeros(len(keys), np.int64)
            find_customers(shard.state.rows, offset, data, handles)
            [there] = handles.nonzero()
            if not there.size:
                continue
            first = measured.rows
            shard.measure_into(measured, as_of_us, handles[there].astype(np.uint32))
            self._order_ids.append(entry_ids(shard, measured.out.order_entry[first : measured.rows]))
            self._places.append(there % len(self.ids))
            if engine.populations is not None:
                self._populations.append(self._names_of(engine.populations, there))
        self.as_of_us.append((measured.rows, as_of_us))

    def customer_ids(self) -> list[str]:
        """Return the id of each row."""
        ids = self.ids
        return [ids[place] for places in self._places for place in places.tolist()]

    def table(self) -> pa.Table:
        """Return the rows as Arrow columns, of the schema of the engines' snapshots."""
        assert self._columns is not None, "an engine was asked"
        schema = self._columns.snapshot_schema
        if not self.rows:
            return schema.empty_table()
        batch = self._columns.measured(
            self._measured,
            customer_ids=self._texts.take(pa.array(np.concatenate(self._places))),
            order_ids=pa.concat_arrays(self._order_ids),
            population=pa.concat_arrays(self._populations) if self._populations else None,
        )
        return pa.Table.from_batches([batch])

    def plain(self) -> list[Row]:
        """Return the rows as `to_pylist` does, but with instants in µs since 1970 UTC: see `ColumnWriter.plain`."""
        if not self.rows:
            return []
        assert self._columns is not None, "an engine was asked"
        return self._columns.plain(
            self._measured,
            customer_ids=self.customer_ids(),
            order_ids=[id_ for ids in self._order_ids for id_ in ids.to_pylist()],
            population=[name for names in self._populations for name in names.to_pylist()] or None,
        )

    def _keys(self, engine: Engine) -> pa.StringArray:
        """Return what customers are known by in an engine, of each population after the other if there are any."""
        populations = engine.populations
        if populations is None:
            return self._texts
        numbers = self._numbers(populations)
        ids = self._texts
        whole = pa.concat_arrays([ids] * numbers.size) if numbers.size else ids.slice(0, 0)
        return populations.keys(np.repeat(numbers, len(ids)), whole, remember=False)

    def _numbers(self, populations: Populations) -> NDArray[np.int64]:
        """Return the numbers of the populations that are looked in."""
        if self._population is None:
            return np.arange(len(populations.names))
        number = populations.number(self._population)
        return np.array([] if number is None else [number], np.int64)

    def _names_of(self, populations: Populations, keys: NDArray[np.int64]) -> pa.StringArray:
        """Return the population of each of the keys with these ordinals."""
        names = [populations.names[number] for number in self._numbers(populations).tolist()]
        return pa.array(names, pa.string()).take(pa.array(keys // len(self.ids)))
