"""Scripts anyone can read and check by hand; the oracle and the engine must both tell what stands there.

REWRITE_GOLDEN=1 writes what the oracle tells into them, never what the engine tells: read the difference.
"""

import os
from pathlib import Path

import pytest
from golden_script import oracle_of, read_script, run_script, write_script
from twins import Driven

SCRIPTS = sorted(Path(__file__).parent.glob("*.txt"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_oracle_tells_the_script(path: Path) -> None:
    directives = read_script(path)
    told = run_script(directives, oracle_of)
    if os.environ.get("REWRITE_GOLDEN"):
        write_script(path, directives, told)
    else:
        assert told == [directive.expected for directive in directives]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_engine_tells_the_script(path: Path) -> None:
    directives = read_script(path)
    assert run_script(directives, Driven) == [directive.expected for directive in directives]
