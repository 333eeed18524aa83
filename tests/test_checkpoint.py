"""Opening checkpoints: what is loaded equals safetensors' own reader, and everything wrong is named at once."""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from gptoss_onnx.errors import CheckpointError
from gptoss_onnx.reference import open_checkpoint
from gptoss_onnx.reference.finite import first_non_finite
from gptoss_onnx.reference.locate import hub_cache
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_config

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
Q = "model.layers.0.self_attn.q_proj.weight"
BLOCKS = "model.layers.1.mlp.experts.down_proj_blocks"
SCALES = "model.layers.1.mlp.experts.down_proj_scales"
CONFIG = tiny_config(num_layers=2)
SHARD_BYTES = 60_000


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("checkpoints")
    make_checkpoint(root / "mxfp4", CONFIG)
    make_checkpoint(root / "dense", CONFIG, layout="hf-bf16")
    make_checkpoint(root / "sharded", CONFIG, shard_bytes=SHARD_BYTES)
    return root


@pytest.fixture
def copy_of(originals: Path, tmp_path: Path) -> Callable[[str], Path]:
    return lambda name: shutil.copytree(originals / name, tmp_path / name)


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], object], file: str = SINGLE) -> None:
    tensors = {name: tensor.clone() for name, tensor in load_file(folder / file).items()}
    change(tensors)
    save_file(tensors, folder / file)


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def failure(folder: Path | str, **options: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(("name", "layout"), [("mxfp4", "hf-mxfp4"), ("dense", "hf-dense"), ("sharded", "hf-mxfp4")])
def test_tensors_equal_those_of_the_safetensors_library(originals: Path, name: str, layout: str) -> None:
    expected: dict[str, torch.Tensor] = {}
    for file in (originals / name).glob("*.safetensors"):
        expected |= load_file(file)
    with open_checkpoint(originals / name) as checkpoint:
        assert checkpoint.layout == layout
        assert checkpoint.config == CONFIG
        assert checkpoint.files == tuple(sorted((originals / name).resolve().glob("*.safetensors")))
        found = dict(checkpoint.state_dict())
        assert found.keys() == expected.keys() == checkpoint.tensors.keys()
        for tensor_name, tensor in found.items():
            info = checkpoint.tensors[tensor_name]
            assert tensor.dtype == expected[tensor_name].dtype == info.torch_dtype
            assert tensor.shape == expected[tensor_name].shape == info.shape == info.meta().shape
            assert torch.equal(tensor, expected[tensor_name])
            with info.file.open("rb") as file:
                file.seek(info.offset)
                assert file.read(info.nbytes) == tensor.contiguous().view(torch.uint8).numpy().tobytes()


def test_tensors_outlive_the_checkpoint_and_writing_to_them_stays_private(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("mxfp4")
    before = (folder / SINGLE).read_bytes()
    with open_checkpoint(folder) as checkpoint:
        tensor = checkpoint.load(Q)
        tensor.zero_()
        assert checkpoint.load(Q).any()
    assert not tensor.any()
    assert (folder / SINGLE).read_bytes() == before
    with pytest.raises(CheckpointError, match="closed"):
        checkpoint.load(Q)


def test_unknown_tensor_and_shortened_file_are_refused_when_loading(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("mxfp4")
    with open_checkpoint(folder) as checkpoint:
        with pytest.raises(CheckpointError, match="no tensor 'x'"):
            checkpoint.load("x")
        with (folder / SINGLE).open("r+b") as file:
            file.truncate(checkpoint.tensors[Q].offset)
        with pytest.raises(CheckpointError, match="became shorter"):
            checkpoint.load(Q)


def test_misaligned_tensors_are_read(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("mxfp4")
    path = folder / SINGLE
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    path.write_bytes(struct.pack("<Q", length + 1) + content[8 : 8 + length] + b" " + content[8 + length :])
    with open_checkpoint(folder) as checkpoint:
        assert checkpoint.tensors[Q].offset % 2 == 1
        assert torch.equal(checkpoint.load(Q), load_file(path)[Q])


def test_mixed_float_dtypes_and_tied_embeddings_are_read(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "c", tiny_config(num_layers=1, tie_word_embeddings=True, attention_bias=False))
    rewrite(tmp_path / "c", lambda t: t.update({Q: t[Q].float(), "model.norm.weight": t["model.norm.weight"].half()}))
    with open_checkpoint(tmp_path / "c") as checkpoint:
        assert "lm_head.weight" not in checkpoint.tensors
        assert not any(name.endswith("q_proj.bias") for name in checkpoint.tensors)
        assert checkpoint.load(Q).dtype == torch.float32
        assert checkpoint.load("model.norm.weight").dtype == torch.float16


def test_side_files(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("mxfp4")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "vocab.json").symlink_to("nowhere")
    with open_checkpoint(folder) as checkpoint:
        assert checkpoint.path_of("tokenizer.json") == folder / "tokenizer.json"
        assert checkpoint.path_of("generation_config.json") is None
        with pytest.raises(CheckpointError, match="dangling symlink"):
            checkpoint.path_of("vocab.json")


# The Hugging Face cache


@pytest.fixture
def cache(originals: Path, tmp_path: Path) -> Path:
    """A cache with one repository, as huggingface_hub lays it out: snapshots of symlinks into blobs."""
    repository = tmp_path / "hub" / "models--openai--gpt-oss-20b"
    snapshot = repository / "snapshots" / "abc123"
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc123")
    for number, file in enumerate(sorted((originals / "sharded").iterdir())):
        shutil.copy(file, repository / "blobs" / f"{number:064x}")
        (snapshot / file.name).symlink_to(f"../../blobs/{number:064x}")
    return tmp_path / "hub"


def test_hub_id_repository_and_snapshot_open_alike(cache: Path) -> None:
    repository = cache / "models--openai--gpt-oss-20b"
    snapshot = repository / "snapshots" / "abc123"
    for source in ("openai/gpt-oss-20b", repository, snapshot):
        with open_checkpoint(source, cache_dir=cache) as checkpoint:
            assert checkpoint.folder == snapshot
            assert checkpoint.path_of("config.json") == snapshot / "config.json"
            assert {file.parent for file in checkpoint.files} == {(repository / "blobs").resolve()}
            assert len(checkpoint.files) > 1
            assert not any(file.is_symlink() for file in checkpoint.files)
            assert checkpoint.load(Q).any()


def test_problems_in_a_snapshot_use_the_names_of_its_files(cache: Path) -> None:
    snapshot = cache / "models--openai--gpt-oss-20b" / "snapshots" / "abc123"
    first, second = sorted(snapshot.glob("model-*"))[:2]
    first.resolve().unlink()
    with second.resolve().open("r+b") as file:
        file.truncate(5)
    text = failure("openai/gpt-oss-20b", cache_dir=cache)
    assert f"{first.name}: dangling symlink to ../../blobs/" in text
    assert f"{second.name}: not a safetensors file, or cut off" in text
    assert text.count("; ") == 1


def test_what_the_cache_lacks_is_said_with_the_command(cache: Path) -> None:
    assert failure("openai/gpt-oss-120b", cache_dir=cache).endswith("download it with: hf download openai/gpt-oss-120b")
    assert "expected a checkpoint folder or a hub id" in failure("/no/such/folder", cache_dir=cache)
    repository = cache / "models--openai--gpt-oss-20b"
    (repository / "refs" / "main").write_text("def456")
    assert "found no such snapshot" in failure("openai/gpt-oss-20b", cache_dir=cache)
    (repository / "refs" / "main").unlink()
    text = failure("openai/gpt-oss-20b", cache_dir=cache)
    assert "pass one of the snapshot folders instead (abc123)" in text
    assert text.endswith("hf download openai/gpt-oss-20b")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"HF_HUB_CACHE": "/a", "HF_HOME": "/b"}, Path("/a")),
        ({"HF_HOME": "/b", "XDG_CACHE_HOME": "/c"}, Path("/b/hub")),
        ({"XDG_CACHE_HOME": "/c"}, Path("/c/huggingface/hub")),
        ({}, Path("~/.cache/huggingface/hub").expanduser()),
    ],
)
def test_cache_folder_follows_huggingface_hub(environment: dict[str, str], expected: Path) -> None:
    assert hub_cache(environment) == expected


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
        (struct.pack("<Q", 15) + b'{"a":1,"a":123}', "malformed safetensors header (a appears twice)"),
    ],
)
def test_files_that_are_not_safetensors_are_named(copy_of: Callable[[str], Path], content: bytes, message: str) -> None:
    folder = copy_of("mxfp4")
    (folder / SINGLE).write_bytes(content)
    assert f"{SINGLE}: " in failure(folder)
    assert message in failure(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda begin, end: [begin, end - 2], f"{Q}: 16382 bytes in {SINGLE}, expected 16384 for BF16 (128, 64)"),
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
    assert failure(folder) == f"{folder}: {path.name}: no such file: the checkpoint is incomplete, download it again"


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "not JSON"),
        ("[]", "found a JSON list, expected an object"),
        ("{}", "no weight_map"),
        ('{"weight_map": {"lm_head.weight": "../x.safetensors"}}', "expected a name inside the folder"),
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
    edit_json(folder / "config.json", lambda document: document.update(num_hidden_layers=4, layer_types=None))
    text = failure(folder)
    assert text.count("missing") == 20
    assert text.endswith("and 18 more")


