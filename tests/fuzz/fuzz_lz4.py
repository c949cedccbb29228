"""A fuzzer's target: a block of the LZ4 writer is what it was made of, by liblz4 and by the format's own words."""


def take_lz4(data: bytes) -> None:
    """Take an input that says the steps of a row and the rows, a byte a choice."""
    import cramjam  # noqa: PLC0415 - after instrumentation
    from test_lz4 import packed, unpacked  # noqa: PLC0415

    if len(data) < 4:
        return
    at = 0

    def choose(count: int) -> int:
        nonlocal at
        at += 1
        return data[(at - 1) % len(data)] % count

    def text() -> bytes:
        start, size, times = choose(len(data)), choose(13), (1, 1, 2, 40, 300)[choose(5)]
        return data[start : start + size] * times

    steps = [
        ([text() for _ in range(1 + choose(3))] or [b""], choose(2), choose(7) - 1)
        for _ in range(1 + choose(6))
    ]
    kinds = [[(choose(3), text()) for _ in steps] for _ in range(1 + choose(4))]
    rows = [kinds[choose(len(kinds))] for _ in range(choose(30))]
    plain, block = packed(steps, rows)
    assert unpacked(block) == plain
    if plain:
        out = bytes(cramjam.lz4.decompress_block(block, output_len=len(plain)))
        assert out == plain


def lz4_seeds() -> list[bytes]:
    """Return inputs of several lengths."""
    return [bytes(range(17, 17 + size)) * 3 for size in (2, 9, 40)] + [b"abcabcabcab" * 5, bytes(64)]
