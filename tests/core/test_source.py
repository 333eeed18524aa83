"""Source files of every language are short enough to be read whole, and their lines to be seen."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LANGUAGES = (
    ".py",
    ".cc",
    ".h",
    ".ts",
    ".mjs",
    ".css",
    ".html",
    ".sh",
    "CMakeLists.txt",
    "Makefile",
)
LINES, COLUMNS = 300, 100


def _sources() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("no git repository, whose list of files this reads")
    names = listed.stdout.decode().split("\0")
    return [ROOT / name for name in names if name.endswith(LANGUAGES) and (ROOT / name).is_file()]


def test_no_file_is_longer_than_one_can_read() -> None:
    sizes = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in _sources()}
    assert len(sizes) > 300
    assert {str(path.relative_to(ROOT)): n for path, n in sizes.items() if n > LINES} == {}


def test_no_line_is_wider_than_one_can_see() -> None:
    wide = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in _sources()
        if path.suffix in (".cc", ".h", ".ts", ".mjs")  # ruff looks at Python's
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if len(line) > COLUMNS
    ]
    assert wide == []
