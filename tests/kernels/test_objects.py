"""Kernels as objects: what Python hands over and gets back, and which files are not loaded."""

import json
import os
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rfmstream.kernels import _compile, _kernel, _link, _store
from rfmstream.kernels._jit import is_jitted, jit
from rfmstream.kernels._kernel import Kernel
from rfmstream.kernels._manifest import Unusable, describe_dtype, dtype_of, pack, unpack
from rfmstream.kernels.layout import BATCH, CHANGE, CUSTOMER, STATE

pytestmark = pytest.mark.skipif(not is_jitted(), reason="kernels are plain Python here")

Pair = namedtuple("Pair", ["left", "right"])  # noqa: PYI024 - numba finds it by its name
RECORD = np.dtype({"names": ["a", "b"], "formats": ["<i8", "<i2"], "offsets": [0, 8], "itemsize": 16})


@jit
def tell(array, tuples, number, flag, ratio, nothing):  # noqa: PLR0917
    """Return something of each argument."""
    (first, second), pair = tuples
    total = np.int64(0)
    for i in range(array.shape[0]):
        for j in range(array.shape[1]):
            total += array[i, j] * (i + 1)
    pair.left[0] = second
    seen = 1 if nothing is None else 2
    return total, first + pair.right[0]["b"], number - 1, flag, ratio * 2, seen


@jit
def strided(array):
    """Return the sum of a one-dimensional array."""
    total = np.int64(0)
    for value in array:
        total += value
    return total


@jit
def scratch(count):
    """Return how many squares below `count`² are even; allocates."""
    squares = np.empty(count, np.int64)
    for i in range(count):
        squares[i] = i * i
    return np.nonzero(squares % 2 == 0)[0].size


@jit
def refuses(number):
    """Raise what kernels could raise."""
    if number == 1:
        raise ValueError("one is too few")
    if number == 2:
        raise KeyError


def records() -> np.ndarray:
    made = np.zeros(2, RECORD)
    made["b"] = 7
    return made


def arguments(number: Any = 5) -> tuple[Any, ...]:
    return (
        np.arange(6).reshape(2, 3),
        ((np.int64(3), 4), Pair(np.zeros(1, np.int64), records())),
        number,
        True,
        0.25,
        None,
    )


def test_arguments_and_results_of_all_kinds() -> None:
    args = arguments()
    assert tell(*args) == tell.py_func(*arguments()) == (27, 10, 4, True, 0.5, 1)
    assert [type(value) for value in tell(*args)] == [int, int, int, bool, float, int]
    assert args[1][1].left[0] == 4
    assert len(tell._overloads) == 1  # numpy's numbers and Python's are one signature
    assert tell(*arguments(np.int64(5)))[2] == 4
    assert len(tell._overloads) == 1


def test_what_is_of_another_type_has_a_kernel_of_its_own() -> None:
    assert tell(*arguments(np.uint8(0)))[2] == tell.py_func(*arguments(np.int64(0)))[2] == -1
    assert strided(np.arange(10)) == 45
    assert strided(np.arange(10)[::-3]) == 9 + 6 + 3
    assert strided(np.arange(10, dtype=np.int32)) == 45
    frozen = np.arange(10)
    frozen.flags.writeable = False
    assert strided(frozen) == 45
    assert strided(np.zeros(0, np.int64)) == 0
    with pytest.raises(Exception, match="array"):
        strided("text")


def test_equal_dtypes_are_equal_whichever_object_says_so() -> None:
    before = len(strided._overloads)
    other = np.dtype([("x", "<i8")])["x"]
    values = np.arange(4, dtype=np.dtype("q"))
    assert strided(values) == strided(values.view(other)) == strided(np.arange(4)) == 6
    assert len(strided._overloads) <= before + 1


def test_large_numbers_are_unsigned() -> None:
    @jit
    def is_large(number):
        return number > 10

    assert [is_large(number) for number in (5, (1 << 64) - 2, -5)] == [False, True, False]


