"""GGUF files that are broken, of another model, or in types that are not read: refused in one line,
and nothing is left behind.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFValueType
from gguf.gguf_writer import GGUFValue

from gptoss_onnx.errors import CheckpointError, InputError
from gptoss_onnx.exporter import export
from support.gguf_files import Recipe, Tensors, write_gguf, write_source

FILE = "gpt-oss.gguf"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that transformers wrote."""
    return write_source(tmp_path_factory.mktemp("gguf") / "source")


@pytest.fixture(scope="module")
def published(source: Path) -> Path:
    """A file as it is published; not to be written to."""
    return write_gguf(source, source.parent / "published" / FILE, Recipe())


def test_adapters_are_refused(published: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found a GGUF file and --adapter, expected") as refused:
        export(published, tmp_path / "package", adapters=[tmp_path])
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())


def _keys(**changes: Any) -> Callable[[dict[str, Any]], object]:
    """Return a change of metadata; keys have `__` for a dot, and None takes one out."""

    def change(entries: dict[str, Any]) -> None:
        for name, value in changes.items():
            key = name.replace("__", ".")
            key = key if key.startswith(("general.", "split.")) else f"gpt-oss.{key}"
            kinds = {str: GGUFValueType.STRING, float: GGUFValueType.FLOAT32}
            entries.pop(key, None)
            if value is not None:
                kind = kinds.get(type(value), GGUFValueType.UINT32)
                entries[key] = GGUFValue(value, kind)

    return change


def _put(name: str, content: torch.Tensor, kind: Kind = Kind.F32) -> Callable[[Tensors], object]:
    return lambda tensors: tensors.update({name: (content.numpy(), kind)})


