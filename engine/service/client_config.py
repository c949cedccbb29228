"""How a client reaches the brokers, and what its settings have to be for that."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rfmstream.schemas.errors import ConfigError

TOPIC_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,249}")
PROTOCOLS: Final = ("plaintext", "ssl", "sasl_plaintext", "sasl_ssl")
MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
TLS_FILES: Final = ("tls_ca_file", "tls_cert_file", "tls_key_file")
SERVER_FIX: Final = "write for example broker.example:9092"

_SERVER: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")


@dataclass(frozen=True)
class ClientConfig:
    """How to talk to the brokers. Secrets are in no repr.

    Fields  bootstrap_servers  host:port of each
            client_id          what brokers know us by
            security_protocol  plaintext, ssl, sasl_plaintext or sasl_ssl
            tls_*              PEM files; None: the system's certificates, no client certificate
            sasl_*             None where the protocol has no SASL
    """

    bootstrap_servers: tuple[str, ...] = ("127.0.0.1:9092",)
    client_id: str = "rfmstream"
    security_protocol: str = "plaintext"
    tls_ca_file: str | None = None
    tls_cert_file: str | None = None
    tls_key_file: str | None = None
    tls_key_password: str | None = field(default=None, repr=False)
    tls_check_hostname: bool = True
    sasl_mechanism: str = "PLAIN"
    sasl_username: str | None = None
    sasl_password: str | None = field(default=None, repr=False)

    @property
    def has_tls(self) -> bool:
        """Whether connections are encrypted."""
        return self.security_protocol.endswith("ssl")

    @property
    def has_sasl(self) -> bool:
        """Whether the client logs in."""
        return self.security_protocol.startswith("sasl")

    def fault(self) -> tuple[str, str, str] | None:
        """Return a setting that does not go with the others, the problem with it and the fix; None: they all go."""
        return self._tls_fault() or self._sasl_fault()

    def _tls_fault(self) -> tuple[str, str, str] | None:
        for name in TLS_FILES:
            path = getattr(self, name)
            if path is not None and not self.has_tls:
                return name, "has no effect without TLS", "set security_protocol to ssl or sasl_ssl"
            if path is not None and not os.access(path, os.R_OK):
                return name, f"{path} cannot be read", "check the path and its permissions"
        if self.tls_key_file and not self.tls_cert_file:
            return "tls_key_file", "is of no use without a certificate", "set tls_cert_file too"
        return None

    def _sasl_fault(self) -> tuple[str, str, str] | None:
        if self.has_sasl and not self.sasl_username:
            return "security_protocol", "needs a user", "set sasl_username"
        if self.has_sasl and not self.sasl_password:
            fix = "set RFMSTREAM_SASL_PASSWORD, or RFMSTREAM_SASL_PASSWORD_FILE to the name of a file that holds it"
            return "security_protocol", "needs a password", fix
        if self.sasl_username and not self.has_sasl:
            fix = "set security_protocol to sasl_ssl or sasl_plaintext"
            return "sasl_username", "has no effect without SASL", fix
        return None


def host_and_port(text: str) -> tuple[str, int] | None:
    """Return what a host:port says, an IPv6 address without its brackets; None: it is none."""
    found = _SERVER.fullmatch(text)
    return (found[1].strip("[]"), int(found[2])) if found and int(found[2]) < 65536 else None


def is_server(text: str) -> bool:
    """Tell whether a text is the host:port of a server."""
    found = host_and_port(text)
    return found is not None and found[1] > 0


def read_secret(variable: str, variables: Mapping[str, str]) -> tuple[str, str] | None:
    """Return a secret and the variable that gave it: VARIABLE itself, or VARIABLE_FILE, which names a file.

    Errors  ConfigError  both are set, or the file cannot be read
    """
    pointer = f"{variable}_FILE"
    path = variables.get(pointer)
    if path is None:
        return (variables[variable], variable) if variable in variables else None
    if variable in variables:
        raise ConfigError(f"is set beside {variable}", key=pointer, fix="set one of the two")
    try:
        # Editors end a file with a line break, which belongs to no password.
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n"), pointer
    except (OSError, UnicodeDecodeError) as error:
        words = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"{path} cannot be read ({words})", key=pointer, fix="check the path") from None
