"""How the brokers are reached, and what becomes of the client's errors."""

import logging
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from aiokafka import errors as kafka
from aiokafka.helpers import create_ssl_context

from engine.live.config import ClientConfig
from engine.live.model import FencedError
from schemas.errors import ConfigError, RfmError, TransportError

REQUEST_SECONDS_MAX: Final = 30
RETRY_BACKOFF_MS: Final = 50

_FENCED: Final = (
    kafka.ProducerFenced,
    kafka.InvalidProducerEpoch,
    kafka.IllegalGenerationError,
    kafka.UnknownMemberIdError,
    kafka.RebalanceInProgressError,
)
_NO_RIGHT: Final = (
    kafka.TopicAuthorizationFailedError,
    kafka.GroupAuthorizationFailedError,
    kafka.ClusterAuthorizationFailedError,
    kafka.TransactionalIdAuthorizationFailed,
)
_NO_LOGIN: Final = (
    kafka.SaslAuthenticationFailed,
    kafka.AuthenticationFailedError,
    kafka.AuthenticationMethodNotSupported,
    kafka.UnsupportedSaslMechanismError,
    kafka.IllegalSaslStateError,
)
_TOO_LARGE: Final = (kafka.MessageSizeTooLargeError, kafka.RecordListTooLargeError)


def connection_options(config: ClientConfig) -> dict[str, Any]:
    """Return the connection's options as every aiokafka client takes them.

    Errors  ConfigError  a certificate or key cannot be used
    """
    options: dict[str, Any] = {
        "bootstrap_servers": list(config.bootstrap_servers),
        "security_protocol": config.security_protocol.upper(),
        "request_timeout_ms": REQUEST_SECONDS_MAX * 1000,
        "retry_backoff_ms": RETRY_BACKOFF_MS,
    }
    if config.has_tls:
        options["ssl_context"] = _tls(config)
    if config.has_sasl:
        options |= {
            "sasl_mechanism": config.sasl_mechanism,
            "sasl_plain_username": config.sasl_username,
            "sasl_plain_password": config.sasl_password,
        }
    return options


def _tls(config: ClientConfig) -> ssl.SSLContext:
    try:
        context: ssl.SSLContext = create_ssl_context(
            cafile=config.tls_ca_file,
            certfile=config.tls_cert_file,
            keyfile=config.tls_key_file,
            password=config.tls_key_password,
        )
    except (OSError, ssl.SSLError, ValueError) as error:
        file = config.tls_cert_file or config.tls_ca_file
        raise ConfigError(
            f"the TLS files cannot be used ({error})",
            file=file,
            fix="check that each is PEM, and the key's password",
        ) from None
    context.check_hostname = config.tls_check_hostname
    return context


def endpoint(config: ClientConfig) -> str:
    """Return the brokers as errors name them."""
    return ",".join(config.bootstrap_servers)


def as_rfm_error(error: BaseException, config: ClientConfig, doing: str) -> RfmError:
    """Say in our words what the client meant: what a caller can do about it decides the class.

    In      doing  what failed, a clause such as "the transaction failed"
    Out     FencedError, ConfigError or TransportError, to be raised `from error`
    """
    if isinstance(error, RfmError):
        return error
    where = endpoint(config)
    if isinstance(error, _FENCED):
        return FencedError("another worker has taken the partition over", endpoint=where)
    if isinstance(error, (*_NO_RIGHT, *_NO_LOGIN, *_TOO_LARGE)):
        return _config_error(error, where, doing)
    if isinstance(error, kafka.KafkaConnectionError | OSError):
        return TransportError(
            f"{doing}: no broker answers", endpoint=where, fix="start it, or check bootstrap_servers"
        )
    text = str(error).strip()
    return TransportError(f"{doing} ({type(error).__name__}{f': {text}' if text else ''})", endpoint=where)


def _config_error(error: BaseException, where: str, doing: str) -> ConfigError:
    if isinstance(error, _NO_LOGIN):
        return ConfigError(
            f"{where} refused the login", key="sasl_username", fix="check user, password and sasl_mechanism"
        )
    if isinstance(error, _TOO_LARGE):
        return ConfigError(
            f"{doing}: a record is larger than its topic takes",
            fix="raise max.message.bytes of the output topics",
        )
    what = ", ".join(str(name) for name in error.args) or "the cluster"
    return ConfigError(
        f"{doing}: the user has no right to {what}",
        key="sasl_username",
        fix="grant Read on the input topics and the group, and Write, Describe and Create on the output topics and"
        " the transactional ids that begin with the app id",
    )


@contextmanager
def client_errors(config: ClientConfig, doing: str) -> Iterator[None]:
    """Let only errors of ours out of the block."""
    try:
        yield
    except (
        kafka.KafkaError,
        kafka.IllegalOperation,
        kafka.ConsumerStoppedError,
        OSError,
        AssertionError,
    ) as error:
        # The client asserts its own transitions: once it has failed, the next call may do so.
        raise as_rfm_error(error, config, doing) from error
    except TimeoutError as error:
        raise TransportError(f"{doing}: no answer in time", endpoint=endpoint(config)) from error


@contextmanager
def quiet_client() -> Iterator[None]:
    """Keep the client's own lines out of the log while a failure is about to be told in one of ours."""
    logger = logging.getLogger("aiokafka")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