SPOILT: dict[str, tuple[Recipe, str]] = {
    "another architecture": (
        Recipe(metadata=_keys(general__architecture="llama")),
        "general.architecture: found 'llama', expected 'gpt-oss'",
    ),
    "no architecture": (
        Recipe(metadata=_keys(general__architecture=None)),
        "general.architecture: found null, expected 'gpt-oss'",
    ),
    "an unknown type": (
        Recipe(spoil=_put("blk.1.attn_v.weight", torch.zeros(32, 144).byte(), Kind.Q4_K)),
        "blk.1.attn_v.weight: found type Q4_K in gpt-oss.gguf, expected F32, F16, Q8_0, BF16 or "
        "MXFP4",
    ),
    "a tensor is missing": (
        Recipe(spoil=lambda tensors: tensors.pop("blk.0.attn_k.weight")),
        "blk.0.attn_k.weight: missing, expected (32, 64)",
    ),
    "gates are missing": (
        Recipe(spoil=lambda tensors: tensors.pop("blk.1.ffn_gate_exps.weight")),
        "blk.1.ffn_gate_exps.weight and ffn_up_exps.weight: missing, expected (6, 192, 2, 16)",
    ),
    "the embedding is missing": (
        Recipe(spoil=lambda tensors: tensors.pop("token_embd.weight")),
        "token_embd.weight: missing",
    ),
    "another shape": (
        Recipe(spoil=_put("blk.0.attn_norm.weight", torch.ones(32))),
        "blk.0.attn_norm.weight: found shape (32,) in gpt-oss.gguf, expected (64,)",
    ),
    "an unknown tensor": (
        Recipe(spoil=_put("blk.0.attn_rot.weight", torch.ones(32))),
        "blk.0.attn_rot.weight: unexpected, found in gpt-oss.gguf",
    ),
    "gates and ups differ": (
        Recipe(spoil=_put("blk.0.ffn_up_exps.bias", torch.ones(6, 32))),
        "blk.0.ffn_up_exps.bias: found F32 (6, 32), expected what blk.0.ffn_gate_exps.bias is",
    ),
    "a NaN scale": (
        Recipe(
            spoil=lambda tensors: tensors["blk.1.ffn_up_exps.weight"][0].__setitem__(
                (2, 3, 17), 255
            )
        ),
        "blk.1.ffn_up_exps.weight[2, 3, 1] in gpt-oss.gguf is a NaN scale (255)",
    ),
    "more layers than it has": (
        Recipe(metadata=_keys(block_count=3)),
        "blk.2.attn_norm.weight: missing",
    ),
    "no layers": (
        Recipe(metadata=_keys(block_count=None)),
        "gpt-oss.block_count: missing, expected an integer of at least 1",
    ),
    "more heads": (
        Recipe(metadata=_keys(attention__head_count=16)),
        "blk.0.attn_q.weight: found shape (128, 64) in gpt-oss.gguf, expected (256, 64)",
    ),
    "other rotations": (
        Recipe(metadata=_keys(rope__scaling__type="longrope")),
        "gpt-oss.rope.scaling.type: found 'longrope', expected 'yarn' or 'none'",
    ),
    "a factor of YaRN's": (
        Recipe(metadata=_keys(rope__scaling__yarn_attn_factor=0.5)),
        "gpt-oss.rope.scaling.yarn_attn_factor: found 0.5, expected 1.0",
    ),
    "a part by its metadata alone": (
        Recipe(metadata=_keys(split__count=4)),
        "split.count: found 4, expected 1",
    ),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_broken_file_is_refused_in_one_line(source: Path, tmp_path: Path, name: str) -> None:
    recipe, words = SPOILT[name]
    assert words in _failure(write_gguf(source, tmp_path / FILE, recipe), tmp_path / "package")


@pytest.mark.parametrize("share", [0.999, 0.6, 0.05, 0.0005])
def test_a_file_that_is_cut_off_is_refused(published: Path, tmp_path: Path, share: float) -> None:
    content = published.read_bytes()
    (tmp_path / FILE).write_bytes(content[: int(share * len(content))])
    assert "cut off" in _failure(tmp_path / FILE, tmp_path / "package")


def test_tensors_that_overlap_are_refused(published: Path, tmp_path: Path) -> None:
    content = bytearray(published.read_bytes())
    at = content.index(b"blk.1.attn_norm.weight") + len(b"blk.1.attn_norm.weight") + 4 + 8 + 4
    content[at : at + 8] = (32).to_bytes(8, "little")
    (tmp_path / FILE).write_bytes(content)
    assert "overlaps" in _failure(tmp_path / FILE, tmp_path / "package")


def test_which_of_several_files_is_not_guessed(published: Path, tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(published.read_bytes())
    text = _failure(tmp_path, tmp_path / "package")
    assert "found a.gguf, b.gguf: no reader can know which is meant" in text


def test_weights_that_are_written_anew_cannot_be_referred_to(
    published: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="--weights reference: found FP8, GGUF"):
        export(published, tmp_path / "package", weights="reference")


def test_a_missing_part_is_named(source: Path, tmp_path: Path) -> None:
    part = write_gguf(source, tmp_path / FILE, Recipe(parts=3))
    missing = tmp_path / "gpt-oss-00002-of-00003.gguf"
    missing.rename(tmp_path / "kept")
    text = _failure(part, tmp_path / "package")
    assert text.startswith(f"{missing}: missing, one of the 3 parts of this file")
    (tmp_path / "gpt-oss-00003-of-00003.gguf").rename(missing)
    (tmp_path / "kept").rename(tmp_path / "gpt-oss-00003-of-00003.gguf")
    assert "split.no: found 2, expected 1" in _failure(part, tmp_path / "package")


def _failure(checkpoint: Path, output: Path) -> str:
    """Export what is broken; returns the one line, once nothing is left behind."""
    with pytest.raises(CheckpointError) as caught:
        export(checkpoint, output)
    text = str(caught.value)
    assert "\n" not in text
    assert not output.exists()
    assert not list(output.parent.glob(".*.partial"))
    return text
