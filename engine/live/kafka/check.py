"""`rfmstream worker --check`: all that a start would stumble over, looked at without starting anything.

Nothing is created and no record is written: topics that are absent are asked for as if they were to be created, and a
transaction that holds nothing is rolled back. A worker of the same app may run meanwhile.
"""

import asyncio
import socket
from collections.abc import Callable, Coroutine, Iterable
from contextlib import closing
from typing import Any, Final

from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from rfmstream.engine.live.config import WorkerConfig
from rfmstream.engine.live.findings import Finding
from rfmstream.engine.live.kafka.client import as_rfm_error, client_errors
from rfmstream.engine.live.kafka.policies import needed_topics, unfit_policies
from rfmstream.engine.live.kafka.probe import Skew, probe_transaction
from rfmstream.engine.live.kafka.rights import require_group, require_rights
from rfmstream.engine.live.kafka.topics import (
    NOT_CO_PARTITIONED,
    FoundTopics,
    describe,
    needed_rights,
    planned_topics,
    require_short_names,
    setting_of,
)
from rfmstream.engine.live.store import Store
from rfmstream.engine.service.kafka.client import TRANSACTION_SECONDS_MAX, administrator, quiet_client
from rfmstream.engine.service.page_server import tls_context
from rfmstream.kernels._jit import is_compiled
from rfmstream.kernels.fold import fold
from rfmstream.schemas.errors import ConfigError, RfmError

_ANSWER_S_MAX: Final = 30
_SESSION: Final = ("group.min.session.timeout.ms", "group.max.session.timeout.ms")
_OFFSETS: Final = "offsets.retention.minutes"
_WEEK_MIN: Final = 7 * 24 * 60
_SKEW_TOLD_MS: Final = 1000
_AGAIN_S: Final = 0.2

_Looks = Callable[[], Coroutine[Any, Any, Iterable[Finding]]]


async def check_worker(config: WorkerConfig) -> list[Finding]:
    """Look at everything a worker needs, and return what was found, in the order it is needed.

    Errors  none of ours: they are among the findings
    """
    found = [*_settings(config), *_state(config), *_status_pages(config)]
    try:
        async with administrator(config.client, "the topics cannot be read") as admin:
            found += await _Brokers(admin, config).look()
    except RfmError as error:
        found.append(wrong("brokers", error))
    return found


def wrong(what: str, error: RfmError) -> Finding:
    """Return what an error says as a finding."""
    place = ", ".join(
        str(part)
        for part in (getattr(error, name, None) for name in ("file", "key", "path", "endpoint"))
        if part
    )
    return Finding(what, "wrong", f"{place}: {error.problem}" if place else error.problem, error.fix, error)


def _settings(config: WorkerConfig) -> Iterable[Finding]:
    text = f"app {config.app_id}, clock {config.clock}, {config.threads} threads"
    yield Finding("settings", "ok", f"{text}, compression {config.compression}")
    for view in config.plan.views:
        ruleset = view.ruleset
        text = f"{ruleset.identity}: days of {ruleset.time_zone}, {ruleset.currency}"
        if config.views is not None:
            text = f"view {view.name}{' (shadow)' if view.shadow else ''}: {text}"
        yield Finding("ruleset", "ok", text)
    if config.input_map is not None:
        yield Finding("map", "ok", "records are read by an input map")
    if is_compiled(fold):
        yield Finding("kernels", "ok", "compiled for this machine")
    else:
        text = "not compiled yet: the first start takes up to a minute for it"
        yield Finding("kernels", "warning", text, "rfmstream warm-up compiles them")


def _state(config: WorkerConfig) -> Iterable[Finding]:
    try:
        store = Store(config.checkpoints, app_id=config.app_id, keep=config.checkpoints_kept)
        store.check()
        sources = store.sources()
    except RfmError as error:
        yield wrong("checkpoints", error)
        return
    topics = sorted({source.topic for source in sources})
    there = f"{len(sources)} partitions of {', '.join(topics)} are there" if sources else "none is there yet"
    yield Finding("checkpoints", "ok", f"{store.place} can be written; {there}")


def _status_pages(config: WorkerConfig) -> Iterable[Finding]:
    if config.listen is None:
        yield Finding("status pages", "ok", "off")
        return
    places = [("status pages", config.listen)]
    if config.listen_data is not None:
        places.append(("customers' data", config.listen_data))
    for what, (host, port) in places:
        problem = _why_not_free(host, port)
        if problem is None:
            yield Finding(what, "ok", f"{host}:{port} is free")
        else:
            text = f"{host}:{port} cannot be listened on: {problem}"
            yield Finding(what, "warning", text, "unless that is this worker: choose another")
    if config.listen_tls_cert_file is not None:
        try:
            tls_context(config.listen_tls_cert_file, config.listen_tls_key_file)
        except ConfigError as error:
            yield wrong("certificate", error)
        else:
            yield Finding("certificate", "ok", f"{config.listen_tls_cert_file} and its key can be shown")


