"""`rfmstream state`: the state of live apps, over all their workers."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from rfmstream.engine.cli.running import run_async
from rfmstream.engine.cli.settings import SettingsCommand, setting_options
from rfmstream.engine.live.settings import CLIENT_SETTINGS, WORKER_SETTINGS
from rfmstream.schemas.errors import ConfigError

if TYPE_CHECKING:
    from rfmstream.engine.live.kafka.app_state import App, AppState

_OWN: Final = ("app_id", "clock_topic", "checkpoints")
_SETTINGS: Final = (*CLIENT_SETTINGS, *(setting for setting in WORKER_SETTINGS if setting.name in _OWN))

_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group(
    short_help="What is kept of a live app: looked at, copied, dropped.",
    epilog="""
\b
Examples:
  rfmstream state list                              # the apps there are
  rfmstream state status --config worker.toml       # offsets, lag, workers, checkpoints of one
  # another ruleset, tried on a copy beside the running app, once its workers were stopped for a moment
  rfmstream state copy --config worker.toml --to-app-id trial --to-checkpoints s3://shop-rfm/trial \\
      --to-current-topic trial.tier-current.v1
  rfmstream state reset --config worker.toml --yes  # begin anew from the first record

\b
Settings are those of the worker: its environment variables and its --config file serve here too.
Exit codes: 0 done · 1 brokers or a disk failed · 2 usage or configuration · 4 state: workers run, or it is damaged
""",
)
def state() -> None:
    """Look at the state of apps, copy one under another name, or drop one.

    An app's state is its group's committed offsets, its notes of time in the clock topic, and its checkpoints.
    """


@state.command("list", cls=SettingsCommand)
@_JSON
@setting_options(_SETTINGS)
def list_(*, as_json: bool, config: Path | None, **flags: object) -> None:
    """List the apps that brokers, clock topic and checkpoints know of."""
    from rfmstream.engine.cli.show import print_columns, print_json  # loads rich
    from rfmstream.engine.live.kafka.app_state import list_apps

    app = _app(flags, config)
    apps = run_async(list_apps(app.client, app.clock_topic, app.store))
    if as_json:
        print_json({"apps": [one._asdict() for one in apps]})
        return
    if not apps:
        click.echo("no app has any state there")
        return
    names = ("app", "input", "partitions", "workers", "lag", "notes of time", "checkpoints")
    print_columns(
        names,
        [
            (
                one.app_id,
                ", ".join(one.topics),
                *(_number(n) for n in (one.partitions, one.workers, one.lag, one.notes, one.checkpoints)),
            )
            for one in apps
        ],
    )


@state.command(cls=SettingsCommand)
@_JSON
@setting_options(_SETTINGS)
def status(*, as_json: bool, config: Path | None, **flags: object) -> None:
    """Show each partition's offsets, worker, newest note of time and checkpoints, whoever has it."""
    from rfmstream.engine.live.kafka.app_state import state_of

    _show(run_async(state_of(_app(flags, config))), as_json=as_json)


@state.command(cls=SettingsCommand)
@click.option("--to-app-id", metavar="NAME", required=True, help="The copy's name.")
@click.option(
    "--to-checkpoints",
    metavar="DIR|URI",
    required=True,
    help="Where the copy's checkpoints go: another place than those it is made from.",
)
@click.option(
    "--to-clock-topic", metavar="TOPIC", help="Where its notes of time go. [default: the same topic]"
)
@click.option(
    "--to-current-topic",
    metavar="TOPIC",
    help="The current_topic its workers will have. [default: as of the app it is made from]",
)
@_JSON
@setting_options(_SETTINGS)
def copy(
    *,
    to_app_id: str,
    to_checkpoints: str,
    to_clock_topic: str | None,
    to_current_topic: str | None,
    as_json: bool,
    config: Path | None,
    **flags: object,
) -> None:
    """Copy an app's state under another name: its workers go on where the app is now.

    No worker of either may run meanwhile. The copy has outputs of its own, or takes over those of an app that is not
    started again: both writing to the same topics would tell every change twice.
    """
    from rfmstream.engine.cli.show import print_json  # loads rich
    from rfmstream.engine.live.kafka.app_moves import copy_app
    from rfmstream.engine.live.sources import resolve_one

    app = _app(flags, config)
    to = _app({**flags, "app_id": to_app_id, "checkpoints": to_checkpoints}, config)
    if to_clock_topic is not None:
        to = to._replace(clock_topic=resolve_one("clock_topic", flags={"clock_topic": to_clock_topic}))
    if to.app_id == app.app_id:
        raise ConfigError("is the app itself", key="--to-app-id", fix="give the copy another name")
    if to.store.place == app.store.place:
        raise ConfigError(
            "is the app's own place", key="--to-checkpoints", fix="give the copy a place of its own"
        )
    done = run_async(copy_app(app, to, to_current_topic))
    if as_json:
        print_json({"app_id": to.app_id, **done._asdict()})
        return
    click.echo(
        f"{app.app_id} copied to {to.app_id}: {done.partitions} partitions, {done.notes} notes of time, "
        f"{done.checkpoints} checkpoints in {to.store.place}"
    )
    click.echo(
        f"start it with --app-id {to.app_id} --checkpoints {to.store.place}, and with output topics of its own "
        f"unless {app.app_id} is not started again"
    )