def test_scratch_memory_comes_and_goes() -> None:
    assert scratch(1000) == 500
    before = resident_kb()
    for _ in range(2000):
        scratch(10_000)
    assert resident_kb() - before < 60_000  # 2000 x 80 kB would be 160 MB


def resident_kb() -> int:
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0])


def test_what_a_kernel_raises_is_raised() -> None:
    assert refuses(0) is None
    with pytest.raises(ValueError, match=r"^one is too few$"):
        refuses(1)
    with pytest.raises(KeyError) as caught:
        refuses(2)
    assert caught.value.args == ()


@pytest.mark.parametrize(
    "dtype", [STATE, BATCH, CUSTOMER, CHANGE, RECORD, np.dtype("i4"), np.dtype(("u1", (3,)))]
)
def test_a_dtype_comes_back_from_its_description(dtype: np.dtype) -> None:
    again = dtype_of(json.loads(json.dumps(describe_dtype(dtype))))
    assert again == dtype
    assert again.itemsize == dtype.itemsize


def test_code_that_no_linker_made_is_loaded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_link, "_linker", lambda: None)

    def add(a, b):
        return a + b

    made = _compile.compile_kernel("x.add", add, _compile.signature_of((1, 2)))
    assert made is not None
    assert not made[1].linked
    overload = _kernel.open_object("x.add", *made, None)
    assert overload.entry(20, 3) == 23


_SCATTERED = """
import mmap, random
from rfmstream.kernels import _compile, _kernel, _link
_link._linker = lambda: None
def add(a, b):
    return a + b
made = _compile.compile_kernel("x.add", add, _compile.signature_of((1, 2)))
chance, held = random.Random(1), []
for _ in range(100):
    assert _kernel.open_object("x.add", *made, None).entry(20, 3) == 23
    held.append(mmap.mmap(-1, chance.choice([1 << 12, 1 << 26, 1 << 32, 1 << 34])))
    if chance.random() < 0.3:
        held.pop(chance.randrange(len(held)))
"""


def test_code_that_no_linker_made_is_loaded_into_memory_full_of_holes() -> None:
    # Sections too far apart for the code end the process.
    done = subprocess.run([sys.executable, "-c", _SCATTERED], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def compiled(tmp_path: Path) -> Path:
    """Return the one object of a folder of its own."""
    tmp_path.chmod(0o700)
    assert run(tmp_path).stdout == "True numba\n"
    [path] = tmp_path.rglob("*.kernel")
    return path


_PROGRAM = """
import logging, sys
import numpy as np
logging.basicConfig(level=logging.WARNING)
from rfmstream.kernels.parse import within
print(within(np.arange(4), 0, 3), "numba" if "numba" in sys.modules else "alone")
"""


def run(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        env={**os.environ, "NUMBA_CACHE_DIR": str(folder), **environment},
        capture_output=True,
        text=True,
        check=True,
    )


def base_of(path: Path) -> Path:
    return path.parent.parent.parent


def test_a_later_process_needs_no_numba(compiled: Path) -> None:
    done = run(base_of(compiled))
    assert (done.stdout, done.stderr) == ("True alone\n", "")
    # Root may compile for others, in an image for example; none of them may write.
    assert (compiled.parent.stat().st_mode & 0o777, compiled.stat().st_mode & 0o777) == (0o755, 0o644)


def other_sources(path: Path) -> None:
    code, manifest = unpack(path.read_bytes())
    path.write_bytes(pack(code, type(manifest)(**{**vars(manifest), "sources": "0" * 16})))


def other_processor(path: Path) -> None:
    code, manifest = unpack(path.read_bytes())
    path.write_bytes(pack(code, type(manifest)(**{**vars(manifest), "machine": "pdp11"})))


def other_code(path: Path) -> None:
    file = bytearray(path.read_bytes())
    file[1000] ^= 1
    path.write_bytes(file)


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def other_kernel(path: Path) -> None:
    code, manifest = unpack(path.read_bytes())
    path.write_bytes(pack(code, type(manifest)(**{**vars(manifest), "kernel": "fold.fold"})))


def file_of_all(path: Path) -> None:
    path.chmod(0o666)


def folder_of_a_group(path: Path) -> None:
    path.parent.chmod(0o770)


def folder_above_of_all(path: Path) -> None:
    path.parent.parent.chmod(0o777)


def base_of_all(path: Path) -> None:
    base_of(path).chmod(0o777)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (other_sources, "made from other sources"),
        (other_processor, "made for another processor"),
        (other_code, "not what its manifest says"),
        (cut_off, "its end is missing"),
        (other_kernel, "another kernel's"),
        (file_of_all, "another user may have written it"),
        (folder_of_a_group, "others may write to"),
        (folder_above_of_all, "others may write to"),
        (base_of_all, "others may write to"),
    ],
)
def test_what_is_not_to_be_trusted_is_not_loaded(
    compiled: Path, change: Callable[[Path], None], reason: str
) -> None:
    change(compiled)
    done = run(base_of(compiled))
    assert done.stdout == "True numba\n"
    assert reason in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_not_used(compiled: Path) -> None:
    os.chown(compiled.parent, 12345, 12345)
    done = run(base_of(compiled))
    assert done.stdout == "True numba\n"
    assert "belongs to another user" in done.stderr


