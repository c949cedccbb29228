"""The worker's settings: one table of all there are, from which its options, its checks and its documents follow.

Every value, wherever it was written, goes through the same parser as text, so that no source is more lenient than
another.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from rfmstream.engine.service.client_config import (
    MECHANISMS,
    PROTOCOLS,
    SERVER_FIX,
    TOPIC_NAME,
    host_and_port,
    is_server,
)
from rfmstream.schemas.errors import ConfigError

ENVIRONMENT_PREFIX: Final = "RFMSTREAM_"
OFF: Final = "off"

_GROUP: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
_REFERENCE: Final = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]{1,1024}")
_NUMBER: Final = re.compile(r"[0-9]{1,12}")
_UNITS_US: Final = {"d": 86_400_000_000, "h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000}
_SPAN: Final = re.compile(r"([0-9]{1,9})([dhms])")
_SPAN_US_MAX: Final = 36_500 * _UNITS_US["d"]
_WORDS_OF_FLAGS: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}

_Parse = Callable[[str], Any]


class _BadValueError(ValueError):
    """A value its parser does not take; the two arguments are the problem and the fix."""


class Given(NamedTuple):
    """A value as somebody wrote it, and where: `file` and `key` as a ConfigError names them."""

    text: str
    key: str
    file: str | None = None

    def error(self, problem: str, fix: str | None = None) -> ConfigError:
        """Build (not raise) the error of this value."""
        return ConfigError(problem, file=self.file, key=self.key, fix=fix)


@dataclass(frozen=True)
class Setting:
    """One setting.

    Fields  name     in TOML; the flag is --name with dashes, the environment variable RFMSTREAM_NAME
            group    the heading it stands under
            parse    text to value; raises _BadValueError
            default  as text; None: there is none
            metavar  of the value; "" where the flag stands alone (--x or --no-x)
            help     one sentence
            secret   from the environment, or a file named there, only
            many     the flag can be given more than once
    """

    name: str
    group: str
    parse: _Parse
    default: str | None
    metavar: str
    help: str
    secret: bool = False
    many: bool = False

    @property
    def flag(self) -> str:
        """The command line's name of it."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment's name of it."""
        return ENVIRONMENT_PREFIX + self.name.upper()

    def value(self, given: Given | None) -> Any:  # noqa: ANN401 - of the type its parser makes
        """Return the value that was given, or the default.

        Errors  ConfigError  names the setting, where it was written, and the fix
        """
        text = self.default if given is None else given.text
        if text is None:
            return None
        try:
            return self.parse(text)
        except _BadValueError as error:
            assert given is not None, f"the default of {self.name} is bad"
            problem, fix = error.args
            raise given.error(problem, fix) from None


def _text(text: str) -> str:
    if not text.strip():
        raise _BadValueError("is empty", "write some text, or leave the setting out")
    if text != text.encode(errors="replace").decode():
        raise _BadValueError("is not UTF-8 text", "write it in UTF-8")
    return text


def _matching(pattern: re.Pattern[str], what: str, fix: str) -> _Parse:
    def parse(text: str) -> str:
        if not pattern.fullmatch(text):
            raise _BadValueError(f"{text!r} is not {what}", fix)
        return text

    return parse


def _topic(text: str) -> str:
    if not TOPIC_NAME.fullmatch(text) or text in (".", ".."):
        raise _BadValueError(
            f"{text!r} is no topic's name", "use 1 to 249 ASCII letters, digits, dots, underscores and dashes"
        )
    return text


def _listed(parse: _Parse, what: str) -> _Parse:
    def parse_list(text: str) -> tuple[str, ...]:
        items = tuple(parse(item.strip()) for item in text.split(",") if item.strip())
        if not items:
            raise _BadValueError("is empty", f"name at least one {what}")
        if len(set(items)) < len(items):
            raise _BadValueError(f"{text!r} names something twice", f"name each {what} once")
        return items

    return parse_list


def _whole(low: int, high: int) -> _Parse:
    def parse(text: str) -> int:
        if not _NUMBER.fullmatch(text):
            raise _BadValueError(f"{text!r} is not a whole number", f"write a number from {low} to {high}")
        if not low <= int(text) <= high:
            raise _BadValueError(f"{text} is out of range", f"write a number from {low} to {high}")
        return int(text)

    return parse


def _span(text: str) -> int:
    """Return a span of time in µs."""
    found = _SPAN.fullmatch(text)
    span_us = int(found[1]) * _UNITS_US[found[2]] if found else 0
    if not 0 < span_us <= _SPAN_US_MAX:
        raise _BadValueError(f"{text!r} is no span of time", "write it as in 7d, 12h, 45m or 30s")
    return span_us


def _choice(*words: str) -> _Parse:
    def parse(text: str) -> str:
        if text not in words:
            near = get_close_matches(text, words, n=1, cutoff=0.5)
            fix = f"did you mean {near[0]}?" if near else None
            raise _BadValueError(f"{text!r} is not one of {', '.join(words)}", fix)
        return text

    return parse


def _switch(text: str) -> bool:
    value = _WORDS_OF_FLAGS.get(text.lower())
    if value is None:
        raise _BadValueError(f"{text!r} is neither true nor false", "write true or false")
    return value


def _server(text: str) -> str:
    if not is_server(text):
        raise _BadValueError(f"{text!r} is not host:port", SERVER_FIX)
    return text


def _listen(text: str) -> tuple[str, int] | None:
    """Return the host and port to listen on, port 0 for any free one; None for `off`."""
    if text == OFF:
        return None
    found = host_and_port(text)
    if found is None:
        raise _BadValueError(f"{text!r} is not host:port", "write for example 127.0.0.1:8765, or off")
    return found


def _address(text: str) -> tuple[str, int]:
    found = None if text == OFF else _listen(text)
    if found is None:
        raise _BadValueError(
            f"{text!r} is not host:port", "write for example 127.0.0.1:8766, or leave it out"
        )
    return found


def parse_address(text: str, key: str) -> tuple[str, int]:
    """Return the host and port of an option.

    Errors  ConfigError  it is none
    """
    try:
        return _address(text)
    except _BadValueError as error:
        problem, fix = error.args
        raise ConfigError(problem, key=key, fix=fix) from None


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise _BadValueError(f"{text!r} is no URL", "write for example https://worker-1.example:8766")
    return text.rstrip("/")


_KAFKA: Final = "Kafka"
_TOPICS: Final = "Topics"
_RULES: Final = "Rules"
_TIME: Final = "Time"
_STATE: Final = "State"
_RECORDS: Final = "Records"
_RUN: Final = "Running"

CLIENT_SETTINGS: Final = (
    Setting(
        "bootstrap_servers",
        _KAFKA,
        _listed(_server, "server"),
        "127.0.0.1:9092",
        "HOST:PORT,...",
        "Brokers to ask first.",
    ),
    Setting(
        "client_id",
        _KAFKA,
        _matching(_GROUP, "a client's name", "use 1 to 128 ASCII letters, digits, dots, underscores, dashes"),
        "rfmstream",
        "NAME",
        "What brokers know the connections by, in their logs, metrics and quotas.",
    ),
    Setting(
        "security_protocol",
        _KAFKA,
        _choice(*PROTOCOLS),
        "plaintext",
        "WORD",
        "plaintext, ssl, sasl_plaintext or sasl_ssl.",
    ),
    Setting(
        "tls_ca_file", _KAFKA, _text, None, "FILE", "Certificates to trust (PEM) instead of the system's."
    ),
    Setting("tls_cert_file", _KAFKA, _text, None, "FILE", "Certificate to show to the brokers (PEM)."),
    Setting("tls_key_file", _KAFKA, _text, None, "FILE", "Its private key (PEM)."),
    Setting("tls_key_password", _KAFKA, _text, None, "TEXT", "Password of the private key.", secret=True),
    Setting(
        "tls_check_hostname",
        _KAFKA,
        _switch,
        "true",
        "",
        "Require that a broker's certificate names its host.",
    ),
    Setting(
        "sasl_mechanism",
        _KAFKA,
        _choice(*MECHANISMS),
        "PLAIN",
        "WORD",
        "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.",
    ),
    Setting("sasl_username", _KAFKA, _text, None, "NAME", "Who logs in."),
    Setting("sasl_password", _KAFKA, _text, None, "TEXT", "With which password.", secret=True),
)
"""What any program needs in order to talk to the brokers."""

TOPIC_SETTINGS: Final = (
    Setting(
        "input_topics",
        _TOPICS,
        _listed(_topic, "topic"),
        "orders.v1",
        "TOPIC",
        "The topic that orders come from. Several are refused: start a worker for each.",
    ),
    Setting(
        "changes_topic", _TOPICS, _topic, "rfm.tier-changes.v1", "TOPIC", "Where every tier change goes."
    ),
    Setting(
        "current_topic",
        _TOPICS,
        _topic,
        "rfm.tier-current.v1",
        "TOPIC",
        "Where the last change of each customer is kept.",
    ),
    Setting(
        "signals_topic",
        _TOPICS,
        _topic,
        "rfm.signals.v1",
        "TOPIC",
        "Where signals go, if the ruleset asks for any: warnings, dwells, milestones.",
    ),
    Setting(
        "shadow_topic",
        _TOPICS,
        _topic,
        "rfm.shadow-changes.v1",
        "TOPIC",
        "Where the tier changes of shadow views go, if the plan has any; no automation is to listen there.",
    ),
    Setting("rejected_topic", _TOPICS, _topic, "orders.rejected.v1", "TOPIC", "Where rejected rows go."),
    Setting(
        "clock_topic",
        _TOPICS,
        _topic,
        "rfm.clock.v1",
        "TOPIC",
        "Where the worker notes the passing of time; it belongs to the state and is kept for ever.",
    ),
    Setting(
        "create_topics", _TOPICS, _switch, "true", "", "Create output topics that are absent, never an input."
    ),
    Setting(
        "replication_factor",
        _TOPICS,
        _whole(0, 32),
        "0",
        "N",
        "Copies of each created topic; 0: as many as the input topic has.",
    ),
)

WORKER_SETTINGS: Final = (
    *CLIENT_SETTINGS,
    Setting(
        "app_id",
        _KAFKA,
        _matching(_GROUP, "a group's name", "use 1 to 128 ASCII letters, digits, dots, underscores, dashes"),
        "rfmstream",
        "NAME",
        "Consumer group, and start of the transactional ids: workers of one name share the partitions.",
    ),
    Setting(
        "session_timeout_s",
        _KAFKA,
        _whole(6, 1800),
        "20",
        "S",
        "A worker that is silent for this long is taken for dead, and others take its partitions.",
    ),
    *TOPIC_SETTINGS,
    Setting(
        "map",
        _RULES,
        _text,
        None,
        "NAME|FILE",
        "Input map that reads the records: a webhook's, a database's. Without one they are orders as they are.",
    ),
    Setting(
        "schema_registry",
        _RULES,
        _text,
        None,
        "URL",
        "Schema registry of framed records (Avro, Protobuf, JSON), with Confluent's API. Needs map.",
    ),
    Setting(
        "schema_registry_auth",
        _RULES,
        _text,
        None,
        "USER:PASSWORD",
        "What the registry takes to log in.",
        secret=True,
    ),
    Setting(
        "ruleset",
        _RULES,
        _listed(_text, "ruleset"),
        "rfm8",
        "NAME|FILE,...",
        "A built-in name (rfmstream rulesets list) or a .toml; of several each is a view of its own.",
        many=True,
    ),
    Setting(
        "plan",
        _RULES,
        _text,
        None,
        "FILE",
        "A plan of views (.toml) in place of a ruleset: rulesets, stores, categories, shadows.",
    ),
    Setting(
        "time_zone", _RULES, _text, None, "ZONE", "Days begin and end here instead of in the ruleset's zone."
    ),
    Setting(
        "currency",
        _RULES,
        _text,
        None,
        "CODE",
        "Amounts and M cuts are in this currency, not the ruleset's own.",
    ),
    Setting(
        "resegment",
        _RULES,
        _switch,
        "false",
        "",
        "Take over state of another ruleset: every customer is re-evaluated, with reason rules_changed.",
    ),
    Setting(
        "clock",
        _TIME,
        _choice("log", "event"),
        "log",
        "WORD",
        "log: the records' own time and, once all is read, the wall clock. event: the newest occurred_at (backfill).",
    ),
    Setting(
        "time_tolerance_s",
        _TIME,
        _whole(0, 86_400),
        "300",
        "S",
        "An order further ahead of its record's time than this is rejected as future_time.",
    ),
    Setting(
        "until_end",
        _TIME,
        _switch,
        "false",
        "",
        "Stop where the topics ended when the worker started. Needs clock event.",
    ),
    Setting(
        "as_of",
        _TIME,
        _text,
        None,
        "INSTANT",
        "Let time pass up to here at the end, ISO 8601. Needs until_end.",
    ),
    Setting(
        "checkpoints",
        _STATE,
        _text,
        None,
        "DIR|URI",
        "Where checkpoints are kept: a directory, or a URI of pyarrow.fs (s3://..., gs://..., abfs://...). "
        "[default: rfmstream/ and the app id in the user's state folder, ~/.local/state]",
    ),
    Setting(
        "checkpoint_interval_s",
        _STATE,
        _whole(1, 86_400),
        "60",
        "S",
        "How often each partition's state is saved.",
    ),
    Setting("checkpoints_kept", _STATE, _whole(1, 100), "3", "N", "How many checkpoints of each partition."),
    Setting(
        "erase_within",
        _STATE,
        _span,
        "7d",
        "SPAN",
        "So long after a customer was erased no checkpoint holds its orders any more: a number and d, h, m or s.",
    ),
    Setting(
        "accept_gap",
        _STATE,
        _switch,
        "false",
        "",
        "Go on where records are missing that the broker has deleted, instead of refusing to.",
    ),
    Setting(
        "commit_interval_ms",
        _RECORDS,
        _whole(0, 10_000),
        "0",
        "MS",
        "Gather input for so long before each transaction: fewer of them for the brokers, later changes.",
    ),
    Setting(
        "record_bytes_max",
        _RECORDS,
        _whole(1024, 1 << 30),
        "16777216",
        "N",
        "A longer record is rejected unread.",
    ),
    Setting(
        "structured",
        _RECORDS,
        _switch,
        "false",
        "",
        "Write CloudEvents in structured mode: the attributes inside the JSON, not as headers.",
    ),
    Setting(
        "compression",
        _RECORDS,
        _choice("none", "gzip", "snappy", "lz4", "zstd"),
        "gzip",
        "CODEC",
        "Of tier changes and signals: none, gzip, snappy, lz4 or zstd. Every client reads gzip, KafkaJS no other.",
    ),
    Setting(
        "ce_source",
        _RECORDS,
        _matching(_REFERENCE, "a URI reference", "write for example //shop.example/rfm"),
        None,
        "URI",
        "Start of the CloudEvents source; topic and partition follow. [default: /rfmstream/ and the app id]",
    ),
    Setting(
        "threads",
        _RUN,
        _whole(1, 256),
        None,
        "N",
        "Threads that work on partitions. [default: the usable cores]",
    ),
    Setting(
        "listen",
        _RUN,
        _listen,
        "127.0.0.1:8765",
        "HOST:PORT",
        "Where /metrics, /healthz and /readyz are served, and customers' data if it has no place of its own; off: "
        "nowhere.",
    ),
    Setting(
        "listen_data",
        _RUN,
        _address,
        None,
        "HOST:PORT",
        "Where customers' data is served instead: the page, /snapshot, /customers, /tiers and /changes.",
    ),
    Setting(
        "listen_token",
        _RUN,
        _text,
        None,
        "TEXT",
        "Bearer token of customers' data; without one it is served on loopback only.",
        secret=True,
    ),
    Setting(
        "listen_url",
        _RUN,
        _url,
        None,
        "URL",
        "Of customers' data, as others reach it: workers that do not have a customer name it. [default: as it listens]",
    ),
    Setting(
        "listen_tls_cert_file",
        _RUN,
        _text,
        None,
        "FILE",
        "Certificate with its chain (PEM), shown at every address that is not on loopback.",
    ),
    Setting(
        "listen_tls_key_file", _RUN, _text, None, "FILE", "Its private key (PEM), if it is not in there."
    ),
    Setting(
        "log_format", _RUN, _choice("text", "json"), "text", "WORD", "text for people, json for programs."
    ),
    Setting(
        "log_level",
        _RUN,
        _choice("debug", "info", "warning", "error"),
        "info",
        "WORD",
        "The least of what is logged: debug, info, warning or error.",
    ),
)
"""All settings of the worker, in the order they are shown."""


def reference(settings: Sequence[Setting] = WORKER_SETTINGS) -> str:
    """Return all settings as a Markdown table, as docs/live.md shows it."""
    lines = ["| setting | value | default | |", "|---|---|---|---|"]
    for setting in settings:
        default = f"`{setting.default}`" if setting.default is not None else ""
        metavar = f"`{setting.metavar}`" if setting.metavar else "`true`, `false`"
        metavar = metavar.replace("|", r"\|")
        text = setting.help + (" Environment or a file only." if setting.secret else "")
        lines.append(f"| `{setting.name}` | {metavar} | {default} | {text} |")
    return "\n".join(lines) + "\n"
