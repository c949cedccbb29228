"""Where the value of a setting comes from: a flag wins over the environment, that over the file, that over the default.

Secrets have no flag, which other users of the machine could read, and no place in the TOML file, which gets committed.
"""

import os
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from rfmstream.engine.live.setting import ENVIRONMENT_PREFIX, Given, Setting
from rfmstream.engine.live.settings import WORKER_SETTINGS
from rfmstream.engine.service.client_config import read_secret
from rfmstream.schemas.errors import ConfigError
from rfmstream.schemas.toml_table import TomlTable, read_toml


def resolve(
    settings: Sequence[Setting],
    *,
    flags: Mapping[str, object],
    environment: Mapping[str, str] | None = None,
    file: Path | None = None,
    known: Sequence[Setting] = WORKER_SETTINGS,
) -> dict[str, tuple[Any, Given | None]]:
    """Return the checked value of each setting, and where it was given (None: nowhere, it is the default).

    In      flags        by the setting's name; None stands for not given
            environment  None: that of the process
            file         TOML, or None
            known        what file and environment may hold besides: they are shared with other commands
    Errors  ConfigError  names the setting, where it was written, and the fix
    """
    variables = os.environ if environment is None else environment
    table = TomlTable({} if file is None else read_toml(file), str(file))
    _refuse_unknown(table, variables, known)
    found = {}
    for setting in settings:
        given = (
            _secret(setting, variables)
            if setting.secret
            else _of_flags(setting, flags) or _of_environment(setting, variables) or _of_file(setting, table)
        )
        found[setting.name] = (setting.value(given), given)
    return found


def resolve_one(
    name: str,
    *,
    flags: Mapping[str, object],
    environment: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> Any:  # noqa: ANN401 - of the type its parser makes
    """Return the checked value of one of the worker's settings; otherwise as `resolve`."""
    settings = [setting for setting in WORKER_SETTINGS if setting.name == name]
    return resolve(settings, flags=flags, environment=environment, file=file)[name][0]


def _of_flags(setting: Setting, flags: Mapping[str, object]) -> Given | None:
    value = flags.get(setting.name)
    if isinstance(value, list | tuple):
        value = ",".join(map(str, value)) if value else None
    return None if value is None else Given(_as_text(value), setting.flag)


def _of_environment(setting: Setting, variables: Mapping[str, str]) -> Given | None:
    text = variables.get(setting.variable)
    return None if text is None else Given(text, setting.variable)


def _of_file(setting: Setting, table: TomlTable) -> Given | None:
    if setting.name not in table:
        return None
    value = table.values[setting.name]
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        value = ",".join(value)
    if not isinstance(value, bool | int | str):
        raise table.error(
            setting.name, "must be a string, a whole number, true or false, or a list of strings"
        )
    return Given(_as_text(value), setting.name, table.file)


def _secret(setting: Setting, variables: Mapping[str, str]) -> Given | None:
    """Read a secret, from the file that RFMSTREAM_..._FILE names or from the variable itself."""
    found = read_secret(setting.variable, variables)
    return None if found is None else Given(*found)


def _refuse_unknown(table: TomlTable, variables: Mapping[str, str], known: Sequence[Setting]) -> None:
    for setting in known:
        if setting.secret and setting.name in table:
            raise table.error(
                setting.name,
                "is a secret",
                f"put it into {setting.variable}, or a file named by {setting.variable}_FILE",
            )
    table.allow(*(setting.name for setting in known if not setting.secret))
    names = [setting.variable for setting in known]
    names += [f"{setting.variable}_FILE" for setting in known if setting.secret]
    for name in variables:
        # Kubernetes sets RFMSTREAM_PORT and the like beside a service of that name: only what looks like a slip of the
        # pen is refused.
        if name.startswith(ENVIRONMENT_PREFIX) and name not in names:
            near = get_close_matches(name, names, n=1, cutoff=0.88)
            if near:
                raise ConfigError("unknown setting", key=name, fix=f"did you mean {near[0]}?")


def _as_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
