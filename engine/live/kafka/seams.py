"""The seams: places where we replace insides of other packages, with the version each was read at and its self-test.

Importing replaces nothing. The worker installs each seam at its start. Where a package's version is unknown, or the
self-test fails, the worker warns and takes the ordinary path, which is slower and otherwise the same.

Faust and mode are extended by subclasses that are handed to them (engine.live.kafka.transport); nothing of theirs is
replaced. aiokafka's two classes that read fetches are replaced in any case, since the ordinary path, too, has to read
header names that aiokafka cannot (engine.live.kafka.fetches); the self-test decides whether they read in the raw way.

Source  docs/upgrading.md: how to move to the next version of each
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Final

import aiokafka
import faust

from rfmstream.engine.live.kafka import answers, raw_check
from rfmstream.kernels.gil import keep_gil_on_this_thread

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Seam:
    """One seam.

    Fields  name      as the log says it
            package   whose insides they are
            known     beginnings of the versions they were read at
            replaces  what is put in the place of what
            ordinary  what happens where it is not installed
    """

    name: str
    package: str
    known: tuple[str, ...]
    replaces: str
    ordinary: str

    def is_known(self, version: str) -> bool:
        """Tell whether it was read at this version."""
        return version.startswith(self.known)


ANSWERS: Final = Seam(
    "answers",
    "aiokafka",
    ("0.14.",),
    "aiokafka.conn.AIOKafkaProtocol and AIOKafkaConnection: answers are received where they stay",
    "asyncio's StreamReader: a fetch of megabytes is copied some nine times",
)
FETCHES: Final = Seam(
    "fetches",
    "aiokafka",
    (raw_check.KNOWN_VERSION,),
    "aiokafka.consumer.fetcher.MemoryRecords and PartitionRecords: a fetch is one object",
    "an object for each record",
)
CONSUMER: Final = Seam(
    "consumer",
    "faust",
    ("0.15.",),
    "faust.transport.drivers.aiokafka: Consumer, its thread and its listener, as subclasses under a scheme of our own",
    "none: the worker refuses another version when it is installed (pyproject.toml)",
)
COMPILER: Final = Seam(
    "compiler",
    "numba",
    ("0.68.",),
    "where kernels are compiled alone: Dispatcher._insert, JITCPUCodegen._add_module and set_env,"
    " JITCodeLibrary._finalize_specific and _final_module (kernels/_compile.py, _entry.py)",
    "none: pyproject.toml has an upper bound, and every test of a kernel is its test",
)

SEAMS: Final = (ANSWERS, FETCHES, CONSUMER, COMPILER)


def versions() -> dict[str, str]:
    """Return the installed version of each package with a seam."""
    return {"aiokafka": aiokafka.__version__, "faust": faust.__version__, "numba": metadata.version("numba")}


def install_answers() -> None:
    """Install ANSWERS for connections that are made from now on; called on an event loop."""
    asyncio.get_running_loop()
    _install(ANSWERS, answers.receives_alike, answers.install)


def install_fetches() -> None:
    """Install FETCHES for consumers of this process: takes milliseconds, or seconds where its kernels are compiled."""
    raw_check.choose_path()


def install_lock() -> None:
    """Have kernels keep Python's lock on the calling thread, an event loop's."""
    keep_gil_on_this_thread()


def _install(seam: Seam, test: Callable[[], bool], install: Callable[[], None]) -> None:
    trouble = None
    version = versions()[seam.package]
    if not seam.is_known(version):
        trouble = f"{seam.package} {version} is not known"
    else:
        try:
            if test():
                install()
            else:
                trouble = "its self-test came out differently"
        except Exception as error:  # noqa: BLE001 - of what kind an unknown package's errors are is not known
            trouble = f"it cannot be tested: {error!r}"
    if trouble is not None:
        _log.warning(
            "taking the ordinary path: %s", trouble, extra={"seam": seam.name, "then": seam.ordinary}
        )
