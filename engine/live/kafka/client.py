"""What the errors of a client mean where one owner of a partition may fence another."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from aiokafka import errors as kafka

from rfmstream.engine.live.model import FencedError
from rfmstream.engine.service.client_config import ClientConfig
from rfmstream.engine.service.kafka import client
from rfmstream.engine.service.kafka.client import endpoint
from rfmstream.schemas.errors import RfmError

_FENCED: Final = (
    kafka.ProducerFenced,
    kafka.InvalidProducerEpoch,
    kafka.IllegalGenerationError,
    kafka.UnknownMemberIdError,
    kafka.RebalanceInProgressError,
)


def as_rfm_error(
    error: BaseException, config: ClientConfig, doing: str, right: str = "Read or Write"
) -> RfmError:
    """Say in our words what the client meant, as `engine.service.kafka.client` does; FencedError among them."""
    if isinstance(error, _FENCED):
        return FencedError("another worker has taken the partition over", endpoint=endpoint(config))
    return client.as_rfm_error(error, config, doing, right)


@contextmanager
def client_errors(config: ClientConfig, doing: str, right: str = "Read or Write") -> Iterator[None]:
    """Let only errors of ours out of the block.

    In      doing, right  as of `as_rfm_error`
    """
    with client.client_errors(config, doing, right):
        try:
            yield
        except _FENCED as error:
            raise as_rfm_error(error, config, doing, right) from error
