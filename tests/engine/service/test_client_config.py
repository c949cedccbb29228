"""How the brokers are reached: which settings go together, and where secrets come from."""

from dataclasses import replace
from pathlib import Path

import pytest

from rfmstream.engine.service.client_config import ClientConfig, host_and_port, is_server, read_secret
from rfmstream.schemas.errors import ConfigError

SASL = ClientConfig(security_protocol="sasl_plaintext", sasl_username="u", sasl_password="p")  # noqa: S106


@pytest.mark.parametrize("config", [ClientConfig(), SASL, ClientConfig(security_protocol="ssl")])
def test_settings_that_go_together(config: ClientConfig) -> None:
    assert config.fault() is None


@pytest.mark.parametrize(
    ("config", "name", "problem"),
    [
        (ClientConfig(tls_ca_file=__file__), "tls_ca_file", "has no effect without TLS"),
        (ClientConfig(security_protocol="ssl", tls_ca_file="/none"), "tls_ca_file", "/none cannot be read"),
        (ClientConfig(security_protocol="ssl", tls_key_file=__file__), "tls_key_file", "of no use without"),
        (replace(SASL, sasl_username=None), "security_protocol", "needs a user"),
        (replace(SASL, sasl_password=None), "security_protocol", "needs a password"),
        (replace(SASL, security_protocol="plaintext"), "sasl_username", "has no effect without SASL"),
    ],
)
def test_the_first_setting_that_does_not_go_with_the_others(
    config: ClientConfig, name: str, problem: str
) -> None:
    fault = config.fault()
    assert fault is not None
    assert fault[0] == name
    assert problem in fault[1]
    assert fault[2]


def test_no_secret_is_shown() -> None:
    assert "secret" not in repr(ClientConfig(sasl_password="secret", tls_key_password="secret"))  # noqa: S106


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.example:9092", ("a.example", 9092)),
        ("[::1]:0", ("::1", 0)),
        ("a:65535", ("a", 65535)),
        ("a:65536", None),
        ("a", None),
        ("::1:1", None),
        ("a b:1", None),
    ],
)
def test_host_and_port(text: str, expected: tuple[str, int] | None) -> None:
    assert host_and_port(text) == expected
    assert is_server(text) is (expected is not None and expected[1] > 0)


def test_a_secret_from_its_variable_or_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("from the file\r\n")
    assert read_secret("X", {}) is None
    assert read_secret("X", {"X": "plain"}) == ("plain", "X")
    assert read_secret("X", {"X_FILE": str(file)}) == ("from the file", "X_FILE")
    with pytest.raises(ConfigError, match="X_FILE: is set beside X; set one of the two"):
        read_secret("X", {"X": "plain", "X_FILE": str(file)})
    with pytest.raises(ConfigError, match="cannot be read"):
        read_secret("X", {"X_FILE": str(tmp_path / "none")})
    file.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_secret("X", {"X_FILE": str(file)})
