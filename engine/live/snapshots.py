"""Snapshots of all partitions, from running workers or from checkpoints."""

import http.client
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from rfmstream.engine.events.instants import parse_instant
from rfmstream.engine.live.board import EXPECTED_HEADER, PARTITIONS_HEADER
from rfmstream.engine.live.store import Store
from rfmstream.schemas.codes import NEVER_US
from rfmstream.schemas.errors import ConfigError, StateError, TransportError
from rfmstream.schemas.plan import no_view
from rfmstream.schemas.ruleset import Ruleset
from rfmstream.schemas.snapshots import snapshot_schema

if TYPE_CHECKING:
    from rfmstream.engine.core.engine import Engine

_ANSWER_S_MAX: Final = 300
"""A snapshot waits for the step in flight, and for an earlier snapshot."""


@dataclass(frozen=True)
class Snapshot:
    """One row for each customer of each partition.

    Fields  schema      of the batches
            partitions  their names, such as orders.v1-0; complete once all batches were read
            batches     to be read once
            expected    all partitions of the workers' input topics; complete like `partitions`. Empty: not known
    """

    schema: pa.Schema
    partitions: list[str]
    batches: Iterator[pa.RecordBatch]
    expected: list[str] = field(default_factory=list)

    @property
    def missing(self) -> list[str]:
        """The partitions that no asked worker has."""
        return sorted(set(self.expected) - set(self.partitions))


def snapshot_of_workers(
    urls: Sequence[str],
    as_of: str | None,
    token: str | None = None,
    *,
    view: str | None = None,
    population: str | None = None,
) -> Snapshot:
    """Ask workers for snapshots of their partitions.

    In      urls   of their status pages
            as_of  the instant, ISO 8601; None: the present
            token  what they ask for beyond loopback; None: nothing
            view, population  None: the first view that is no shadow, and all of its populations
    Errors  ConfigError     a URL or the instant is wrong
            TransportError  a worker does not answer, is not ready, or two of them have the same partition
            StateError      workers of different rulesets
    """
    partitions: list[str] = []
    expected: list[str] = []
    query = {"as_of": as_of, "view": view, "population": population}
    asked = _Asked(query, token, partitions, expected)
    first, rest = _answer(urls[0], asked), urls[1:]

    def batches() -> Iterator[pa.RecordBatch]:
        yield from _read(urls[0], first)
        for url in rest:
            reader = _answer(url, asked)
            if reader.schema.metadata != first.schema.metadata:
                raise StateError("has another ruleset than the other worker", path=url, fix="ask them apart")
            yield from _read(url, reader)

    return Snapshot(first.schema, partitions, batches(), expected)


def snapshot_of_store(
    store: Store,
    ruleset: Ruleset | None,
    as_of: str | None,
    *,
    view: str | None = None,
    population: str | None = None,
) -> Snapshot:
    """Read the newest checkpoint of every partition.

    In      ruleset  None: that of the checkpoints, if it is a built-in one
            as_of    the instant, ISO 8601, local in the ruleset's zone; None: the newest clock of all
            view, population  None: the only view, and all of its populations
    Errors  StateError   there is none, or none is whole, or it belongs to another ruleset
            ConfigError  the instant lies before the clock
    """
    engines = engines_of_store(store, ruleset, view)
    partitions = list(engines)
    first = engines[partitions[0]]
    instant_us: int | None
    if as_of is not None:
        instant_us = parse_instant(as_of, first.ruleset.time_zone, key="--as-of")
    else:
        newest_us = max(engine.clock_us for engine in engines.values())
        instant_us = None if newest_us == NEVER_US else newest_us

    def batches() -> Iterator[pa.RecordBatch]:
        for name in partitions:
            # Free each table when its rows are out.
            table = engines.pop(name).snapshot(instant_us)
            if population is not None:
                table = table.filter(pc.equal(table["population"], population))
            yield from table.to_batches()

    return Snapshot(snapshot_schema(first.ruleset), partitions, batches())


def engines_of_store(store: Store, ruleset: Ruleset | None, view: str | None = None) -> "dict[str, Engine]":
    """Return the engine of every partition's newest checkpoint, by the partition's name.

    In      ruleset  None: that of the checkpoints, if it is a built-in one
            view     None: the only one, or the one that is named after the ruleset
    Errors  StateError   there is none, or none is whole, or it belongs to another ruleset
            ConfigError  there are several views, or there is none of that name
    """
    engines: dict[str, Engine] = {}
    for source in store.sources():
        loaded = store.load(source, None, ruleset, view=view)
        if loaded is None:
            raise StateError("holds no whole checkpoint", path=str(source), fix="ask a worker that runs")
        if len(loaded.state.views) > 1:
            raise no_view(None, loaded.state.names)
        own = loaded.engine.ruleset
        if ruleset is not None and own.tier_fingerprint != ruleset.tier_fingerprint:
            raise StateError(f"belongs to the ruleset {own.identity}", path=loaded.name, fix="name that one")
        engines[str(source)] = loaded.engine
    if not engines:
        raise StateError("there are no checkpoints of partitions")
    return engines


class _Asked(NamedTuple):
    """What workers are asked, and which partitions those have that have answered."""

    query: Mapping[str, str | None]
    token: str | None
    partitions: list[str]
    expected: list[str]


def _answer(url: str, asked: _Asked) -> pa.RecordBatchStreamReader:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ConfigError(f"{url!r} is no URL of a worker", key="--worker", fix="write http://127.0.0.1:8765")
    named = {name: value for name, value in asked.query.items() if value is not None}
    query = "?" + urllib.parse.urlencode(named) if named else ""
    headers = (
        {} if asked.token is None else {"Authorization": f"Bearer {asked.token}".encode().decode("latin-1")}
    )
    # The scheme was checked above.
    request = urllib.request.Request(url.rstrip("/") + "/snapshot" + query, headers=headers)  # noqa: S310
    try:
        response = urllib.request.urlopen(request, timeout=_ANSWER_S_MAX)  # noqa: S310
        names = _names(response, PARTITIONS_HEADER)
        expected = asked.expected
        expected += [name for name in _names(response, EXPECTED_HEADER) if name not in expected]
        reader = pa.ipc.open_stream(response)
    except urllib.error.HTTPError as error:
        said = error.read(1000).decode("utf-8", "replace").strip() or error.reason
        if error.code == http.client.BAD_REQUEST:
            raise ConfigError(said, key=url) from None
        raise TransportError(said, endpoint=url, fix="try again when /readyz answers 200") from None
    except (OSError, http.client.HTTPException, pa.ArrowException) as error:
        words = getattr(error, "reason", None) or error
        raise TransportError(
            f"no snapshot comes from there ({words})", endpoint=url, fix="is it a worker?"
        ) from None
    if twice := set(names) & set(asked.partitions):
        problem = f"{', '.join(sorted(twice))} belongs to two workers: partitions are on the move"
        raise TransportError(problem, endpoint=url, fix="try again")
    asked.partitions.extend(names)
    return reader


def _names(response: http.client.HTTPResponse, header: str) -> list[str]:
    return [name for name in response.headers.get(header, "").split(",") if name]


def _read(url: str, reader: pa.RecordBatchStreamReader) -> Iterator[pa.RecordBatch]:
    try:
        yield from reader
    except (OSError, http.client.HTTPException, pa.ArrowException) as error:
        raise TransportError(f"the snapshot broke off ({error})", endpoint=url, fix="try again") from None
