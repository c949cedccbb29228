"""How the whole run makes use of a small machine: kernels are compiled once, and no core waits for a broker."""

import os
import signal
from pathlib import Path

import pytest
from schedules import DEEP

from rfmstream.engine.cli.warm_up import KERNELS, compile_kernels

TESTS = Path(__file__).parent
# Brokers of tests live for seconds: compiling what runs often well takes them longer than it saves.
os.environ.setdefault("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1")
# Under nohup this one is ignored, and so it would be by whatever is started here.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
WAITING = {TESTS / "bench" / "test_live_benches.py", *(TESTS / "kafka").glob("test_*.py")}
"""Their tests wait for brokers and workers more than they compute."""


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Have the kernels compiled before the workers of pytest-xdist start, if all tests will run."""
    is_whole = session.config.args_source == pytest.Config.ArgsSource.TESTPATHS
    is_many = bool(session.config.getoption("numprocesses", None))
    if is_whole and is_many:
        compile_kernels(*KERNELS)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Choose what runs now, and where."""
    chosen = [
        item for item in items if (_is_deep(item) or _is_schedule(item) if DEEP else not _is_deep(item))
    ]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(chosen)])
    items[:] = chosen
    _spread(items)


def _is_deep(item: pytest.Item) -> bool:
    """Tell whether a test runs in `make test-deep` alone: it is marked so, or stops and starts a broker of its own."""
    has_own_broker = "own_broker" in getattr(item, "fixturenames", ())
    return has_own_broker or item.get_closest_marker("deep") is not None


def _is_schedule(item: pytest.Item) -> bool:
    """Tell whether a test looks at more cases in `make test-deep`: hypothesis makes them, or a simulation's seeds."""
    made = bool(getattr(getattr(item, "obj", None), "is_hypothesis_test", False))
    return made or item.path.parent == TESTS / "simulation"


def _spread(items: list[pytest.Item]) -> None:
    """Let the tests that wait come first on all workers of pytest-xdist but the last, which computes meanwhile.

    With --dist=worksteal each worker begins with a stretch of the list, these as long as each other, and whoever is
    done takes over from the end of another's.
    """
    count = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    files = sorted({item.path for item in items} & WAITING)
    if count == 1 or not files:
        return
    turns = {path: number % (count - 1) for number, path in enumerate(files)}
    stretches: list[list[pytest.Item]] = [[] for _ in range(count)]
    for item in items:
        if item.path in turns:
            stretches[turns[item.path]].append(item)
    others = [item for item in items if item.path not in turns]
    # The last worker takes the first of the others: the benches among them take long.
    for number in reversed(range(count)):
        length = len(items) * (number + 1) // count - len(items) * number // count
        room = max(length - len(stretches[number]), 0)
        stretches[number] += others[:room]
        del others[:room]
    items[:] = [item for stretch in stretches for item in stretch] + others
