"""The shape of source files in every language: 300 lines, 100 columns, one statement a line.

Generated files (JSON, lock files, pictures) and documents have no such limits.
"""

import re
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = (
    "benchmarks",
    "checkpoint",
    "clients",
    "custom_ops",
    "demo",
    "exporter",
    "reference",
    "runtime",
    "serving",
    "src",
    "tests",
    "validation",
)
KINDS = {".py", ".cc", ".h", ".ts", ".mjs", ".sh", ".css", ".html"}
BUILT = {"node_modules", "build", "dist", "__pycache__"}
MADE = (ROOT / "demo" / "package", ROOT / "demo" / "report")  # by `make demo`

MOST_LINES = 300
PRAGMA = re.compile(r"# (noqa|type: ignore)")  # stands at the end of a line and cannot move
MOST_COLUMNS = 100


def sources(*kinds: str) -> Iterable[Path]:
    """Yield the source files of the project, of some kinds of files or of all."""
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.*")):
            built = BUILT.intersection(path.relative_to(ROOT).parts[:-1])
            made = any(path.is_relative_to(folder) for folder in MADE)
            if path.suffix in (kinds or KINDS) and not built and not made:
                yield path


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def test_the_walk_sees_every_language() -> None:
    found = {path.suffix for path in sources()}
    assert found == KINDS


def test_files_are_short() -> None:
    long = [str(path.relative_to(ROOT)) for path in sources() if len(lines(path)) > MOST_LINES]
    assert long == []


def test_lines_are_narrow() -> None:
    wide = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sources()
        for number, line in enumerate(lines(path), 1)
        if len(line) > MOST_COLUMNS and not PRAGMA.search(line)
    ]
    assert wide == []


# Comments, texts and patterns, in which a `;` ends nothing.
UNREAD = re.compile(
    r"""//[^\n]*|/\*.*?\*/|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`(?:[^`\\]|\\.)*`"""
    r"""|(?<=[(,=\[ ])/(?![/* ])(?:[^/\\\n]|\\.)+/""",
    re.DOTALL,
)
# What has a `;` within one statement: heads of loops and conditions, bodies and types in braces.
HEAD = re.compile(r"\bfor \([^;]*;[^;]*;|\bif \((?:const|auto)\b[^;)]*;")
BRACED = re.compile(r"\{[^{}\n]*\}")


def crowded(source: str) -> list[int]:
    """Return the lines of C++, TypeScript or JavaScript that hold several statements."""
    found = []
    code = UNREAD.sub(lambda it: "\n" * it[0].count("\n"), source)
    for number, line in enumerate(code.splitlines(), 1):
        line = HEAD.sub("", line)
        while BRACED.search(line):
            line = BRACED.sub("", line)
        if re.search(r";\s*[^\s;)}]", line):
            found.append(number)
    return found


def test_statements_on_one_line_are_seen() -> None:
    for line in ("a = 1; b = 2;", "if (a) { b(); } c(); d();", 'a = "x"; b();  // done'):
        assert crowded(line) == [1], line
    for line in (
        "for (int i = 0; i < 3; ++i) a(i);",
        "if (const int left = a % b; left > 0) {",
        "const f = () => { a(); };  // and; so on",
        'a = "b; c";',
        "a = `b; c\n d; e`;",
        "matches(/b; c/);",
        "interface A { b: number; c: string }",
    ):
        assert crowded(line) == [], line


def test_one_statement_a_line() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sources(".cc", ".h", ".ts", ".mjs")
        for number in crowded(path.read_text(encoding="utf-8"))
    ]
    assert found == []
