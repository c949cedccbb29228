"""The worker's settings: one table of all there are, from which its options, its checks and its documents follow.

Every value, wherever it was written, goes through the same parser as text, so that no source is more lenient than
another.
"""

import re
from collections.abc import Sequence
from typing import Final

from rfmstream.engine.live import setting_values as values
from rfmstream.engine.live.setting import Setting
from rfmstream.engine.service.client_config import MECHANISMS, PROTOCOLS

_GROUP: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
_REFERENCE: Final = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]{1,1024}")

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
        values.listed(values.server, "server"),
        "127.0.0.1:9092",
        "HOST:PORT,...",
        "Brokers to ask first.",
    ),
    Setting(
        "client_id",
        _KAFKA,
        values.matching(
            _GROUP, "a client's name", "use 1 to 128 ASCII letters, digits, dots, underscores, dashes"
        ),
        "rfmstream",
        "NAME",
        "What brokers know the connections by, in their logs, metrics and quotas.",
    ),
    Setting(
        "security_protocol",
        _KAFKA,
        values.choice(*PROTOCOLS),
        "plaintext",
        "WORD",
        "plaintext, ssl, sasl_plaintext or sasl_ssl.",
    ),
    Setting(
        "tls_ca_file",
        _KAFKA,
        values.some_text,
        None,
        "FILE",
        "Certificates to trust (PEM) instead of the system's.",
    ),
    Setting(
        "tls_cert_file", _KAFKA, values.some_text, None, "FILE", "Certificate to show to the brokers (PEM)."
    ),
    Setting("tls_key_file", _KAFKA, values.some_text, None, "FILE", "Its private key (PEM)."),
    Setting(
        "tls_key_password",
        _KAFKA,
        values.some_text,
        None,
        "TEXT",
        "Password of the private key.",
        secret=True,
    ),
    Setting(
        "tls_check_hostname",
        _KAFKA,
        values.switch,
        "true",
        "",
        "Require that a broker's certificate names its host.",
    ),
    Setting(
        "sasl_mechanism",
        _KAFKA,
        values.choice(*MECHANISMS),
        "PLAIN",
        "WORD",
        "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.",
    ),
    Setting("sasl_username", _KAFKA, values.some_text, None, "NAME", "Who logs in."),
    Setting("sasl_password", _KAFKA, values.some_text, None, "TEXT", "With which password.", secret=True),
)
"""What any program needs in order to talk to the brokers."""

