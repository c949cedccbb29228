"""A fuzzer's target: whatever a ruleset, a plan or an input map says, it is loaded or refused with ConfigError."""

import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any


def _take(load: Callable[[Path], Any], data: bytes) -> None:
    from rfmstream.schemas.errors import ConfigError  # noqa: PLC0415 - after instrumentation

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.toml"
        path.write_bytes(data)
        with suppress(ConfigError):
            load(path)


def take_toml(data: bytes) -> None:
    """Take a file, as each of the three."""
    from rfmstream.engine.files.mapping import load_map  # noqa: PLC0415
    from rfmstream.schemas.plan_file import load_plan  # noqa: PLC0415
    from rfmstream.schemas.ruleset import load_ruleset  # noqa: PLC0415

    _take(load_ruleset, data)
    _take(load_plan, data)
    _take(lambda path: load_map(str(path)), data)


def toml_seeds() -> list[bytes]:
    """Return those that are shipped, and a plan."""
    root = Path(__file__).resolve().parents[2]
    shipped = [
        *(root / "schemas" / "rulesets").glob("*.toml"),
        *(root / "engine" / "files" / "maps").glob("*.toml"),
    ]
    plans = [path for path in (root / "examples").glob("*.toml") if path.stat().st_size < 4000]
    return [path.read_bytes() for path in sorted([*shipped, *plans])]
