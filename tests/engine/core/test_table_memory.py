"""The memory of a table: empty at first, more where it is asked for, and what was there stays."""

import numpy as np
import pytest

from rfmstream.engine.core.table import Table
from rfmstream.kernels.layout import SEGMENT


def test_an_empty_table_has_one_segment_beside_the_spare_one() -> None:
    table = Table()
    assert table.pairs.size == 2 * SEGMENT
    assert not table.pairs.any()


@pytest.mark.parametrize("more", [0, 1, SEGMENT, 100 * SEGMENT])
def test_room_is_made_for_more_segments(more: int) -> None:
    table = Table()
    row = table.record.row
    table.pairs[:] = np.arange(2 * SEGMENT) * (np.arange(2 * SEGMENT) >= SEGMENT)
    before = table.pairs.copy()
    row.n_segments = row.pairs_size // SEGMENT
    table.make_room(more)
    assert row.pairs_size >= (row.n_segments + 1) * SEGMENT + 2 * more
    assert (table.pairs[: before.size] == before).all()
    assert not table.pairs[before.size :].any()
