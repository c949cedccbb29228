"""Rows that repeat one another, laid out as `kernels.encode_records` lays records out."""

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from rfmstream.kernels.encode_text import LINE_BYTES
from rfmstream.kernels.repeats import WORD_PIECE

TEXTS = st.builds(
    lambda unit, times: unit * times,
    st.binary(max_size=3) | st.text("ab", min_size=1, max_size=12).map(str.encode),
    st.sampled_from([1, 1, 1, 2, 5, 40, 300]),
)
STEPS = st.lists(
    st.tuples(st.lists(TEXTS, min_size=1, max_size=3), st.integers(0, 1), st.integers(-1, 5)),
    min_size=1,
    max_size=6,
)


def laid_out(steps: list[Any], rows: list[Any]) -> tuple[bytes, tuple[Any, ...]]:
    """Lay rows out by the steps, (words, quote, earlier); a row has a word and a field for each of them.

    Returns the records, the same with room behind them, and the marks, rows and repeats of `kernels.repeats`
    """
    repeats = np.array(
        [
            [
                WORD_PIECE if len(words) > 1 else len(words[0]),
                # Fields are compared with those of an earlier step that has no words.
                earlier if earlier < s and earlier >= 0 and len(steps[earlier][0]) == 1 else -1,
                quote,
            ]
            for s, (words, quote, earlier) in enumerate(steps)
        ],
        np.int64,
    )
    data, marks = bytearray(), np.zeros((len(rows) + 1, len(steps), 2), np.int32)
    for i, row in enumerate(rows):
        data += bytes(3)
        for s, ((words, _, _), (word, field)) in enumerate(zip(steps, row, strict=True)):
            marks[i, s] = len(data), word % len(words)
            data += words[word % len(words)]
            if len(words) == 1 and s + 1 < len(steps):
                data += field
    spare = np.frombuffer(bytes(data) + bytes(LINE_BYTES), np.uint8)
    return bytes(data), (spare, len(data), marks, len(rows), repeats)


@st.composite
def tables(draw: Callable[..., Any]) -> tuple[list[Any], list[Any]]:
    """Draw steps and rows for `laid_out`."""
    steps = draw(STEPS)
    fields = st.tuples(st.integers(0, 2), TEXTS)
    kinds = draw(st.lists(st.lists(fields, min_size=len(steps), max_size=len(steps)), min_size=1, max_size=4))
    return steps, draw(st.lists(st.sampled_from(kinds), max_size=30))
