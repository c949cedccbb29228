"""The default place of checkpoints: in the user's state folder, so that it does not depend on the working directory."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from rfmstream.schemas.errors import ConfigError

_BEFORE: Final = "rfmstream-checkpoints"
"""The default of version 0.1, in the folder the worker was started in."""

_log = logging.getLogger(__name__)


def default_checkpoints(app_id: str, environment: Mapping[str, str] | None = None) -> str:
    """Return the place of an app's checkpoints: rfmstream/APP_ID under XDG_STATE_HOME, else ~/.local/state.

    Where a worker of version 0.1 has left some in the current folder, that one.

    In      environment  None: that of the process
    Errors  ConfigError  the user has no home
    """
    before = Path(_BEFORE)
    if before.is_dir():
        _log.warning(
            "checkpoints are kept in the current folder, as an earlier version did; name the place in the settings",
            extra={"checkpoints": str(before.absolute())},
        )
        return _BEFORE
    variables = os.environ if environment is None else environment
    state = variables.get("XDG_STATE_HOME")
    if state and Path(state).is_absolute():
        return str(Path(state) / "rfmstream" / app_id)
    try:
        home = Path("~").expanduser() if environment is None else Path(environment["HOME"])
    except (RuntimeError, KeyError):
        raise ConfigError(
            "is not set, and the user has no home to keep them in",
            key="checkpoints",
            fix="name a folder or a URI that lasts: --checkpoints, RFMSTREAM_CHECKPOINTS or a line in the file",
        ) from None
    return str(home / ".local" / "state" / "rfmstream" / app_id)
