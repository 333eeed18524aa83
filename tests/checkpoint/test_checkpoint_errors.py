"""Opening what is no good checkpoint: everything wrong is named at once, in one line."""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document
from support.checkpoints import BLOCKS, INDEX, SINGLE, Q, edit_json, failure, rewrite

DOCUMENT = tiny_document(num_hidden_layers=2)
SHARD_BYTES = 60_000


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("checkpoints")
    make_checkpoint(root / "mxfp4", DOCUMENT)
    make_checkpoint(root / "dense", DOCUMENT, layout="hf-bf16")
    make_checkpoint(root / "sharded", DOCUMENT, shard_bytes=SHARD_BYTES)
    return root


@pytest.fixture
def copy_of(originals: Path, tmp_path: Path) -> Callable[[str], Path]:
    return lambda name: shutil.copytree(originals / name, tmp_path / name)


# Files that are damaged or do not belong together


def test_cut_off_file_is_named(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("sharded")
    path = max(folder.glob("model-*.safetensors"))
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(size - 1000)
    text = failure(folder)
    assert f"{path.name}: found {size - 1000} bytes, its header expects {size}: cut off" in text


def test_surplus_bytes_are_named(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("mxfp4")
    with (folder / SINGLE).open("ab") as file:
        file.write(b"\0")
    assert "its header expects" in failure(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a safetensors file, or cut off: 0 bytes"),
        (b"GGUF\x03\0\0\0" + b"\0" * 100, "not a safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (struct.pack("<Q", 8) + b"not json", "malformed safetensors header"),
        (struct.pack("<Q", 13) + b'{"a":{"x":1}}', "malformed safetensors header"),
        (
            struct.pack("<Q", 15) + b'{"a":1,"a":123}',
            "malformed safetensors header: not JSON ('a' appears twice)",
        ),
    ],
)
def test_files_that_are_not_safetensors_are_named(
    copy_of: Callable[[str], Path], content: bytes, message: str
) -> None:
    folder = copy_of("mxfp4")
    (folder / SINGLE).write_bytes(content)
    assert f"{SINGLE}: " in failure(folder)
    assert message in failure(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda begin, end: [begin, end - 2],
            f"{Q}: 16382 bytes in {SINGLE}, expected 16384 for BF16 (128, 64)",
        ),
        (lambda begin, end: [begin + 2, end + 2], f"{Q}: begins at byte"),
        (lambda begin, end: [begin + 10**9, end + 10**9], f"{SINGLE}: found"),
    ],
)
def test_offsets_must_fit_shape_and_file(
    copy_of: Callable[[str], Path], change: Callable[[int, int], list[int]], message: str
) -> None:
    path = copy_of("mxfp4") / SINGLE
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header[Q]["data_offsets"] = change(*header[Q]["data_offsets"])
    encoded = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + content[8 + length :])
    assert message in failure(path.parent)


def test_index_and_shards_must_agree(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("sharded")
    first, second = sorted(path.name for path in folder.glob("model-*"))[:2]
    names = {name: sorted(load_file(folder / name)) for name in (first, second)}
    unlisted, moved, listed = names[first][0], names[first][1], names[second][0]

    def change(document: dict[str, Any]) -> None:
        del document["weight_map"][unlisted]
        document["weight_map"][moved] = second

    edit_json(folder / INDEX, change)
    rewrite(folder, lambda tensors: tensors.pop(listed), second)
    text = failure(folder)
    assert f"{unlisted}: found in {first}, but not listed in {INDEX}" in text
    assert f"{moved}: found in {first}, but {INDEX} lists it in {second}" in text
    assert f"{listed}: missing in {second}, where {INDEX} lists it" in text
    assert text.count("; ") == 2


def test_tensor_in_two_shards_is_refused(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("sharded")
    first, second = sorted(path.name for path in folder.glob("model-*"))[:2]
    name, tensor = next(iter(load_file(folder / first).items()))
    rewrite(folder, lambda tensors: tensors.update({name: tensor}), second)
    assert f"{name}: found twice, in {first} and in {second}" in failure(folder)


def test_missing_shard_is_one_complaint(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("sharded")
    path = min(folder.glob("model-*"))
    path.unlink()
    assert (
        failure(folder)
        == f"{folder}: {path.name}: no such file: the checkpoint is incomplete, download it again"
    )


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "not JSON"),
        ("[]", "found list, expected a JSON object"),
        ("{}", "no weight_map"),
        (
            '{"weight_map": {"lm_head.weight": "../x.safetensors"}}',
            "expected a name inside the folder",
        ),
    ],
)
def test_wrong_index_is_named(copy_of: Callable[[str], Path], document: str, message: str) -> None:
    folder = copy_of("sharded")
    (folder / INDEX).write_text(document)
    assert message in failure(folder)


