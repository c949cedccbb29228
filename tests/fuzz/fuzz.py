"""Runs a fuzzer's target for some time.

    NUMBA_BOUNDSCHECK=1 python tests/fuzz/fuzz.py TARGET CORPUS SECONDS

With atheris (CPython 3.11 to 3.13) what an input reaches in our Python tells which ones to go on from, and the corpus
is kept and grows; without it the seeds are changed at random. An empty CORPUS is filled with seeds first. An input that
fails stays beside the corpus. With NUMBA_BOUNDSCHECK=1 every access of a kernel to an array is checked.
"""

import importlib
import pkgutil
import random
import sys
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

HERE = Path(__file__).resolve().parent
for _folder in (HERE, HERE.parent / "support", HERE.parent / "kernels", HERE.parent.parent):
    sys.path.insert(0, str(_folder))

BYTES_MAX = 4096

Take = Callable[[bytes], None]


def targets() -> dict[str, tuple[Take, Callable[[], list[bytes]]]]:
    """Return the targets by name: what takes an input, and what makes seeds."""
    import fuzz_checkpoint  # noqa: PLC0415 - after instrumentation
    import fuzz_fetches  # noqa: PLC0415
    import fuzz_files  # noqa: PLC0415
    import fuzz_http  # noqa: PLC0415
    import fuzz_json  # noqa: PLC0415
    import fuzz_lz4  # noqa: PLC0415
    import fuzz_toml  # noqa: PLC0415

    return {
        "arrow": (fuzz_files.take_arrow, fuzz_files.arrow_seeds),
        "checkpoint": (fuzz_checkpoint.take_checkpoint, fuzz_checkpoint.checkpoint_seeds),
        "delimited": (fuzz_files.take_delimited, fuzz_files.delimited_seeds),
        "fetches": (fuzz_fetches.take, fuzz_fetches.seeds),
        "http": (fuzz_http.take_http, fuzz_http.http_seeds),
        "json": (fuzz_json.take_json, fuzz_json.json_seeds),
        "lz4": (fuzz_lz4.take_lz4, fuzz_lz4.lz4_seeds),
        "toml": (fuzz_toml.take_toml, fuzz_toml.toml_seeds),
    }


def changed(chance: random.Random, seeds: list[bytes]) -> bytes:
    """Return an input made of one of some: bytes replaced, left out, doubled, or of another one."""
    data = bytearray(chance.choice(seeds))
    for _ in range(chance.choice([1, 1, 2, 4, 16])):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(5):
            case 0:
                data[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                data[at : at + chance.choice([1, 4, 8])] = chance.choice(
                    [b"", b"\xff" * 8, bytes(8), b"\x7f\xff"]
                )
            case 2:
                del data[at : at + chance.randrange(64)]
            case 3:
                data[at:at] = data[at : at + chance.randrange(64)]
            case 4:
                other = chance.choice(seeds)
                start = chance.randrange(len(other) + 1)
                data[at : at + 32] = other[start : start + 32]
    return bytes(data[: 4 * BYTES_MAX])


def run_at_random(take: Take, corpus: Path, seconds: float) -> int:
    """Take changed inputs for some time; return how many."""
    seed = time.time_ns()
    chance, count = random.Random(seed), 0  # noqa: S311 - a fuzzer
    seeds = [path.read_bytes() for path in sorted(corpus.iterdir()) if path.is_file()]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        data = changed(chance, seeds)
        try:
            take(data)
        except BaseException:
            failed = corpus.with_name(f"{corpus.name}-failed-{sha256(data).hexdigest()[:12]}")
            failed.write_bytes(data)
            print(f"failed on {failed}", file=sys.stderr)
            raise
        count += 1
    return count


def main(name: str, folder: str, seconds: str) -> None:
    """Run one target."""
    from rfmstream import kernels  # noqa: PLC0415 - the path is set above

    corpus = Path(folder)
    corpus.mkdir(parents=True, exist_ok=True)
    try:
        import atheris  # noqa: PLC0415 - only where there is one
    except ImportError:
        take, seeds = targets()[name]
        _fill(corpus, seeds())
        print(f"{name}: {run_at_random(take, corpus, float(seconds)):,} inputs, changed at random")
        return
    # The kernels first: they are compiled, and cannot hold the calls that atheris writes into what is imported below.
    for module in pkgutil.iter_modules(kernels.__path__, f"{kernels.__name__}."):
        importlib.import_module(module.name)
    with atheris.instrument_imports(include=["rfmstream.engine", "rfmstream.schemas", "aiokafka"]):
        take, seeds = targets()[name]
        _fill(corpus, seeds())
        take(seeds()[0])  # the imports within it
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={4 * BYTES_MAX}",
        "-timeout=120",
        "-rss_limit_mb=4096",
    ]
    artifact = f"-artifact_prefix={corpus.parent}/{name}-failed-"
    atheris.Setup(
        [sys.argv[0], str(corpus), *options, artifact, "-verbosity=0", "-print_final_stats=1"], take
    )
    atheris.Fuzz()


def _fill(corpus: Path, seeds: list[bytes]) -> None:
    if not any(corpus.iterdir()):
        for at, seed in enumerate(seeds):
            (corpus / f"seed-{at}").write_bytes(seed)


if __name__ == "__main__":
    main(*sys.argv[1:])
