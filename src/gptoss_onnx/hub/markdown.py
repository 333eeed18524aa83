"""Pieces of Markdown: the only place where text from outside becomes part of a card."""

import re
from collections.abc import Sequence

from gptoss_onnx.json_text import printable

MOST_LETTERS = 300  # of one text in a card
# What Markdown or HTML may take for more than text.
_MARKS = {letter: f"\\{letter}" for letter in "\\`*_{}[]()#!|~@:\"'=$"}
_ADDRESS = re.compile(r"(www)\.", re.IGNORECASE)  # what becomes a link without any mark
_MARKS |= {"<": "&lt;", ">": "&gt;", "&": "&amp;"}


def bounded(text: str, most: int = MOST_LETTERS) -> str:
    """Return a text on one line, without control characters, and at most so long."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= most else f"{line[:most]}…"


def plain(text: str) -> str:
    """Return a text from anywhere as plain words: nothing in it is markup."""
    escaped = "".join(_MARKS.get(letter, letter) for letter in bounded(text))
    return _ADDRESS.sub(r"\1\\.", escaped)


def code(text: str) -> str:
    """Return a text from anywhere as code in a line, also of a table."""
    held = bounded(text)
    marks = "`" * (1 + max(map(len, _runs(held)), default=0))
    padded = f" {held} " if "`" in held else held
    return f"{marks}{padded}{marks}".replace("|", "\\|")


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table of texts that are Markdown already."""
    lines = [heads, ["---"] * len(heads), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def _runs(text: str) -> list[str]:
    """Return the runs of backticks in a text."""
    kept = "".join(letter if letter == "`" else " " for letter in text)
    return kept.split()
