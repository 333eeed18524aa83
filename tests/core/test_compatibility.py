"""docs/compatibility.md says what the code does, and every version number is the same."""

import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from gptoss_onnx.custom_ops import DOMAIN_VERSION
from gptoss_onnx.custom_ops.bodies import OPSET_VERSION
from gptoss_onnx.custom_ops.schemas import SIGNATURES
from gptoss_onnx.exporter.describe import least_onnxruntime
from gptoss_onnx.exporter.options import ExportOptions
from gptoss_onnx.manifest import FORMAT_VERSION
from gptoss_onnx.reference.checkpoint import Checkpoint, open_checkpoint

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "compatibility.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def rows(header: str) -> list[list[str]]:
    """Return the cells of the table of the page that begins with a header."""
    lines = PAGE[PAGE.index(header) :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_formats_are_those_that_are_read_and_written() -> None:
    assert [int(row[0]) for row in rows("| Format |")] == list(range(1, FORMAT_VERSION + 1))


def test_the_ops_are_those_of_the_domain() -> None:
    ((version, ops),) = rows("| Version | Ops |")
    assert int(version) == DOMAIN_VERSION
    assert re.findall(r"`(\w+)`", ops) == sorted(SIGNATURES)
    assert f"standard ops of opset {OPSET_VERSION}:" in PAGE


@pytest.fixture(scope="module")
def checkpoint(demo_checkpoint: Path) -> Checkpoint:
    return open_checkpoint(demo_checkpoint)


@pytest.mark.parametrize("row", rows("| Export |"), ids=lambda row: row[0])
def test_each_export_needs_what_the_table_says(row: list[str], checkpoint: Checkpoint) -> None:
    command, rest = re.fullmatch(r"`export ?([^`]*)`(.*)", row[0]).groups()  # type: ignore[union-attr]
    words = command.split()
    chosen = dict(zip(words[::2], words[1::2], strict=True))
    options = ExportOptions.choose(
        chosen.get("--target", "portable"),  # type: ignore[arg-type]
        "cpu",
        None,
        None,
        chosen.get("--experts", "checkpoint"),  # type: ignore[arg-type]
        None,
        None,
    )
    config = checkpoint.config
    if rest:
        assert rest == ", model without window layers"
        layers = tuple(
            replace(layer, attention=replace(layer.attention, window=0)) for layer in config.layers
        )
        config = replace(config, layers=layers)
    assert least_onnxruntime(options, config) == row[1]


def test_no_older_onnxruntime_is_installed_than_packages_need() -> None:
    least = min(row[1] for row in rows("| Export |"))
    for extra, name in (("cpu", "onnxruntime"), ("gpu", "onnxruntime-gpu")):
        assert PROJECT["optional-dependencies"][extra] == [f"{name}>={least}"]


def test_every_client_has_the_projects_version() -> None:
    version = PROJECT["version"]
    for client in ("node", "browser"):
        for name in ("package.json", "package-lock.json"):
            document = json.loads((ROOT / "clients" / client / name).read_text())
            assert document["version"] == version, (client, name)
    minor = ".".join(version.split(".")[:2])
    assert rows("| Format |")[-1][1] == minor


def test_the_changelog_has_the_version() -> None:
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert headings[1] == PROJECT["version"]


def test_no_document_names_files_of_another_version() -> None:
    named = re.compile(r"(?:gptoss_onnx-|libgptoss_ops\.so )([0-9.]+[0-9])")
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    found = {(page.name, version) for page in pages for version in named.findall(page.read_text())}
    assert ("README.md", PROJECT["version"]) in found
    assert {version for _, version in found} == {PROJECT["version"]}