TOPIC_SETTINGS: Final = (
    Setting(
        "input_topics",
        _TOPICS,
        values.listed(values.topic, "topic"),
        "orders.v1",
        "TOPIC",
        "The topic that orders come from; several that are partitioned alike are read as one population.",
    ),
    Setting(
        "changes_topic",
        _TOPICS,
        values.topic,
        "rfm.tier-changes.v1",
        "TOPIC",
        "Where every tier change goes.",
    ),
    Setting(
        "current_topic",
        _TOPICS,
        values.topic,
        "rfm.tier-current.v1",
        "TOPIC",
        "Where the last change of each customer is kept.",
    ),
    Setting(
        "signals_topic",
        _TOPICS,
        values.topic,
        "rfm.signals.v1",
        "TOPIC",
        "Where signals go, if the ruleset asks for any: warnings, dwells, milestones.",
    ),
    Setting(
        "shadow_topic",
        _TOPICS,
        values.topic,
        "rfm.shadow-changes.v1",
        "TOPIC",
        "Where the tier changes of shadow views go, if the plan has any; no automation is to listen there.",
    ),
    Setting(
        "rejected_topic", _TOPICS, values.topic, "orders.rejected.v1", "TOPIC", "Where rejected rows go."
    ),
    Setting(
        "clock_topic",
        _TOPICS,
        values.topic,
        "rfm.clock.v1",
        "TOPIC",
        "Where the worker notes the passing of time; it belongs to the state and is kept for ever.",
    ),
    Setting(
        "create_topics",
        _TOPICS,
        values.switch,
        "true",
        "",
        "Create output topics that are absent, never an input.",
    ),
    Setting(
        "replication_factor",
        _TOPICS,
        values.whole(0, 32),
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
        values.matching(
            _GROUP, "a group's name", "use 1 to 128 ASCII letters, digits, dots, underscores, dashes"
        ),
        "rfmstream",
        "NAME",
        "Consumer group, and start of the transactional ids: workers of one name share the partitions.",
    ),
    Setting(
        "session_timeout_s",
        _KAFKA,
        values.whole(6, 1800),
        "20",
        "S",
        "A worker that is silent for this long is taken for dead, and others take its partitions.",
    ),
    *TOPIC_SETTINGS,
    Setting(
        "map",
        _RULES,
        values.some_text,
        None,
        "NAME|FILE",
        "Input map that reads the records: a webhook's, a database's. Without one they are orders as they are.",
    ),
    Setting(
        "schema_registry",
        _RULES,
        values.some_text,
        None,
        "URL",
        "Schema registry of framed records (Avro, Protobuf, JSON), with Confluent's API. Needs map.",
    ),
    Setting(
        "schema_registry_auth",
        _RULES,
        values.some_text,
        None,
        "USER:PASSWORD",
        "What the registry takes to log in.",
        secret=True,
    ),
    Setting(
        "ruleset",
        _RULES,
        values.listed(values.some_text, "ruleset"),
        "rfm8",
        "NAME|FILE,...",
        "A built-in name (rfmstream rulesets list) or a .toml; of several each is a view of its own.",
        many=True,
    ),
    Setting(
        "plan",
        _RULES,
        values.some_text,
        None,
        "FILE",
        "A plan of views (.toml) in place of a ruleset: rulesets, stores, categories, shadows.",
    ),
    Setting(
        "view_history",
        _RULES,
        values.listed(values.some_text, "file"),
        None,
        "FILE,...",
        "Orders from before the topic: views that join a running state begin with them. Files or directories, as of "
        "rfmstream replay.",
        many=True,
    ),
    Setting(
        "view_history_map",
        _RULES,
        values.some_text,
        None,
        "NAME|FILE",
        "Input map that reads view_history. Without one it has the contract's columns and the plan's.",
    ),
    Setting(
        "time_zone",
        _RULES,
        values.some_text,
        None,
        "ZONE",
        "Days begin and end here instead of in the ruleset's zone.",
    ),
    Setting(
        "currency",
        _RULES,
        values.some_text,
        None,
        "CODE",
        "Amounts and M cuts are in this currency, not the ruleset's own.",
    ),
    Setting(
        "resegment",
        _RULES,
        values.switch,
        "false",
        "",
        "Take over state of another ruleset: every customer is re-evaluated, with reason rules_changed.",
    ),
    Setting(
        "resegment_view",
        _RULES,
        values.listed(values.some_text, "view"),
        None,
        "NAME,...",
        "The same of these views alone; others are refused another ruleset.",
        many=True,
    ),
    Setting(
        "clock",
        _TIME,
        values.choice("log", "event"),
        "log",
        "WORD",
        "log: the records' own time and, once all is read, the wall clock. event: the newest occurred_at (backfill).",
    ),
    Setting(
        "time_tolerance_s",
        _TIME,
        values.whole(0, 86_400),
        "300",
        "S",
        "An order further ahead of its record's time than this is rejected as future_time.",
    ),
    Setting(
        "until_end",
        _TIME,
        values.switch,
        "false",
        "",
        "Stop where the topics ended when the worker started. Needs clock event.",
    ),
    Setting(
        "as_of",
        _TIME,
        values.some_text,
        None,
        "INSTANT",
        "Let time pass up to here at the end, ISO 8601. Needs until_end.",
    ),
    Setting(
        "checkpoints",
        _STATE,
        values.some_text,
        None,
        "DIR|URI",
        "Where checkpoints are kept: a directory, or a URI of pyarrow.fs (s3://..., gs://..., abfs://...). "
        "[default: rfmstream/ and the app id in the user's state folder, ~/.local/state]",
    ),
    Setting(
        "checkpoint_interval_s",
        _STATE,
        values.whole(1, 86_400),
        "60",
        "S",
        "How often each partition's state is saved.",
    ),
    Setting(
        "checkpoints_kept", _STATE, values.whole(1, 100), "3", "N", "How many checkpoints of each partition."
    ),
    Setting(
        "erase_within",
        _STATE,
        values.span,
        "7d",
        "SPAN",
        "So long after a customer was erased no checkpoint holds its orders any more: a number and d, h, m or s.",
    ),
    Setting(
        "accept_gap",
        _STATE,
        values.switch,
        "false",
        "",
        "Go on where records are missing that the broker has deleted, instead of refusing to.",
    ),
    Setting(
        "commit_interval_ms",
        _RECORDS,
        values.whole(0, 10_000),
        "0",
        "MS",
        "Gather input for so long before each transaction: fewer of them for the brokers, later changes.",
    ),
    Setting(
        "record_bytes_max",
        _RECORDS,
        values.whole(1024, 1 << 30),
        "16777216",
        "N",
        "A longer record is rejected unread.",
    ),
    Setting(
        "structured",
        _RECORDS,
        values.switch,
        "false",
        "",
        "Write CloudEvents in structured mode: the attributes inside the JSON, not as headers.",
    ),
    Setting(
        "compression",
        _RECORDS,
        values.choice("none", "gzip", "snappy", "lz4", "zstd"),
        "gzip",
        "CODEC",
        "Of tier changes and signals: none, gzip, snappy, lz4 or zstd. Every client reads gzip, KafkaJS no other.",
    ),
    Setting(
        "ce_source",
        _RECORDS,
        values.matching(_REFERENCE, "a URI reference", "write for example //shop.example/rfm"),
        None,
        "URI",
        "Start of the CloudEvents source; topic and partition follow. [default: /rfmstream/ and the app id]",
    ),
    Setting(
        "threads",
        _RUN,
        values.whole(1, 256),
        None,
        "N",
        "Threads that work on partitions. [default: the usable cores]",
    ),
    Setting(
        "listen",
        _RUN,
        values.listen,
        "127.0.0.1:8765",
        "HOST:PORT",
        "Where /metrics, /healthz and /readyz are served, and customers' data if it has no place of its own; off: "
        "nowhere.",
    ),
    Setting(
        "listen_data",
        _RUN,
        values.address,
        None,
        "HOST:PORT",
        "Where customers' data is served instead: the page, /snapshot, /customers, /tiers and /changes.",
    ),
    Setting(
        "listen_token",
        _RUN,
        values.some_text,
        None,
        "TEXT",
        "Bearer token of customers' data; without one it is served on loopback only.",
        secret=True,
    ),
    Setting(
        "listen_url",
        _RUN,
        values.url,
        None,
        "URL",
        "Of customers' data, as others reach it: workers that do not have a customer name it. [default: as it listens]",
    ),
    Setting(
        "listen_tls_cert_file",
        _RUN,
        values.some_text,
        None,
        "FILE",
        "Certificate with its chain (PEM), shown at every address that is not on loopback.",
    ),
    Setting(
        "listen_tls_key_file",
        _RUN,
        values.some_text,
        None,
        "FILE",
        "Its private key (PEM), if it is not in there.",
    ),
    Setting(
        "log_format",
        _RUN,
        values.choice("text", "json"),
        "text",
        "WORD",
        "text for people, json for programs.",
    ),
    Setting(
        "log_level",
        _RUN,
        values.choice("debug", "info", "warning", "error"),
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
