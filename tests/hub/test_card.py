"""The model card: what it says, and that it says no more."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from gptoss_onnx.errors import CheckpointError, InputError, PackageError
from gptoss_onnx.hub.card import card, write_card
from gptoss_onnx.hub.markdown import code, plain
from gptoss_onnx.hub.measured import NOT_VALIDATED
from gptoss_onnx.hub.origin import Origin, front_matter
from gptoss_onnx.manifest import Adapter, Manifest
from gptoss_onnx.package import Package
from support import sample_reports
from support.command_line import done, run

APACHE = b"---\nlicense: apache-2.0\ntags: [a]\n---\n# Theirs\n"
# other tests of the run may have validated the package that all share
REPORT = shutil.ignore_patterns("parity.json")


@pytest.fixture
def checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint with a card and a licence, to be changed."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint, folder)
    (folder / "README.md").write_bytes(APACHE)
    (folder / "LICENSE").write_text("Apache License\n")
    return folder


@pytest.fixture
def package(tiny_package: Package, tmp_path: Path) -> Package:
    """A package of the same checkpoint, to be changed."""
    folder = tmp_path / "package"
    shutil.copytree(tiny_package.folder, folder, copy_function=shutil.copy2, ignore=REPORT)
    return Package(folder, Manifest.read(folder))


def _said(package: Package) -> str:
    return (package.folder / "README.md").read_text(encoding="utf-8")


def _front(text: str) -> dict[str, object]:
    _, front, _ = text.split("---\n", 2)
    return yaml.safe_load(front)


def test_a_card_says_what_the_manifest_says(package: Package) -> None:
    write_card(package, None, None)
    text, manifest = _said(package), package.manifest
    assert _front(text) == {
        "library_name": "gptoss-onnx",
        "pipeline_tag": "text-generation",
        "tags": ["onnx", "onnxruntime", manifest.model["model_type"]],
    }
    for use in manifest.ops:
        assert f"{use.count} `{use.name}`" in text
    assert f"{manifest.vocab_size} tokens" in text
    assert "| lossy | nothing |" in text
    assert f"`{manifest.weights.files[0].header_sha256}`" in text
    assert NOT_VALIDATED in text
    assert "**Unknown.**" in text
    assert str(package.folder.parent) not in text


def test_a_card_says_what_was_lost_and_added(package: Package) -> None:
    adapter = Adapter("mine", "runtime", "their/base", "a" * 64, "b" * 64)
    weights = replace(package.manifest.weights, bit_identical=False)
    changed = replace(package.manifest, lossy=("dense int8",), adapters=(adapter,), weights=weights)
    text = card(changed, "package", Origin(), None)
    assert "| lossy | dense int8 |" in text
    assert "but for those that are named as lossy" in text
    assert "Adapter `mine`, beside the weights in the graph" in text


def test_the_licence_is_the_checkpoints(checkpoint: Path, package: Package) -> None:
    write_card(package, Origin.of_checkpoint(str(checkpoint), checkpoint), None)
    assert _front(_said(package))["license"] == "apache-2.0"
    assert "as its own files say: `apache-2.0`" in _said(package)
    assert (package.folder / "LICENSE").read_text() == "Apache License\n"
    write_card(package, None, None)  # knows it from its own card
    assert _front(_said(package))["license"] == "apache-2.0"
    assert "[LICENSE](LICENSE)" in _said(package)


def test_a_licence_file_alone_is_named(checkpoint: Path) -> None:
    (checkpoint / "README.md").unlink()
    found = Origin.of_checkpoint(str(checkpoint), checkpoint)
    assert (found.licence, found.licence_link) == ("other", "LICENSE")
    (checkpoint / "LICENSE").unlink()
    assert Origin.of_checkpoint(str(checkpoint), checkpoint) == Origin()


def test_the_hub_id_is_the_base_model(checkpoint: Path, tmp_path: Path) -> None:
    cached = tmp_path / "models--an-owner--a.name" / "snapshots" / ("0" * 40)
    shutil.copytree(checkpoint, cached)
    assert Origin.of_checkpoint(str(cached), cached).base_model == "an-owner/a.name"
    assert Origin.of_checkpoint("an/other", checkpoint).base_model == "an/other"
    assert Origin.of_checkpoint(str(checkpoint), checkpoint).base_model is None


def test_a_card_of_another_is_not_believed(package: Package) -> None:
    (package.folder / "README.md").write_bytes(APACHE)
    write_card(package, None, None)
    assert "license" not in _front(_said(package))


@pytest.mark.parametrize(
    "front",
    [
        "license: [a, b]",
        "license: '<script>'",
        "license: &a apache-2.0\nother: *a",
        "license: mit\nlicense_link: javascript:alert(1)\nlicense_name: 'x\\ny'",
        "license: mit\n" + "a: b\n" * 20_000,
        "{" * 5_000,
        "- license: mit",
        "license: 2024-99-99",
    ],
)
def test_a_strangers_front_matter_gives_plain_values_alone(front: str) -> None:
    found = front_matter(f"---\n{front}\n---\n".encode())
    origin = Origin.of_card(f"---\n{front}\nlibrary_name: gptoss-onnx\n---\n".encode(), None)
    assert isinstance(found, dict)
    assert origin.licence in (None, "mit")
    assert origin.licence_link is None
    assert "\n" not in (origin.licence_name or "")


def test_a_licence_outside_of_the_checkpoint_is_not_copied(
    checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("a key")
    (checkpoint / "LICENSE").unlink()
    (checkpoint / "LICENSE").symlink_to(tmp_path / "secret")
    with pytest.raises(CheckpointError, match="a link to"):
        Origin.of_checkpoint(str(checkpoint), checkpoint)


def test_a_card_that_leads_out_is_not_written(package: Package, tmp_path: Path) -> None:
    (package.folder / "README.md").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PackageError, match="found a link"):
        write_card(package, Origin(), None)


def test_it_holds_what_a_report_says(package: Package) -> None:
    report = sample_reports.passing().to_json()
    text = card(package.manifest, "package", Origin(), report)
    assert "**Passed**. Checks: 15 passed." in text
    assert "| prefill | 141 | ✓ | 1.6e-05 | 1.6e-12 | 100.0% |" in text
    assert "onnxruntime 1.32.0" in text
    assert "demo/checkpoint" not in text
    assert NOT_VALIDATED not in text


def test_it_says_that_a_run_failed(package: Package) -> None:
    text = card(package.manifest, "package", Origin(), sample_reports.failing().to_json())
    assert "**Failed**" in text
    assert "✗ failed" in text
    assert "not finite" in text
    error = replace(sample_reports.passing(), cells=(), error="no such checkpoint")
    text = card(package.manifest, "package", Origin(), error.to_json())
    assert "**Could not judge**" in text
    assert "Nothing could be judged: no such checkpoint" in text


@pytest.mark.parametrize("text", sample_reports.HOSTILE)
def test_texts_of_strangers_stay_texts(package: Package, text: str) -> None:
    report = sample_reports.passing()
    columns = (replace(report.columns[0], runs=text),)
    document = replace(report, columns=columns, versions={"a": text}, suite=text).to_json()
    named = replace(package.manifest, lossy=(text,))
    found = card(named, text, Origin(licence="other", licence_name=text), document)
    front, _, body = found.removeprefix("---\n").partition("\n---\n")
    assert yaml.safe_load(front)["license"] == "other"
    assert len(found) < 12_000
    for mark in ("<script", "<img", "<svg", "[a](", "\x1b", "\x00", "\n# d"):
        assert mark not in body
    assert plain("www.example.com:80") == "www\\.example.com\\:80"
    assert plain("`|<\n*") == "\\`\\|&lt; \\*"
    assert code("a`b``c") == "``` a`b``c ```"


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"format": "gptoss-onnx-parity", "format_version": 9},
        {"format": "gptoss-onnx-parity", "format_version": 2, "exit_code": []},
    ],
)
def test_what_is_no_report_is_refused(package: Package, document: dict[str, object]) -> None:
    with pytest.raises(InputError, match="expected gptoss-onnx-parity of version 2"):
        write_card(package, Origin(), document)


def test_the_commands(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "made"
    result = run("export", checkpoint, "--output", folder, "--card")
    assert result.exit_code == 0, result.stderr
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert _front(text)["license"] == "apache-2.0"
    assert NOT_VALIDATED in text
    reports = tmp_path / "reports"
    reports.mkdir()
    report = sample_reports.passing().to_json()
    (reports / "parity.json").write_text(json.dumps(report))
    assert done("card", folder, "--report", reports).strip() == str(folder / "README.md")
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert "**Passed**" in text
    assert _front(text)["license"] == "apache-2.0"
    assert done("card", folder, "--reference", checkpoint).count("\n") == 1
    failed = run("card", folder, "--report", tmp_path / "none")
    assert (failed.exit_code, failed.stderr.count("\n")) == (2, 1)
    assert "--report: found no" in failed.stderr
