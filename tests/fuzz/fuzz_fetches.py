"""A fuzzer's target: whatever the bytes of a fetch, the raw path says what the ordinary one says.

With NUMBA_DISABLE_JIT=1 the kernels are Python, so that a fuzzer sees their branches, too.
"""

import struct

CODEC_AT, CODEC_MASK = 22, 0x07
BYTES_MAX = 2000


def without_codecs(data: bytes) -> bytes:
    """Return a fetch of which no batch is compressed: what the codecs' libraries allocate is not the question."""
    out, at = bytearray(data), 0
    while at + CODEC_AT < len(out):
        out[at + CODEC_AT] &= ~CODEC_MASK & 0xFF
        length = struct.unpack_from(">i", out, at + 8)[0]
        if length < 0:
            break
        at += 12 + length
    return bytes(out)


def take(data: bytes) -> None:
    """Take an input: the offset asked for, whether producer 1 aborts, and the fetch, whose checksums are mended."""
    from kafka_batches import check_paths_agree, with_checksums  # noqa: PLC0415 - after instrumentation

    if len(data) < 2:
        return
    aborted = [(1, 0)] if data[1] & 1 else []
    check_paths_agree(with_checksums(without_codecs(data[2:])), data[0], aborted)


def seeds() -> list[bytes]:
    """Return inputs from which a fuzzer finds the others."""
    from kafka_batches import (  # noqa: PLC0415 - after instrumentation
        ABORT,
        COMMIT,
        LOG_APPEND_TIME,
        TRANSACTIONAL,
        Batch,
        Record,
        marker,
        shifted,
    )

    headers = ((b"content-type", b"application/json"), (b"\xff", None))
    rows = [Record(0, 5, b"k", b"{}"), Record(1, -5, None, None, headers), Record(3, 0, b"", b"v" * 70)]
    kinds = [
        [Batch(0, rows)],
        [Batch(0, rows, attributes=LOG_APPEND_TIME), Batch(0, rows[:1], last_delta=9)],
        [Batch(0, rows, attributes=TRANSACTIONAL, producer=1), marker(0, 1, ABORT), Batch(0, rows[:1])],
        [Batch(0, rows, attributes=TRANSACTIONAL, producer=1), marker(0, 1, COMMIT)],
    ]
    fetches = [b"".join(batch.encoded() for batch in shifted(kind, [0] * len(kind))) for kind in kinds]
    return [bytes([offset, flags]) + data for data in fetches for offset in (0, 2) for flags in (0, 1)]
