"""`rfmstream worker`."""

from pathlib import Path

import click

from rfmstream.engine.cli.settings import SOURCES_HELP, SettingsCommand, setting_options
from rfmstream.engine.live.settings import WORKER_SETTINGS


@click.command(
    cls=SettingsCommand,
    short_help="Orders from Kafka in, tier changes out, as they happen.",
    epilog=f"""
\b
Examples:
  # orders of the topic orders.v1 of a broker on this machine
  rfmstream worker
  # a shop's cluster; the password is in the environment
  rfmstream worker --bootstrap-servers broker-1:9093,broker-2:9093 --security-protocol sasl_ssl \\
      --sasl-username rfm --ruleset rfm8-annual --currency EUR --time-zone Europe/Berlin \\
      --checkpoints s3://shop-rfm/checkpoints
  # the same from a file; first a look at whether all is well
  rfmstream worker --config worker.toml --check
  rfmstream worker --config worker.toml
  # work a topic of history off, let time pass to the end of the year, and stop
  rfmstream worker --input-topics history --clock event --until-end --as-of 2027-01-01

\b{SOURCES_HELP}

\b
docs/live.md explains topics, time, checkpoints and recovery.
Exit codes: 0 stopped by Ctrl-C or SIGTERM, or at the end · 1 brokers or a disk failed · 2 usage or configuration ·
  4 state or checkpoint
""",
)
@click.option(
    "--check",
    is_flag=True,
    help="Start nothing: look at settings, checkpoints, brokers, topics, rights and clock, and say what is wrong.",
)
@click.option("--json", "as_json", is_flag=True, help="With --check: print one JSON object.")
@setting_options(WORKER_SETTINGS)
def worker(*, check: bool, as_json: bool, config: Path | None, **flags: object) -> None:
    """Read orders from Kafka topics and write every tier change to another, exactly once, the moment it happens.

    Customers also age out while nobody orders. Workers of one --app-id share the partitions, and take over those of one
    that stops or dies. Ctrl-C or SIGTERM ends a worker in good order: commit, checkpoint, leave.
    """
    if as_json and not check:
        raise click.UsageError("--json goes with --check")
    if check:
        from rfmstream.engine.cli.worker_check import check_and_show

        raise SystemExit(check_and_show(flags, config, as_json=as_json))
    # Loaded here, so that help need not wait for Arrow, the compiler and the client.
    from rfmstream.engine.live.config import load_worker_config
    from rfmstream.engine.live.logs import set_up_logs

    settings = load_worker_config(flags, file=config)
    set_up_logs(settings.log_format, settings.log_level)
    from rfmstream.engine.insight.report.live_page import LivePage
    from rfmstream.engine.live.kafka.worker import run_worker

    raise SystemExit(run_worker(settings, LivePage()))
