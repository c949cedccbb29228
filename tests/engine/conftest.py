"""The little history as a file."""

from pathlib import Path

import pytest
from little_history import HISTORY


@pytest.fixture
def history(tmp_path: Path) -> Path:
    path = tmp_path / "in" / "orders.csv"
    path.parent.mkdir()
    path.write_text(HISTORY)
    return path
