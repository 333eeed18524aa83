"""GGUF files of gpt-oss, written by the `gguf` package, against transformers on the same values."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from transformers import AutoModelForCausalLM

from gptoss_onnx.exporter import export
from gptoss_onnx.reference import open_checkpoint
from gptoss_onnx.runtime import Package
from gptoss_onnx.validation import validate
from support.architecture_judge import Case
from support.command_line import run
from support.exported import valid_manifest
from support.gguf_files import (
    Recipe,
    as_ollama,
    decoded,
    quantized,
    write_gguf,
    write_oracle,
    write_source,
)
from support.transformers_models import Judged, write_by_transformers

PUBLISHED = Recipe()  # as ggml-org publishes gpt-oss: MXFP4 and Q8_0
RECIPES = {
    "mxfp4 and q8_0": PUBLISHED,
    "mxfp4 and bf16": Recipe(Kind.BF16, Kind.BF16),
    "mxfp4 and f16, f32": Recipe(Kind.F16, Kind.F32),
    "all f16": Recipe(Kind.F16, Kind.F16, Kind.F16),
    "ollama's form": Recipe(Kind.BF16, Kind.BF16, spoil=as_ollama, architecture="gptoss"),
    "ollama's form in q8_0": Recipe(spoil=as_ollama, architecture="gptoss"),
}
FILE = "gpt-oss.gguf"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that transformers wrote."""
    return write_source(tmp_path_factory.mktemp("gguf") / "source")


@pytest.fixture(scope="module")
def published(source: Path) -> Path:
    """A file as it is published, alone in a folder; not to be written to."""
    return write_gguf(source, source.parent / "published" / FILE, PUBLISHED)


@pytest.fixture(scope="module")
def package(published: Path) -> Package:
    """Its package."""
    return export(published, published.parent.parent / "package")


@pytest.mark.parametrize("name", RECIPES)
def test_every_value_is_the_one_that_the_gguf_package_reads(
    source: Path, tmp_path: Path, name: str
) -> None:
    recipe = RECIPES[name]
    expected = decoded(quantized(source, recipe))
    with open_checkpoint(write_gguf(source, tmp_path / FILE, recipe)) as checkpoint:
        found = {entry.name: key for key, entry in checkpoint.parameters.items()}
        for theirs, values in expected.items():
            if theirs in found:
                values_found = checkpoint.load_parameter(found[theirs]).float()
                assert torch.equal(values_found, values), theirs
        left = expected.keys() - found.keys()
        # blocks and scales are judged by test_gguf_blocks
        assert all(".experts." in theirs for theirs in left)
        assert bool(left) == (recipe.experts == Kind.MXFP4)


@pytest.mark.parametrize("name", RECIPES)
def test_the_package_computes_what_transformers_does(
    source: Path, tmp_path: Path, name: str
) -> None:
    file = write_gguf(source, tmp_path / FILE, RECIPES[name])
    case = _case(write_oracle(source, tmp_path / "oracle", RECIPES[name]), file)
    case.check_reference()
    case.check_package(tmp_path / "package", "portable", "auto")


def test_the_published_form_runs_everywhere(source: Path, published: Path, tmp_path: Path) -> None:
    case = _case(write_oracle(source, tmp_path / "oracle", PUBLISHED), published)
    case.check_package(tmp_path / "portable", "portable", "portable")
    case.check_package(tmp_path / "ort", "ort", "auto")


def test_q8_0_is_rounded_by_no_form_of_int8(published: Path, package: Package) -> None:
    manifest = valid_manifest(package.folder)
    assert (manifest.lossy, manifest.rounded, manifest.weights.bit_identical) == ((), (), True)
    counts = {use.name: use.count for use in manifest.ops}
    assert counts["LinearInt8"] == 2 * 4 + 1  # q, k, v, o of each layer, and lm_head
    assert all(file.origin == "export" for file in manifest.weights.files)
    again = export(published, package.folder.parent / "int8", dense="int8")
    own, ours = (folder / "dense-int8.safetensors" for folder in (package.folder, again.folder))
    assert own.read_bytes() == ours.read_bytes()
    assert again.manifest.lossy == ()


def test_validate_judges_a_package_by_the_file(published: Path, package: Package) -> None:
    report = validate(package.folder, published, kernels="native")
    assert report.passed, report


def test_parts_are_one_checkpoint(
    source: Path, package: Package, tmp_path: Path, published: Path
) -> None:
    part = write_gguf(source, tmp_path / FILE, replace(PUBLISHED, parts=3))
    parts = sorted(path.name for path in tmp_path.iterdir())
    assert parts == [f"gpt-oss-{number:05d}-of-00003.gguf" for number in (1, 2, 3)]
    for named in (part, tmp_path / parts[2], tmp_path):
        with open_checkpoint(named) as checkpoint:
            assert len(checkpoint.files) == 3
    whole = export(tmp_path, tmp_path / "package")
    name = "assembled.safetensors"
    assert (whole.folder / name).read_bytes() == (package.folder / name).read_bytes()


def test_the_tokenizer_is_that_of_the_file_or_the_one_beside(
    source: Path, demo_checkpoint: Path, tmp_path: Path
) -> None:
    tokenizer = demo_checkpoint / "tokenizer.json"
    wide = {"num_hidden_layers": 1, "vocab_size": 2060}
    write_by_transformers("gpt_oss", wide, tmp_path / "source", sharded=False)
    recipe = replace(PUBLISHED, tokenizer=tokenizer)
    file = write_gguf(tmp_path / "source", tmp_path / "own" / FILE, recipe)
    made = export(file, tmp_path / "made")
    assert made.manifest.tokenizer_files == ("tokenizer.json", "chat_template.jinja")
    template = (demo_checkpoint / "chat_template.jinja").read_text()
    assert (made.folder / "chat_template.jinja").read_text() == template
    settings = json.loads((made.folder / "generation_config.json").read_text())
    # what the file says, then the tokens of harmony that end a text
    assert settings["eos_token_id"][0] == 0 and len(settings["eos_token_id"]) > 1
    golden = json.loads((made.folder / "golden" / "golden.json").read_text())
    (file.parent / "tokenizer.json").write_bytes(tokenizer.read_bytes())
    beside = export(file, tmp_path / "beside")
    assert beside.manifest.tokenizer_files == ("tokenizer.json",)
    assert (beside.folder / "tokenizer.json").read_bytes() == tokenizer.read_bytes()
    other = json.loads((beside.folder / "golden" / "golden.json").read_text())
    assert golden == other  # its texts are encoded alike


def test_the_command_line_takes_a_file(published: Path, tmp_path: Path) -> None:
    result = run("export", published, "--output", tmp_path / "package")
    assert (result.exit_code, "LinearInt8" in result.stdout) == (0, True)
    planned = run("plan", published, "--bandwidth", "1", "--json")
    assert planned.exit_code == 0
    # what the file holds, but for padding and header
    stored = json.loads(planned.stdout)["total_bytes"]
    assert 0.9 < stored / published.stat().st_size <= 1


def _case(oracle: Path, file: Path) -> Case:
    """Return what transformers computes of the oracle, to be compared with the file."""
    model = AutoModelForCausalLM.from_pretrained(
        oracle, dtype=torch.float32, attn_implementation="eager"
    )
    return Case(Judged(model.eval(), file, model.config.vocab_size))
