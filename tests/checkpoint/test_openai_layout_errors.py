"""Broken checkpoints in OpenAI's own layout: one line each, by the names in their files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from gptoss_onnx.reference import open_checkpoint
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document
from support.checkpoints import edit_json, failure, rewrite
from support.openai_checkpoint import QKV, write_original

SINGLE = "model.safetensors"


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights in Hugging Face's layout."""
    folder = tmp_path_factory.mktemp("hf") / "checkpoint"
    make_checkpoint(folder, tiny_document(layers=2))
    return folder


@pytest.fixture
def original(theirs: Path, tmp_path: Path) -> Path:
    return write_original(tmp_path / "repository" / "original", theirs)


def _config(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit_json(
        folder / "config.json", lambda document: _set(document, changes)
    )


def _set(document: dict[str, Any], changes: dict[str, Any]) -> None:
    document.update(changes)
    for key in [key for key, value in changes.items() if value is None]:
        del document[key]


def _tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    return lambda folder: rewrite(folder, change)


def _sharded(change: Callable[[list[Path]], object]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        for number in (1, 2, 3):
            own = {f"block.{number}.x": torch.zeros(1)}
            save_file(own, folder / f"model--{number:05d}-of-00003.safetensors")
        (folder / SINGLE).unlink()
        change(sorted(folder.glob("model--*")))

    return spoil


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "a missing tensor": (
        _tensors(lambda tensors: tensors.pop(QKV)),
        f"{QKV}: missing, expected (192, 64) BF16 or F16 or F32",
    ),
    "a tensor too many": (
        _tensors(lambda tensors: tensors.update({"block.0.attn.more": torch.zeros(1)})),
        "block.0.attn.more: unexpected, found in model.safetensors",
    ),
    "experts that are not packed": (
        _tensors(lambda tensors: tensors.update({"block.0.mlp.mlp1_weight": torch.zeros(1)})),
        "block.0.mlp.mlp1_weight: unexpected, found in model.safetensors: experts of this layout",
    ),
    "a shape that the config contradicts": (
        _config(num_key_value_heads=4),
        f"{QKV}: found shape (192, 64) in model.safetensors, expected (256, 64)",
    ),
    "a wrong dtype": (
        _tensors(lambda tensors: tensors.update({QKV: tensors[QKV].to(torch.int16)})),
        f"{QKV}: found dtype I16 in model.safetensors, expected BF16 or F16 or F32",
    ),
    "blocks of the wrong depth": (
        _tensors(
            lambda tensors: tensors.update(
                {"block.1.mlp.mlp1_weight.blocks": torch.zeros(6, 192, 2, 8, dtype=torch.uint8)}
            )
        ),
        "block.1.mlp.mlp1_weight.blocks: found shape (6, 192, 2, 8) in model.safetensors",
    ),
    "names of the other layout": (
        _tensors(
            lambda tensors: [
                tensors.update({f"model.{name}": tensors.pop(name)}) for name in list(tensors)
            ]
        ),
        "found the keys of OpenAI's own layout, but tensors named like model.block.0.attn",
    ),
    "no config": (
        lambda folder: (folder / "config.json").unlink(),
        "expected the config.json of OpenAI's own layout",
    ),
    "a config of something else": (
        lambda folder: (folder / "config.json").write_text('{"num_experts": 32}'),
        "expected the config.json of OpenAI's own layout",
    ),
    "a missing key": (_config(head_dim=None), "head_dim: missing, expected an integer"),
    "several wrong keys": (
        _config(rope_theta="x", num_experts=2.0),
        "num_experts: found 2.0, expected an integer of at least 1; ",
    ),
    "a key that OpenAI's reader does not know": (
        _config(bidirectional_left_context=128),
        "bidirectional_left_context: unexpected, found 128: OpenAI's layout has no such key",
    ),
    "a million layers": (_config(num_hidden_layers=10**6), "num_hidden_layers: found 1000000"),
    "more experts a token than there are": (
        _config(experts_per_token=7),
        "experts_per_token: found 7, expected at most num_experts = 6",
    ),
    "heads that do not divide": (
        _config(num_key_value_heads=3),
        "found shape (192, 64) in model.safetensors, expected (224, 64)",
    ),
    "a missing shard": (
        _sharded(lambda paths: paths[1].unlink()),
        "model--00002-of-00003.safetensors: no such file: the checkpoint is incomplete",
    ),
    "only the last shard": (
        _sharded(lambda paths: [path.unlink() for path in paths[:2]]),
        "model--00001-of-00003.safetensors and 1 more: no such file",
    ),
    "a tensor in two files": (
        lambda folder: save_file({QKV: torch.zeros(1)}, folder / "more.safetensors"),
        f"{QKV}: found twice, in model.safetensors and in more.safetensors",
    ),
    "a file twice": (
        lambda folder: (folder / "more.safetensors").symlink_to(SINGLE),
        "more.safetensors: the same file as model.safetensors",
    ),
    "a link out of the folder": (
        lambda folder: (folder / "more.safetensors").symlink_to("/etc/hostname"),
        "a link to /etc/hostname, outside of",
    ),
    "an adapter beside": (
        lambda folder: (folder / "adapter_config.json").touch(),
        "found adapter_config.json: an adapter",
    ),
    "cut off weights": (
        lambda folder: (folder / SINGLE).write_bytes((folder / SINGLE).read_bytes()[:-9]),
        "cut off, 1 of 33 tensors are incomplete; download it again",
    ),
    "no weights": (
        lambda folder: (folder / SINGLE).unlink(),
        "found 0 files *.safetensors, expected 1 to 1000",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_a_checkpoint_with(original: Path, spoil: Callable[[Path], object], message: str) -> None:
    spoil(original)
    text = failure(original)
    assert message in text
    assert text.count("missing") <= 1


def test_a_file_that_appears_later_is_noticed(original: Path) -> None:
    with open_checkpoint(original) as checkpoint:
        save_file({"block.9.x": torch.zeros(1)}, original / "more.safetensors")
        with pytest.raises(Exception, match=r"more\.safetensors: a second set of weights"):
            checkpoint.check_unchanged()


def test_apples_layout_is_refused_by_its_reason(tmp_path: Path) -> None:
    folder = tmp_path / "repository" / "metal"
    folder.mkdir(parents=True)
    (folder / "model.bin").write_bytes(b"GPT-OSS v1.0\0\0\0\0")
    for path in (folder.parent, folder, folder / "model.bin"):
        text = failure(path)
        assert "found model.bin of metal/, which cannot be linked to: q and k are permuted" in text
