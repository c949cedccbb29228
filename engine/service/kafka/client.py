"""What a client of the brokers is started with, and what becomes of its errors."""

import logging
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from typing import Any, Final

from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.conn import create_conn
from aiokafka.helpers import create_ssl_context

from rfmstream.engine.service.client_config import ClientConfig
from rfmstream.schemas.errors import ConfigError, RfmError, TransportError

REQUEST_SECONDS_MAX: Final = 30
TRANSACTION_SECONDS_MAX: Final = 60
RETRY_BACKOFF_MS: Final = 50

NO_RIGHT: Final = (
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
_NO_CERTIFICATE: Final = ("CERTIFICATE", "UNKNOWN_CA")
"""In what OpenSSL names the alerts of brokers that do not like what they were shown, or were shown nothing."""

_OTHER_HOST: Final = (62, 64)
"""OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH."""

_TOO_LARGE: Final = (kafka.MessageSizeTooLargeError, kafka.RecordListTooLargeError)


def connection_options(config: ClientConfig) -> dict[str, Any]:
    """Return the connection's options as every aiokafka client takes them.

    Errors  ConfigError  a certificate or key cannot be used
    """
    options: dict[str, Any] = {
        "bootstrap_servers": list(config.bootstrap_servers),
        "client_id": config.client_id,
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


def as_rfm_error(
    error: BaseException, config: ClientConfig, doing: str, right: str = "Read or Write"
) -> RfmError:
    """Say in our words what the client meant: what a caller can do about it decides the class.

    In      doing  what failed, a clause such as "the transaction failed"
            right  what that needs to be allowed to do with its topics
    Out     ConfigError or TransportError, to be raised `from error`
    """
    if isinstance(error, RfmError):
        return error
    where = endpoint(config)
    refused = _refusal(error, where, doing, right)
    if refused is not None:
        return refused
    if isinstance(error, kafka.KafkaConnectionError | OSError):
        return TransportError(
            f"{doing}: no broker answers",
            endpoint=where,
            fix="start it, or check bootstrap_servers and security_protocol",
        )
    text = str(error).strip()
    return TransportError(f"{doing} ({type(error).__name__}{f': {text}' if text else ''})", endpoint=where)


def _refusal(  # noqa: PLR0911 - one for each thing that can be done about it
    error: BaseException, where: str, doing: str, right: str
) -> ConfigError | None:
    """Return what has to be set or granted before the same can succeed; None: nothing that we know of."""
    if isinstance(error, NO_RIGHT):
        return _no_right(error, doing, right)
    if isinstance(error.__cause__, (ssl.SSLError, *NO_RIGHT)):
        # Brokers judge our certificate after the handshake; and a producer says of many errors the same.
        return _refusal(error.__cause__, where, doing, right)
    if isinstance(error, ssl.SSLError):
        return _no_trust(error, where)
    if isinstance(error, _NO_LOGIN):
        return ConfigError(
            f"{where} refused the login",
            key="sasl_username",
            fix="check user, password, sasl_mechanism and security_protocol",
        )
    if isinstance(error, _TOO_LARGE):
        return ConfigError(
            f"{doing}: a record is larger than its topic takes",
            fix="raise max.message.bytes of the output topics",
        )
    if isinstance(error, kafka.InvalidTransactionTimeout):
        return ConfigError(
            f"{doing}: the brokers allow no transaction of {TRANSACTION_SECONDS_MAX} s",
            fix=f"raise the brokers' transaction.max.timeout.ms to {TRANSACTION_SECONDS_MAX * 1000} or more",
        )
    if isinstance(error, kafka.InvalidTimestampError):
        return ConfigError(
            f"{doing}: the brokers refuse records of this machine's time, {_now()}",
            fix="set this machine's clock, or the output topics' message.timestamp.before.max.ms and "
            "message.timestamp.after.max.ms",
        )
    return None


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _no_right(error: BaseException, doing: str, right: str) -> ConfigError:
    names: list[str] = []
    for name in error.args:
        names += sorted(name) if isinstance(name, set | frozenset) else [str(name)]
    if isinstance(error, kafka.GroupAuthorizationFailedError):
        fix = f"grant Read on the group {names[0] if names else 'that the app id names'}"
    elif isinstance(error, kafka.TransactionalIdAuthorizationFailed):
        begin = f"{names[0].partition('/')[0]}/" if names else "the app id and a slash"
        fix = f"grant Write on the transactional ids that begin with {begin}"
    elif isinstance(error, kafka.TopicAuthorizationFailedError) and names:
        fix = f"grant {right} on the {'topic' if len(names) == 1 else 'topics'} {', '.join(names)}"
    else:
        fix = "grant Read on the topics that are read, and Write on those that are written"
    return ConfigError(f"{doing}: the user lacks a right", fix=fix)


def _no_trust(error: ssl.SSLError, where: str) -> ConfigError | None:
    if not isinstance(error, ssl.SSLCertVerificationError):
        reason = error.reason or ""
        if any(word in reason for word in _NO_CERTIFICATE):
            return ConfigError(
                f"{where} wants a certificate of ours that it trusts ({reason})",
                key="tls_cert_file",
                fix="set it and tls_key_file",
            )
        # Connections that break off say this and that, too, which passes.
        return None
    reason = error.verify_message.rstrip(".")
    if error.verify_code in _OTHER_HOST:
        return ConfigError(
            f"the broker shows the certificate of another host ({reason})",
            key="bootstrap_servers",
            fix="name it as the certificate does, or set tls_check_hostname to false",
        )
    return ConfigError(
        f"{where} shows a certificate that is not to be trusted ({reason})",
        key="tls_ca_file",
        fix="name the certificate of the authority that has signed it",
    )


@contextmanager
def client_errors(config: ClientConfig, doing: str, right: str = "Read or Write") -> Iterator[None]:
    """Let only errors of ours out of the block.

    In      doing, right  as of `as_rfm_error`
    """
    try:
        yield
    except RfmError:
        raise
    except (
        kafka.KafkaError,
        kafka.IllegalOperation,
        kafka.ConsumerStoppedError,
        OSError,
        AssertionError,
    ) as error:
        # The client asserts its own transitions: once it has failed, the next call may do so.
        raise as_rfm_error(error, config, doing, right) from error
    except TimeoutError as error:
        raise TransportError(f"{doing}: no answer in time", endpoint=endpoint(config)) from error


@asynccontextmanager
async def administrator(config: ClientConfig, doing: str) -> AsyncIterator[AIOKafkaAdminClient]:
    """Give a connected admin client, and let only errors of ours out of the block."""
    admin = AIOKafkaAdminClient(**connection_options(config))
    with quiet_client(), client_errors(config, doing):
        try:
            await admin.start()
            yield admin
        except (kafka.KafkaConnectionError, kafka.NodeNotReadyError):
            await _try_each_broker(admin._client, config)  # noqa: SLF001 - nothing else knows them
            raise
        finally:
            await admin.close()


async def _try_each_broker(client: Any, config: ClientConfig) -> None:  # noqa: ANN401 - the client is not typed
    """Connect to each broker to learn why that fails: the client, which has tried, logs it and says nothing.

    Errors  the first that there is, of ssl or aiokafka
    """
    options = connection_options(config)
    del options["bootstrap_servers"], options["retry_backoff_ms"]
    known = [(host, port) for host, port, _ in client.hosts]
    known += [(broker.host, broker.port) for broker in client.cluster.brokers()]
    for host, port in known:
        connection = await create_conn(host, port, **options)
        connection.close()


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
