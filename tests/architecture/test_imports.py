"""The rooms of the house: who may import whom (one way), where jax may be imported, how long files may grow."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import jaxscale

ROOT = Path(jaxscale.__file__).parent
FLOOR = {"types", "units", "errors"}
# room -> rooms that it may import, besides itself
MAY_IMPORT: dict[str, set[str]] = {
    "units": {"errors"},
    "errors": set(),
    "types": {"units", "errors"},
    "catalog": FLOOR,
    "schedule": FLOOR,
    "cost": FLOOR | {"schedule"},
    "search": FLOOR | {"cost"},
    "plan": FLOOR | {"cost", "search"},
    "calibrate": FLOOR | {"cost", "catalog"},
    "validate": FLOOR | {"cost", "calibrate", "catalog"},
    "export": FLOOR,
    "report": FLOOR | {"cost", "schedule", "plan", "calibrate", "validate"},
    "zoo": FLOOR,
    "runtime": FLOOR | {"zoo"},
    "aot": FLOOR | {"zoo", "runtime"},
    "measure": FLOOR | {"zoo", "runtime", "aot"},
    "study": FLOOR | {"measure"},
    "launch": FLOOR | {"catalog"},
}
ROOF = {"cli", "api", "__main__", "__init__"}
JAX = {"jax", "jaxlib", "flax", "optax", "orbax"}
JAX_ROOMS = {"zoo", "runtime", "aot", "measure", "study"}
JAX_IN_FUNCTIONS = {"calibrate", "plan"}
MAX_LINES = 600


def modules() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").parts[0]


def imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_flow_one_way(path: Path) -> None:
    room = room_of(path)
    if room in ROOF:
        return
    assert room in MAY_IMPORT, f"{room} is a new room: say in MAY_IMPORT what it may import"
    rooms = {name.split(".")[1] for name in imports(path) if name.startswith("jaxscale.") and len(name.split(".")) > 1}
    rooms -= {"__version__"}
    assert rooms <= MAY_IMPORT[room] | {room}, f"{room} may not import {rooms - MAY_IMPORT[room] - {room}}"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_jax_stays_in_its_rooms(path: Path) -> None:
    room = room_of(path)
    if room in JAX_ROOMS:
        return
    at_import = {name.split(".")[0] for name in imports(path, top_level_only=True)} & JAX
    assert not at_import, f"{path.name} imports {at_import} when it is loaded"
    if room not in JAX_IN_FUNCTIONS | ROOF:
        assert not {name.split(".")[0] for name in imports(path)} & JAX


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_files_stay_readable(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_LINES


def test_predicting_leaves_jax_alone() -> None:
    code = (
        "import sys, jaxscale, jaxscale.cost, jaxscale.search, jaxscale.catalog, jaxscale.cli.predict; "
        "print([m for m in ('jax', 'flax', 'optax', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
