"""The manifest of a checkpoint: which files belong to it, what they are of, and in which version they are written."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Final

import orjson
import xxhash

from rfmstream.engine.core.checkpoint.columns import FIX_DAMAGE
from rfmstream.engine.core.checkpoint.folder import MANIFEST, OWN_FILE, OWN_FOLDER, has_checkpoint
from rfmstream.engine.core.counters import Counters
from rfmstream.engine.core.machine import Machine, Mode
from rfmstream.engine.core.shard import Shard
from rfmstream.kernels import layout
from rfmstream.schemas.changes import MODES
from rfmstream.schemas.codes import FOREVER_US, NEVER_US
from rfmstream.schemas.errors import StateError
from rfmstream.schemas.plan import no_view
from rfmstream.schemas.ruleset import Ruleset

FORMAT: Final = "rfmstream-checkpoint"
VIEWS_FORMAT: Final = "rfmstream-views"
VERSION: Final = 4
"""The newest that is written; every version from 1 on is read. Version 2 has the columns of EXTRA, where there are any;
version 3 has populations, and is written where there are some; version 4 says from which date on orders are known, and
is written where some are forgotten."""
_WITH_POPULATIONS: Final = 3
_WITHOUT_POPULATIONS: Final = 2
_TEXTS: Final = ("ruleset", "ruleset_name", "fingerprint", "tier_fingerprint", "time_zone", "currency")
_INDENT: Final = orjson.OPT_INDENT_2


def describe(
    machine: Machine, files: list[dict[str, Any]], populations: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return the manifest of a machine's state that was written to files.

    populations  the file of those, if there are some
    """
    shards = [times_of(shard) for shard in machine.shards]
    manifest = describe_shards(machine.ruleset, machine.mode, machine.counters, shards, files)
    if populations is not None:
        manifest["populations"] = populations
        manifest["version"] = max(manifest["version"], _WITH_POPULATIONS)
    return manifest


def describe_shards(
    ruleset: Ruleset,
    mode: Mode,
    counters: Counters,
    shards: Sequence["ShardTimes"],
    files: list[dict[str, Any]],
) -> dict[str, Any]:
    """Return the manifest of shards that were written to files, two a shard."""
    forgets = any(shard.known_us != NEVER_US for shard in shards)
    return {
        "format": FORMAT,
        "version": VERSION if forgets else _WITHOUT_POPULATIONS,
        "ruleset": ruleset.identity,
        "ruleset_name": ruleset.name,
        "fingerprint": ruleset.fingerprint,
        "tier_fingerprint": ruleset.tier_fingerprint or ruleset.fingerprint,
        "time_zone": ruleset.time_zone,
        "currency": ruleset.currency,
        "tiers": [tier.id for tier in ruleset.tiers],
        "mode": mode,
        "has_extras": any(shard.has_extras for shard in shards),
        "clock_us": max(shard.clock_us for shard in shards),
        "counters": asdict(counters),
        "shards": [shard.as_dict() for shard in shards],
        "files": files,
    }


@dataclass(frozen=True)
class ShardTimes:
    """What a manifest says of a shard beside its files.

    Fields  clock_us   its clock
            wheel_key  where its calendar queue stands
            known_us   what is dated before it is forgotten; NEVER_US: nothing is, which is not written
    """

    clock_us: int
    wheel_key: int
    has_extras: bool
    known_us: int

    def as_dict(self) -> dict[str, int]:
        """Return it as it is written."""
        known = {} if self.known_us == NEVER_US else {"known_us": self.known_us}
        return {"clock_us": self.clock_us, "wheel_key": self.wheel_key, **known}


def times_of(shard: Shard) -> ShardTimes:
    """Return what the manifest says of a shard."""
    return ShardTimes(shard.clock_us, shard.state.row.wheel_key, shard.has_extras, shard.known_us)


