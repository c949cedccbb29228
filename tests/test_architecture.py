"""Who may import whom: adapters and CLI -> shell -> core -> kernels -> schemas (read from the source, nothing runs)."""

import ast
import gc
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OWN = ("engine", "kernels", "schemas")

SCHEMAS = {"numpy", "pyarrow"}
KERNELS = {"numpy", "numba", "llvmlite"}
CORE = {
    "engine.arena",
    "engine.buffers",
    "engine.columns",
    "engine.engine",
    "engine.instants",
    "engine.records",
    "engine.rules",
    "engine.shard",
    "engine.table",
    "engine.zone",
}
"""The deterministic state machine: no files, no clock, no network."""

INTO_CORE_FROM_SHELL = {
    # `Engine.step` takes tables of the contract's columns, which the readers' normaliser judges.
    ("engine.engine", "engine.ingest.normalise"),
    # `Engine.checkpoint` and `Engine.restore` are conveniences that load the shell when they are called.
    ("engine.engine", "engine.checkpoint"),
    # When memory becomes resident depends on the machine, and shows in no result.
    ("engine.arena", "engine.touch"),
    ("engine.buffers", "engine.touch"),
    ("engine.engine", "engine.touch"),
}

CORE_MAY_NOT = {
    "asyncio",
    "os",
    "pathlib",
    "random",
    "secrets",
    "socket",
    "subprocess",
    "tempfile",
    "time",
    "uuid",
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for package in OWN for path in sorted((ROOT / package).rglob("*.py"))}


def nodes_of(module: str) -> Iterator[ast.AST]:
    """Yield the nodes of a module's tree."""
    # What a collection runs may make a tree of its own, and by that CPython 3.11 loses count in the middle of this one.
    gc.disable()
    try:
        tree = ast.parse(SOURCES[module].read_text(encoding="utf-8"))
    finally:
        gc.enable()
    return ast.walk(tree)


def imports(module: str) -> Iterator[str]:
    """Yield the modules that a module imports, at its top or inside its functions."""
    for node in nodes_of(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively: say the whole name"
            assert node.module is not None
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in SOURCES else node.module


def foreign(module: str) -> set[str]:
    """Return the top-level packages a module imports that are neither ours nor the standard library."""
    tops = {name.partition(".")[0] for name in imports(module)}
    return tops - set(OWN) - set(sys.stdlib_module_names)


def package(name: str) -> str:
    return name.partition(".")[0]


@pytest.mark.parametrize("module", [name for name in SOURCES if package(name) == "schemas"])
def test_schemas_are_the_ground_floor(module: str) -> None:
    assert foreign(module) <= SCHEMAS
    assert {package(name) for name in imports(module)} & {"engine", "kernels"} == set()


@pytest.mark.parametrize("module", [name for name in SOURCES if package(name) == "kernels"])
def test_kernels_know_only_arrays_and_schemas(module: str) -> None:
    assert foreign(module) <= KERNELS
    assert "engine" not in {package(name) for name in imports(module)}
    if module != "kernels._jit":
        assert not {name for name in imports(module) if name.startswith("schemas.ruleset")}


def test_the_core_knows_no_shell() -> None:
    crossing = {
        (module, name)
        for module in CORE
        for name in imports(module)
        if package(name) == "engine" and name not in CORE
    }
    assert crossing <= INTO_CORE_FROM_SHELL


@pytest.mark.parametrize("module", sorted(CORE))
def test_the_core_has_no_clock_no_files_and_no_chance(module: str) -> None:
    # `os` is let in for the type of a path, which does nothing.
    names = {name for name in imports(module) if name != "os" or not imports_only_pathlike(module)}
    assert names & CORE_MAY_NOT == set()


def imports_only_pathlike(module: str) -> bool:
    nodes = nodes_of(module)
    found = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
    of_os = [node for node in found if isinstance(node, ast.ImportFrom) and node.module == "os"]
    plain = [
        node for node in found if isinstance(node, ast.Import) and any(a.name == "os" for a in node.names)
    ]
    return not plain and all(alias.name == "PathLike" for node in of_os for alias in node.names)


@pytest.mark.parametrize("module", SOURCES)
def test_the_command_line_is_the_top(module: str) -> None:
    if not (module == "engine.cli" or module.startswith("engine.cli.")):
        assert foreign(module) & {"click", "rich"} == set()
        assert not {name for name in imports(module) if name.startswith("engine.cli")}


def test_the_stream_libraries_are_imported_in_one_place() -> None:
    users = {module for module in SOURCES if foreign(module) & {"faust", "mode", "aiokafka"}}
    assert {module.rpartition(".")[0] for module in users} == {"engine.live.kafka"}


def test_every_core_module_is_there() -> None:
    assert set(SOURCES) >= CORE
