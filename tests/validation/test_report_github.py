"""What GitHub Actions is told: commands that say what we mean, and nothing that strangers mean."""

import re
from dataclasses import replace

import pytest

from gptoss_onnx.validation.report.github import (
    MOST_ANNOTATIONS,
    annotations,
    job_summary,
    quoted,
)
from support.sample_reports import HOSTILE, cell, failing, hostile, not_judged, passing

# What the runner takes for a command: ActionCommand.cs of actions/runner.
COMMAND = re.compile(r"^\s*::(?P<name>[a-z-]+)(?: (?P<properties>[^:]*))?::(?P<data>.*)$")


def read(line: str) -> tuple[str, dict[str, str], str]:
    """Return a workflow command as the runner reads it."""
    match = COMMAND.match(line)
    assert match, line
    properties = dict(part.split("=", 1) for part in (match["properties"] or "").split(",") if part)
    return match["name"], {key: _back(it) for key, it in properties.items()}, _back(match["data"])


def _back(text: str) -> str:
    for code, letter in (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
        text = text.replace(code, letter)
    return text


def test_every_column_that_failed_is_an_annotation_until_github_shows_no_more() -> None:
    report = failing()
    found = [read(line) for line in annotations(report)]
    assert {name for name, _, _ in found} == {"error"}
    assert found[0][1]["title"] == "graph of the package"
    assert "alpha: 1.703125, expected 1.702" in found[0][2]
    titles = [properties["title"] for _, properties, _ in found]
    assert titles[1:] == ["native: 1 of 7 cases failed", "portable: 7 of 7 cases failed"]
    assert found[1][2].startswith("ragged batch: SinkAttention: new_lengths: found 3")
    lines = found[2][2].splitlines()
    assert len(lines) == 8
    assert lines[-1].endswith("--kernels portable")
    cells = tuple(cell("decode", str(name), state="failed") for name in range(30))
    many = annotations(replace(report, cells=cells * 20))
    assert len(many) == MOST_ANNOTATIONS
    assert "22 more columns failed" in many[-1]
    assert "and 10 more: see the summary" in many[1]


def test_what_passed_is_not_annotated() -> None:
    assert annotations(passing()) == []


def test_what_could_not_be_judged_is_one_annotation() -> None:
    ((name, _, data),) = map(read, annotations(not_judged()))
    assert (name, data) == ("error", "could not judge: demo/package: manifest.json: not found")


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_texts_of_strangers_are_no_commands(text: str) -> None:
    for line in annotations(hostile(text)):
        assert "\n" not in line
        assert "\r" not in line
        name, properties, data = read(line)
        assert (name, set(properties)) == ("error", {"title"})
        assert len(data) < 40_000
        assert all(part.isprintable() for part in data.split("\n"))


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_texts_of_strangers_are_no_markup_in_the_summary(text: str) -> None:
    summary = job_summary(hostile(text))
    assert len(summary) < 500_000
    without = re.sub(r"</?(pre|code)>", "", summary)
    assert "<" not in without
    assert not re.search(r"\]\(|`|https:", re.sub(r"<code>.*?</code>", "", summary))
    plain = job_summary(hostile("plain"))
    heads = [line for line in plain.splitlines() if line.startswith(("#", "|"))]
    found = [line for line in summary.splitlines() if line.startswith(("#", "|"))]
    assert [line.count("|") for line in found] == [line.count("|") for line in heads]


def test_the_summary_has_the_matrix_and_what_failed() -> None:
    summary = job_summary(failing())
    assert summary.startswith("## Failed: demo/package\n")
    assert "| chunks of 7 | ✓ 1.6e-05 | ✗ 3.1e-01 | ≈ 2.0e-02 |" in summary
    assert "<code>gptoss-onnx validate demo/package" in summary
    assert job_summary(passing()).startswith("## Passed")
    assert "manifest&#46;json" in job_summary(not_judged())


def test_a_quotation_ends_with_its_own_token() -> None:
    lines = quoted("::error::owned", "a1b2").splitlines()
    assert lines == ["::stop-commands::a1b2", "::error::owned", "::a1b2::"]