def sealed(manifest: dict[str, Any]) -> bytes:
    """Return a manifest and its checksum as they are written."""
    return orjson.dumps({"xxh3_128": digest_of(manifest), "manifest": manifest}, option=_INDENT)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a directory, as the newest version would have written it.

    Raises  StateError where there is none, or it is damaged or of a version that this program does not know
    """
    path = folder / MANIFEST
    whole = _read_whole(folder)
    manifest: dict[str, Any] = whole["manifest"]
    if manifest.get("format") == VIEWS_FORMAT:
        names = ", ".join(view["name"] for view in read_views_manifest(folder)["views"])
        raise StateError(f"holds the views {names}", path=folder, fix="name one of them as the view")
    if manifest.get("format") != FORMAT:
        raise StateError("this is not a checkpoint's manifest", path=path)
    version = manifest.get("version")
    if type(version) is not int or not 1 <= version <= VERSION:
        raise StateError(
            f"the checkpoint has format version {version}, this program reads 1 to {VERSION}",
            path=path,
            fix="use the version of rfmstream that wrote it, or a newer one",
        )
    if whole.get("xxh3_128") != digest_of(manifest):
        raise StateError(
            "the checkpoint is damaged: its manifest's checksum differs", path=path, fix=FIX_DAMAGE
        )
    if version == 1:  # nothing was asked for but tiers
        manifest = {**manifest, "tier_fingerprint": manifest.get("fingerprint"), "has_extras": False}
    if not _is_sound(manifest):
        raise StateError("the manifest is none that rfmstream writes", path=path, fix=FIX_DAMAGE)
    return manifest


def known_from(shard: dict[str, int]) -> int:
    """Return from which date on orders are known in a shard of a manifest; NEVER_US: all are."""
    return shard.get("known_us", NEVER_US)


def is_of_views(folder: Path) -> bool:
    """Tell whether a directory holds a checkpoint of several views."""
    try:
        return has_checkpoint(folder) and _read_whole(folder)["manifest"].get("format") == VIEWS_FORMAT
    except StateError:  # told where it is read
        return False


def read_views_manifest(folder: Path) -> dict[str, Any]:
    """Return what a checkpoint of several views says of them.

    Raises  StateError where it is damaged, or of a version that this program does not know
    """
    path = folder / MANIFEST
    whole = _read_whole(folder)
    manifest: dict[str, Any] = whole["manifest"]
    if manifest.get("version") != 1:
        raise StateError(
            f"the checkpoint of views has format version {manifest.get('version')}, this program reads 1",
            path=path,
            fix="use the version of rfmstream that wrote it, or a newer one",
        )
    if whole.get("xxh3_128") != digest_of(manifest):
        raise StateError(
            "the checkpoint is damaged: its manifest's checksum differs", path=path, fix=FIX_DAMAGE
        )
    if not _names_views(manifest):
        raise StateError("the manifest is none that rfmstream writes", path=path, fix=FIX_DAMAGE)
    return manifest


def place_of_view(folder: Path, name: str | None) -> tuple[str, Path]:
    """Return the name and the folder of one of a checkpoint's views; None: the only one.

    Raises  ConfigError where there are several, or it is none of them
    """
    views = read_views_manifest(folder)["views"]
    names = [str(view["name"]) for view in views]
    if name is None and len(views) == 1:
        name = names[0]
    if name is None or name not in names:
        raise no_view(name, names, where=str(folder))
    return name, folder / str(views[names.index(name)]["folder"])


def _names_views(manifest: dict[str, Any]) -> bool:
    try:
        return bool(manifest["views"]) and all(
            isinstance(view["name"], str)
            and OWN_FOLDER.fullmatch(view["folder"])
            and isinstance(view["where"], dict)
            and isinstance(view["per"], str | None)
            and type(view["shadow"]) is bool
            for view in manifest["views"]
        )
    except (KeyError, TypeError):
        return False


def _read_whole(folder: Path) -> dict[str, Any]:
    """Return a manifest and its checksum as they stand."""
    path = folder / MANIFEST
    try:
        whole = orjson.loads(path.read_bytes())
    except OSError as error:
        raise StateError(
            "there is no checkpoint here", path=folder, fix="name the directory of replay --checkpoint"
        ) from error
    except orjson.JSONDecodeError as error:
        raise StateError("this is not a checkpoint's manifest", path=path) from error
    if not isinstance(whole, dict) or not isinstance(whole.get("manifest"), dict):
        raise StateError("this is not a checkpoint's manifest", path=path)
    return whole


def _is_sound(manifest: dict[str, Any]) -> bool:
    """Tell whether a manifest is such as is written, and asks for no more memory than its files have bytes."""

    def is_within(value: object, low: int, high: int) -> bool:
        return type(value) is int and low <= value <= high

    try:
        shards, files = manifest["shards"], manifest["files"]
        all_files = [*files, *([manifest["populations"]] if "populations" in manifest else [])]
        counters = asdict(Counters(**manifest["counters"]))
        by_word = [counters.pop(name).values() for name in ("rejected", "changes", "signals")]
        counts = [*chain.from_iterable(by_word), *counters.values()]
        return (
            all(isinstance(manifest[name], str) for name in _TEXTS)
            and manifest["mode"] in MODES
            and type(manifest["has_extras"]) is bool
            and _are_texts(manifest.get("tiers", []))
            and 0 < len(shards) == len(files) / 2
            and all(is_within(count, 0, 2**63 - 1) for count in counts)
            and all(is_within(shard["clock_us"], NEVER_US, FOREVER_US) for shard in shards)
            and all(is_within(known_from(shard), NEVER_US, FOREVER_US) for shard in shards)
            and all(is_within(shard["wheel_key"], 0, layout.WHEEL_KEY_MAX) for shard in shards)
            and all(
                OWN_FILE.fullmatch(file["name"]) and isinstance(file["xxh3_128"], str) for file in all_files
            )
            and all(
                is_within(file[size], 0, file["bytes"]) for file in all_files for size in ("rows", "id_bytes")
            )
        )
    except (AttributeError, KeyError, TypeError):
        return False


def _are_texts(values: object) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def digest_of(content: object) -> str:
    """Return the checksum of what is written as JSON, whatever the order of its keys."""
    return xxhash.xxh3_128_hexdigest(orjson.dumps(content, option=orjson.OPT_SORT_KEYS))
