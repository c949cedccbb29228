"""What a worker is told at its start: checked once, then frozen."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from rfmstream.engine.core.processors import usable_cores
from rfmstream.engine.events.instants import parse_instant
from rfmstream.engine.live.law import Clock
from rfmstream.engine.live.places import default_checkpoints
from rfmstream.engine.live.plain import is_plain
from rfmstream.engine.live.setting import Given
from rfmstream.engine.live.settings import CLIENT_SETTINGS, WORKER_SETTINGS
from rfmstream.engine.live.sources import resolve
from rfmstream.engine.service.client_config import ClientConfig
from rfmstream.engine.service.page_server import is_loopback
from rfmstream.schemas.errors import ConfigError
from rfmstream.schemas.mapping import InputMap
from rfmstream.schemas.plan import Plan, plan_of
from rfmstream.schemas.plan_file import load_plan, read_plan_rules
from rfmstream.schemas.ruleset import Ruleset, load_ruleset
from rfmstream.schemas.ruleset_file import read_ruleset_file, shipped_path
from rfmstream.schemas.ruleset_model import RulesetFile

_Resolved = Mapping[str, tuple[Any, Given | None]]


@dataclass(frozen=True)
class OutputTopics:
    """The names of the output topics.

    Fields  signals  written only where a ruleset asks for signals
            shadow   written only where there are shadow views
    """

    changes: str = "rfm.tier-changes.v1"
    current: str = "rfm.tier-current.v1"
    rejected: str = "orders.rejected.v1"
    clock: str = "rfm.clock.v1"
    signals: str = "rfm.signals.v1"
    shadow: str = "rfm.shadow-changes.v1"


Codec = Literal["none", "gzip", "snappy", "lz4", "zstd"]


@dataclass(frozen=True)
class WorkerConfig:
    """All a worker needs to know. `engine.live.settings` says what each setting means.

    Fields  app_id       the consumer group, and the start of the transactional ids
            ruleset      compiled, with the time zone and currency asked for; of several views that of the first one
                         that is no shadow
            views        the plan of views; None: the ruleset is all there is
            view_history, view_history_map  files of orders that views which join a running state begin with, and what
                         reads them
            resegment_view  views whose ruleset may take over from another one; resegment: all of them
            as_of_us     where time ends after the end of the topics; None: where the newest order left it
            checkpoints  directory or pyarrow.fs URI
            erase_within in µs: so long after a customer was erased no checkpoint holds its orders
            ce_source    the CloudEvents attribute
            listen       host and port (0: any free one) of the status pages; None: none
            input_map    that reads the records; None: they are orders as they are
            schema_registry, schema_registry_auth  of framed records, and how to log in there
            listen_data  where customers' data is served; None: where the status pages are
            listen_token  what whoever asks for customers has to show; None: nothing, on loopback only
            listen_url   of customers' data, as others reach it; None: as it listens
            listen_tls_*  PEM files, for what is not on loopback
            rules        rulesets as their files give them, by their identity
    """

    client: ClientConfig = field(default_factory=ClientConfig)
    app_id: str = "rfmstream"
    session_timeout_s: int = 20
    input_topics: tuple[str, ...] = ("orders.v1",)
    outputs: OutputTopics = field(default_factory=OutputTopics)
    create_topics: bool = True
    replication_factor: int = 0
    ruleset: Ruleset = field(default_factory=lambda: load_ruleset("rfm8"))
    views: Plan | None = None
    view_history: tuple[str, ...] | None = None
    view_history_map: InputMap | None = None
    resegment: bool = False
    resegment_view: tuple[str, ...] = ()
    clock: Clock = "log"
    time_tolerance_s: int = 300
    until_end: bool = False
    as_of_us: int | None = None
    checkpoints: str = "rfmstream-checkpoints"
    checkpoint_interval_s: int = 60
    checkpoints_kept: int = 3
    erase_within: int = 7 * 86_400_000_000
    accept_gap: bool = False
    commit_interval_ms: int = 0
    record_bytes_max: int = 16 << 20
    structured: bool = False
    compression: Codec = "gzip"
    ce_source: str = "/rfmstream/rfmstream"
    threads: int = 1
    input_map: InputMap | None = None
    schema_registry: str | None = None
    schema_registry_auth: str | None = field(default=None, repr=False)
    listen: tuple[str, int] | None = ("127.0.0.1", 8765)
    listen_data: tuple[str, int] | None = None
    listen_token: str | None = field(default=None, repr=False)
    listen_url: str | None = None
    listen_tls_cert_file: str | None = None
    listen_tls_key_file: str | None = None
    rules: Mapping[str, RulesetFile] = field(default_factory=dict, repr=False, compare=False)
    log_format: Literal["text", "json"] = "text"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @property
    def plan(self) -> Plan:
        """The views."""
        return plan_of([self.ruleset]) if self.views is None else self.views

    @property
    def asks_signals(self) -> bool:
        """Whether a view that is no shadow asks for signals."""
        return any(view.ruleset.asks_signals and not view.shadow for view in self.plan.views)

    @property
    def has_shadows(self) -> bool:
        """Whether there are shadow views."""
        return any(view.shadow for view in self.plan.views)

    @property
    def time_tolerance_us(self) -> int:
        """The tolerance in µs."""
        return self.time_tolerance_s * 1_000_000


def load_worker_config(
    flags: Mapping[str, object],
    *,
    environment: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> WorkerConfig:
    """Read all settings: flags, then the environment, then the file, then defaults.

    In      flags        by the setting's name; None stands for not given
            environment  None: that of the process
            file         TOML, or None
    Errors  ConfigError  names the setting, where it was written, and the fix
    """
    found = resolve(WORKER_SETTINGS, flags=flags, environment=environment, file=file)
    values = {name: value for name, (value, _) in found.items()}
    plan, path = _views(found), values["plan"]
    names = values["ruleset"]
    for name in ("ruleset", "plan", "time_zone", "currency"):
        del values[name]
    ruleset = next((view.ruleset for view in plan.views if not view.shadow), plan.views[0].ruleset)
    client = _client(found)
    outputs = _outputs(found)
    _check_time(found)
    _check_listen(found)
    for setting in CLIENT_SETTINGS:
        del values[setting.name]
    for name in _OUTPUTS:
        del values[name]
    input_map = _input_map(found)
    del values["map"]
    values["resegment_view"] = _resegmented(found, plan)
    values["view_history_map"] = _history_map(found)
    as_of, as_of_given = found["as_of"]
    del values["as_of"]
    return WorkerConfig(
        **(
            values
            | {
                "checkpoints": values["checkpoints"] or default_checkpoints(values["app_id"], environment),
                "ce_source": values["ce_source"] or f"/rfmstream/{values['app_id']}",
                "threads": values["threads"] or usable_cores(),
            }
        ),
        client=client,
        outputs=outputs,
        ruleset=ruleset,
        views=None if is_plain(plan) else plan,
        input_map=input_map,
        rules=_rules(plan, None if path is None else Path(path), names),
        as_of_us=None if as_of is None else parse_instant(as_of, ruleset.time_zone, key=_place(as_of_given)),
    )


def load_client_config(
    flags: Mapping[str, object],
    *,
    environment: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> ClientConfig:
    """Read the settings of the connection alone; the file may hold the worker's others.

    Errors  ConfigError  names the setting, where it was written, and the fix
    """
    return _client(resolve(CLIENT_SETTINGS, flags=flags, environment=environment, file=file))


def _client(found: _Resolved) -> ClientConfig:
    config = ClientConfig(**{setting.name: found[setting.name][0] for setting in CLIENT_SETTINGS})
    fault = config.fault()
    if fault is not None:
        raise _error(found, *fault)
    return config


def _views(found: _Resolved) -> Plan:
    """Return the plan of a file, or a view for each ruleset."""
    (path, _), (rulesets, given) = found["plan"], found["ruleset"]
    options = {name: found[name][0] for name in ("time_zone", "currency")}
    if path is None:
        return plan_of(load_ruleset(ruleset, **options) for ruleset in rulesets)
    if given is not None:
        raise _error(found, "plan", "names the rulesets itself", "leave ruleset out, or the plan")
    return load_plan(path, **options)


def _rules(plan: Plan, path: Path | None, names: Sequence[str]) -> dict[str, RulesetFile]:
    """Return the rulesets of a plan as their files give them, by their identity.

    In      path   of the plan; None: these rulesets are its views
    """
    files = (
        [read_ruleset_file(shipped_path(name) or Path(name)) for name in names]
        if path is None
        else read_plan_rules(path)
    )
    return {view.ruleset.identity: file for view, file in zip(plan.views, files, strict=True)}


_OUTPUTS: Final = (
    "changes_topic",
    "current_topic",
    "rejected_topic",
    "clock_topic",
    "signals_topic",
    "shadow_topic",
)


def _outputs(found: _Resolved) -> OutputTopics:
    taken = dict.fromkeys(found["input_topics"][0], "input_topics")
    for name in _OUTPUTS:
        topic = found[name][0]
        if topic in taken:
            at = name if found[name][1] is not None else taken[topic]
            other = taken[topic] if at == name else name
            raise _error(found, at, f"{topic} is {other} already", "give each topic a name of its own")
        taken[topic] = name
    return OutputTopics(*(found[name][0] for name in _OUTPUTS))


def _input_map(found: _Resolved) -> InputMap | None:
    """Return the map that reads the records.

    Errors  ConfigError  there is none, it is for files, or a registry has no map
    """
    name, _ = found["map"]
    if name is None:
        for other in ("schema_registry", "schema_registry_auth"):
            if found[other][1] is not None:
                fix = "set map, which says what an order is in what the registry describes"
                raise _error(found, other, "has no effect without a map", fix)
        return None
    # Loaded here, so that a worker of plain orders need not wait for it.
    from rfmstream.engine.files.mapping import load_map  # noqa: PLC0415
    from rfmstream.engine.live.mapped import check_map  # noqa: PLC0415
    from rfmstream.engine.live.registry import Registry  # noqa: PLC0415

    input_map = load_map(name)
    check_map(input_map)
    if found["schema_registry"][0] is not None:
        Registry(found["schema_registry"][0], found["schema_registry_auth"][0])
    elif found["schema_registry_auth"][1] is not None:
        raise _error(found, "schema_registry_auth", "has no effect without a registry", "set schema_registry")
    return input_map


def _resegmented(found: _Resolved, plan: Plan) -> tuple[str, ...]:
    names: tuple[str, ...] = found["resegment_view"][0] or ()
    for name in names:
        if name not in plan.names:
            problem, fix = f"there is no view {name}", f"name one of {', '.join(plan.names)}"
            raise _error(found, "resegment_view", problem, fix)
    return names


def _history_map(found: _Resolved) -> InputMap | None:
    name = found["view_history_map"][0]
    if name is None:
        return None
    if found["view_history"][0] is None:
        raise _error(found, "view_history_map", "has no effect without files", "set view_history")
    from rfmstream.engine.files.mapping import load_map  # noqa: PLC0415

    return load_map(name)


def _check_time(found: _Resolved) -> None:
    if found["until_end"][0] and found["clock"][0] != "event":
        raise _error(found, "until_end", "needs the clock of the events", "set clock to event")
    if found["as_of"][0] is not None and not found["until_end"][0]:
        raise _error(found, "as_of", "needs an end", "set until_end (and clock to event)")


def _check_listen(found: _Resolved) -> None:
    data, token = found["listen_data"][0], found["listen_token"][0]
    if data is not None and found["listen"][0] is None:
        raise _error(found, "listen_data", "has no effect where nothing is served", "leave out listen = off")
    if data is not None and token is None and not is_loopback(data[0]):
        raise _error(
            found,
            "listen_data",
            "is not on loopback, so whoever asks has to show a token, and there is none",
            "set RFMSTREAM_LISTEN_TOKEN, or RFMSTREAM_LISTEN_TOKEN_FILE to the name of a file that holds it",
        )
    cert, key = found["listen_tls_cert_file"][0], found["listen_tls_key_file"][0]
    if key is not None and cert is None:
        fix = "set listen_tls_cert_file too"
        raise _error(found, "listen_tls_key_file", "is of no use without a certificate", fix)
    for name in ("listen_tls_cert_file", "listen_tls_key_file"):
        path = found[name][0]
        if path is not None and not os.access(path, os.R_OK):
            raise _error(found, name, f"{path} cannot be read", "check the path and its permissions")


def _error(found: _Resolved, name: str, problem: str, fix: str) -> ConfigError:
    given = found[name][1]
    return ConfigError(problem, key=name, fix=fix) if given is None else given.error(problem, fix)


def _place(given: Given | None) -> str:
    assert given is not None, "a default is good"
    return given.key if given.file is None else f"{given.file}: {given.key}"
