"""Stores the checkpoints of partitions in a folder, or at a URI that pyarrow.fs reaches (s3, gs, hdfs ...).

    <root>/<topic>-<partition>/<offset>-<sequence>/   manifest.json, *.arrow   engine.core.checkpoint
                                                      position.json            which point of which log this is
    <root>/<topic>-<partition>/running.json           a worker has the partition, or died with it: see `Note`

A checkpoint exists once its position.json does. On a local disk the whole folder is written under another name and
renamed; elsewhere position.json is written last. It holds a digest of itself and of the manifest, and the manifest
holds the digests of the data. A checkpoint that is not whole is passed over; from an older one the worker replays
more records.
"""

import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote
from uuid import uuid4

import orjson
import pyarrow as pa
from pyarrow import fs

from rfmstream.engine.core.checkpoint.folder import locked, sync_folder
from rfmstream.engine.core.checkpoint.manifest import digest_of
from rfmstream.engine.core.engine import Engine
from rfmstream.engine.live.model import Source
from rfmstream.engine.live.state import State
from rfmstream.engine.live.stored import LoadedCheckpoint, Note, SavedCheckpoint, StoredCheckpoint
from rfmstream.engine.live.stored_views import (
    ForeignError,
    read_views,
    saved_view,
    verify_views,
    write_views,
)
from rfmstream.schemas.errors import StateError, TransportError
from rfmstream.schemas.plan import Plan, plan_of
from rfmstream.schemas.ruleset import Ruleset
from rfmstream.schemas.secrets import MASK, masked

POSITION: Final = "position.json"
RUNNING: Final = "running.json"
FORMAT: Final = "rfmstream-position"
VERSION: Final = 1

_NAME: Final = re.compile(r"(\d{20})-(\d{6,})")
_SOURCE: Final = re.compile(r"(.+)-(\d+)")
_BESIDE: Final = ".writing-"
_FIX_ROOT: Final = "name a folder or URI that can be read and written, on a disk with room"
_log = logging.getLogger(__name__)


