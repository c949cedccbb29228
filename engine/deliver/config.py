"""deliver.toml: the brokers and the destinations, checked once, then frozen."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from rfmstream.engine.deliver.addresses import is_public, literal
from rfmstream.engine.deliver.backoff import Backoff
from rfmstream.engine.deliver.broker import BrokerConfig, read_broker
from rfmstream.engine.deliver.credentials import read_secret
from rfmstream.engine.deliver.delivery_map import map_path, map_settings, read_delivery_map, read_rates
from rfmstream.engine.deliver.filters import Filter
from rfmstream.engine.deliver.forms import Form
from rfmstream.engine.deliver.http_form import HttpForm
from rfmstream.engine.deliver.lanes import Pace
from rfmstream.engine.deliver.segment import BATCH_BYTES_MAX, DEFAULT_URL, SegmentForm
from rfmstream.engine.deliver.webhook import WebhookForm, secret_bytes
from rfmstream.schemas.errors import ConfigError
from rfmstream.schemas.toml_table import TomlTable, read_toml

KINDS: Final = ("webhook", "segment", "http")
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,60}")
_DURATION: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)(ms|s|m|h)")
_UNITS_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_PERCENT: Final = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)%")
_LISTEN: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

_COMMON: Final = (
    *("kind", "headers", "rate", "batch", "batch_bytes", "concurrency", "in_flight", "coalesce", "timeout"),
    *(
        "retry_first",
        "retry_max",
        "filter",
        "guard",
        "guard_at_least",
        "guard_hold",
        "allow_private",
        "ca_file",
    ),
    *("start",),
)
_OF_KIND: Final = {
    "webhook": ("url", "secrets"),
    "segment": ("url", "write_key", "trait_prefix"),
    "http": ("map", "settings"),
}
_FILTERS: Final = {
    "events": "events",
    "from": "from_tiers",
    "to": "tiers",
    "reasons": "reasons",
    "kinds": "kinds",
    "playbooks": "playbooks",
    "views": "views",
    "populations": "populations",
    "modes": "modes",
}
_WORDS: Final = {"events": ("change", "signal"), "modes": ("live", "replay")}


@dataclass(frozen=True)
class GuardConfig:
    """When too much changes at once.

    Fields  share     of the customers that may change within an hour
            at_least  so many changes an hour are always let through
            hold_s    an event waits so long, since what follows it may show that too much has changed
    """

    share: Fraction
    at_least: int = 0
    hold_s: float = 1.0


@dataclass(frozen=True)
class Destination:
    """One destination, ready to be sent to.

    Fields  start  latest or earliest: where a group that has never committed begins
    """

    name: str
    kind: str
    form: Form = field(repr=False)
    pace: Pace = field(default_factory=Pace)
    filter: Filter = field(default_factory=Filter)
    guard: GuardConfig | None = None
    timeout_s: float = 20.0
    allow_private: bool = False
    ca_file: str | None = None
    start: Literal["latest", "earliest"] = "latest"


@dataclass(frozen=True)
class DeliverConfig:
    """All that `rfmstream deliver` needs to know.

    Fields  customers  how many there are, for guards; None: counted in the topic of current tiers
            listen     host and port of the status pages (0: any free one); None: none
    """

    broker: BrokerConfig
    destinations: tuple[Destination, ...]
    customers: int | None = None
    listen: tuple[str, int] | None = ("127.0.0.1", 8766)
    log_format: Literal["text", "json"] = "text"
    log_level: Literal["debug", "info", "warning", "error"] = "info"


def load_deliver_config(
    path: Path, *, environment: Mapping[str, str] | None = None, without_secrets: bool = False
) -> DeliverConfig:
    """Read deliver.toml.

    In      environment      None: that of the process
            without_secrets  check the file where its secrets are not
    Errors  ConfigError      names file, key and fix
    """
    top = TomlTable(read_toml(path), str(path))
    top.allow("kafka", "destinations", "customers", "listen", "log_format", "log_level")
    broker = top.table("kafka") if "kafka" in top else TomlTable({}, top.file, "kafka")
    tables = top.table("destinations")
    if not tables.values:
        raise top.error("destinations", "is empty", "write [destinations.NAME]")
    reader = _Reader(environment, is_lenient=without_secrets)
    return DeliverConfig(
        broker=read_broker(broker, environment),
        destinations=tuple(reader.destination(name, tables.table(name)) for name in tables.values),
        customers=top.integer("customers", 1, 1 << 40) if "customers" in top else None,
        listen=_listen(top),
        log_format="json" if top.choice("log_format", ("text", "json"), "text") == "json" else "text",
        log_level=_level(top),
    )


class _Reader:
    """Reads destinations; knows where secrets are."""

    def __init__(self, environment: Mapping[str, str] | None, *, is_lenient: bool) -> None:
        self._environment = environment
        self._is_lenient = is_lenient

    def destination(self, name: str, table: TomlTable) -> Destination:
        """Read one [destinations.NAME]."""
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"{name!r} is no name for a destination",
                file=table.file,
                key=table.path,
                fix="use 1 to 60 ASCII letters, digits, underscores and dashes: it ends the group's name",
            )
        kind = table.choice("kind", KINDS)
        table.allow(*_COMMON, *_OF_KIND[kind])
        headers = _headers(table)
        form, pace, takes = {"webhook": self._webhook, "segment": self._segment, "http": self._http}[kind](
            table, headers
        )
        allow_private = table.flag("allow_private") if "allow_private" in table else False
        _check_url(table, form.url, is_private_allowed=allow_private)
        return Destination(
            name=name,
            kind=kind,
            form=form,
            pace=_pace(table, pace),
            filter=_filter(table, takes),
            guard=_guard(table),
            timeout_s=_seconds(table, "timeout", 20.0, low=0.1, high=600),
            allow_private=allow_private,
            ca_file=table.text("ca_file") if "ca_file" in table else None,
            start="earliest"
            if table.choice("start", ("latest", "earliest"), "latest") == "earliest"
            else "latest",
        )

    def _secret(self, table: TomlTable, name: str) -> str:
        return read_secret(table, name, self._environment, is_lenient=self._is_lenient).reveal()

    def _webhook(
        self, table: TomlTable, headers: dict[str, str]
    ) -> tuple[Form, Pace, tuple[str, ...] | None]:
        if "batch" in table:
            raise table.error("batch", "a webhook carries one event", "leave it out")
        keys = []
        values = table.values.get("secrets")
        if not isinstance(values, list) or not values:
            raise table.error("secrets", "must be a list", 'write secrets = [{ env = "NAME" }]')
        for number, value in enumerate(values, 1):
            one = TomlTable({f"secrets[{number}]": value}, table.file, table.path)
            name = f"secrets[{number}]"
            key = secret_bytes(self._secret(one, name))
            if key is None:
                raise one.error(
                    name, "is no secret of 24 to 64 bytes", "make one: echo whsec_$(openssl rand -base64 32)"
                )
            keys.append(key)
        return WebhookForm(table.text("url"), keys, headers), Pace(), None

    def _segment(
        self, table: TomlTable, headers: dict[str, str]
    ) -> tuple[Form, Pace, tuple[str, ...] | None]:
        write_key = self._secret(table, "write_key")
        form = SegmentForm(
            table.text("url", DEFAULT_URL), write_key, headers, table.text("trait_prefix", "rfm_")
        )
        return form, Pace(batch=200, batch_bytes=BATCH_BYTES_MAX, concurrency=4), None

    def _http(self, table: TomlTable, headers: dict[str, str]) -> tuple[Form, Pace, tuple[str, ...] | None]:
        path = map_path(table.text("map"))
        given = {}
        if "settings" in table:
            inner = table.table("settings")
            secrets = {setting.name for setting in map_settings(path)[1] if setting.is_secret}
            for name, value in inner.values.items():
                if name in secrets or isinstance(value, dict):
                    given[name] = self._secret(inner, name)
                else:
                    given[name] = inner.text(name, "")
        if self._is_lenient:
            for setting in map_settings(path)[1]:
                if setting.is_secret and setting.default is None:
                    given.setdefault(setting.name, "https://hooks.example.com")
        by = read_delivery_map(path, given)
        pace = Pace(rates=by.rates, batch=by.batch, batch_bytes=by.batch_bytes, concurrency=8)
        if "batch" in table and by.batch == 1:
            raise table.error("batch", "this map sends one event a request", "leave it out")
        return HttpForm(by, headers), pace, by.takes


def _pace(table: TomlTable, default: Pace) -> Pace:
    def whole(name: str, value: int, high: int) -> int:
        return table.integer(name, 1, high) if name in table else value

    batch = whole("batch", default.batch, 100_000)
    concurrency = whole("concurrency", default.concurrency, 1000)
    in_flight = whole("in_flight", max(1000, 2 * batch * concurrency), 1_000_000)
    if in_flight < batch:
        raise table.error("in_flight", f"is less than a batch of {batch}", "raise it, or lower batch")
    return Pace(
        rates=read_rates(table, "rate") or default.rates,
        batch=batch,
        batch_bytes=whole("batch_bytes", default.batch_bytes, 1 << 30),
        concurrency=concurrency,
        in_flight=in_flight,
        coalesce="coalesce" in table and bool(table.choice("coalesce", ("latest",))),
        backoff=Backoff(
            _seconds(table, "retry_first", 0.5, low=0.001, high=3600),
            _seconds(table, "retry_max", 300.0, low=0.001, high=86_400),
        ),
    )


def _filter(table: TomlTable, takes: tuple[str, ...] | None) -> Filter:
    inner = table.table("filter") if "filter" in table else TomlTable({}, table.file, table.key("filter"))
    inner.allow(*_FILTERS)
    found = {}
    for name, kept in _FILTERS.items():
        if name in inner:
            words = inner.texts(name)
            for word in words:
                if name in _WORDS and word not in _WORDS[name]:
                    raise inner.error(name, f"{word!r} is not one of {', '.join(_WORDS[name])}")
            found[kept] = words
    if takes is not None:
        asked = found.get("events", takes)
        kept_events = tuple(one for one in asked if one in takes)
        if not kept_events:
            raise inner.error("events", f"the map takes {', '.join(takes)} alone", "name those")
        found["events"] = kept_events
    return Filter(**found)


def _guard(table: TomlTable) -> GuardConfig | None:
    if "guard" not in table:
        for name in ("guard_at_least", "guard_hold"):
            if name in table:
                raise table.error(name, "has no effect without a guard", 'set guard = "5%"')
        return None
    found = _PERCENT.fullmatch(table.text("guard"))
    if not found or not 0 < Fraction(found[1]) <= 100:
        raise table.error("guard", "is no share of the customers", 'write for example guard = "5%"')
    return GuardConfig(
        Fraction(found[1]) / 100,
        table.integer("guard_at_least", 0, 1 << 40) if "guard_at_least" in table else 0,
        _seconds(table, "guard_hold", 1.0, low=0, high=3600),
    )


def _seconds(table: TomlTable, name: str, default: float, *, low: float, high: float) -> float:
    if name not in table:
        return default
    found = _DURATION.fullmatch(table.text(name))
    if not found:
        raise table.error(name, "is no duration", 'write for example "500ms", "20s", "5m" or "1h"')
    seconds = float(found[1]) * _UNITS_S[found[2]]
    if not low <= seconds <= high:
        raise table.error(name, f"{seconds:g} s is out of range", f"write {low:g} s to {high:g} s")
    return seconds


def _headers(table: TomlTable) -> dict[str, str]:
    if "headers" not in table:
        return {}
    inner = table.table("headers")
    headers = {}
    for name in inner.values:
        text = inner.text(name)
        if not _HEADER.fullmatch(name) or not text.isprintable():
            raise inner.error(name, "is no header", "use the letters that headers may have")
        if name.lower() in ("authorization", "cookie", "proxy-authorization"):
            raise inner.error(name, "is a secret", "use a kind or a map that takes it from the environment")
        headers[name.lower()] = text
    return headers


def _check_url(table: TomlTable, url: str, *, is_private_allowed: bool) -> None:
    key = "url" if "url" in table else "map"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise table.error(key, f"{url!r} is no URL ({error})", "write https://host/path") from None
    if parts.scheme not in ("https", "http") or not host:
        raise table.error(key, f"{url!r} is no URL", "write https://host/path")
    if parts.username or parts.password:
        raise table.error(key, "holds a login", "put it where secrets are read from")
    if is_private_allowed:
        return
    if parts.scheme != "https":
        raise table.error(
            key, "is not encrypted", "write https://, or allow_private = true inside your own network"
        )
    address = literal(host)
    if host == "localhost" or (address is not None and not is_public(address)):
        raise table.error(
            key,
            f"{host} is no public address",
            "allow_private = true lets requests go inside your own network",
        )


def _listen(top: TomlTable) -> tuple[str, int] | None:
    text = top.text("listen", "127.0.0.1:8766")
    if text == "off":
        return None
    found = _LISTEN.fullmatch(text)
    if not found or int(found[2]) > 65535:
        raise top.error("listen", f"{text!r} is not host:port", "write for example 127.0.0.1:8766, or off")
    return found[1].strip("[]"), int(found[2])


def _level(top: TomlTable) -> Literal["debug", "info", "warning", "error"]:
    level = top.choice("log_level", ("debug", "info", "warning", "error"), "info")
    found: dict[str, Literal["debug", "info", "warning", "error"]] = {
        "debug": "debug",
        "info": "info",
        "warning": "warning",
        "error": "error",
    }
    return found[level]
