"""Who may know what: rooms import one way, and one folder alone names architectures."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from gptoss_onnx.reference.architectures import ARCHITECTURES

ROOT = Path(__file__).parents[2]
CORE = ROOT / "src" / "gptoss_onnx"
# Each room may import those named, and the modules at the top of the package.
BELOW: dict[str, set[str]] = {
    "": set(),
    "checkpoint": set(),
    "custom_ops": set(),
    "reference": {"checkpoint", "custom_ops"},
    # `runtime`: an export asks ONNX Runtime whether it multiplies what is written.
    "exporter": {"checkpoint", "custom_ops", "reference", "runtime"},
    "runtime": {"custom_ops"},
    "validation": {"checkpoint", "custom_ops", "reference", "exporter", "runtime"},
    "bench": {"custom_ops", "runtime"},
    "inspect": {"bench", "runtime"},
    "lm_eval": {"runtime"},
    "transformers": {"runtime"},
    "hub": {"checkpoint", "runtime"},
    "serving": {"runtime"},
}
HEAVY = {"torch", "transformers", "onnxscript"}
WITHOUT_TORCH = (
    "",
    "runtime",
    "bench",
    "inspect",
    "lm_eval",
    "hub",
    "serving",
    "cli",
)  # cli: at import; its commands import what they do
SOURCES = ("*.py", "*.h", "*.cc", "*.ts", "*.mjs")
NOT_OURS = {"node_modules", "build", "dist", "test"}


def files_of(room: str) -> list[Path]:
    """Return the Python files of a room; "" is the top of the package."""
    if not room:
        return sorted(CORE.glob("*.py"))
    folder = ROOT / room if (ROOT / room / "__init__.py").exists() else CORE / room
    found = sorted(folder.rglob("*.py"))
    assert found, f"no room {room}"
    return found


def imports(path: Path, *, inside_functions: bool) -> Iterator[str]:
    """Yield the full name of every module that a file imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree) if inside_functions else tree.body:
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None
            yield from (f"{node.module}.{name.name}" for name in node.names)


def rooms_imported(path: Path) -> set[str]:
    """Return the other rooms that a file imports, also inside functions."""
    parts = [name.split(".") for name in imports(path, inside_functions=True)]
    return {part[1] for part in parts if part[0] == "gptoss_onnx" and part[1] in {*BELOW, "cli"}}


def test_every_room_has_its_place() -> None:
    folders = {init.parent for place in (ROOT, CORE) for init in place.glob("*/__init__.py")}
    assert {folder.name for folder in folders} == BELOW.keys() - {""} | {"cli"}


@pytest.mark.parametrize("room", BELOW)
def test_rooms_import_one_way(room: str) -> None:
    allowed = BELOW[room] | {room}
    found = {path.name: rooms_imported(path) - allowed for path in files_of(room)}
    assert {name: rooms for name, rooms in found.items() if rooms} == {}


@pytest.mark.parametrize("room", WITHOUT_TORCH)
def test_what_runs_packages_does_not_import_torch(room: str) -> None:
    inside = room != "cli"
    found = {
        path.name: {name.split(".")[0] for name in imports(path, inside_functions=inside)} & HEAVY
        for path in files_of(room)
    }
    assert {name: heavy for name, heavy in found.items() if heavy} == {}


def test_only_the_table_of_architectures_names_them() -> None:
    """A new architecture must not need a line anywhere else."""
    quoted = re.compile(rf"""(["'`])({"|".join(map(re.escape, ARCHITECTURES))})\1""")
    table = ROOT / "reference" / "architectures"
    places = [ROOT / room for room in BELOW if (ROOT / room / "__init__.py").exists() and room]
    named = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for place in (*places, CORE, ROOT / "clients")
        for source in SOURCES
        for path in place.rglob(source)
        if not NOT_OURS & set(path.relative_to(ROOT).parts) and not path.is_relative_to(table)
        for match in quoted.finditer(path.read_text(encoding="utf-8"))
    ]
    assert named == []
    assert quoted.search((table / "gpt_oss.py").read_text(encoding="utf-8"))  # it can find them
