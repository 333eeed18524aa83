"""Commands in the documents are those that people should type."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLACES = ("*.md", "docs/**/*.md", "clients/*.md", "clients/*/*.md", "demo/*.md", "benchmarks/*.md")


def test_cmake_builds_with_all_cores() -> None:
    """One core takes many times as long for a client or the library."""
    pages = [page for place in PLACES for page in ROOT.glob(place)]
    builds = [
        line
        for page in pages
        for line in re.findall(r"cmake --build [^`\n]*", page.read_text(encoding="utf-8"))
    ]
    assert len(builds) > 3
    assert [line for line in builds if "--parallel" not in line] == []


def test_security_names_tests_that_exist() -> None:
    """A line of the table is worth as much as the test behind it."""
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w.-]+\.(?:py|mjs))", page))
    there = {path.name for folder in ("tests", "clients") for path in (ROOT / folder).rglob("*.*")}
    assert len(named) > 20
    assert named <= there
