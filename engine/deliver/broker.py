"""How the brokers are reached: the [kafka] table of deliver.toml. Its secrets come from the worker's variables."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from rfmstream.engine.service.client_config import (
    MECHANISMS,
    PROTOCOLS,
    SERVER_FIX,
    TLS_FILES,
    TOPIC_NAME,
    ClientConfig,
    is_server,
    read_secret,
)
from rfmstream.schemas.toml_table import TomlTable

_GROUP: Final = re.compile(r"[A-Za-z0-9._-]{1,100}")
_KEYS: Final = (
    *(
        "bootstrap_servers",
        "security_protocol",
        *TLS_FILES,
        "tls_check_hostname",
        "sasl_mechanism",
        "sasl_username",
    ),
    *("app_id", "changes_topic", "signals_topic", "current_topic", "rejected_topic", "control_topic"),
    *("create_topics", "replication_factor"),
)


@dataclass(frozen=True)
class BrokerConfig(ClientConfig):
    """The brokers, and the names of what is there. Secrets are in no repr.

    Fields  app_id      of the worker; destination NAME reads as the group APP.deliver.NAME
            rejected    where rows go that a destination refused
            control     where releases are noted
    """

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
    texts = {name: table.text(name) for name in (*TLS_FILES, "sasl_username") if name in table}
    for name in ("changes_topic", "signals_topic", "current_topic", "rejected_topic", "control_topic"):
        texts[name] = _matching(table, name, TOPIC_NAME, getattr(default, name))
    config = BrokerConfig(
        **texts,
        bootstrap_servers=_servers(table),
        security_protocol=table.choice("security_protocol", PROTOCOLS, "plaintext"),
        tls_key_password=_secret("RFMSTREAM_TLS_KEY_PASSWORD", variables),
        tls_check_hostname=table.flag("tls_check_hostname") if "tls_check_hostname" in table else True,
        sasl_mechanism=table.choice("sasl_mechanism", MECHANISMS, "PLAIN"),
        sasl_password=_secret("RFMSTREAM_SASL_PASSWORD", variables),
        app_id=_matching(table, "app_id", _GROUP, default.app_id),
        create_topics=table.flag("create_topics") if "create_topics" in table else True,
        replication_factor=table.integer("replication_factor", 0, 32) if "replication_factor" in table else 0,
    )
    _check(table, config)
    return config


def _check(table: TomlTable, config: BrokerConfig) -> None:
    fault = config.fault()
    if fault is not None:
        raise table.error(*fault)
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
        if not is_server(server):
            raise table.error(name, f"{server!r} is not host:port", SERVER_FIX)
    return servers


def _matching(table: TomlTable, name: str, pattern: re.Pattern[str], default: str) -> str:
    text = table.text(name, default)
    if not pattern.fullmatch(text):
        raise table.error(
            name, f"{text!r} is no such name", "use ASCII letters, digits, dots, underscores and dashes"
        )
    return text


def _secret(variable: str, variables: Mapping[str, str]) -> str | None:
    found = read_secret(variable, variables)
    return None if found is None else found[0]
