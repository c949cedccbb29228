"""A checkpoint that another process keeps replacing is read whole: this one or that one, no mixture and no error."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from checkpoints import grown, told

from rfmstream import Engine
from rfmstream.engine.core.checkpoint import read

SIZES = (60, 120)
REREAD_MIN = 3
TRIES_MAX = 5_000

REPLACE = """
import sys
from itertools import cycle
from checkpoints import grown

engines = [grown(int(size)) for size in sys.argv[2:]]
engines[0].checkpoint(sys.argv[1])
print("there", flush=True)
for engine in cycle(engines):
    engine.checkpoint(sys.argv[1])
"""


@contextmanager
def replaced_by_another(folder: Path) -> Iterator[None]:
    """Let another process replace the checkpoint of a folder, all the time."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.Popen(
        [sys.executable, "-c", REPLACE, str(folder), *map(str, SIZES)],
        stdout=subprocess.PIPE,
        env=environment,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"there\n"
        yield
        assert process.poll() is None, "the other process has ended"
    finally:
        process.kill()
        process.communicate()


def test_a_checkpoint_that_another_process_replaces_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [told(grown(size)) for size in SIZES]
    reads = 0
    read_own = read.read_manifest

    def counted(folder: Path) -> dict[str, Any]:
        nonlocal reads
        reads += 1
        return read_own(folder)

    monkeypatch.setattr(read, "read_manifest", counted)
    again = tries = 0
    with replaced_by_another(tmp_path):
        # Until it has happened some times that the files of a manifest were gone when they were opened.
        while again < REREAD_MIN:
            reads, tries = 0, tries + 1
            assert told(Engine.restore(tmp_path)) in expected
            again += reads > 1
            assert tries < TRIES_MAX, "the checkpoint was never replaced while it was read"
