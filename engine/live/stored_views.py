"""The engines of a partition's state in a checkpoint's folder: one alone, or each view's in a folder of its own.

    <checkpoint>/manifest.json, *.arrow        a single ruleset for all orders: engine.core.checkpoint
    <checkpoint>/view-<number>/...             each view's, where there are several or one of some orders

What position.json says of them holds the digest of each manifest, which holds those of the data.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson
import xxhash

from rfmstream.engine.core.checkpoint.folder import MANIFEST
from rfmstream.engine.core.checkpoint.read import as_made, read_machine
from rfmstream.engine.core.engine import Engine
from rfmstream.engine.core.kernel_batch import Hashed
from rfmstream.engine.core.shard import new_seeds
from rfmstream.engine.core.view import ViewEngine
from rfmstream.engine.live.plain import is_plain
from rfmstream.engine.live.state import State
from rfmstream.schemas.errors import ConfigError, StateError
from rfmstream.schemas.plan import Plan, View, no_view
from rfmstream.schemas.ruleset import Ruleset, load_ruleset

_SELF: Final = "."


class ForeignError(StateError):
    """A whole checkpoint that is not ours to read."""


class _Saved(NamedTuple):
    """A view in a checkpoint.

    Fields  folder   within the checkpoint
            tiers    ids by code
            selects  see `schemas.plan.View.selects`
            digest   of its manifest
    """

    name: str
    folder: str
    tiers: list[str]
    selects: dict[str, Any]
    digest: str


def write_views(state: State, folder: Path) -> dict[str, Any]:
    """Write the engines of a state to a folder; return what is to be written down of them."""
    if state.is_plain:
        state.engine.checkpoint(folder)
        return {"tiers": _tiers(state.engine), "manifest_xxh3_128": _digest_of(folder)}
    told = []
    for number, of in enumerate(state.views):
        place = folder / f"view-{number}"
        of.engine.checkpoint(place)
        told.append(
            {
                "name": of.view.name,
                "folder": place.name,
                "tiers": _tiers(of.engine),
                **of.view.selects,
                "manifest_xxh3_128": _digest_of(place),
            }
        )
    return {"views": told}


def read_views(folder: Path, position: dict[str, Any], plan: Plan | None) -> Engine | State:
    """Return the engines in a folder, of the views that a plan names; None: of all, by built-in rulesets.

    In      position  what `write_views` returned, and more
    Errors  StateError    it is damaged
            ForeignError  it is of other views
    """
    saved = {each.name: each for each in _saved(folder, position)}
    manifests = {name: _manifest(folder / each.folder, each.digest) for name, each in saved.items()}
    if plan is None:
        plan = Plan(tuple(_view(each, manifests[name], None) for name, each in saved.items()))
    if is_plain(plan) and [each.folder for each in saved.values()] == [_SELF]:
        # A ruleset of another name may take over.
        [(name, each)] = saved.items()
        own = _as_made(manifests[name], each.tiers, plan.views[0].ruleset)
        return Engine.restore(folder, ruleset=own)
    there = [view for view in plan.views if view.name in saved]
    for view in there:
        if view.selects != saved[view.name].selects:
            raise ForeignError(
                f"view {view.name} was made from other events, or parts its customers otherwise",
                path=folder,
                fix="give the view another name, under which it begins anew",
            )
    if not there:
        raise ForeignError(
            f"the checkpoint is of the views {', '.join(saved)}, of which none is asked for",
            path=folder,
            fix="keep one of them, or begin with another app id and place for the checkpoints",
        )
    seeds, hashed = new_seeds(), Hashed()
    engines = []
    for view in there:
        each = saved[view.name]
        machine = read_machine(
            folder / each.folder,
            ruleset=_as_made(manifests[view.name], each.tiers, view.ruleset),
            view=view.name,
            seeds=seeds,
            # Views that are given the same batches share the hashes of their ids.
            hashed=None if view.attributes else hashed,
        )
        if (machine.populations is None) != (view.per is None):
            raise StateError("the checkpoint is damaged: populations are missing", path=folder)
        engines.append(ViewEngine(view, Engine.of(machine)))
    return State(engines)


def saved_view(folder: Path, position: dict[str, Any], name: str, ruleset: Ruleset | None) -> View:
    """Return a view as it is in a folder, by a ruleset; None: its own, a built-in one.

    Errors  ConfigError   there is no such view
            ForeignError  its ruleset is no built-in one
    """
    saved = {each.name: each for each in _saved(folder, position)}
    if name not in saved:
        raise no_view(name, saved)
    return _view(saved[name], _manifest(folder / saved[name].folder, saved[name].digest), ruleset)


def _view(each: _Saved, manifest: dict[str, Any], ruleset: Ruleset | None) -> View:
    where = tuple((column, tuple(values)) for column, values in each.selects["where"].items())
    return View(each.name, _as_made(manifest, each.tiers, ruleset), where, each.selects["per"])


def verify_views(folder: Path, position: dict[str, Any]) -> None:
    """Verify that the manifests in a folder are those of its position.

    Errors  StateError  one is damaged
    """
    for each in _saved(folder, position):
        _manifest(folder / each.folder, each.digest)


def _saved(folder: Path, position: dict[str, Any]) -> Iterator[_Saved]:
    """Yield what is written down of views; of a single ruleset, the view named after it."""
    if "views" in position:
        for view in position["views"]:
            selects = {"where": view["where"], "per": view["per"]}
            yield _Saved(view["name"], view["folder"], view["tiers"], selects, view["manifest_xxh3_128"])
        return
    digest = position["manifest_xxh3_128"]
    name = _manifest(folder, digest)["ruleset_name"]
    yield _Saved(name, _SELF, position["tiers"], {"where": {}, "per": None}, digest)


def _manifest(folder: Path, digest: str) -> dict[str, Any]:
    whole = (folder / MANIFEST).read_bytes()
    if xxhash.xxh3_128_hexdigest(whole) != digest:
        raise StateError(f"{MANIFEST} is damaged", path=folder)
    manifest: dict[str, Any] = orjson.loads(whole)["manifest"]
    return manifest


def _digest_of(folder: Path) -> str:
    return xxhash.xxh3_128_hexdigest((folder / MANIFEST).read_bytes())


def _tiers(engine: Engine) -> list[str]:
    return [tier.id for tier in engine.ruleset.tiers]


def _as_made(manifest: dict[str, Any], tiers: Iterable[str], ruleset: Ruleset | None) -> Ruleset:
    """Return the ruleset to read a checkpoint with."""
    made_by = manifest["ruleset"], manifest["fingerprint"]
    decided_by = manifest.get("tier_fingerprint", manifest["fingerprint"])
    if ruleset is None:
        name, zone, currency = (manifest[key] for key in ("ruleset_name", "time_zone", "currency"))
        with suppress(ConfigError):
            ruleset = load_ruleset(name, time_zone=zone, currency=currency)
        if ruleset is None or (ruleset.identity, ruleset.tier_fingerprint) != (made_by[0], decided_by):
            raise ForeignError(
                f"the checkpoint's ruleset {manifest['ruleset']} is not a built-in one",
                fix="name its file with the ruleset option",
            )
    if (ruleset.identity, ruleset.tier_fingerprint) == (made_by[0], decided_by):
        # It may ask for other signals than before.
        return ruleset
    return as_made(manifest, tiers, ruleset)
