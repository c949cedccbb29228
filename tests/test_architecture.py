"""Who may import whom, as docs/architecture.md draws it (read from the source, nothing runs)."""

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

FLOORS = (
    {"schemas"},
    {"kernels"},
    {"events"},
    {"core"},
    {"files", "service"},
    {"replay", "live", "insight", "deliver"},
    {"cli"},
)
"""From the ground up. A room imports from floors below its own and from itself, never from its neighbours."""

NOT_PURE = {
    # Write an engine's state to files, and read it, when they are asked to.
    "rfmstream.engine.core.checkpoint.columns",
    "rfmstream.engine.core.checkpoint.created",
    "rfmstream.engine.core.checkpoint.folder",
    "rfmstream.engine.core.checkpoint.manifest",
    "rfmstream.engine.core.checkpoint.read",
    "rfmstream.engine.core.checkpoint.views",
    "rfmstream.engine.core.checkpoint.write",
    "rfmstream.engine.core.processors",  # how many there are decides where time is spent, and shows in no result
    "rfmstream.engine.core.touch",  # when memory becomes resident depends on the machine, and shows in no result
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
    parts = ("rfmstream", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(module: str) -> str | None:
    """Return the room a module of ours is in: schemas, kernels, or a package of engine/."""
    parts = module.split(".")
    if parts[0] != "rfmstream" or len(parts) < 2:
        return None
    if parts[1] != "engine":
        return parts[1]
    return parts[2] if len(parts) > 2 else None


def floor(module: str) -> int | None:
    return next((number for number, rooms in enumerate(FLOORS) if room(module) in rooms), None)


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
    return tops - {"rfmstream"} - set(sys.stdlib_module_names)


@pytest.mark.parametrize("module", [name for name in SOURCES if room(name) == "schemas"])
def test_schemas_are_the_ground_floor(module: str) -> None:
    assert foreign(module) <= SCHEMAS


@pytest.mark.parametrize("module", [name for name in SOURCES if room(name) == "kernels"])
def test_kernels_know_only_arrays_and_schemas(module: str) -> None:
    assert foreign(module) <= KERNELS
    # The cache of compiled kernels is keyed by the sources of kernels/ and by this one.
    of_schemas = {name for name in imports(module) if name.startswith("rfmstream.schemas")}
    assert of_schemas <= {"rfmstream.schemas.codes"}


@pytest.mark.parametrize("module", SOURCES)
def test_imports_lead_downwards(module: str) -> None:
    own = floor(module)
    if own is None:
        return  # the names of packages, which hold nothing
    for name in imports(module):
        below = floor(name)
        if below is not None and room(name) != room(module):
            assert below < own, f"{module} imports {name}"


def test_every_room_is_on_a_floor() -> None:
    assert {room(name) for name in SOURCES} - {None} <= set().union(*FLOORS)


@pytest.mark.parametrize("module", [name for name in SOURCES if room(name) == "core"])
def test_the_core_has_no_clock_no_files_and_no_chance(module: str) -> None:
    if module in NOT_PURE:
        return
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
    if room(module) != "cli":
        assert foreign(module) & {"click", "rich"} == set()


def test_the_stream_libraries_are_imported_in_one_place() -> None:
    users = {module for module in SOURCES if foreign(module) & {"faust", "mode", "aiokafka"}}
    homes = {f"rfmstream.engine.{room}.kafka" for room in ("live", "deliver", "service")}
    assert {module.rpartition(".")[0] for module in users} == homes


def test_nobody_imports_the_rooms_by_their_folders() -> None:
    for module in SOURCES:
        assert not {name for name in imports(module) if name.partition(".")[0] in OWN}, module
