"""Text encodings: text to UTF-8 in which a damaged byte stays damaged, and a guess at what a text is written in."""

import codecs
from typing import Final, cast

_DAMAGED: Final = "rfmstream-damaged"
_WIDER: Final[dict[str, tuple[str, ...]]] = {
    "big5": ("cp950", "big5hkscs"),
    "cp950": ("big5hkscs",),
    "gb2312": ("gb18030",),
    "gbk": ("gb18030",),
    "shift_jis": ("cp932",),
    "euc_kr": ("cp949",),
}
"""What files that go by a name hold in truth: Windows wrote characters of its own into each of these."""
_GUESSES: Final = (
    # Where the characters of everyday writing lie: the lead bytes of each standard's first level.
    ("gbk", 0xB0, 0xD7),
    ("big5", 0xA4, 0xC6),
)
ENCODINGS: Final = {
    "gbk": "gb18030",
    "big5": "cp950",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "cp1252": "cp1252",
    "cp1250": "cp1250",
    "cp1251": "cp1251",
    "mac_roman": "mac_roman",
}
"""What spreadsheets write besides Unicode, by the names people give, and the codec that reads it."""

_UTF8_LETTERS: Final = 3
THREE_BYTES: Final = "\u0800"
_LIKELY: Final = 0.7
_SAMPLE_BYTES: Final = 1 << 16


def decoder_of(encoding: str) -> codecs.IncrementalDecoder | None:
    """Return what turns bytes of an encoding into text, None if they are UTF-8 already.

    A byte that is none of its encoding becomes a lone surrogate, which no UTF-8 has: its cell is malformed, whatever
    stands around it.
    """
    name = codecs.lookup(encoding).name
    if name == "utf-8":
        return None
    return codecs.getincrementaldecoder(encoding)(_handler(name))


def encoded(text: str) -> bytes:
    """Return UTF-8, in which the damaged bytes of a decoder are no UTF-8."""
    return text.encode("utf-8", "surrogatepass")


def is_surely_utf8(start: bytes) -> bool:
    """Return whether the start of a text is UTF-8 whatever is said of it: by its mark, or as no accident can be.

    Pairs of bytes of another encoding may happen to be letters in UTF-8; several of three bytes and no fault are none.
    """
    if start.startswith(codecs.BOM_UTF8):
        return True
    if start.isascii():
        return False
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return False
    return sum(letter >= THREE_BYTES for letter in text) >= _UTF8_LETTERS


def guess_encoding(sample: bytes) -> str | None:
    """Return "gbk" or "big5" if a text that is no UTF-8 is likely to be written so, else None."""
    pairs = _pairs(sample[:_SAMPLE_BYTES])
    if not pairs:
        return None
    scores = {}
    for name, first, last in _GUESSES:
        wider = _WIDER[name][0]
        read = [pair for pair in pairs if _is_text(pair, wider)]
        everyday = [pair for pair in read if first <= pair[0] <= last]
        if len(read) >= _LIKELY * len(pairs) and len(everyday) >= _LIKELY * len(pairs):
            # Trail bytes below 0xA1 are letters of Big5 and rarities of GBK.
            scores[name] = len(everyday) / len(pairs) + (name == "big5") * _low_trails(pairs)
    if "gbk" in scores and _low_trails(pairs) == 0:
        return "gbk"
    return max(scores, key=lambda name: scores[name], default=None)


def _pairs(sample: bytes) -> list[bytes]:
    """Return the two-byte characters of a text, if its encoding is one of lead and trail bytes."""
    pairs, at = [], 0
    while at + 1 < len(sample):
        if sample[at] < 0x80:
            at += 1
        else:
            pairs.append(sample[at : at + 2])
            at += 2
    return pairs


def _is_text(pair: bytes, encoding: str) -> bool:
    try:
        return len(pair.decode(encoding)) == 1
    except UnicodeError:
        return False


def _low_trails(pairs: list[bytes]) -> float:
    return sum(pair[1] < 0xA1 for pair in pairs) / len(pairs)


def _handler(encoding: str) -> str:
    """Return the name of the error handler for an encoding."""
    wider = _WIDER.get(encoding, ())

    def replace(error: UnicodeError) -> tuple[str, int]:
        broken = cast("UnicodeDecodeError", error)
        for name in wider:
            for length in (2, 4):
                try:
                    text = broken.object[broken.start : broken.start + length].decode(name)
                except UnicodeError:
                    continue
                if len(text) == 1:
                    return text, broken.start + length
        end = max(broken.end, broken.start + 1)
        return "".join(chr(0xDC00 + byte) for byte in broken.object[broken.start : end]), end

    name = f"{_DAMAGED}-{encoding}"
    codecs.register_error(name, replace)
    return name
