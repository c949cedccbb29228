"""How the brokers are reached: the [kafka] table of deliver.toml. Its secrets come from the worker's variables."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rfmstream.schemas.errors import ConfigError
from rfmstream.schemas.toml_table import TomlTable

_SERVER: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")
_TOPIC: Final = re.compile(r"[A-Za-z0-9._-]{1,249}")
_GROUP: Final = re.compile(r"[A-Za-z0-9._-]{1,100}")
_PROTOCOLS: Final = ("plaintext", "ssl", "sasl_plaintext", "sasl_ssl")
_MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_FILES: Final = ("tls_ca_file", "tls_cert_file", "tls_key_file")
_KEYS: Final = (
    *(
        "bootstrap_servers",
        "security_protocol",
        *_FILES,
        "tls_check_hostname",
        "sasl_mechanism",
        "sasl_username",
    ),
    *("app_id", "changes_topic", "signals_topic", "current_topic", "rejected_topic", "control_topic"),
    *("create_topics", "replication_factor"),
)


@dataclass(frozen=True)
class BrokerConfig:
    """The brokers, and the names of what is there. Secrets are in no repr.

    Fields  app_id      of the worker; destination NAME reads as the group APP.deliver.NAME
            rejected    where rows go that a destination refused
            control     where releases are noted
    """

    bootstrap_servers: tuple[str, ...] = ("127.0.0.1:9092",)
    security_protocol: str = "plaintext"
    tls_ca_file: str | None = None
    tls_cert_file: str | None = None
    tls_key_file: str | None = None
    tls_key_password: str | None = field(default=None, repr=False)
    tls_check_hostname: bool = True
    sasl_mechanism: str = "PLAIN"
    sasl_username: str | None = None
    sasl_password: str | None = field(default=None, repr=False)
    app_id: str = "rfmstream"
    changes_topic: str = "rfm.tier-changes.v1"
    signals_topic: str = "rfm.signals.v1"
    current_topic: str = "rfm.tier-current.v1"
    rejected_topic: str = "rfm.deliveries.rejected.v1"
    control_topic: str = "rfm.deliveries.control.v1"
    create_topics: bool = True
    replication_factor: int = 0

    def group(self, destination: str) -> str:
        """Return the consumer group of a destination."""
        return f"{self.app_id}.deliver.{destination}"


def read_broker(table: TomlTable, environment: Mapping[str, str] | None = None) -> BrokerConfig:
    """Read the [kafka] table.

    Errors  ConfigError  names file, key and fix
    """
    variables = os.environ if environment is None else environment
    for name in ("sasl_password", "tls_key_password"):
        if name in table:
            variable = f"RFMSTREAM_{name.upper()}"
            raise table.error(
                name, "is a secret", f"put it into {variable}, or a file named by {variable}_FILE"
            )
    table.allow(*_KEYS)
    default = BrokerConfig()
    texts = {name: table.text(name) for name in (*_FILES, "sasl_username") if name in table}
    for name in ("changes_topic", "signals_topic", "current_topic", "rejected_topic", "control_topic"):
        texts[name] = _matching(table, name, _TOPIC, getattr(default, name))
    config = BrokerConfig(
        **texts,
        bootstrap_servers=_servers(table),
        security_protocol=table.choice("security_protocol", _PROTOCOLS, "plaintext"),
        tls_key_password=_secret("RFMSTREAM_TLS_KEY_PASSWORD", variables),
        tls_check_hostname=table.flag("tls_check_hostname") if "tls_check_hostname" in table else True,
        sasl_mechanism=table.choice("sasl_mechanism", _MECHANISMS, "PLAIN"),
        sasl_password=_secret("RFMSTREAM_SASL_PASSWORD", variables),
        app_id=_matching(table, "app_id", _GROUP, default.app_id),
        create_topics=table.flag("create_topics") if "create_topics" in table else True,
        replication_factor=table.integer("replication_factor", 0, 32) if "replication_factor" in table else 0,
    )
    _check(table, config)
    return config


def _check(table: TomlTable, config: BrokerConfig) -> None:
    for name in _FILES:
        path = getattr(config, name)
        if path is not None and not config.security_protocol.endswith("ssl"):
            raise table.error(name, "has no effect without TLS", "set security_protocol to ssl or sasl_ssl")
        if path is not None and not os.access(path, os.R_OK):
            raise table.error(name, f"{path} cannot be read", "check the path and its permissions")
    is_sasl = config.security_protocol.startswith("sasl")
    if is_sasl and not config.sasl_username:
        raise table.error("security_protocol", "needs a user", "set sasl_username")
    if is_sasl and not config.sasl_password:
        fix = (
            "set RFMSTREAM_SASL_PASSWORD, or RFMSTREAM_SASL_PASSWORD_FILE to the name of a file that holds it"
        )
        raise table.error("security_protocol", "needs a password", fix)
    names = [config.changes_topic, config.signals_topic, config.rejected_topic, config.control_topic]
    if len(set(names)) < len(names):
        raise table.error("rejected_topic", "two topics have one name", "give each topic a name of its own")


def _servers(table: TomlTable) -> tuple[str, ...]:
    name = "bootstrap_servers"
    if name not in table:
        return BrokerConfig.bootstrap_servers
    value = table.values[name]
    servers = tuple(one.strip() for one in value.split(",")) if isinstance(value, str) else table.texts(name)
    for server in servers:
        found = _SERVER.fullmatch(server)
        if not found or not 0 < int(found[2]) < 65536:
            raise table.error(name, f"{server!r} is not host:port", "write for example broker.example:9092")
    return servers


def _matching(table: TomlTable, name: str, pattern: re.Pattern[str], default: str) -> str:
    text = table.text(name, default)
    if not pattern.fullmatch(text):
        raise table.error(
            name, f"{text!r} is no such name", "use ASCII letters, digits, dots, underscores and dashes"
        )
    return text


def _secret(variable: str, variables: Mapping[str, str]) -> str | None:
    pointer = f"{variable}_FILE"
    path = variables.get(pointer)
    if path is None:
        return variables.get(variable)
    if variable in variables:
        raise ConfigError(f"is set beside {variable}", key=pointer, fix="set one of the two")
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        words = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"{path} cannot be read ({words})", key=pointer, fix="check the path") from None