def _why_not_free(host: str, port: int) -> str | None:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with closing(socket.socket(family)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        return str(error.strerror or error)
    return None


class _Brokers:
    """What is asked of the brokers."""

    def __init__(self, admin: AIOKafkaAdminClient, config: WorkerConfig) -> None:
        self._admin = admin
        self._config = config
        self._topics = FoundTopics(())

    async def look(self) -> list[Finding]:
        found = [*await self._one("brokers", self._brokers)]
        if found[0].verdict == "wrong":
            return found
        looks: tuple[tuple[str, _Looks], ...] = (
            ("input topics", self._inputs),
            ("output topics", self._outputs),
            ("rights", self._rights),
            ("topic policies", self._policies),
            ("transactions", self._transactions),
            ("group", self._group),
        )
        for what, look in looks:
            found += await self._one(what, look)
        return found

    async def _one(self, what: str, look: _Looks) -> list[Finding]:
        """Return what one look has found; an error is a finding as well."""
        try:
            with quiet_client(), client_errors(self._config.client, f"{what} cannot be looked at"):
                async with asyncio.timeout(_ANSWER_S_MAX):
                    return [*await _patiently(look)]
        except RfmError as error:
            return [wrong(what, error)]

    async def _brokers(self) -> Iterable[Finding]:
        cluster = await self._admin.describe_cluster()
        self._topics = await describe(self._admin)
        count = len(cluster["brokers"])
        yours = [f"{broker['host']}:{broker['port']}" for broker in cluster["brokers"]]
        found = [Finding("brokers", "ok", f"{count} answer: {', '.join(yours)}")]
        return [*found, *await self._limits(cluster["brokers"][0]["node_id"])]

    async def _limits(self, node: int) -> list[Finding]:
        """Return what the brokers' own settings do not allow, where the user may read them."""
        names = (*_SESSION, _OFFSETS)
        resource = ConfigResource(ConfigResourceType.BROKER, str(node), configs=dict.fromkeys(names, ""))
        try:
            responses = await self._admin.describe_configs([resource])
        except (kafka.IncompatibleBrokerVersion, kafka.ClusterAuthorizationFailedError):
            responses = []
        entries = [entry for response in responses for found in response.resources for entry in found[4]]
        options = {name: int(value) for name, value, *_ in entries if value}
        found: list[Finding] = []
        if _SESSION[0] in options:
            session_ms = self._config.session_timeout_s * 1000
            low, high = (options[name] for name in _SESSION)
            if not low <= session_ms <= high:
                fix = f"set session_timeout_s to {-(-low // 1000)} to {high // 1000}"
                text = f"the brokers take {low} to {high} ms, and session_timeout_s is {session_ms // 1000} s"
                found.append(Finding("session timeout", "wrong", text, fix, ConfigError(text, fix=fix)))
        if options.get(_OFFSETS, _WEEK_MIN) < _WEEK_MIN:
            text = f"offsets of an app without workers are forgotten after {options[_OFFSETS]} minutes"
            found.append(Finding("offsets", "warning", text, f"raise the brokers' {_OFFSETS}"))
        return found

    async def _inputs(self) -> Iterable[Finding]:
        topics, counts = self._config.input_topics, self._topics.partitions
        absent = [topic for topic in topics if topic not in counts]
        if absent:
            raise ConfigError(
                f"there is no topic {absent[0]} that the user may see",
                key="input_topics",
                fix="create it, or rfmstream produce ... --partitions N; grant Read on it, or name another",
            )
        named = ", ".join(f"{topic}: {counts[topic]} partitions" for topic in topics)
        require_short_names(self._config)
        if len({counts[topic] for topic in topics}) > 1:
            raise ConfigError(named, key="input_topics", fix=NOT_CO_PARTITIONED)
        named += "; read as one population" if len(topics) > 1 else ""
        return [Finding("input topics", "ok", named)]

    async def _outputs(self) -> Iterable[Finding]:
        count = self._topics.partitions.get(self._config.input_topics[0])
        if count is None:
            return [
                Finding(
                    "output topics", "unknown", "they need as many partitions as the input, which is absent"
                )
            ]
        plan, there = planned_topics(self._config), self._topics.partitions
        for topic in plan:
            if topic in there and there[topic] != count:
                raise ConfigError(
                    f"topic {topic} has {there[topic]} partitions, the input has {count}",
                    key=setting_of(self._config, topic),
                    fix="recreate it, or name another",
                )
        absent = [topic for topic in plan if topic not in there]
        if not absent:
            return [Finding("output topics", "ok", f"all {len(plan)} are there, with {count} partitions")]
        if not self._config.create_topics:
            raise ConfigError(
                f"there is no topic {absent[0]}",
                key="create_topics",
                fix=f"create it with {count} partitions, or allow topics to be created",
            )
        copies = self._config.replication_factor or self._topics.replication[self._config.input_topics[0]]
        new = [NewTopic(topic, count, copies, topic_configs=plan[topic]) for topic in absent]
        response = await self._admin.create_topics(new, validate_only=True)
        for topic, code, *text in response.topic_errors:
            if code and kafka.for_code(code) is not kafka.TopicAlreadyExistsError:
                why = text[0] if text and text[0] else kafka.for_code(code).__name__
                raise ConfigError(
                    f"topic {topic} cannot be created: {why}",
                    key="create_topics",
                    fix=f"grant Create on it, or create it with {count} partitions",
                )
        return [Finding("output topics", "ok", f"the worker will create {', '.join(absent)}")]

    async def _rights(self) -> Iterable[Finding]:
        needed = needed_rights(self._config)
        await require_rights(self._admin, needed)
        absent = [topic for topic in needed if topic not in self._topics.partitions]
        if absent:
            text = f"as needed on the topics that are there; of {', '.join(absent)} nothing is told"
            return [Finding("rights", "ok" if len(absent) < len(needed) else "unknown", text)]
        return [Finding("rights", "ok", f"Read and Write as needed on {len(needed)} topics")]

    async def _policies(self) -> Iterable[Finding]:
        there = [topic for topic in needed_topics(self._config) if topic in self._topics.partitions]
        if not there:
            return [Finding("topic policies", "unknown", "no topic is there yet")]
        unfit, hidden = await unfit_policies(self._admin, self._config, there)
        found = [
            Finding(
                "topic policies",
                "warning" if one.fix is None else "wrong",
                f"{one.topic}: {one.problem}",
                one.fix,
                None if one.fix is None else ConfigError(one.problem, key=one.key, fix=one.fix),
            )
            for one in unfit
        ]
        if hidden:
            text = f"not told of {', '.join(hidden)}"
            found.append(Finding("topic policies", "unknown", text, "grant DescribeConfigs on them"))
        return found or [Finding("topic policies", "ok", f"{len(there)} topics keep what is needed")]

    async def _group(self) -> Iterable[Finding]:
        await require_group(self._admin, self._config.app_id)
        [response] = await self._admin.describe_consumer_groups([self._config.app_id])
        [(code, _, state, _, _, members, *_)] = response.groups
        if code:
            text = f"who is in {self._config.app_id} is not told ({kafka.for_code(code).__name__})"
            return [Finding("group", "unknown", text, f"grant Describe on the group {self._config.app_id}")]
        workers = (
            "no worker" if not members else "1 worker" if len(members) == 1 else f"{len(members)} workers"
        )
        return [Finding("group", "ok", f"{self._config.app_id}: {workers} ({state.lower()})")]

    async def _transactions(self) -> Iterable[Finding]:
        seconds = TRANSACTION_SECONDS_MAX
        try:
            skew = await probe_transaction(self._config.client, self._config.app_id, seconds * 1000)
        except kafka.KafkaError as error:
            raise as_rfm_error(error, self._config.client, "a transaction cannot begin", "Write") from error
        return [Finding("transactions", "ok", f"one of {seconds} s is allowed"), self._clock(skew)]

    def _clock(self, skew: Skew | None) -> Finding:
        if skew is None:
            return Finding("clock", "unknown", "brokers before Kafka 3.0 do not tell their time")
        apart_ms = skew.surely_ms
        if abs(apart_ms) < _SKEW_TOLD_MS:
            return Finding("clock", "ok", "as the broker's, within a second")
        text = f"{abs(apart_ms) / 1000:,.1f} s {'behind' if apart_ms > 0 else 'ahead of'} the broker's"
        fix = "set this machine's clock, or the broker's (NTP)"
        if abs(apart_ms) * 1000 <= self._config.time_tolerance_us or self._config.clock == "event":
            return Finding("clock", "warning", text, fix)
        problem = f"{text}, more than time_tolerance_s ({self._config.time_tolerance_s} s)"
        return Finding("clock", "wrong", problem, fix, ConfigError(problem, key="time_tolerance_s", fix=fix))


async def _patiently(look: _Looks) -> Iterable[Finding]:
    """Look again while a coordinator is not ready: on a new cluster nobody has asked for one before."""
    while True:
        try:
            return await look()
        except (kafka.GroupCoordinatorNotAvailableError, kafka.GroupLoadInProgressError):
            await asyncio.sleep(_AGAIN_S)
