"""A checkpoint of version 1, made before the columns had versions, is read for ever, and goes on exactly."""

from pathlib import Path
from shutil import copytree

import orjson
import pytest
from old_history import after, before
from oracle import BUILT_IN, Oracle
from twins import canonical_batch, in_order, plain_rows

from rfmstream import Engine

OLD = Path(__file__).parents[2] / "data" / "checkpoint-v1"


def test_it_is_still_the_one_that_version_1_wrote() -> None:
    manifest = orjson.loads((OLD / "manifest.json").read_bytes())["manifest"]
    assert (manifest["version"], len(manifest["shards"])) == (1, 2)


@pytest.mark.parametrize("threads", [1, 2])
def test_it_goes_on_as_if_it_had_never_stopped(tmp_path: Path, threads: int) -> None:
    oracle = Oracle(BUILT_IN["rfm8-annual"]())
    oracle.step(before())
    made_before = len(oracle.changes)
    engine = Engine.restore(copytree(OLD, tmp_path / "state"), threads=threads)
    assert engine.clock_us == oracle.clock_us
    assert _told(engine) == oracle.snapshot()
    for _ in range(2):
        oracle.step(after())
        later = (oracle.clock_us or 0) + 100 * 86_400_000_000
        oracle.advance(later)
        made = plain_rows(engine.step_canonical(canonical_batch(after())).changes)
        made += plain_rows(engine.advance(later))
        assert in_order(made) == in_order(oracle.changes[made_before:])
        made_before = len(oracle.changes)
        assert _told(engine) == oracle.snapshot()
        # A checkpoint of this version takes its place.
        engine.checkpoint(tmp_path / "state")
        engine = Engine.restore(tmp_path / "state")
    assert engine.counters.read == len(before()) + 2 * len(after())


def _told(engine: Engine) -> list[dict[str, object]]:
    return sorted(plain_rows(engine.snapshot()), key=lambda row: row["customer_id"])
