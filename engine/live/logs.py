"""Logs of the worker on stderr: lines for people, or one JSON object a line.

Facts beside the message are passed as `extra={...}`: people see them as key=value, programs as keys. Nothing that is
logged holds a secret: a ClientConfig leaves its own out of its repr, credentials in URLs are masked, those that
libraries quote included, and records' contents are never logged.
"""

import logging
import sys
from datetime import UTC, datetime
from typing import Any, Final, Literal, TextIO

import orjson

from rfmstream.schemas.secrets import masked

_OWN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""What every record has; the rest came by `extra`."""

_LIBRARIES: Final = (
    "aiohttp",
    "aiokafka",
    "asyncio",
    "rfmstream.engine.live.kafka.transport",
    "faust",
    "kafka",
    "mode",
)
"""The transport is here for Faust, which logs by the name of the module that its services were derived in."""

REPEAT_S: Final = 10.0
"""A library that says the same again within this time is not heard: clients say at every try that a broker is away."""

_NORMAL: Final = ("because it is rebalancing",)
"""What libraries warn of that happens whenever a worker joins or leaves."""

_SAID_MAX: Final = 1000


def set_up_logs(
    log_format: Literal["text", "json"],
    level: Literal["debug", "info", "warning", "error"],
    *,
    to: TextIO | None = None,
) -> None:
    """Send the logs of the whole process to `to` (default: stderr), once; called again, it replaces what was.

    Libraries are heard from `warning` on, and once in REPEAT_S; from `debug` on, and all, if that is asked for.
    """
    handler = logging.StreamHandler(sys.stderr if to is None else to)
    if level != "debug":
        handler.addFilter(_Repeats())
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _LIBRARIES:
        library = logging.getLogger(name)
        # Faust adds handlers to its loggers.
        library.handlers[:] = []
        library.propagate = True
        library.setLevel(logging.DEBUG if level == "debug" else max(logging.WARNING, root.level))
    # It logs every request, with passwords at the login and all contents of records.
    logging.getLogger("aiokafka.conn").setLevel(logging.INFO if level == "debug" else logging.NOTSET)
    # It logs every line that it compiles.
    logging.getLogger("numba").setLevel(logging.WARNING)


class _Repeats(logging.Filter):
    """Leaves out messages that a library repeats; the next one that is let through says in `repeated` how many."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[tuple[str, int, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a record is to be written."""
        # Two tracebacks are hardly ever equal.
        if record.exc_info or record.name.partition(".")[0] not in _LIBRARIES:
            return True
        if any(words in str(record.msg) for words in _NORMAL):
            return False
        if len(self._said) > _SAID_MAX:
            self._said.clear()
        key = record.name, record.levelno, str(record.msg)
        heard, unheard = self._said.get(key, (-REPEAT_S, 0))
        # If the wall clock is set back, messages must not be silenced until it catches up.
        if 0 <= record.created - heard < REPEAT_S:
            self._said[key] = heard, unheard + 1
            return False
        self._said[key] = record.created, 0
        if unheard:
            record.repeated = unheard
        return True


class TextFormatter(logging.Formatter):
    """2026-01-31T09:30:00.000Z INFO engine.live.runner: a message key=value."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and the traceback below it if there is one."""
        facts = "".join(f" {name}={value}" for name, value in _facts(record).items())
        line = f"{_instant(record)} {record.levelname:<7} {record.name}: {record.getMessage()}{facts}"
        return masked(f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line)


class JsonFormatter(logging.Formatter):
    """One JSON object: time, level, logger, message, the facts, and exception where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object as one line."""
        line = {
            **{
                name: masked(value) if isinstance(value, str) else value
                for name, value in _facts(record).items()
            },
            "time": _instant(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": masked(record.getMessage()),
        }
        if record.exc_info:
            line["exception"] = masked(self.formatException(record.exc_info))
        return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def _facts(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _OWN}


def _instant(record: logging.LogRecord) -> str:
    return (
        datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )
