"""Which decoder reads a worker's records: that of plain orders, or one that goes by an input map."""

from collections.abc import Mapping
from typing import Any

from rfmstream.engine.files.mapping import load_map
from rfmstream.engine.live.config import WorkerConfig
from rfmstream.engine.live.decode import Decoder
from rfmstream.engine.live.mapped import MappedDecoder
from rfmstream.engine.live.options import Decodes
from rfmstream.engine.live.registry import Registry


def recipe_of(config: WorkerConfig) -> dict[str, Any]:
    """Return what a decoder is made of, as JSON can hold it: another process makes the same."""
    return {
        "currency": config.ruleset.currency,
        "time_zone": config.ruleset.time_zone,
        "record_bytes_max": config.record_bytes_max,
        "map": None if config.input_map is None else config.input_map.path,
        "schema_registry": config.schema_registry,
        "schema_registry_auth": config.schema_registry_auth,
    }


def decoder_of(recipe: Mapping[str, Any]) -> Decodes:
    """Return a decoder.

    Errors  ConfigError  a map that is not there any more, or is for files
    """
    plain = {name: recipe[name] for name in ("currency", "time_zone", "record_bytes_max") if name in recipe}
    if recipe.get("map") is None:
        return Decoder(**plain)
    url = recipe.get("schema_registry")
    registry = None if url is None else Registry(url, recipe.get("schema_registry_auth"))
    return MappedDecoder(load_map(recipe["map"]), registry=registry, **plain)
