"""`rfmstream produce`."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rfmstream.engine.cli.options import FILE, memory_option
from rfmstream.engine.cli.running import run_async
from rfmstream.engine.cli.settings import SettingsCommand, setting_options
from rfmstream.engine.live.settings import CLIENT_SETTINGS

if TYPE_CHECKING:
    import pyarrow as pa

    from rfmstream.engine.files.source import OrderStream
    from rfmstream.schemas.mapping import InputMap


class _AboveZero(click.FloatRange):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401
        number = float(super().convert(value, param, ctx))
        if not isfinite(number):
            self.fail(f"{value} is no number to count with.", param, ctx)
        return number


_ABOVE_ZERO = _AboveZero(0, min_open=True)
_FORMS = ("json", "ndjson", "array", "arrow")
_PARTITIONERS = ("murmur2", "crc32", "fnv1a")
_PROGRESS_S = 0.5
_DAY_US = 86_400_000_000


@click.command(
    cls=SettingsCommand,
    short_help="Order history into a Kafka topic.",
    epilog="""
\b
Examples:
  # all there is, as fast as it can be sent, into a new topic
  rfmstream produce orders.parquet --topic orders.v1 --partitions 12 --currency EUR
  # a day of history every second
  rfmstream produce orders.parquet --topic history --partitions 4 --speedup 86400
  # a load of 10,000 orders a second, as if they were of today
  rfmstream produce load.parquet --rate 10000 --shift-to-now

\b
Time: a record carries the time of its order, so a worker with --clock log lives through the history as if it had been
there. But once it has read a partition to its end its clock is the present, and later records of the past are late.
So with --clock log, send history whole before the worker starts (--shift-to-now, if it is to end today), and send at a
pace of its own time (--speedup) only to a worker with --clock event.

