"""What lies in a checkpoint's folder beside the weights, and weights that are not numbers."""

import json
from pathlib import Path

import pytest
import torch

from gptoss_onnx.checkpoint.folder_kinds import KINDS, as_markdown, kind_of
from gptoss_onnx.errors import CheckpointError
from gptoss_onnx.exporter import export
from gptoss_onnx.reference import open_checkpoint
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document
from support.checkpoints import INDEX, SCALES, SINGLE, Q, edit_json, failure, rewrite
from support.tiny_package import clone, tiny_checkpoint

SECRET = "what only the user may read"
DOCS = Path(__file__).parents[2] / "docs" / "checkpoints.md"


@pytest.fixture
def folder(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with a tokenizer and a chat template, free to be spoilt."""
    return clone(tiny_checkpoint(tmp_path_factory), tmp_path / "checkpoint")


def refused(folder: Path) -> str:
    """Export a checkpoint, which must fail and leave nothing; returns the one line."""
    output = folder.parent / "package"
    with pytest.raises(CheckpointError) as caught:
        export(folder, output)
    assert not output.exists()
    assert [path for path in folder.parent.iterdir() if path.name.endswith(".partial")] == []
    text = str(caught.value)
    assert "\n" not in text
    return text


# Files that would change the model, or leave open which one is meant

REFUSED = {
    "adapter_config.json": "an adapter",
    "adapter_model.bin": "an adapter",
    "adapter_model.safetensors": "an adapter",
    "adapters.safetensors": "an adapter",
    "quantize_config.json": "another quantization",
    "quant_config.json": "another quantization",
    "hf_quant_config.json": "another quantization",
    "quanto_qmap.json": "another quantization",
    "modelopt_state.pth": "another quantization",
    "model-00001-of-00002.safetensors": "a second set of weights",
    "model.fp16.safetensors": "a second set of weights",
    "mtp.safetensors": "a second set of weights",
    "model.fp16.safetensors.index.json": "a second set of weights",
}


@pytest.mark.parametrize(("name", "what"), REFUSED.items(), ids=REFUSED.keys())
def test_nothing_that_changes_the_model_is_ignored(folder: Path, name: str, what: str) -> None:
    (folder / name).write_text("{}")
    text = failure(folder)
    assert f"found {name}: " in text
    assert what in text


def test_shards_that_the_index_does_not_list_are_refused(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "c", tiny_document(num_hidden_layers=2), shard_bytes=60_000)
    (tmp_path / "c" / "model-00007-of-00007.safetensors").touch()
    (tmp_path / "c" / SINGLE).touch()
    text = failure(tmp_path / "c")
    assert (
        "found model-00007-of-00007.safetensors, model.safetensors: a second set of weights" in text
    )


def test_an_index_of_the_one_file_is_no_second_set(folder: Path) -> None:
    with open_checkpoint(folder) as checkpoint:
        names = list(checkpoint.tensors)
    (folder / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(names, SINGLE)}))
    with open_checkpoint(folder) as checkpoint:
        assert list(checkpoint.tensors) == names


IGNORED = (
    "README.md",
    "LICENSE",
    "pytorch_model.bin",
    "model-Q4_K_M.gguf",
    "optimizer.pt",
    "rng_state_0.pth",
    "training_args.bin",
    "vocab.json",
    "modeling_gpt_oss.py",
    ".gitattributes",
    "original/model.safetensors",
    "metal/model.bin",
    "consolidated.safetensors",
    "consolidated-00001-of-00002.safetensors",
    "consolidated.safetensors.index.json",
    "checkpoint-100/adapter_config.json",
)


def test_what_changes_nothing_is_ignored(folder: Path) -> None:
    for name in IGNORED:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("x")
    with open_checkpoint(folder) as checkpoint:
        assert checkpoint.load(Q).any()


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("auto_map", {"AutoModelForCausalLM": "modeling.Other"}, "never run"),
        (
            "compression_config",
            {"quant_method": "compressed-tensors"},
            "'compressed-tensors' in compression_config",
        ),
        ("quantization", {"group_size": 64, "bits": 4}, "'fp8' or no quantization"),
        ("quantization_config", {"quant_method": "bitsandbytes"}, "'bitsandbytes'"),
        ("quantization_config", ["mxfp4"], "['mxfp4']"),
    ],
)
def test_a_configuration_of_another_model_is_refused(
    folder: Path, key: str, value: object, words: str
) -> None:
    edit_json(folder / "config.json", lambda document: document.update({key: value}))
    assert words in failure(folder)


def test_the_table_is_the_one_in_the_docs() -> None:
    assert as_markdown() in DOCS.read_text()
    assert kind_of("anything").meaning == "ignored"
    assert {kind.meaning for kind in KINDS} == {"read", "copied", "refused", "ignored"}


# Weights that are not numbers


def test_a_scale_that_is_no_number_is_refused_by_name_and_index(folder: Path) -> None:
    rewrite(folder, lambda tensors: tensors[SCALES].view(-1).__setitem__(7, 255))
    text = refused(folder)
    assert f"{SCALES}[0, " in text
    assert "is a NaN scale (255)" in text


def test_a_large_checkpoint_that_is_copied_is_checked_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gptoss_onnx.exporter.export_package.GOLDEN_LIMIT", 0)
    rewrite(folder, lambda tensors: tensors[Q].view(-1).__setitem__(3, torch.nan))
    with pytest.raises(CheckpointError, match=rf"{Q}\[0, 3\] in {SINGLE} is nan"):
        export(folder, folder.parent / "package", weights="copy")


def test_weights_that_overflow_leave_no_golden_file(folder: Path) -> None:
    """Every weight is finite, and the logits are not: JSON has no word for that."""
    rewrite(folder, lambda tensors: tensors["lm_head.weight"].fill_(3e38))
    assert "golden vectors: case random-beyond-window: these weights overflow float32" in refused(
        folder
    )
