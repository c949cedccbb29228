"""The states of several views in one directory: a folder a view, each a machine's checkpoint, and a manifest of all.

The folders of a new checkpoint get new names; all of it becomes the present one when its manifest is renamed over the
old one. A view's folder is what `checkpoint.write` writes of a machine alone.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rfmstream.engine.core.checkpoint.created import create
from rfmstream.engine.core.checkpoint.folder import (
    FIRST,
    MANIFEST,
    alone,
    files_of,
    has_checkpoint,
    next_generation,
    remove,
    sync,
    sync_folder,
    writing,
)
from rfmstream.engine.core.checkpoint.manifest import (
    VIEWS_FORMAT,
    is_of_views,
    read_manifest,
    read_views_manifest,
    sealed,
)
from rfmstream.engine.core.checkpoint.read import decides_alike, own_ruleset, read_machine, taken_over
from rfmstream.engine.core.checkpoint.write import write_checkpoint
from rfmstream.engine.core.machine import Machine
from rfmstream.schemas.errors import StateError
from rfmstream.schemas.plan import Plan, View

_VERSION: Final = 1


@dataclass(frozen=True)
class SavedView:
    """What a checkpoint says of a view.

    Fields  folder   of its machine
            selects  which events are whose: `View.selects`
    """

    folder: Path
    selects: dict[str, Any]
    shadow: bool


def write_views(parts: Sequence[tuple[View, Machine]], directory: str | os.PathLike[str]) -> None:
    """Write the states of views; the checkpoint that was in the directory, of views or of one engine, is replaced.

    Raises  StateError where the directory holds something else or cannot be written
    """
    folder = Path(directory)
    with writing(folder):
        files_of(folder)  # what is not ours is refused before anything is made
        with alone(folder):
            old = files_of(folder)
            generation = next_generation(old)
            written: list[Path] = []
            try:
                folder.mkdir(parents=True, exist_ok=True)
                if not has_checkpoint(folder) and FIRST not in old:
                    written.append(folder / FIRST)
                    written[-1].touch()
                told = []
                for number, (view, machine) in enumerate(parts):
                    place = folder / f"{generation}-{number}"
                    written.append(place)
                    write_checkpoint(machine, place)
                    told.append(
                        {
                            "name": view.name,
                            "folder": place.name,
                            "ruleset": machine.ruleset.identity,
                            **view.selects,
                            "shadow": view.shadow,
                        }
                    )
                written.append(folder / f"{generation}-{MANIFEST}")
                create(written[-1], like=folder / MANIFEST)
                with written[-1].open("wb") as file:
                    file.write(sealed({"format": VIEWS_FORMAT, "version": _VERSION, "views": told}))
                    sync(file)
                sync_folder(folder)
                written.pop().replace(folder / MANIFEST)
                written.clear()  # they are the checkpoint now
                sync_folder(folder)
            except BaseException:
                for path in written:
                    remove(path)
                raise
            # Whatever happens from here on leaves files too many, which the next checkpoint removes.
            for left in (*old, FIRST):
                remove(folder / left)


def saved_views(directory: str | os.PathLike[str]) -> dict[str, SavedView]:
    """Return what a checkpoint says of its views, by name. That of one engine is of the view named as its ruleset."""
    folder = Path(directory)
    if is_of_views(folder):
        return {
            view["name"]: SavedView(
                folder / view["folder"], {"where": view["where"], "per": view["per"]}, view["shadow"]
            )
            for view in read_views_manifest(folder)["views"]
        }
    manifest = read_manifest(folder)
    return {manifest["ruleset_name"]: SavedView(folder, {"where": {}, "per": None}, shadow=False)}


def saved_plan(directory: str | os.PathLike[str], saved: dict[str, SavedView]) -> Plan:
    """Return the plan that a checkpoint was made by.

    Errors  StateError  a ruleset of it is not a built-in one
    """
    return Plan(
        tuple(
            View(
                name,
                own_ruleset(read_manifest(view.folder), None, Path(directory), view=name),
                tuple((column, tuple(values)) for column, values in view.selects["where"].items()),
                view.selects["per"],
                view.shadow,
            )
            for name, view in saved.items()
        )
    )


def read_view(
    directory: str | os.PathLike[str],
    view: View,
    saved: SavedView,
    *,
    threads: int | None,
    takes_over: bool = False,
    **options: Any,  # noqa: ANN401 - `seeds` and `hashed` of the machine
) -> tuple[Machine, bool]:
    """Return the machine of a view, and whether it has to be resegmented before it moves: another ruleset takes over.

    In      takes_over  let it
    Errors  StateError  it was made with other events or another ruleset, or is damaged
    """
    if saved.selects != view.selects:
        raise StateError(
            f"the checkpoint's view {view.name} was made with {_shown(saved.selects)}, not with {_shown(view.selects)}",
            path=directory,
            fix="give the view another name, under which it begins anew, or name another directory",
        )
    manifest, ruleset = read_manifest(saved.folder), view.ruleset
    is_other = takes_over and not decides_alike(manifest, ruleset)
    if is_other:
        ruleset = taken_over(manifest, ruleset, saved.folder)
    else:
        own_ruleset(manifest, ruleset, Path(directory), view=view.name)
    machine = read_machine(saved.folder, ruleset=ruleset, threads=threads, view=view.name, **options)
    if (machine.populations is None) != (view.per is None):
        raise StateError("the checkpoint is damaged: populations are missing", path=saved.folder)
    return machine, is_other


def _shown(selects: dict[str, Any]) -> str:
    where = " and ".join(f"{name} in {', '.join(values)}" for name, values in selects["where"].items())
    parts = [f"where {where}"] if where else []
    parts += [f"per {selects['per']}"] if selects["per"] is not None else []
    return " ".join(parts) or "all events"