def test_a_temporary_folder_with_the_sticky_bit_will_do(compiled: Path) -> None:
    base_of(compiled).chmod(0o1777)
    assert run(base_of(compiled)).stdout == "True alone\n"


def test_checked_accesses_have_kernels_of_their_own(compiled: Path) -> None:
    done = run(base_of(compiled), NUMBA_BOUNDSCHECK="1")
    assert done.stdout == "True numba\n"
    assert len(list(base_of(compiled).rglob("*.kernel"))) == 2


def test_an_access_that_is_out_of_bounds_is_an_index_error(tmp_path: Path) -> None:
    program = """
import numpy as np
from rfmstream.kernels._jit import jit

@jit
def third(array):
    return array[2]

print(third(np.arange(3)))
try:
    third(np.arange(2))
except IndexError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "NUMBA_BOUNDSCHECK": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "2\nindex is out of bounds\n"


def test_a_level_has_all_flags_of_those_below(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_store.platform, "machine", lambda: "x86_64")
    flags = [set(value.split()) for value in _store._LEVELS.values()]
    for has, wanted in (
        (set(), ()),
        (flags[0], ("x86_64-v2",)),
        (flags[0] | flags[1], ("x86_64-v3", "x86_64-v2")),
        (flags[1] | flags[2], ()),
        (set().union(*flags), ("x86_64-v4", "x86_64-v3", "x86_64-v2")),
    ):
        monkeypatch.setattr(_store, "_abilities", lambda has=has: " ".join(sorted(has)))
        assert _store.levels.__wrapped__() == wanted


def test_what_is_no_object_is_unusable() -> None:
    for file in (b"", b"x" * 1000, b"x" + pack.__doc__.encode()):
        with pytest.raises(Unusable):
            unpack(file)


def test_a_kernel_says_what_it_is() -> None:
    assert isinstance(tell, Kernel)
    assert repr(tell) == "<kernel test_objects.tell>"
    assert tell.__doc__ == "Return something of each argument."


def test_where_nothing_can_be_loaded_numba_runs_the_kernel(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("failed to map segment from shared object")

    monkeypatch.setattr(_kernel, "open_object", refuse)

    @jit
    def double(number):
        return 2 * number

    assert [double(number) for number in (1, 2)] == [2, 4]
    assert double(0.5) == 1.0
    assert caplog.text.count("cannot be loaded") == 1