# Tensors that are not those of the configuration


def test_every_mismatch_comes_in_one_error(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("mxfp4")

    def change(tensors: dict[str, torch.Tensor]) -> None:
        del tensors["model.norm.weight"]
        tensors["model.layers.0.extra"] = torch.zeros(1)
        tensors[Q] = tensors[Q].T.contiguous()
        tensors[BLOCKS] = tensors[BLOCKS].view(torch.int8)

    rewrite(folder, change)
    text = failure(folder)
    assert text.startswith(f"{folder}: ")
    assert "model.norm.weight: missing, expected (64,) BF16 or F16 or F32" in text
    assert f"model.layers.0.extra: unexpected, found in {SINGLE}" in text
    assert f"{Q}: found shape (64, 128) in {SINGLE}, expected (128, 64)" in text
    assert f"{BLOCKS}: found dtype I8 in {SINGLE}, expected U8" in text
    assert text.count("; ") == 3


def test_a_long_list_is_cut(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("mxfp4")
    edit_json(
        folder / "config.json",
        lambda document: document.update(num_hidden_layers=4, layer_types=None),
    )
    text = failure(folder)
    assert text.count("missing") == 20
    assert text.endswith("and 18 more")


def test_what_the_configuration_excludes_is_explained(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("dense")
    edit_json(
        folder / "config.json",
        lambda document: document.update(tie_word_embeddings=True, attention_bias=False),
    )
    text = failure(folder)
    assert "lm_head" not in text  # a head that is stored counts, as for transformers
    assert (
        "q_proj.bias: unexpected, found in model.safetensors although config.json says "
        "attention_bias: false" in text
    )


# Checkpoints of other kinds


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["model-Q4.gguf"], "model-Q4.gguf: not a GGUF file"),
        (["pytorch_model.bin"], "found PyTorch .bin weights only"),
        (
            ["pytorch_model-00001-of-00002.bin", "pytorch_model.bin.index.json"],
            "found PyTorch .bin weights only",
        ),
        (["adapter_model.safetensors"], "export its base model, with --adapter"),
        (["consolidated.safetensors"], "found consolidated.safetensors only: Mistral's own layout"),
        (["model-00001-of-00002.safetensors"], f"found shards but no {INDEX}"),
        (["original/model.safetensors"], "found original/ only, OpenAI's own layout: name that"),
        ([], "not a checkpoint: expected model.safetensors"),
    ],
)
def test_other_kinds_of_checkpoint_get_one_line(
    tmp_path: Path, files: list[str], message: str
) -> None:
    (tmp_path / "config.json").write_text("{}")
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    text = failure(tmp_path)
    assert message in text
    assert "; " not in text.replace("; expected", "").replace("; download", "")


def test_other_models_and_quantizations_are_refused(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("mxfp4")
    config = folder / "config.json"
    edit_json(config, lambda document: document.update(model_type="t5"))
    assert "model_type: found 't5', expected 'gpt_oss'" in failure(folder)
    edit_json(
        config,
        lambda document: document.update(quantization_config={"quant_method": "bitsandbytes"}),
    )
    assert (
        "found quantization method 'bitsandbytes' in quantization_config, expected 'mxfp4', 'fp8' "
        "or no quantization_config: bitsandbytes weights are not read" in failure(folder)
    )
    config.unlink()
    assert "config.json: no such file" in failure(folder)


def test_a_file_is_not_a_folder(originals: Path, tmp_path: Path) -> None:
    assert "expected the checkpoint's folder" in failure(originals / "mxfp4" / SINGLE)
    (tmp_path / "model.gguf").touch()
    assert "not a GGUF file" in failure(tmp_path / "model.gguf")


def test_other_experts_are_refused(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("mxfp4")
    rewrite(
        folder, lambda tensors: [tensors.pop(name) for name in list(tensors) if ".experts." in name]
    )
    missing = "model.layers.0.mlp.experts.gate_up_proj_blocks: missing, expected (6, 192, 2, 16) U8"
    assert missing in failure(folder)
