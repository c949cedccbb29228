"""Options that several commands share."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

if TYPE_CHECKING:
    from rfmstream.schemas.ruleset import Ruleset

_F = TypeVar("_F", bound=Callable[..., Any])

FILE: Final = click.Path(path_type=Path)
SUFFIXES: Final = ".parquet .arrow .csv .jsonl"


def _make_csv_safe(context: click.Context, _: click.Parameter, is_safe: bool) -> None:  # noqa: FBT001 - click's
    if is_safe:
        from rfmstream.engine.files.output import CSV_IS_SAFE  # loads Arrow

        token = CSV_IS_SAFE.set(True)
        context.call_on_close(lambda: CSV_IS_SAFE.reset(token))


def _bound_memory(context: click.Context, _: click.Parameter, size: str | None) -> None:
    if size is not None:
        from rfmstream.engine.files.memory import parse_size, set_bound

        try:
            set_bound(parse_size(size))
        except ValueError as error:
            raise click.BadParameter(f"{error}; write for example 8G or 500M") from error
        context.call_on_close(lambda: set_bound(None))


memory_option: Final = click.option(
    "--memory",
    metavar="SIZE",
    expose_value=False,
    callback=_bound_memory,
    help="Refuse an input, such as a workbook or a compressed Arrow file, that asks for more memory than this to be "
    "unpacked, as in 8G. [default: half of what there is]",
)

replay_memory_option: Final = click.option(
    "--memory",
    metavar="SIZE",
    expose_value=False,
    callback=_bound_memory,
    help="Stay within about this much memory, as in 8G: what takes more is parted by customer on disk and replayed "
    "part by part, with the same results; views and --resegment, which cannot be parted, are refused. An input, such "
    "as a workbook or a compressed Arrow file, that asks for more to be unpacked is refused. "
    "[default: half of what there is]",
)


def _place_scratch(context: click.Context, _: click.Parameter, place: Path | None) -> None:
    if place is not None:
        from rfmstream.engine.files.scratch import set_place

        set_place(place)
        context.call_on_close(lambda: set_place(None))


temp_dir_option: Final = click.option(
    "--temp-dir",
    metavar="DIR",
    type=FILE,
    expose_value=False,
    callback=_place_scratch,
    help="Keep temporary files there: parts of what does not fit into memory, runs of a sort. [default: TMPDIR, else "
    "the system's]",
)

csv_safe_option: Final = click.option(
    "--csv-safe",
    is_flag=True,
    expose_value=False,
    callback=_make_csv_safe,
    help="In .csv files, put an apostrophe before texts that a spreadsheet would run as formulas, such as =1+1.",
)


def _all_of(options: Sequence[Callable[[Any], Any]]) -> Callable[[_F], _F]:
    def decorate(command: _F) -> _F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def _whole_language(_: click.Context, __: click.Parameter, lang: str) -> str:
    return "zh-Hans" if lang == "zh" else lang


def language_option(use: str) -> Callable[[_F], _F]:
    """Add --lang, of which the command gets en, zh-Hans or zh-Hant; `use` says what for."""
    return click.option(
        "--lang",
        type=click.Choice(["en", "zh", "zh-Hans", "zh-Hant"], case_sensitive=False),
        default="en",
        show_default=True,
        callback=_whole_language,
        help=f"{use}: English, or Chinese, simplified (zh is zh-Hans) or traditional.",
    )


def ruleset_options(default_help: str, *, multiple: bool = False) -> Callable[[_F], _F]:
    """Add --ruleset, --time-zone and --currency.

    multiple  --ruleset may be given more than once, as the tuple `rulesets`
    """
    more = " Once for each view to have." if multiple else ""
    options = (
        click.option(
            "--ruleset",
            *(["rulesets"] if multiple else []),
            metavar="NAME|FILE",
            multiple=multiple,
            help=f"Ruleset: a built-in name (rfmstream rulesets list) or a .toml file.{more} [default: {default_help}]",
        ),
        click.option(
            "--time-zone",
            metavar="ZONE",
            help="Days begin and end in this IANA zone instead of the ruleset's own, such as Asia/Shanghai.",
        ),
        click.option(
            "--currency",
            metavar="CODE",
            help="Amounts, and the ruleset's cuts, are in this currency instead of the ruleset's own, such as USD.",
        ),
    )

    return _all_of(options)


def view_options(*, population: bool = True) -> Callable[[_F], _F]:
    """Add --view and --population, which choose among what a checkpoint or a file of several views holds."""
    options = [
        click.option(
            "--view",
            metavar="NAME",
            help="Which view, where there are several: rfmstream replay --plan.",
        )
    ]
    if population:
        options.append(
            click.option(
                "--population",
                metavar="VALUE",
                help="Of a view with `per`: only customers of this population.",
            )
        )

    return _all_of(options)


def chosen_ruleset(
    ruleset: str | None, time_zone: str | None, currency: str | None, *, default: str = "rfm8"
) -> "Ruleset | None":
    """Return the ruleset these options ask for; None if none of them was given."""
    if ruleset is None and time_zone is None and currency is None:
        return None
    from rfmstream.schemas.ruleset import load_ruleset  # loads numpy

    return load_ruleset(ruleset or default, time_zone=time_zone, currency=currency)