\b
Exit codes: 0 done · 1 the brokers failed · 2 usage or configuration · 3 input refused · 130 interrupted
""",
)
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True, type=FILE)
@click.option("--topic", metavar="TOPIC", help="Where to. [default: the first of the worker's input_topics]")
@click.option(
    "--map", "map_name", metavar="NAME|FILE", help="Input map for other columns: rfmstream maps list."
)
@click.option(
    "--ids",
    metavar="FILE",
    type=FILE,
    help="A table with the columns alias and customer_id: orders of an alias are sent as that customer's.",
)
@click.option(
    "--rates",
    metavar="FILE",
    type=FILE,
    help="A table with the columns date, currency and rate: orders in other currencies are sent in --currency, at the "
    "rate of their local day, a refund at its order's. A missing rate is no_rate, and not sent.",
)
@click.option(
    "--currency",
    metavar="CODE",
    help="What the amounts are in; a worker rejects another currency than its ruleset's. [default: the worker's "
    "setting, or CNY]",
)
@click.option(
    "--time-zone",
    metavar="ZONE",
    help="Where times without one are local, unless the map says it. [default: the worker's setting, or UTC]",
)
@click.option(
    "--partitions", metavar="N", type=click.IntRange(1, 10_000), help="Create the topic if it is absent."
)
@click.option(
    "--replication-factor",
    metavar="N",
    type=click.IntRange(1, 32),
    default=1,
    show_default=True,
    help="Copies of a created topic.",
)
@click.option("--rate", metavar="N", type=_ABOVE_ZERO, help="Orders a second at most.")
@click.option(
    "--speedup",
    metavar="X",
    type=_ABOVE_ZERO,
    help="Send each order when it is its turn, time passing X times as fast as it did: 86400 is a day a second.",
)
@click.option(
    "--shift-to-now",
    is_flag=True,
    help="Move all orders by the same number of days, so that the newest lies within the last 24 hours. "
    "Reads the input twice.",
)
@click.option(
    "--timestamps",
    metavar="WORD",
    type=click.Choice(["event", "now"]),
    default="event",
    show_default=True,
    help="The records' own time: event, when the order happened, or now, when it is sent.",
)
@click.option(
    "--format",
    "form",
    metavar="WORD",
    type=click.Choice(_FORMS),
    default="json",
    show_default=True,
    help="json: an order a record, its key the customer id; ndjson, array (JSON) or arrow (an IPC stream): many orders "
    "of one partition in each, without a key.",
)
@click.option(
    "--rows-per-record",
    metavar="N",
    type=click.IntRange(1, 100_000),
    default=500,
    show_default=True,
    help="Orders in a record of those forms at most.",
)
@click.option(
    "--partitioner",
    metavar="WORD",
    type=click.Choice(_PARTITIONERS),
    default="murmur2",
    show_default=True,
    help="How a customer's partition is chosen, which all producers of a topic have to do alike: murmur2 as Java, "
    "kafka-python, aiokafka, KafkaJS; crc32 as librdkafka (Python's confluent-kafka, .NET, Go, kcat); fnv1a as Sarama.",
)
@click.option(
    "--attribute",
    "attributes",
    multiple=True,
    metavar="COLUMN",
    help="Send this column along, for the views of a worker's plan. Can be given more than once.",
)
@setting_options(CLIENT_SETTINGS)
@memory_option
def produce(
    *,
    inputs: tuple[Path, ...],
    topic: str | None,
    map_name: str | None,
    ids: Path | None,
    rates: Path | None,
    currency: str | None,
    time_zone: str | None,
    partitions: int | None,
    replication_factor: int,
    rate: float | None,
    speedup: float | None,
    shift_to_now: bool,
    timestamps: str,
    form: Any,  # noqa: ANN401 - one of _FORMS, as click checked
    rows_per_record: int,
    partitioner: str,
    attributes: tuple[str, ...],
    config: Path | None,
    **flags: object,
) -> None:
    """Read order history as rfmstream replay does, and send it to a Kafka topic in order of time.

    A customer's orders go to the partition that Kafka's own clients choose for the customer id (--partitioner: or
    others). The producer is
    idempotent: what it repeats after a broken connection is stored once.
    """
    import asyncio

    from rfmstream.engine.files.identities import load_identities
    from rfmstream.engine.files.mapping import load_map
    from rfmstream.engine.files.rates import load_rates
    from rfmstream.engine.files.source import open_orders
    from rfmstream.engine.live.config import load_client_config
    from rfmstream.engine.live.kafka import producer as kafka  # loads the client
    from rfmstream.engine.live.orders_out import OrderEncoder, Pace
    from rfmstream.engine.live.sources import resolve_one
    from rfmstream.schemas.currencies import currency_exponent

    named = resolve_one("currency", flags={"currency": currency}, file=config)
    currency = named or "CNY"
    currency_exponent(currency)
    time_zone = resolve_one("time_zone", flags={"time_zone": time_zone}, file=config)
    client = load_client_config(flags, file=config)
    to = topic or resolve_one("input_topics", flags={}, file=config)[0]
    input_map = None if map_name is None else load_map(map_name)
    identities = None if ids is None else load_identities(ids)
    exchange = None if rates is None else load_rates(rates, currency=currency, time_zone=time_zone or "UTC")

    def opened() -> "OrderStream":
        return open_orders(
            inputs,
            input_map=input_map,
            currency=currency,
            time_zone=time_zone,
            identities=identities,
            rates=exchange,
            attributes=attributes,
        )

    _refuse_parts(input_map, attributes)
    # A missing file is known before the brokers are asked.
    orders = opened()

    async def run() -> tuple[int, int, int, dict[str, int]]:
        count = await kafka.prepare_topic(
            client, to, partitions=partitions, replication_factor=replication_factor
        )
        shift_us = await asyncio.to_thread(_days_to_now_us, opened()) if shift_to_now else 0
        if shift_to_now:
            days = shift_us // _DAY_US
            click.echo(f"all orders moved by {days:,} {'day' if abs(days) == 1 else 'days'}", err=True)
        encoder = OrderEncoder(
            currency,
            kafka.Partitioner(count, partitioner),
            form,
            rows_per_record,
            shift_us,
            timestamps == "event",
        )
        left_out: dict[str, int] = {}
        batches = _batches(orders, left_out)
        batch = await asyncio.to_thread(next, batches, None)
        if batch is not None and encoder.stamp_events:
            await kafka.refuse_short_memory(client, to, encoder.oldest_us(batch))
        async with kafka.opened(client) as producer:
            sender = kafka.OrderSender(producer, client, to, encoder, Pace(rate, speedup))
            with _progress() as on_progress:
                while batch is not None:
                    await sender.send(batch, on_progress)
                    batch = await asyncio.to_thread(next, batches, None)
        return sender.sent, sender.records, count, left_out

    started_s = time.monotonic()
    sent, records, count, left_out = run_async(run())
    elapsed_s = time.monotonic() - started_s
    click.echo(
        f"{_counted(sent, 'order')} in {_counted(records, 'record')} to {to}, {_counted(count, 'partition')}, "
        f"in {elapsed_s:.1f} s"
    )
    if named is None:
        click.echo(
            f"no currency is named: the amounts were sent as {currency}; --currency EUR names another",
            err=True,
        )
    if left_out:
        words = ", ".join(f"{reason} {rows:,}" for reason, rows in sorted(left_out.items()))
        click.echo(f"{sum(left_out.values()):,} rows are no orders and were not sent ({words})", err=True)


def _refuse_parts(input_map: "InputMap | None", attributes: tuple[str, ...]) -> None:
    """Refuse to send orders in parts: whoever reads them one by one would take them for several of one id."""
    from rfmstream.schemas.errors import ConfigError

    parted = set(attributes) & set(() if input_map is None else input_map.lines_by)
    if parted:
        raise ConfigError(
            f"the map parts orders by {', '.join(sorted(parted))}, and a topic holds whole orders",
            key="--attribute",
            fix="use a map without [lines] by",
        )


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _batches(orders: "OrderStream", left_out: dict[str, int]) -> "Iterator[pa.RecordBatch]":
    """Yield the batches that hold orders, counting by reason the rows that are none."""
    from rfmstream.engine.core.rejections import once_an_event

    for batch, rejected in orders:
        told = once_an_event(rejected)[0] if orders.has_parts else rejected
        for reason in told.column("reason").to_pylist():
            left_out[reason] = left_out.get(reason, 0) + 1
        if batch.num_rows:
            yield batch


def _days_to_now_us(orders: "OrderStream") -> int:
    """Return by how many days, in µs, the newest order lies back."""
    newest_us = None
    for batch in _batches(orders, {}):
        newest_us = batch.column("occurred_at")[-1].value
    return 0 if newest_us is None else (time.time_ns() // 1000 - newest_us) // _DAY_US * _DAY_US


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """Give a function to call with the orders sent and the time of the newest: it keeps a line on a terminal."""
    shown = sys.stderr.isatty()
    started_s = told_s = time.monotonic()

    def tell(sent: int, newest_us: int) -> None:
        nonlocal told_s
        now_s = time.monotonic()
        if shown and now_s - told_s >= _PROGRESS_S:
            told_s = now_s
            newest = datetime.fromtimestamp(newest_us / 1e6, UTC)
            click.echo(
                f"\r{sent:,} orders sent, {sent / (now_s - started_s):,.0f} a second, up to {newest:%Y-%m-%d %H:%M} ",
                nl=False,
                err=True,
            )

    yield tell
    if shown and told_s > started_s:
        click.echo(err=True)
