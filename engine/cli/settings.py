"""Settings of the live worker as options of commands, shown under headings."""

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import click

from rfmstream.engine.cli.options import FILE
from rfmstream.engine.live.setting import ENVIRONMENT_PREFIX, Setting
from rfmstream.engine.live.settings import WORKER_SETTINGS

_F = TypeVar("_F", bound=Callable[..., Any])

_SECRETS: Final = ",\n  ".join(setting.variable for setting in WORKER_SETTINGS if setting.secret)

SOURCES_HELP: Final = f"""
Settings:
  Each --option of a setting can also be given as an environment variable, {ENVIRONMENT_PREFIX} and its name in
  capitals ({ENVIRONMENT_PREFIX}APP_ID for --app-id), or in the TOML file of --config, by its name
  (app_id = "shop"). The option wins over the environment, the environment over the file.
  Secrets have no option; these variables hold them, or, with _FILE at the end, name a file that does:
  {_SECRETS}."""


class _SettingOption(click.Option):
    """An option that knows the heading it stands under."""

    def __init__(self, *arguments: Any, group: str, **attributes: Any) -> None:  # noqa: ANN401 - click's own
        super().__init__(*arguments, **attributes)
        self.group = group


class SettingsCommand(click.Command):
    """A command whose settings are listed under their headings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command's own options, then those of each heading."""
        groups: dict[str, list[tuple[str, str]]] = {"Options": []}
        for parameter in self.get_params(ctx):
            row = parameter.get_help_record(ctx)
            if row is not None:
                heading = parameter.group if isinstance(parameter, _SettingOption) else "Options"
                groups.setdefault(heading, []).append(row)
        for heading, rows in groups.items():
            with formatter.section(heading):
                formatter.write_dl(rows)


def setting_options(settings: Sequence[Setting]) -> Callable[[_F], _F]:
    """Add --config and an option for each setting that is no secret; none has a default of its own."""

    def decorate(command: _F) -> _F:
        for setting in reversed([setting for setting in settings if not setting.secret]):
            command = _option(setting)(command)
        return click.option(
            "--config", metavar="FILE", type=FILE, help="TOML file with settings; see Settings below."
        )(command)

    return decorate


def _option(setting: Setting) -> Callable[[_F], _F]:
    shown = "" if setting.default is None else f" [default: {setting.default}]"
    return click.option(
        setting.flag if setting.metavar else f"{setting.flag}/--no-{setting.flag[2:]}",
        setting.name,
        cls=_SettingOption,
        group=setting.group,
        metavar=setting.metavar or None,
        default=None,
        multiple=setting.many,
        help=setting.help + shown,
    )
