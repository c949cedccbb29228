"""A checkpoint as a folder."""

from pathlib import Path

import pytest
from checkpoints import grown


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    grown(threads=2).checkpoint(tmp_path / "state")
    return tmp_path / "state"
