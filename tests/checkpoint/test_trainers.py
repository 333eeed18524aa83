"""Checkpoints as trainers save them: wrapped names, files beside, other sizes and spellings."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from gptoss_onnx.exporter import export
from gptoss_onnx.reference import Decoder, open_checkpoint
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document
from support.checkpoints import SINGLE, Q, edit_json, failure, rewrite, shard_by_layer

DOCUMENT = tiny_document(num_hidden_layers=2)
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
TOKENS = [5, 7, 300, 2]
Change = Callable[[dict[str, torch.Tensor]], object]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints") / "saved"
    make_checkpoint(folder, DOCUMENT)
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / "copy")


def logits(folder: Path) -> torch.Tensor:
    with open_checkpoint(folder) as checkpoint:
        return torch.as_tensor(Decoder.from_checkpoint(checkpoint).score(TOKENS))


def renamed(rename: Callable[[str], str]) -> Change:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        for name in list(tensors):
            tensors[rename(name)] = tensors.pop(name)

    return change


# Names

WRAPPED: dict[str, Callable[[str], str]] = {
    "PEFT": lambda name: f"base_model.model.{name}",
    "torch.compile": lambda name: f"_orig_mod.{name}",
    "DataParallel": lambda name: f"module.{name}",
    "DataParallel of a compiled model": lambda name: f"module._orig_mod.{name}",
    "a compiled part": lambda name: name.replace(".self_attn.", "._orig_mod.self_attn."),
    "FSDP": lambda name: name.replace(".mlp.", "._fsdp_wrapped_module.mlp."),
    "checkpointing": lambda name: name.replace("layers.1.", "layers.1._checkpoint_wrapped_module."),
    "DeepSpeed": lambda name: f"_forward_module.module.{name}",
}


@pytest.mark.parametrize("rename", WRAPPED.values(), ids=WRAPPED)
def test_names_of_wrappers(
    rename: Callable[[str], str], original: Path, folder: Path, tmp_path: Path
) -> None:
    rewrite(folder, renamed(rename))
    assert torch.equal(logits(folder), logits(original))
    package = export(folder, tmp_path / "package")
    linked = package.folder / SINGLE
    assert linked.stat().st_ino == (folder / SINGLE).stat().st_ino


def test_names_of_wrappers_in_an_index(original: Path, folder: Path) -> None:
    rewrite(folder, renamed(WRAPPED["torch.compile"]))
    shard_by_layer(folder)
    assert torch.equal(logits(folder), logits(original))


def test_two_tensors_of_one_name(folder: Path) -> None:
    rewrite(folder, lambda tensors: tensors.update({f"module.{Q}": tensors[Q].clone()}))
    assert f"found {Q} as well, expected one of the two" in failure(folder)


@pytest.mark.parametrize("part", ["lora_A.default.weight", "base_layer.weight"])
def test_an_adapter_that_is_not_merged(part: str, folder: Path) -> None:
    name = Q.replace("weight", part)
    rewrite(folder, lambda tensors: tensors.update({name: tensors[Q].clone()}))
    assert f"found {name}: the adapter (LoRA) is not merged" in failure(folder)


# What lies beside the weights

NO_WEIGHTS = {
    "model.rotary_emb.inv_freq": torch.ones(8),
    "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8),
    "optimizer.state.0.exp_avg": torch.ones(3),
    "lr_scheduler.last_epoch": torch.ones(1),
}


def test_tensors_that_are_no_weights(original: Path, folder: Path, tmp_path: Path) -> None:
    rewrite(folder, lambda tensors: tensors.update(NO_WEIGHTS))
    assert torch.equal(logits(folder), logits(original))
    export(folder, tmp_path / "package")


def test_files_that_are_no_weights(original: Path, folder: Path) -> None:
    save_file({"exp_avg": torch.ones(3)}, folder / "optimizer.safetensors")
    for name in ("training_args.bin", "trainer_state.json", "optimizer.pt", "args.json"):
        (folder / name).write_bytes(b"{}")
    (folder / "checkpoint-500").mkdir()
    assert torch.equal(logits(folder), logits(original))


def test_weights_that_are_pickles(folder: Path) -> None:
    (folder / SINGLE).rename(folder / "pytorch_model-00001-of-00002.bin")
    text = failure(folder)
    assert "found PyTorch .bin weights only" in text
    assert "from_pretrained('.', dtype='auto').save_pretrained('.')" in text


def test_weights_of_a_distributed_checkpoint(folder: Path) -> None:
    (folder / SINGLE).rename(folder / "__0_0.distcp")
    assert "accelerate merge-weights" in failure(folder)


# Sizes that config.json does not know of


def resized(rows: int, *names: str) -> Change:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        for name in names:
            old = tensors[name]
            more = torch.zeros(max(0, rows - len(old)), old.shape[1], dtype=old.dtype)
            tensors[name] = torch.cat([old[:rows], more])

    return change


@pytest.mark.parametrize("rows", [384, 311])
def test_a_vocabulary_of_another_size(
    rows: int, original: Path, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rewrite(folder, resized(rows, EMBEDDING, HEAD))
    with open_checkpoint(folder) as checkpoint:
        assert checkpoint.config.vocab_size == rows
    both = min(rows, 320)
    assert torch.equal(logits(folder)[:, :both], logits(original)[:, :both])
    package = export(folder, tmp_path / "package")
    assert package.manifest.vocab_size == rows
    assert f"the stored embedding has {rows} rows: {rows} is taken" in caplog.text


def test_an_embedding_without_its_head(folder: Path) -> None:
    rewrite(folder, resized(384, EMBEDDING))
    assert f"{EMBEDDING}: found shape (384, 64)" in failure(folder)


@pytest.mark.parametrize("left", [4, 5])
def test_pruned_experts(left: int, folder: Path, tmp_path: Path) -> None:
    def prune(tensors: dict[str, torch.Tensor]) -> None:
        for name, tensor in tensors.items():
            if ".mlp." in name:
                tensors[name] = tensor[:left].clone()

    rewrite(folder, prune)
    assert f"expected ({6}, " in failure(folder)
    edit_json(folder / "config.json", lambda document: document.update(num_local_experts=left))
    assert logits(folder).isfinite().all()
    export(folder, tmp_path / "package")


# What config.json says in other words, or does not say


def dropped(*keys: str) -> Callable[[dict[str, Any]], object]:
    return lambda document: [document.pop(key) for key in keys]


def test_experts_by_the_other_name(original: Path, folder: Path) -> None:
    edit_json(
        folder / "config.json",
        lambda document: document.update(num_experts=document.pop("num_local_experts")),
    )
    assert torch.equal(logits(folder), logits(original))


def test_keys_left_to_their_defaults(original: Path, folder: Path) -> None:
    keys = ("attention_bias", "rms_norm_eps", "tie_word_embeddings", "hidden_act", "architectures")
    edit_json(folder / "config.json", dropped(*keys))
    assert torch.equal(logits(folder), logits(original))


def test_a_tied_head_that_is_stored_too(folder: Path) -> None:
    edit_json(folder / "config.json", lambda document: document.update(tie_word_embeddings=True))
    with open_checkpoint(folder) as checkpoint:
        assert not checkpoint.config.tied
        assert torch.equal(checkpoint.load(HEAD), load_file(folder / SINGLE)[HEAD])
