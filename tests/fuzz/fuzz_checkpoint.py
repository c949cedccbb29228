"""A fuzzer's target: whatever a checkpoint holds under right checksums, it is restored and lives, or is refused.

An input is a place and what stands there instead, of one of the files; the manifest is sealed anew.
"""

import shutil
import tempfile
from functools import cache
from pathlib import Path


@cache
def _saved() -> Path:
    import pyarrow as pa  # noqa: PLC0415

    from rfmstream import Engine  # noqa: PLC0415 - after instrumentation

    folder = Path(tempfile.mkdtemp(prefix="rfmstream-fuzz-"))
    engine = Engine("rfm8-annual")
    rows = 40
    engine.step(
        pa.table(
            {
                "customer_id": [f"c{n % 7}" for n in range(rows)],
                "order_id": [f"o{n // 2}" for n in range(rows)],
                "type": ["paid" if n % 2 == 0 else "refunded" for n in range(rows)],
                "occurred_at": [f"2026-{1 + n // 4:02}-01" for n in range(rows)],
                "amount": ["5.00" if n % 2 == 0 else "1.00" for n in range(rows)],
            }
        )
    )
    engine.checkpoint(folder / "state")
    return folder / "state"


def take_checkpoint(data: bytes) -> None:
    """Take an input: which file, two bytes of a place, and the bytes that stand there."""
    import orjson  # noqa: PLC0415
    import xxhash  # noqa: PLC0415
    from checkpoints import seal  # noqa: PLC0415

    from rfmstream import Engine  # noqa: PLC0415
    from rfmstream.engine.core.checkpoint.folder import MANIFEST  # noqa: PLC0415
    from rfmstream.schemas.errors import RfmError  # noqa: PLC0415

    if len(data) < 4:
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "state"
        shutil.copytree(_saved(), folder)
        files = sorted(path for path in folder.iterdir() if path.suffix == ".arrow")
        path = files[data[0] % len(files)]
        whole = bytearray(path.read_bytes())
        at = int.from_bytes(data[1:3], "little") % len(whole)
        whole[at : at + len(data) - 3] = data[3:]
        path.write_bytes(bytes(whole))
        manifest = orjson.loads((folder / MANIFEST).read_bytes())["manifest"]
        for file in manifest["files"]:
            content = (folder / file["name"]).read_bytes()
            file |= {"bytes": len(content), "xxh3_128": xxhash.xxh3_128_hexdigest(content)}
        seal(folder, manifest)
        try:
            engine = Engine.restore(folder)
            engine.advance("2028-01-01T00:00:00Z")
            engine.snapshot().validate(full=True)
            engine.checkpoint(Path(temporary) / "again")
        except RfmError:
            return


def checkpoint_seeds() -> list[bytes]:
    """Return changes of bytes here and there."""
    return [
        bytes([file, at & 255, at >> 8, *some])
        for file in (0, 1)
        for at in (0, 300, 900, 2000, 3000)
        for some in (b"\0", b"\xff" * 8)
    ]
