import random
from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from rfmstream.engine.deliver.progress import (
    METADATA_CHARACTERS_MAX,
    Progress,
    decode_finished,
    encode_finished,
)


def test_the_lowest_unfinished_offset_counts() -> None:
    progress = Progress(10)
    assert progress.lowest == 10
    for offset in (10, 12, 13, 20):
        progress.begin(offset)
    progress.finish(12)
    progress.finish(20)
    assert progress.lowest == 10
    assert decode_finished(progress.metadata(), 10) == {12, 20}
    progress.finish(10)
    assert progress.lowest == 13
    progress.finish(13)
    assert (progress.lowest, progress.metadata(), len(progress)) == (21, "", 0)
    progress.skip(25)
    assert progress.lowest == 25


@given(st.binary(max_size=200), st.integers(0, 2**62))
def test_finished_offsets_survive_a_commit(gaps: bytes, lowest: int) -> None:
    finished = {lowest + ahead for ahead in accumulate(1 + gap // 64 * gap for gap in gaps)}
    assert decode_finished(encode_finished(finished, lowest), lowest) == finished


def test_what_does_not_fit_is_left_out_and_nothing_else() -> None:
    finished = set(random.Random(1).sample(range(1, 1_000_000), 20_000))
    text = encode_finished(finished, 0)
    assert len(text) <= METADATA_CHARACTERS_MAX
    found = decode_finished(text, 0)
    assert found == {offset for offset in finished if offset <= max(found)}
    assert len(found) > 1000


def test_a_text_of_others_says_nothing() -> None:
    assert decode_finished("", 5) == set()
    assert decode_finished("something else", 5) == set()
    assert decode_finished("d1:%%%", 5) == set()
