"""`rfmstream erase`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from rfmstream.engine.cli.options import FILE, SUFFIXES, chosen_ruleset, csv_safe_option, ruleset_options
from rfmstream.engine.cli.running import run_async
from rfmstream.engine.cli.settings import SettingsCommand, setting_options
from rfmstream.engine.live.settings import CLIENT_SETTINGS

if TYPE_CHECKING:
    import pyarrow as pa

    from rfmstream.schemas.ruleset import Ruleset


@click.command(
    cls=SettingsCommand,
    short_help="Forget customers: in files, a checkpoint, or a worker's topic.",
    epilog=f"""
\b
Examples:
  # ids.txt has an id a line; or any file with a column customer_id
  rfmstream erase --ids ids.txt --topic orders.v1
  rfmstream erase --ids ids.txt --checkpoint state --changes erased.parquet
  rfmstream erase --ids ids.txt --files changes.parquet --files exports/

\b
--topic sends an event of type erased for each customer: workers forget it, emit one tier change to null with reason
erased, and leave it out of every checkpoint from then on.
--checkpoint does the same to the state of rfmstream replay --checkpoint, dated at its clock, so that no time passes;
the changes to null go to --changes.
--files writes files anew without the customers' rows, each whole or not at all. Suffixes: {SUFFIXES}.
What nobody can forget for you: orders in topics and files of other systems, copies, backups, logs.

\b
Exit codes: 0 done · 1 a disk or the brokers failed · 2 usage or configuration · 3 a file cannot be read · 4 checkpoint
""",
)
@click.option(
    "--ids", metavar="FILE", type=FILE, required=True, help="Who: .txt with an id a line, or a table."
)
@click.option(
    "--files",
    "paths",
    metavar="PATH",
    type=FILE,
    multiple=True,
    help="A file, or a directory of files; repeatable.",
)
@click.option("--checkpoint", metavar="DIR", type=FILE, help="A checkpoint of rfmstream replay --checkpoint.")
@click.option(
    "--changes", metavar="FILE", type=FILE, help="With --checkpoint: write the tier changes that this brings."
)
@click.option("--topic", metavar="TOPIC", help="The topic of orders that workers read.")
@ruleset_options("the checkpoint's own; give the FILE if it was your own")
@click.option(
    "--plan",
    metavar="FILE",
    type=FILE,
    help="With --checkpoint: the plan of its views, where rulesets of them are your own.",
)
@setting_options(CLIENT_SETTINGS)
@csv_safe_option
def erase(
    *,
    ids: Path,
    paths: tuple[Path, ...],
    checkpoint: Path | None,
    changes: Path | None,
    topic: str | None,
    ruleset: str | None,
    time_zone: str | None,
    currency: str | None,
    plan: Path | None,
    config: Path | None,
    **flags: object,
) -> None:
    """Forget customers on request: their orders, ids and rows.

    Name one or more of --topic, --checkpoint and --files; they are done in that order.
    """
    if not paths and checkpoint is None and topic is None:
        raise click.UsageError("name at least one of --topic, --checkpoint and --files")
    if (changes is not None or plan is not None) and checkpoint is None:
        raise click.UsageError(f"{'--plan' if changes is None else '--changes'} belongs to --checkpoint")
    from rfmstream.engine.files.erase import erase_customers, files_below, read_ids
    from rfmstream.engine.files.output import check_outputs

    customers = read_ids(ids)
    files = files_below(paths)
    if ids.resolve() in {path.resolve() for path in files}:
        files = [path for path in files if path.resolve() != ids.resolve()]
    if changes is not None:
        check_outputs([changes], [ids, *files])
    if topic is not None:
        sent = _send(customers, topic, flags, config, currency)
        click.echo(f"{sent:,} events of type erased sent to {topic}")
    if checkpoint is not None:
        chosen = chosen_ruleset(ruleset, time_zone, currency)
        told, forgotten, records = _erase_in_checkpoint(customers, checkpoint, chosen, changes, plan)
        # Of several views and populations a customer has a record in each.
        where = f" ({records:,} records of views and populations)" if records != forgotten else ""
        click.echo(f"{forgotten:,} customers forgotten{where}, {told:,} tier changes to null: {checkpoint}")
    for path in files:
        count = erase_customers(path, customers)
        click.echo(f"{count:,} rows erased: {path}" if count else f"none there: {path}")


def _erase_in_checkpoint(
    customers: "pa.Array",
    folder: Path,
    ruleset: "Ruleset | None",
    changes: Path | None,
    plan: Path | None,
) -> tuple[int, int, int]:
    """Erase customers as of the checkpoint's clock; return the changes, the customers there were, their records."""
    from rfmstream.engine.cli.snapshot import is_plain
    from rfmstream.engine.core.checkpoint.folder import held
    from rfmstream.engine.core.checkpoint.manifest import is_of_views
    from rfmstream.engine.core.engine import Engine
    from rfmstream.engine.files.output import write_table
    from rfmstream.schemas.codes import NEVER_US
    from rfmstream.schemas.errors import StateError

    if not is_plain(str(folder)):
        raise StateError(
            "holds the checkpoints of live workers",
            path=folder,
            fix="erase by --topic: workers rewrite their own",
        )
    if is_of_views(folder):
        return _erase_in_views(customers, folder, ruleset, changes, plan)
    with held(folder):
        engine = Engine.restore(folder, ruleset=ruleset)
        before = engine.customers
        if engine.clock_us == NEVER_US:
            return 0, 0, 0  # nobody is known, and there is no instant to forget anybody at
        result = engine.step(_events(customers, engine.clock_us))
        # First what others must hear: a run that breaks off here is simply run again.
        if changes is not None:
            write_table(changes, result.changes)
        engine.checkpoint(folder)
    forgotten = before - engine.customers
    return result.changes.num_rows, forgotten, forgotten


