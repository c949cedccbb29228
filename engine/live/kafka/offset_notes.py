"""What is noted beside a committed offset: TOKEN@WRITER#OUTPUTS+SIGNALS&INPUTS, whatever of it there is.

The writer is the start of its transactional ids. The last three are digests of topics' names: of the outputs, of the
topic of signals where the ruleset asks for any, and of the inputs where several are read as one.
"""

from typing import Final, NamedTuple, Self

import xxhash

from rfmstream.engine.live.kafka.groups import INPUTS, WRITTEN_BY
from rfmstream.engine.live.model import Source

_OUTPUTS: Final = "#"
_SIGNALS: Final = "+"


class OffsetNote(NamedTuple):
    """A note; what it does not tell is empty."""

    token: str
    writer: str = ""
    outputs: str = ""
    signals: str = ""
    inputs: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return what a text tells."""
        text, _, inputs = text.partition(INPUTS)
        text, _, topics = text.partition(_OUTPUTS)
        token, _, writer = text.partition(WRITTEN_BY)
        outputs, _, signals = topics.partition(_SIGNALS)
        return cls(token, writer, outputs, signals, inputs)

    def __str__(self) -> str:
        parts = (
            (WRITTEN_BY, self.writer),
            (_OUTPUTS, self.outputs),
            (_SIGNALS, self.signals),
            (INPUTS, self.inputs),
        )
        return self.token + "".join(mark + part for mark, part in parts if part)


def digest_of_topics(*topics: str) -> str:
    """Return what stands for topics in a note."""
    return xxhash.xxh3_64_hexdigest(" ".join(topics).encode())


def inputs_of(source: Source) -> str:
    """Return what stands for the input topics in a note: nothing where it is one."""
    return digest_of_topics(source.topic) if source.is_merged else ""
