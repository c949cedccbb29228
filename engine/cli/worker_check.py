"""What `rfmstream worker --check` prints."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from rfmstream.engine.cli.running import run_async
from rfmstream.schemas.errors import ConfigError, StateError

if TYPE_CHECKING:
    from rfmstream.engine.live.findings import Finding

_FAILED: Final = 1
_CODES: Final = {ConfigError: 2, StateError: 4}


def check_and_show(flags: Mapping[str, object], config: Path | None, *, as_json: bool) -> int:
    """Look at everything a worker needs, print it, and return the exit code: of the first thing that is wrong."""
    from rfmstream.engine.cli.show import print_json  # loads rich
    from rfmstream.engine.live.config import load_worker_config
    from rfmstream.engine.live.kafka.check import check_worker, wrong  # loads the client

    try:
        settings = load_worker_config(flags, file=config)
    except ConfigError as error:
        found = [wrong("settings", error)]
    else:
        found = run_async(check_worker(settings))
    first = next((one for one in found if one.verdict == "wrong"), None)
    code = 0 if first is None else next((c for k, c in _CODES.items() if isinstance(first.error, k)), _FAILED)
    if as_json:
        print_json({"ready": first is None, "exit_code": code, "findings": [one.document() for one in found]})
    else:
        _show(found)
    return code


def _show(found: "list[Finding]") -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from rfmstream.engine.cli.show import print_table

    styles = {"ok": "green", "warning": "yellow", "wrong": "bold red", "unknown": "dim"}
    table = Table("looked at", "", "found", box=box.SIMPLE_HEAD)
    for one in found:
        text = Text(one.found)
        if one.fix:
            text.append(f"\n→ {one.fix}", style="bold" if one.verdict == "wrong" else "")
        table.add_row(Text(one.what), Text(one.verdict, style=styles[one.verdict]), text)
    print_table(table)
    count = sum(one.verdict == "wrong" for one in found)
    warnings = sum(one.verdict == "warning" for one in found)
    summary = "a worker would start" if not count else f"a worker would not start: {count} wrong"
    click.echo(f"{summary}{f', {warnings} to be known' if warnings else ''}")
