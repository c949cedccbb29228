"""`rfmstream generate`."""

from pathlib import Path

import click

from rfmstream.engine.cli.options import FILE, SUFFIXES


@click.command(
    short_help="A synthetic order history.",
    epilog=f"""
\b
Examples:
  rfmstream generate --customers 10000 --orders 100000 --seed 1 --out orders.parquet
  # a plain load for benchmarks: paid orders of customers drawn by a zipf law
  rfmstream generate --customers 5000000 --orders 50000000 --seed 1 --keys zipf:1.2 --out load.parquet

\b
FILE's suffix chooses the format: {SUFFIXES}.
Exit codes: 0 done · 1 a disk failed · 2 usage or configuration · 130 interrupted
""",
)
@click.option("--customers", metavar="N", type=int, required=True, help="How many customers there are.")
@click.option(
    "--orders",
    metavar="N",
    type=int,
    required=True,
    help="Paid orders; refunds, cancellations and duplicates come on top.",
)
@click.option(
    "--seed", metavar="S", type=int, required=True, help="The same seed and options give the same rows."
)
@click.option("--days", metavar="D", type=int, default=730, show_default=True, help="Length of the history.")
@click.option(
    "--keys",
    metavar="KIND",
    default="realistic",
    show_default=True,
    help="realistic, or a plain load of paid orders: uniform or zipf:EXPONENT.",
)
@click.option("--out", metavar="FILE", type=FILE, required=True, help="The file to write.")
def generate(*, customers: int, orders: int, seed: int, days: int, keys: str, out: Path) -> None:
    """Write a history as a shop might have it, made up.

    Heavy-tailed purchase rates, customers who drop out, seasons, refunds, cancellations, duplicates and some late rows;
    ready for rfmstream replay without a map.
    """
    from rfmstream.engine.cli.progress import count_bar  # loads rich
    from rfmstream.engine.cli.warm_up import compile_kernels
    from rfmstream.engine.replay.generate import generate as run  # loads Arrow and the compiler

    compile_kernels("histories")
    with count_bar("generate", orders) as on_progress:
        made = run(
            customers=customers,
            orders=orders,
            seed=seed,
            days=days,
            keys=keys,
            out=out,
            on_progress=on_progress,
        )
    click.echo(
        f"{made.rows:,} rows of {made.customers:,} customers: {made.paid:,} paid, {made.refunded:,} refunded, "
        f"{made.cancelled:,} cancelled, {made.duplicates:,} duplicates, {made.late:,} late: {made.out}"
    )
