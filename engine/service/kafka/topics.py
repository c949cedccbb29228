"""Creates topics, and says what a broker's refusal means."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from rfmstream.schemas.errors import ConfigError, TransportError

CREATE_SECONDS_MAX: Final = 15

_NO_RIGHT: Final = (kafka.TopicAuthorizationFailedError, kafka.ClusterAuthorizationFailedError)


class CreateSettings(NamedTuple):
    """The settings to blame where a topic cannot be created.

    Fields  create       allows topics to be created; what else the user can do about it, as a clause
            replication  says how many copies a topic has
    """

    create: tuple[str, str]
    replication: str


async def create_topics(
    admin: AIOKafkaAdminClient, topics: Sequence[NewTopic], settings: CreateSettings
) -> None:
    """Create topics; one that exists stays as it is, since another process may have been first.

    Errors  ConfigError     the user may not, or there are too few brokers for so many copies
            TransportError  a broker refuses for another reason
    """
    copies = {topic.name: topic.replication_factor for topic in topics}
    response = await admin.create_topics(list(topics), timeout_ms=CREATE_SECONDS_MAX * 1000)
    for name, code, *text in response.topic_errors:
        error = kafka.for_code(code)
        if error in (kafka.NoError, kafka.TopicAlreadyExistsError):
            continue
        if error in _NO_RIGHT:
            key, fix = settings.create
            raise ConfigError(f"the user may not create topic {name}", key=key, fix=fix)
        if error is kafka.InvalidReplicationFactorError:
            raise ConfigError(
                f"topic {name} cannot have {copies[name]} copies",
                key=settings.replication,
                fix="use at most as many as there are brokers",
            )
        words = text[0] if text and text[0] else error.__name__
        raise TransportError(f"topic {name} cannot be created ({words})")
