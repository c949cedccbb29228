"""Which decoder reads a worker's records: that of plain orders, or one that goes by an input map.

Views that count in several currencies, or whose days begin in several time zones, read records differently: each way of
reading has a decoder.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rfmstream.engine.files.mapping import load_map
from rfmstream.engine.live.config import WorkerConfig
from rfmstream.engine.live.decode import Decoder
from rfmstream.engine.live.mapped import MappedDecoder
from rfmstream.engine.live.model import LogBatch, RawRecords
from rfmstream.engine.live.options import Decodes
from rfmstream.engine.live.registry import Registry
from rfmstream.schemas.plan import Plan


class ViewsDecoder:
    """Decodes records in several ways.

    In      decoders  by currency and time zone
    """

    def __init__(self, decoders: Mapping[tuple[str, str], Decodes]) -> None:
        self._decoders = list(decoders.items())

    def check_keys(self) -> None:
        """Let the first of them warn where keys are not the customers' ids."""
        check_keys(self._decoders[0][1])

    @property
    def blocks(self) -> bool:
        """Whether it may wait for others."""
        return any(decoder.blocks for _, decoder in self._decoders)

    def decode(self, records: RawRecords) -> LogBatch:
        """Return the orders of records as the first decoder reads them, with what the others read in `others`."""
        [(reading, first), *others] = self._decoders
        batch = replace(first.decode(records), reading=reading)
        # As many records as the first could unpack together.
        return replace(
            batch,
            others=tuple(replace(other.decode(batch.records), reading=by) for by, other in others),
        )


def check_keys(decoder: Decodes) -> None:
    """Let a decoder that goes by a map warn where keys are not the customers' ids: there are several partitions."""
    if isinstance(decoder, ViewsDecoder):
        decoder.check_keys()
    elif isinstance(decoder, MappedDecoder):
        decoder.checks_keys = True


def recipe_of(config: WorkerConfig) -> dict[str, Any]:
    """Return what a decoder is made of, as JSON can hold it: another process makes the same."""
    readings = _readings(config.plan)
    return {
        "currency": readings[0][0],
        "time_zone": readings[0][1],
        "record_bytes_max": config.record_bytes_max,
        "readings": readings,
        "map": None if config.input_map is None else config.input_map.path,
        "schema_registry": config.schema_registry,
        "schema_registry_auth": config.schema_registry_auth,
    }


def decoder_of(recipe: Mapping[str, Any]) -> Decodes:
    """Return a decoder.

    Errors  ConfigError  a map that is not there any more, or is for files
    """
    readings = recipe.get("readings") or [[recipe["currency"], recipe.get("time_zone", "UTC"), []]]
    decoders = {
        (currency, zone): _decoder(recipe, currency, zone, names) for currency, zone, names in readings
    }
    return ViewsDecoder(decoders) if len(decoders) > 1 else next(iter(decoders.values()))


def decoder_for(plan: Plan) -> Decodes:
    """Return what decodes plain orders for a plan's views."""
    currency, zone, _ = _readings(plan)[0]
    return decoder_of({"currency": currency, "time_zone": zone, "readings": _readings(plan)})


def _readings(plan: Plan) -> list[list[Any]]:
    """Return each currency and time zone that views read records by, and the attributes that they look at."""
    found: dict[tuple[str, str], dict[str, None]] = {}
    for view in plan.views:
        names = found.setdefault((view.ruleset.currency, view.ruleset.time_zone), {})
        names.update(dict.fromkeys(view.attributes))
    return [[currency, zone, list(names)] for (currency, zone), names in found.items()]


def _decoder(recipe: Mapping[str, Any], currency: str, time_zone: str, attributes: Sequence[str]) -> Decodes:
    plain: dict[str, Any] = {"currency": currency, "time_zone": time_zone, "attributes": attributes}
    if "record_bytes_max" in recipe:
        plain["record_bytes_max"] = recipe["record_bytes_max"]
    if recipe.get("map") is None:
        return Decoder(**plain)
    url = recipe.get("schema_registry")
    registry = None if url is None else Registry(url, recipe.get("schema_registry_auth"))
    return MappedDecoder(load_map(recipe["map"]), registry=registry, **plain)
