"""Synthetic checkpoints: they load in transformers, repeat exactly, compute sensible numbers and
cost what they say.
"""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoConfig, GptOssForCausalLM
from transformers.utils.quantization_config import Mxfp4Config

from gptoss_onnx.checkpoint.writer import PlannedTensor, plan_files
from gptoss_onnx.errors import CheckpointError, InputError
from gptoss_onnx.reference import open_checkpoint, synthetic
from gptoss_onnx.reference.architectures import PRESETS
from gptoss_onnx.reference.random_weights import Distribution, random_weights
from gptoss_onnx.reference.synthetic import (
    SyntheticLayout,
    config_of,
    make_checkpoint,
    preset_document,
    tiny_config,
    tiny_document,
)
from support.heard_progress import HeardProgress

SINGLE = "model.safetensors"
NORMAL = Distribution(0.0, 1.0)


def load_in_transformers(folder: Path, **options: Any) -> Any:
    """The model, after checking that the checkpoint holds exactly its parameters."""
    loader: Any = GptOssForCausalLM
    model, info = loader.from_pretrained(folder, output_loading_info=True, **options)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), (
        info
    )
    return model


@pytest.mark.parametrize("shard_bytes", [60_000, 10**9])
@pytest.mark.parametrize("layout", ["hf-mxfp4", "hf-bf16"])
def test_transformers_loads_every_tensor_and_computes(
    tmp_path: Path, layout: SyntheticLayout, shard_bytes: int
) -> None:
    make_checkpoint(tmp_path / "c", tiny_document(), layout=layout, shard_bytes=shard_bytes)
    assert (tmp_path / "c" / SINGLE).exists() == (shard_bytes == 10**9)
    options = {"quantization_config": Mxfp4Config(dequantize=True)} if layout == "hf-mxfp4" else {}
    model = load_in_transformers(tmp_path / "c", dtype=torch.float32, **options)
    ids = torch.randint(
        0, tiny_config().vocab_size, (1, 40), generator=torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        output = model(ids, output_hidden_states=True)
    spreads = [float(state.std()) for state in (*output.hidden_states[1:], output.logits)]
    assert all(0.3 < spread < 30 for spread in spreads), spreads
    assert len(output.logits.argmax(-1).unique()) > 10, "every position prefers the same few tokens"


@pytest.mark.parametrize("tie_word_embeddings", [True, False])
def test_options_of_the_architecture_load_in_transformers(
    tmp_path: Path, tie_word_embeddings: bool
) -> None:
    document = tiny_document(
        layers=3,
        layer_types=["full_attention"] * 3,
        sliding_window=None,
        attention_bias=False,
        tie_word_embeddings=tie_word_embeddings,
        swiglu_alpha=1.5,
        rope_theta=10000.0,
        rope_scaling={"rope_type": "default"},
        quantization_config=None,
    )
    make_checkpoint(tmp_path / "c", document, dtype="F32")
    load_in_transformers(tmp_path / "c")
    with open_checkpoint(tmp_path / "c") as checkpoint:
        assert checkpoint.config == config_of(document)
        assert {tensor.dtype for tensor in checkpoint.tensors.values()} == {"F32"}


def test_same_seed_gives_the_same_bytes_and_layers_of_a_slice_agree(tmp_path: Path) -> None:
    for name, layers, seed in (("a", 4, 7), ("b", 4, 7), ("slice", 2, 7), ("other", 2, 8)):
        make_checkpoint(tmp_path / name, tiny_document(num_hidden_layers=layers), seed=seed)
    assert (tmp_path / "a" / SINGLE).read_bytes() == (tmp_path / "b" / SINGLE).read_bytes()
    whole, part, other = (load_file(tmp_path / name / SINGLE) for name in ("a", "slice", "other"))
    assert all(torch.equal(whole[name], tensor) for name, tensor in part.items())
    assert not any(torch.equal(other[name], tensor) for name, tensor in part.items())
    sizes = [tensor.nbytes for tensor in whole.values()]
    assert len({tensor.numpy(force=True).tobytes() for tensor in map(bits, whole.values())}) == len(
        sizes
    )


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().view(torch.uint8)


def test_bfloat16_is_rounded_as_torch_rounds_it() -> None:
    tensor = PlannedTensor("model.norm.weight", "F32", (5000,))
    (wide,) = random_weights(tensor, NORMAL, seed=0)
    (narrow,) = random_weights(dataclasses.replace(tensor, dtype="BF16"), NORMAL, seed=0)
    expected = torch.from_numpy(np.frombuffer(wide, "<f4").copy()).bfloat16()
    assert torch.equal(
        torch.from_numpy(np.frombuffer(narrow, "<i2").copy()).view(torch.bfloat16), expected
    )


def test_pieces_do_not_change_the_values(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = [
        PlannedTensor(name, dtype, (4, 3, 32))
        for name, dtype in (("a_blocks", "U8"), ("b_scales", "U8"), ("c", "F32"))
    ]
    whole = [b"".join(random_weights(tensor, NORMAL, 0)) for tensor in tensors]
    monkeypatch.setattr("gptoss_onnx.reference.random_weights.CHUNK", 64)
    assert [b"".join(random_weights(tensor, NORMAL, 0)) for tensor in tensors] == whole


@pytest.mark.parametrize(
    ("name", "layout", "shards", "gigabytes"),
    [("20b", "hf-mxfp4", 3, 13.76), ("20b", "hf-bf16", 10, 41.83), ("120b", "hf-mxfp4", 15, 65.25)],
)
def test_sparse_real_shapes_take_no_disk(
    tmp_path: Path, name: str, layout: SyntheticLayout, shards: int, gigabytes: float
) -> None:
    document = preset_document(name)
    make_checkpoint(tmp_path / "c", document, layout=layout, sparse=True)
    if layout == "hf-bf16":
        del document["quantization_config"]
    with open_checkpoint(tmp_path / "c") as checkpoint:
        assert checkpoint.config == config_of(document)
        assert len(checkpoint.files) == shards
        assert checkpoint.files[0].name == f"model-00000-of-{shards - 1:05d}.safetensors"
        assert sum(tensor.nbytes for tensor in checkpoint.tensors.values()) / 1e9 == pytest.approx(
            gigabytes, abs=0.01
        )
        assert max(file.stat().st_size for file in checkpoint.files) < 4.81e9
        assert not checkpoint.load("model.layers.3.self_attn.sinks").any()
    assert sum(path.stat().st_blocks for path in (tmp_path / "c").iterdir()) * 512 < 2_000_000
    with safe_open(tmp_path / "c" / f"model-00000-of-{shards - 1:05d}.safetensors", "pt") as file:
        assert "model.embed_tokens.weight" in file.keys()  # noqa: SIM118 - safe_open is no mapping


@pytest.mark.parametrize(("name", "layers", "experts"), [("20b", 24, 32), ("120b", 36, 128)])
def test_real_config_is_the_published_one(
    name: str, layers: int, experts: int, tmp_path: Path
) -> None:
    document = preset_document(name)
    assert document["num_hidden_layers"] == layers
    assert document["num_local_experts"] == experts
    assert document["rope_scaling"] == {
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "factor": 32.0,
        "original_max_position_embeddings": 4096,
        "rope_type": "yarn",
        "truncate": False,
    }
    assert document["eos_token_id"] == 200002
    assert document["quantization_config"]["quant_method"] == "mxfp4"
    assert "swiglu_alpha" not in document
    (tmp_path / "config.json").write_text(json.dumps(document))
    theirs = AutoConfig.from_pretrained(tmp_path)
    assert config_of(theirs.to_dict()) == config_of(document)


def test_a_slice_of_a_real_model_keeps_its_first_layers() -> None:
    whole, part = (config_of(preset_document("20b", layers)) for layers in (None, 3))
    assert part == dataclasses.replace(whole, layers=whole.layers[:3])


@pytest.mark.parametrize("name", PRESETS)
def test_every_published_shape_can_be_sliced(name: str) -> None:
    whole, part = (config_of(preset_document(name, layers)) for layers in (None, 1))
    assert part == dataclasses.replace(whole, layers=whole.layers[:1])


def test_a_slice_cuts_the_list_of_layer_types(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = ["full_attention"] * 20 + ["sliding_attention"] * 4
    listed = preset_document("20b") | {"layer_types": kinds}
    monkeypatch.setitem(synthetic.PRESETS, "gpt-oss-20b", listed)
    assert preset_document("20b", layers=21)["layer_types"] == kinds[:21]


def test_files_are_filled_in_order() -> None:
    tensors = [
        PlannedTensor(str(number), "U8", (size,)) for number, size in enumerate((6, 4, 1, 20, 3))
    ]
    files = plan_files(tensors, 10)
    assert {name: [int(tensor.name) for tensor in members] for name, members in files.items()} == {
        "model-00000-of-00003.safetensors": [0, 1],
        "model-00001-of-00003.safetensors": [2],
        "model-00002-of-00003.safetensors": [3],
        "model-00003-of-00003.safetensors": [4],
    }
    assert list(plan_files(tensors, 34)) == [SINGLE]


def test_progress_reaches_the_whole(tmp_path: Path) -> None:
    seen = HeardProgress()
    make_checkpoint(tmp_path / "c", tiny_document(), progress=seen)
    with open_checkpoint(tmp_path / "c") as checkpoint:
        total = sum(tensor.nbytes for tensor in checkpoint.tensors.values())
    assert seen.stages == ["writing random weights"]
    assert (seen.totals, seen.done) == ([total], [total])


# Refusals


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").write_text("x")
    with pytest.raises(
        InputError, match="found a folder with content, expected a new or empty folder"
    ):
        make_checkpoint(tmp_path / "full", tiny_document())
    with pytest.raises(InputError, match="found a file"):
        make_checkpoint(tmp_path / "full" / "precious", tiny_document())
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["precious"]


@pytest.mark.parametrize("exists", [True, False])
def test_a_failure_leaves_nothing_behind(tmp_path: Path, exists: bool) -> None:
    out = tmp_path / "c"
    if exists:
        out.mkdir()

    class Interrupt(HeardProgress):
        def advance(self, count: int) -> None:
            super().advance(count)
            if self.done[-1] > 100_000:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_checkpoint(out, tiny_document(), shard_bytes=60_000, progress=Interrupt())
    assert out.exists() == exists
    assert not exists or not os.listdir(out)  # noqa: PTH208 - names are enough


def test_full_disk_is_noticed_before_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(InputError, match=r"needs 13.8 GB, 0.0 GB are free"):
        make_checkpoint(tmp_path / "c", preset_document("20b"))
    assert not (tmp_path / "c").exists()


def test_wrong_options_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="heads: no such key, expected some of architectures, "):
        tiny_config(heads=3)
    with pytest.raises(InputError, match="head_dim: found 15, expected an even number"):
        tiny_config(head_dim=15)
    with pytest.raises(InputError, match="layers: found 25, gpt-oss-20b has 1 to 24"):
        preset_document("20b", layers=25)
    with pytest.raises(InputError, match="7b: no such model, expected one of gpt-oss-20b, "):
        preset_document("7b")
    plain = tiny_document(quantization_config=None, hidden_size=40)
    with pytest.raises(InputError, match="layout: found hf-mxfp4, expected hf-bf16"):
        make_checkpoint(tmp_path / "c", plain, layout="hf-mxfp4")
    with pytest.raises(InputError, match="layout: found 'gguf', expected one of hf-mxfp4, hf-bf16"):
        make_checkpoint(tmp_path / "c", tiny_document(), layout="gguf")  # type: ignore[arg-type]  # as above
    with pytest.raises(InputError, match="dtype: found 'F64', expected one of BF16, F16, F32"):
        make_checkpoint(tmp_path / "c", tiny_document(), dtype="F64")
    packed = plain | {"quantization_config": tiny_document()["quantization_config"]}
    with pytest.raises(CheckpointError, match="hidden_size: found 40, expected a multiple of 32"):
        make_checkpoint(tmp_path / "c", packed)
    make_checkpoint(tmp_path / "c", packed, layout="hf-bf16")
