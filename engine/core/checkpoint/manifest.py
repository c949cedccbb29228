"""The manifest of a checkpoint: which files belong to it, what they are of, and in which version they are written."""

from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any, Final

import orjson
import xxhash

from rfmstream.engine.core.checkpoint.columns import FIX_DAMAGE
from rfmstream.engine.core.checkpoint.folder import MANIFEST, OWN_FILE
from rfmstream.engine.core.counters import Counters
from rfmstream.engine.core.machine import Machine
from rfmstream.kernels import layout
from rfmstream.schemas.changes import MODES
from rfmstream.schemas.codes import FOREVER_US, NEVER_US
from rfmstream.schemas.errors import StateError

FORMAT: Final = "rfmstream-checkpoint"
VERSION: Final = 3
"""The newest that is written; every version from 1 on is read. Version 2 has the columns of EXTRA, where there are any;
version 3 has populations, and is written where there are some."""
_WITHOUT_POPULATIONS: Final = 2
_TEXTS: Final = ("ruleset", "ruleset_name", "fingerprint", "tier_fingerprint", "time_zone", "currency")
_INDENT: Final = orjson.OPT_INDENT_2


def describe(
    machine: Machine, files: list[dict[str, Any]], populations: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return the manifest of a machine's state that was written to files."""
    parted = {} if populations is None else {"populations": populations}
    return parted | {
        "format": FORMAT,
        "version": VERSION if parted else _WITHOUT_POPULATIONS,
        "ruleset": machine.ruleset.identity,
        "ruleset_name": machine.ruleset.name,
        "fingerprint": machine.ruleset.fingerprint,
        "tier_fingerprint": machine.ruleset.tier_fingerprint or machine.ruleset.fingerprint,
        "time_zone": machine.ruleset.time_zone,
        "currency": machine.ruleset.currency,
        "mode": machine.mode,
        "has_extras": machine.shards[0].has_extras,
        "clock_us": machine.clock_us,
        "counters": asdict(machine.counters),
        "shards": [
            {"clock_us": shard.clock_us, "wheel_key": int(shard.state.row.wheel_key)}
            for shard in machine.shards
        ],
        "files": files,
    }


def sealed(manifest: dict[str, Any]) -> bytes:
    """Return a manifest and its checksum as they are written."""
    return orjson.dumps({"xxh3_128": _digest(manifest), "manifest": manifest}, option=_INDENT)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a directory, as the newest version would have written it.

    Raises  StateError where there is none, or it is damaged or of a version that this program does not know
    """
    path = folder / MANIFEST
    try:
        whole = orjson.loads(path.read_bytes())
    except OSError as error:
        raise StateError("there is no checkpoint here", path=folder) from error
    except orjson.JSONDecodeError as error:
        raise StateError("this is not a checkpoint's manifest", path=path) from error
    manifest: dict[str, Any] | None = whole.get("manifest") if isinstance(whole, dict) else None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise StateError("this is not a checkpoint's manifest", path=path)
    version = manifest.get("version")
    if type(version) is not int or not 1 <= version <= VERSION:
        raise StateError(
            f"the checkpoint has format version {version}, this program reads 1 to {VERSION}",
            path=path,
            fix="use the version of rfmstream that wrote it, or a newer one",
        )
    if whole.get("xxh3_128") != _digest(manifest):
        raise StateError(
            "the checkpoint is damaged: its manifest's checksum differs", path=path, fix=FIX_DAMAGE
        )
    if version == 1:  # nothing was asked for but tiers
        manifest = {**manifest, "tier_fingerprint": manifest.get("fingerprint"), "has_extras": False}
    if not _is_sound(manifest):
        raise StateError("the manifest is none that rfmstream writes", path=path, fix=FIX_DAMAGE)
    return manifest


def _is_sound(manifest: dict[str, Any]) -> bool:
    """Tell whether a manifest is such as is written, and asks for no more memory than its files have bytes."""

    def is_within(value: object, low: int, high: int) -> bool:
        return type(value) is int and low <= value <= high

    try:
        shards, files = manifest["shards"], manifest["files"]
        of_views = [manifest["populations"]] if "populations" in manifest else []
        counters = asdict(Counters(**manifest["counters"]))
        by_word = [counters.pop(name).values() for name in ("rejected", "changes", "signals")]
        counts = [*chain.from_iterable(by_word), *counters.values()]
        return (
            all(isinstance(manifest[name], str) for name in _TEXTS)
            and manifest["mode"] in MODES
            and type(manifest["has_extras"]) is bool
            and 0 < len(shards) == len(files) / 2
            and all(is_within(count, 0, 2**63 - 1) for count in counts)
            and all(is_within(shard["clock_us"], NEVER_US, FOREVER_US) for shard in shards)
            and all(is_within(shard["wheel_key"], 0, layout.WHEEL_KEY_MAX) for shard in shards)
            and all(
                OWN_FILE.fullmatch(file["name"]) and isinstance(file["xxh3_128"], str)
                for file in [*files, *of_views]
            )
            and all(
                is_within(file[size], 0, file["bytes"])
                for file in [*files, *of_views]
                for size in ("rows", "id_bytes")
            )
        )
    except (AttributeError, KeyError, TypeError):
        return False


def _digest(manifest: dict[str, Any]) -> str:
    return xxhash.xxh3_128_hexdigest(orjson.dumps(manifest, option=orjson.OPT_SORT_KEYS))