def _erase_in_views(
    customers: "pa.Array",
    folder: Path,
    ruleset: "Ruleset | None",
    changes: Path | None,
    plan: Path | None,
) -> tuple[int, int, int]:
    """Erase customers in every view of a checkpoint and in every population, as of each view's clock.

    Returns  the tier changes, the customers there were, and their records: one in each view and population
    """
    import pyarrow as pa

    from rfmstream.engine.core.checkpoint.folder import held
    from rfmstream.engine.core.lookup import rows_of
    from rfmstream.engine.core.views import Views, together
    from rfmstream.engine.files.output import write_table
    from rfmstream.engine.replay.views import shadow_path
    from rfmstream.schemas.changes import CHANGE_SCHEMA
    from rfmstream.schemas.codes import NEVER_US
    from rfmstream.schemas.errors import ConfigError

    if ruleset is not None:
        raise ConfigError(
            "the checkpoint holds several views",
            file=folder,
            key="ruleset",
            fix="leave it out: all of them forget; --plan says their rulesets",
        )
    with held(folder):
        views = Views.restore(folder, plan)
        if views.added or views.dropped:
            raise ConfigError(
                f"the checkpoint has not the views of the plan: {', '.join((*views.added, *views.dropped))}",
                file=plan,
                key="view",
                fix="name exactly those that it holds: all of them forget",
            )
        before = {name: of.engine.customers for name, of in views.views.items()}
        ids = customers.to_pylist()
        there: set[str] = set()
        for of in views.views.values():
            there.update(rows_of(of.engine, ids)["customer_id"].to_pylist())
        known = [of for of in views.views.values() if of.engine.clock_us != NEVER_US]
        told = {of.view.name: of.erase(customers).changes for of in known}
        # First what others must hear: a run that breaks off here is simply run again.
        if changes is not None:
            shadows = {view.name: shadow_path(changes, view.name) for view in views.plan.views if view.shadow}
            shown = (table for name, table in told.items() if name not in shadows)
            # One dictionary for all: a file of Arrow holds no other.
            whole = together(shown, CHANGE_SCHEMA).unify_dictionaries()
            write_table(changes, pa.Table.from_batches(whole.to_batches(), whole.schema))
            for name, path in shadows.items():
                if name in told:
                    write_table(path, told[name])
        views.checkpoint(folder)
    records = sum(before[name] - of.engine.customers for name, of in views.views.items())
    return sum(table.num_rows for table in told.values()), len(there), records


def _send(
    customers: "pa.Array", topic: str, flags: dict[str, object], config: Path | None, currency: str | None
) -> int:
    import time

    from rfmstream.engine.events.normalise import normalise
    from rfmstream.engine.live.config import load_client_config
    from rfmstream.engine.live.kafka import producer as kafka  # loads the client
    from rfmstream.engine.live.orders_out import OrderEncoder, Pace
    from rfmstream.engine.live.sources import resolve_one

    unit = resolve_one("currency", flags={"currency": currency}, file=config) or "CNY"
    client = load_client_config(flags, file=config)
    batch, _ = normalise(_events(customers, time.time_ns() // 1000), currency=unit)

    async def run() -> int:
        count = await kafka.prepare_topic(client, topic, partitions=None, replication_factor=1)
        encoder = OrderEncoder(unit, kafka.Partitioner(count), stamp_events=False)
        async with kafka.opened(client) as producer:
            sender = kafka.OrderSender(producer, client, topic, encoder, Pace())
            await sender.send(batch, lambda *_: None)
        return sender.sent

    return run_async(run())


def _events(customers: "pa.Array", at_us: int) -> "pa.Table":
    import pyarrow as pa

    instant = pa.scalar(at_us, pa.int64()).cast(pa.timestamp("us", "UTC"))
    return pa.table(
        {
            "customer_id": customers,
            "order_id": pa.nulls(len(customers), pa.string()),
            "type": pa.repeat(pa.scalar("erased"), len(customers)),
            "occurred_at": pa.repeat(instant, len(customers)),
        }
    )
