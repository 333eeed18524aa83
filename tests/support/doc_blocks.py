"""The fenced blocks of the documents, and what the comment before each says of how it is run.

- `<!-- prints -->`: the block of `text` that follows is what it prints.
- `<!-- run by tests/x/test_y.py -->`: those tests do the same, with what it needs.
- `<!-- not run: reason -->`: nothing runs it, and why.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLACES = ("README.md", "CONTRIBUTING.md", "docs/**/*.md", "clients/**/README.md", "demo/README.md")
COMMANDS = ("sh", "console", "python")
FENCE = re.compile(
    r"^(?:<!-- (?P<said>[^\n]*?) -->\n)?```(?P<language>[^\n]*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str  # its path in the repository
    line: int
    language: str
    text: str
    said: str  # the comment before it, "" if there is none

    @property
    def place(self) -> str:
        """Where it stands."""
        return f"{self.page}:{self.line}"

    @property
    def is_command(self) -> bool:
        """Whether people type it."""
        return self.language in COMMANDS

    @property
    def is_run_here(self) -> bool:
        """Whether the test of the pages runs it."""
        return self.is_command and self.said in ("", "prints")

    @property
    def commands(self) -> list[str]:
        """The commands of a block of `sh`, or those after `$` of a block of `console`."""
        text = self.text
        if self.language == "console":
            typed = re.findall(r"^\$ ((?:[^\n]*\\\n)*[^\n]*)", text, re.MULTILINE)
            text = "\n".join(typed)
        joined = re.sub(r" *\\\n\s*", " ", text)
        return [line for line in joined.splitlines() if line.strip() and line[0] != "#"]


def pages() -> list[str]:
    """Return the paths of all pages that people read, within the repository."""
    found = {path for place in PLACES for path in ROOT.glob(place)}
    inner = {path.relative_to(ROOT) for path in found}
    return sorted(str(path) for path in inner if "node_modules" not in path.parts)


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str) -> list[Block]:
    """Return the blocks of a page in their order."""
    text = read(page)
    return [
        Block(
            page,
            text.count("\n", 0, found.start("language")) + 1,
            found["language"],
            found["text"],
            found["said"] or "",
        )
        for found in FENCE.finditer(text)
    ]


def all_blocks() -> Iterator[Block]:
    """Yield the blocks of all pages."""
    for page in pages():
        yield from blocks(page)


def own_command_lines(block: Block) -> Iterator[list[str]]:
    """Yield the arguments of each call of `gptoss-onnx` in a block of commands."""
    for command in block.commands if block.language in ("sh", "console") else ():
        words = shlex.split(command, comments=True)
        if words and words[0] == "gptoss-onnx":
            yield words[1:]
