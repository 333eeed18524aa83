"""Pieces of HTML: the only place where text from outside becomes markup."""

from collections.abc import Mapping, Sequence
from html import escape

from gptoss_onnx.validation.report.document import Column, Report, State
from gptoss_onnx.validation.report.words import MOST_LETTERS, SIGNS, command, shown


def text(content: str, most: int = MOST_LETTERS) -> str:
    """Return a text from anywhere, safe in an element and in a quoted attribute."""
    return escape(shown(content, most))


def sign(state: State) -> str:
    """Return the sign of a state, which no screen reader spells."""
    return f'<span class="sign" aria-hidden="true">{SIGNS[state]}</span>'


def kind(state: State) -> str:
    """Return the class of a state."""
    return state.replace(" ", "-")


def badge(state: State) -> str:
    """Return a state as a sign and its word."""
    return f'<span class="badge {kind(state)}">{sign(state)} {state}</span>'


def code(report: Report, column: Column | None = None) -> str:
    """Return the command that judges a column again, or all of the report, to copy."""
    lines = command(report, column, " \\\n  ")
    return f'<pre class="command"><code>{text(lines, 10 * MOST_LETTERS)}</code></pre>'


def facts(pairs: Mapping[str, str]) -> str:
    """Return names and values as a list; those without a value are left out."""
    entries = "".join(
        f"<div><dt>{text(str(name))}</dt><dd>{text(str(value))}</dd></div>"
        for name, value in pairs.items()
        if value
    )
    return f"<dl>{entries}</dl>"


def table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]], name: str) -> str:
    """Return a table of texts, each row of which is a card of its own on a phone.

    `name` is its class and, to a screen reader, its name. The roles are said because a table that
    is not displayed as one loses them.
    """
    head = "".join(f'<th role="columnheader" scope="col">{text(it)}</th>' for it in heads)
    body = "".join(
        '<tr role="row">'
        + "".join(
            f'<td role="cell" data-head="{text(of)}">{text(value)}</td>'
            for of, value in zip(heads, row, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    return (
        f'<table class="cards {name}" role="table" aria-label="{text(name)}">'
        f'<thead role="rowgroup"><tr role="row">{head}</tr></thead>'
        f'<tbody role="rowgroup">{body}</tbody></table>'
    )