def test_what_the_configuration_excludes_is_explained(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("dense")
    edit_json(folder / "config.json", lambda document: document.update(tie_word_embeddings=True, attention_bias=False))
    text = failure(folder)
    assert (
        "lm_head.weight: unexpected, found in model.safetensors although config.json says tie_word_embeddings" in text
    )
    assert "q_proj.bias: unexpected, found in model.safetensors although config.json says attention_bias: false" in text


# Checkpoints of other kinds


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["model-Q4.gguf"], "found GGUF files, which are not read"),
        (["pytorch_model.bin"], "found PyTorch .bin weights only"),
        (["pytorch_model-00001-of-00002.bin", "pytorch_model.bin.index.json"], "found PyTorch .bin weights only"),
        (["adapter_model.safetensors"], "merge it into its base model first"),
        (["model-00001-of-00002.safetensors"], f"found shards but no {INDEX}"),
        (["original/model.safetensors"], "the OpenAI original layout is not read yet"),
        ([], "not a checkpoint: expected model.safetensors"),
    ],
)
def test_other_kinds_of_checkpoint_get_one_line(tmp_path: Path, files: list[str], message: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    text = failure(tmp_path)
    assert message in text
    assert "; " not in text.replace("; expected", "").replace("; download", "")


def test_openai_names_are_recognised_before_their_config(tmp_path: Path) -> None:
    save_file({"block.0.attn.qkv.weight": torch.zeros(1)}, tmp_path / SINGLE)
    (tmp_path / "config.json").write_text('{"num_experts": 32}')
    assert "the OpenAI original layout is not read yet, expected the Hugging Face layout" in failure(tmp_path)


def test_other_models_and_quantizations_are_refused(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("mxfp4")
    config = folder / "config.json"
    edit_json(config, lambda document: document.update(model_type="llama"))
    assert "model_type: found 'llama', expected 'gpt_oss'" in failure(folder)
    edit_json(config, lambda document: document.update(quantization_config={"quant_method": "bitsandbytes"}))
    assert failure(folder).endswith(
        "found quantization method 'bitsandbytes', expected 'mxfp4' or no quantization_config"
    )
    config.unlink()
    assert "config.json: no such file" in failure(folder)


def test_a_file_is_not_a_folder(originals: Path, tmp_path: Path) -> None:
    assert "expected the checkpoint's folder" in failure(originals / "mxfp4" / SINGLE)
    (tmp_path / "model.gguf").touch()
    assert "GGUF is not read" in failure(tmp_path / "model.gguf")


def test_other_experts_are_refused(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("mxfp4")
    rewrite(folder, lambda tensors: [tensors.pop(name) for name in list(tensors) if ".experts." in name])
    assert "found no expert weights among" in failure(folder)


# Weights that are not numbers


def test_finite_weights_pass(originals: Path) -> None:
    for name in ("mxfp4", "dense", "sharded"):
        with open_checkpoint(originals / name) as checkpoint:
            assert first_non_finite(checkpoint) is None


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [(Q, float("nan"), "is nan"), (Q, float("-inf"), "is -inf"), (SCALES, 255, "is a NaN scale (255)")],
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_first_non_finite_weight_is_located(
    copy_of: Callable[[str], Path], dtype: torch.dtype, name: str, value: float, said: str
) -> None:
    folder = copy_of("mxfp4")

    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[Q] = tensors[Q].to(dtype)
        tensors[name].view(-1)[-2] = value
        tensors[BLOCKS].fill_(255)  # a packed byte is always two numbers

    rewrite(folder, change)
    with open_checkpoint(folder) as checkpoint:
        *leading, last = checkpoint.tensors[name].shape
        index = [size - 1 for size in leading] + [last - 2]
        assert first_non_finite(checkpoint) == f"{name}{index} in {SINGLE} {said}"