@state.command(cls=SettingsCommand)
@click.option("--yes", is_flag=True, help="Do it; without, only what there is is shown.")
@_JSON
@setting_options(_SETTINGS)
def reset(*, yes: bool, as_json: bool, config: Path | None, **flags: object) -> None:
    """Drop an app's state: offsets, notes of time and checkpoints. Its next worker begins with the first record.

    Refused while a worker runs. What the app has written stays where it is, and what it tells anew carries the same
    ids: give it other output topics, or delete the old ones.
    """
    from rfmstream.engine.live.kafka.app_moves import reset_app

    app = _app(flags, config)
    found = run_async(reset_app(app, dry_run=not yes))
    _show(found, as_json=as_json, done=yes)
    if as_json:
        return
    if not yes:
        raise ConfigError(
            "nothing is dropped yet", key="--yes", fix=f"say it to drop this state of {app.app_id}"
        )
    click.echo(
        f"dropped: the next worker of {app.app_id} begins with the first record, and tells its changes anew"
    )


def _app(flags: Mapping[str, object], config: Path | None) -> "App":
    from rfmstream.engine.live.config import load_client_config
    from rfmstream.engine.live.kafka.app_state import App  # loads the client
    from rfmstream.engine.live.places import default_checkpoints
    from rfmstream.engine.live.sources import resolve
    from rfmstream.engine.live.store import Store

    values = {name: value for name, (value, _) in resolve(_SETTINGS, flags=flags, file=config).items()}
    place = values["checkpoints"] or default_checkpoints(values["app_id"])
    store = Store(place, app_id=values["app_id"])
    return App(load_client_config(flags, file=config), values["app_id"], values["clock_topic"], store)


def _show(found: "AppState", *, as_json: bool, done: bool | None = None) -> None:
    from rfmstream.engine.cli.show import print_columns, print_json  # loads rich

    if as_json:
        print_json(_document(found) | ({} if done is None else {"dropped": done}))
        return
    workers = (
        "no worker" if not found.workers else "1 worker" if found.workers == 1 else f"{found.workers} workers"
    )
    click.echo(f"app {found.app_id}: {workers}, group {found.group.lower()}")
    names = ("partition", "committed", "end", "lag", "worker", "time", "checkpoints", "at", "of")
    rows = []
    for source, one in found.partitions.items():
        newest = one.checkpoints[-1] if one.checkpoints else None
        times = [us for us in (one.clock_us, newest and newest.clock_us) if us is not None]
        committed = _number(one.committed) + (" (not by a worker)" if one.is_foreign else "")
        rows.append(
            (
                str(source),
                committed,
                _number(one.end),
                _number(one.lag),
                one.worker or "",
                _instant(max(times) if times else None),
                _number(len(one.checkpoints)),
                _number(None if newest is None else newest.offset),
                "" if newest is None else newest.law.split(" ")[0],
            )
        )
    print_columns(names, rows)


def _document(found: "AppState") -> dict[str, Any]:
    return {
        "app_id": found.app_id,
        "group": found.group,
        "workers": found.workers,
        "partitions": [
            {
                "topic": source.topic,
                "partition": source.partition,
                "committed": one.committed,
                "committed_by_worker": None if one.committed is None else not one.is_foreign,
                "end": one.end,
                "lag": one.lag,
                "worker": one.worker,
                "notes": one.notes,
                "clock": _instant(one.clock_us) or None,
                "checkpoints": [
                    {
                        "name": checkpoint.name,
                        "offset": checkpoint.offset,
                        "clock": _instant(checkpoint.clock_us) or None,
                        "law": checkpoint.law,
                        "bytes": checkpoint.bytes,
                        "written": _instant(checkpoint.written_us) or None,
                    }
                    for checkpoint in one.checkpoints
                ],
            }
            for source, one in found.partitions.items()
        ],
    }


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _instant(at_us: int | None) -> str:
    from rfmstream.engine.events.instants import to_text

    # Before its first record a state has no time.
    return "" if at_us is None or at_us < 0 else to_text(at_us)