class Store:
    """The checkpoints of one application.

    In      uri     a folder, or a URI of pyarrow.fs
            app_id  the consumer group: what another one left here is refused
            keep    how many checkpoints of a partition are kept
    Errors  StateError, of every method: it cannot be read or written
    """

    def __init__(self, uri: str, *, app_id: str, keep: int = 3) -> None:
        self._uri = uri
        self._app_id = app_id
        self._keep = max(keep, 1)
        with _talking(uri):
            self._fs, root = fs.FileSystem.from_uri(uri if "://" in uri else Path(uri).absolute())
        self._root = root.rstrip("/")
        self._is_local = isinstance(self._fs, fs.LocalFileSystem)

    @property
    def place(self) -> str:
        """Where they are, as people are told: without credentials."""
        return self._root if self._is_local else masked(self._uri)

    def check(self) -> None:
        """Write a file to the root and remove it again."""
        path = f"{self._root}/{_BESIDE}{uuid4().hex}"
        with _talking(self._uri):
            self._fs.create_dir(self._root, recursive=True)
            with self._fs.open_output_stream(path) as file:
                file.write(b"rfmstream")
            self._fs.delete_file(path)

    def sources(self) -> list[Source]:
        """Return the partitions that have a checkpoint here, whole or not."""
        found = []
        for name in self._folders(self._root):
            match = _SOURCE.fullmatch(name)
            if match and self._names(Source(match[1], int(match[2]))):
                found.append(Source(match[1], int(match[2])))
        return sorted(found)

    def save(  # noqa: PLR0913 - all that is written down
        self,
        source: Source,
        held: Engine | State,
        offset: int,
        law: str,
        mark: int = 0,
        *,
        topic_id: str | None = None,
        placements: Sequence[int] = (),
        erasures: Sequence[Sequence[int]] = (),
        came_to_us: int | None = None,
    ) -> SavedCheckpoint:
        """Write a checkpoint and drop those that are too old. The state must not move meanwhile: see `frozen`."""
        folder, state = self._folder(source), State.of(held)
        with _talking(self._uri):
            self._fs.create_dir(folder, recursive=True)
            with self._written(folder) as written:
                told = write_views(state, written)
                size = sum(path.stat().st_size for path in written.rglob("*") if path.is_file())
                position = {
                    "format": FORMAT,
                    "version": VERSION,
                    "app_id": self._app_id,
                    "topic": source.topic,
                    "partition": source.partition,
                    "offset": offset,
                    "clock_us": state.clock_us if came_to_us is None else came_to_us,
                    "law": law,
                    "mark": mark,
                    "topic_id": topic_id,
                    "placements": list(placements),
                    "erasures": list(map(list, erasures)),
                    **told,
                }
                whole = orjson.dumps(
                    {"xxh3_128": digest_of(position), "position": position}, option=orjson.OPT_INDENT_2
                )
                name = self._publish(written, folder, offset, whole)
            self._prune(source)
            oldest = self._offset_of(self._names(source)[0])
        return SavedCheckpoint(name, offset, size + len(whole), oldest)

    def load(
        self,
        source: Source,
        not_after: int | None = None,
        ruleset: Ruleset | Plan | None = None,
        *,
        view: str | None = None,
    ) -> LoadedCheckpoint | None:
        """Return the newest whole checkpoint at an offset that is not after `not_after`; None: there is none.

        In      not_after  None: any offset
                ruleset    to go on with, or a plan of views, see LoadedCheckpoint; None: the checkpoint's own, built-in
                view       only this one, whatever its events are; None: all, or those of the plan
        Errors  StateError      also: it belongs to another application, or to another version's format
                TransportError  it is there but cannot be read now
        """
        names = self._names(source)
        for name in reversed(names):
            if not_after is not None and self._offset_of(name) > not_after:
                continue
            path = f"{self._folder(source)}/{name}"
            try:
                return self._load(source, path, name, ruleset, view)
            except ForeignError:
                raise
            except (StateError, FileNotFoundError, ValueError, pa.ArrowInvalid) as error:
                _log.warning("checkpoint passed over", extra={"path": path, "reason": str(error)})
            except OSError as error:
                if not self._is_local:  # it may well be whole
                    raise TransportError("a checkpoint cannot be read", endpoint=path) from error
                _log.warning("checkpoint passed over", extra={"path": path, "reason": str(error)})
        return None

    def noted(self, source: Source) -> Note:
        """Return what is noted of a partition; what cannot be read is as if it were not there."""
        try:
            found = orjson.loads(self._read(f"{self._folder(source)}/{RUNNING}"))
            return Note(found["is_running"] is True, tuple(map(int, found["poison"])))
        except FileNotFoundError:
            return Note()
        except (OSError, ValueError, TypeError, KeyError, pa.ArrowException) as error:
            _log.warning("a note cannot be read", extra={"partition": str(source), "reason": str(error)})
            return Note()

    def note(self, source: Source, note: Note) -> None:
        """Write that down; a failure is logged, as everything goes on without it."""
        path = f"{self._folder(source)}/{RUNNING}"
        try:
            if note == Note():
                with suppress(FileNotFoundError):
                    self._fs.delete_file(path)
                return
            self._fs.create_dir(self._folder(source), recursive=True)
            whole = orjson.dumps({"is_running": note.is_running, "poison": note.poison})
            beside = f"{path}.{uuid4().hex}" if self._is_local else path
            with self._fs.open_output_stream(beside) as file:
                file.write(whole)
            if self._is_local:
                self._fs.move(beside, path)
        except (OSError, pa.ArrowException) as error:
            _log.warning("a note cannot be written", extra={"partition": str(source), "reason": str(error)})

    def discard(self, source: Source, keep: str | None = None) -> None:
        """Drop all checkpoints of a partition; all but one of a name."""
        with _talking(self._uri):
            for name in self._names(source):
                if name == keep:
                    continue
                self._fs.delete_dir(f"{self._folder(source)}/{name}")

    def drop_until(self, source: Source, offset: int) -> int | None:
        """Drop the checkpoints up to an offset if there is one behind it, and what was left half written.

        Returns the offset of the oldest one that is there now; None: there is none
        """
        with _talking(self._uri):
            names = self._names(source)
            newer = [name for name in names if self._offset_of(name) > offset]
            for name in names if newer else ():
                if name not in newer:
                    self._fs.delete_dir(f"{self._folder(source)}/{name}")
            self._drop_left(source)
        return min(map(self._offset_of, newer or names), default=None)

    def drop(self, source: Source, names: Iterable[str]) -> None:
        """Drop checkpoints of a partition by their names, the oldest first."""
        with _talking(self._uri):
            for name in sorted(names):
                self._fs.delete_dir(f"{self._folder(source)}/{name}")

    def stored(self, source: Source) -> list[StoredCheckpoint]:
        """Return the checkpoints of a partition, of whichever app, oldest first; those of no whole position lack."""
        found = []
        for name in self._names(source):
            path = f"{self._folder(source)}/{name}"
            try:
                position = self._position(path)
                infos = self._fs.get_file_info(fs.FileSelector(path, recursive=True))
            except (StateError, OSError, ValueError):
                continue
            size = sum(info.size or 0 for info in infos)
            times = [info.mtime_ns for info in infos if info.mtime_ns is not None]
            found.append(
                StoredCheckpoint(
                    name=name,
                    app_id=position["app_id"],
                    offset=position["offset"],
                    clock_us=position["clock_us"],
                    law=position["law"],
                    mark=position["mark"],
                    bytes=size,
                    written_us=max(times) // 1000 if times else None,
                )
            )
        return found

    def copy_to(self, other: "Store", source: Source, name: str) -> None:
        """Copy a checkpoint to another place, where it belongs to that one's app and has no mark.

        Errors  StateError  also: it is damaged
        """
        path = f"{self._folder(source)}/{name}"
        with _talking(self._uri):
            position = self._position(path)
        position |= {"app_id": other._app_id, "mark": 0}  # noqa: SLF001 - one of us
        whole = orjson.dumps(
            {"xxh3_128": digest_of(position), "position": position}, option=orjson.OPT_INDENT_2
        )
        with _talking(self._uri), self._at_hand(path) as folder:
            verify_views(folder, position)
            other._take(source, folder, position["offset"], whole)  # noqa: SLF001

    def _take(self, source: Source, folder: Path, offset: int, whole: bytes) -> None:
        """Publish a checkpoint that lies in a folder of this machine."""
        with _talking(self._uri):
            self._fs.create_dir(self._folder(source), recursive=True)
            with self._written(self._folder(source)) as written:
                for path in folder.iterdir():
                    if path.is_dir():
                        shutil.copytree(path, written / path.name)
                    elif path.name != POSITION:
                        shutil.copyfile(path, written / path.name)
                self._publish(written, self._folder(source), offset, whole)

    def _position(self, path: str) -> dict[str, Any]:
        """Return what a checkpoint says of its place.

        Errors  StateError  it is damaged
                OSError, ValueError
        """
        whole = orjson.loads(self._read(f"{path}/{POSITION}"))
        if not isinstance(whole, dict) or digest_of(whole.get("position")) != whole.get("xxh3_128"):
            raise StateError(f"{POSITION} is damaged", path=path)
        position: dict[str, Any] = whole["position"]
        if position["format"] != FORMAT or position["version"] != VERSION:
            raise ForeignError(
                "the checkpoint has another format", path=path, fix="use the version that wrote it"
            )
        return position

    def _load(
        self, source: Source, path: str, name: str, ruleset: Ruleset | Plan | None, view: str | None
    ) -> LoadedCheckpoint:
        position = self._position(path)
        if position["app_id"] != self._app_id:
            raise ForeignError(
                f"the checkpoint belongs to the application {position['app_id']}",
                path=path,
                fix="name that one as the app id, or give this one a place of its own",
            )
        if (position["topic"], position["partition"]) != source:
            raise StateError(f"it is of {position['topic']}-{position['partition']}", path=path)
        with self._at_hand(path) as folder:
            if view is not None:
                own = ruleset if isinstance(ruleset, Ruleset) else None
                plan: Plan | None = Plan((saved_view(folder, position, view, own),))
            else:
                plan = plan_of([ruleset]) if isinstance(ruleset, Ruleset) else ruleset
            held = read_views(folder, position, plan)
        return LoadedCheckpoint(
            held,
            position["offset"],
            position["law"],
            name,
            position["mark"],
            # Checkpoints of older versions have none.
            position.get("topic_id"),
            position.get("placements", ()),
            position.get("erasures", ()),
            position["clock_us"],
        )

    @staticmethod
    def _offset_of(name: str) -> int:
        return int(name.partition("-")[0])

    def _folder(self, source: Source) -> str:
        return f"{self._root}/{source}"

    def _names(self, source: Source) -> list[str]:
        """Return the folders of checkpoints, oldest first."""
        names = [name for name in self._folders(self._folder(source)) if _NAME.fullmatch(name)]
        return sorted(names, key=lambda name: [int(part) for part in name.split("-")])

    def _folders(self, path: str) -> list[str]:
        with _talking(self._uri):
            infos = self._fs.get_file_info(fs.FileSelector(path, allow_not_found=True))
        return [info.base_name for info in infos if info.type == fs.FileType.Directory]

    def _read(self, path: str) -> bytes:
        with self._fs.open_input_stream(path) as file:
            return bytes(file.read())

    @contextmanager
    def _written(self, folder: str) -> Iterator[Path]:
        """Make a folder on the local disk to write a checkpoint to, and remove what is left of it."""
        if not self._is_local:
            with tempfile.TemporaryDirectory(prefix="rfmstream-checkpoint-") as path:
                yield Path(path)
            return
        beside = Path(folder, f"{_BESIDE}{uuid4().hex}")
        beside.mkdir()
        try:
            with locked(beside):
                yield beside
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def _publish(self, written: Path, folder: str, offset: int, whole: bytes) -> str:
        """Make a written checkpoint visible at once; return its name, which no other checkpoint has."""
        taken = [int(name.partition("-")[2]) for name in self._folders(folder) if _NAME.fullmatch(name)]
        sequence = max(taken, default=0) + 1
        if not self._is_local:
            name = f"{offset:020d}-{sequence:06d}"
            self._fs.create_dir(f"{folder}/{name}", recursive=True)
            for path in sorted(written.iterdir()):
                fs.copy_files(str(path), f"{folder}/{name}/{path.name}", fs.LocalFileSystem(), self._fs)
            with self._fs.open_output_stream(f"{folder}/{name}/{POSITION}") as file:
                file.write(whole)
            return name
        with (written / POSITION).open("wb") as file:
            file.write(whole)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(written)
        while True:
            name = f"{offset:020d}-{sequence:06d}"
            try:
                written.rename(f"{folder}/{name}")
            except OSError:
                if not Path(folder, name).exists():
                    raise
                sequence += 1  # another owner was faster
            else:
                sync_folder(Path(folder))
                return name

    @contextmanager
    def _at_hand(self, path: str) -> Iterator[Path]:
        """Copy a checkpoint to the local disk unless it is there."""
        if self._is_local:
            yield Path(path)
            return
        with tempfile.TemporaryDirectory(prefix="rfmstream-checkpoint-") as folder:
            fs.copy_files(path, folder, self._fs, fs.LocalFileSystem())
            yield Path(folder)

    def _prune(self, source: Source) -> None:
        """Drop the checkpoints beyond `keep`, and what was left half written."""
        folder = self._folder(source)
        names = self._names(source)
        # Another worker may be deleting the same ones.
        for name in names[: -self._keep]:
            with suppress(OSError):
                self._fs.delete_dir(f"{folder}/{name}")
        self._drop_left(source)

    def _drop_left(self, source: Source) -> None:
        """Drop what a process that is gone left half written."""
        for path in Path(self._folder(source)).glob(f"{_BESIDE}*") if self._is_local else ():
            with suppress(OSError), locked(path) as is_left:
                if is_left:
                    shutil.rmtree(path)


def _credentials(uri: str) -> list[str]:
    """Return what stands before the host of a URI, longest first."""
    user, is_there, _ = uri.partition("://")[2].rpartition("@")
    parts = {user, *user.split(":", 1), *map(unquote, user.split(":", 1))} if is_there else ()
    return sorted((part for part in parts if part), key=len, reverse=True)


@contextmanager
def _talking(uri: str) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        words = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        for secret in _credentials(uri):  # libraries quote them by themselves, too
            words = words.replace(secret, MASK)
        raise StateError(f"the checkpoints cannot be reached: {words}", path=uri, fix=_FIX_ROOT) from error
