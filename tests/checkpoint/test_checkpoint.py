"""Opening checkpoints: what is loaded equals safetensors' own reader, from folders and from the
Hugging Face cache.
"""

import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gptoss_onnx.checkpoint.finite import first_non_finite
from gptoss_onnx.errors import CheckpointError
from gptoss_onnx.reference import open_checkpoint
from gptoss_onnx.reference.synthetic import config_of, make_checkpoint, tiny_document
from support.checkpoints import BLOCKS, SCALES, SINGLE, Q, failure, rewrite

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


@pytest.mark.parametrize(
    ("name", "layout"), [("mxfp4", "hf-mxfp4"), ("dense", "hf-dense"), ("sharded", "hf-mxfp4")]
)
def test_tensors_equal_those_of_the_safetensors_library(
    originals: Path, name: str, layout: str
) -> None:
    expected: dict[str, torch.Tensor] = {}
    for file in (originals / name).glob("*.safetensors"):
        expected |= load_file(file)
    with open_checkpoint(originals / name) as checkpoint:
        assert checkpoint.config.layout == layout
        plain = {key: value for key, value in DOCUMENT.items() if key != "quantization_config"}
        written = DOCUMENT if layout == "hf-mxfp4" else plain
        assert checkpoint.config == config_of(written)
        assert checkpoint.files == tuple(sorted((originals / name).resolve().glob("*.safetensors")))
        found = dict(checkpoint.state_dict())
        assert found.keys() == expected.keys() == checkpoint.tensors.keys()
        for tensor_name, tensor in found.items():
            info = checkpoint.tensors[tensor_name]
            assert tensor.dtype == expected[tensor_name].dtype == info.torch_dtype
            assert tensor.shape == expected[tensor_name].shape == info.shape
            assert torch.equal(tensor, expected[tensor_name])
            with info.file.open("rb") as stored:
                stored.seek(info.offset)
                assert (
                    stored.read(info.nbytes)
                    == tensor.contiguous().view(torch.uint8).numpy().tobytes()
                )


def test_tensors_outlive_the_checkpoint_and_writing_to_them_stays_private(
    copy_of: Callable[[str], Path],
) -> None:
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


def test_unknown_tensor_and_shortened_file_are_refused_when_loading(
    copy_of: Callable[[str], Path],
) -> None:
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
    path.write_bytes(
        struct.pack("<Q", length + 1) + content[8 : 8 + length] + b" " + content[8 + length :]
    )
    with open_checkpoint(folder) as checkpoint:
        assert checkpoint.tensors[Q].offset % 2 == 1
        assert torch.equal(checkpoint.load(Q), load_file(path)[Q])


def test_mixed_float_dtypes_and_tied_embeddings_are_read(tmp_path: Path) -> None:
    make_checkpoint(
        tmp_path / "c",
        tiny_document(num_hidden_layers=1, tie_word_embeddings=True, attention_bias=False),
    )
    rewrite(
        tmp_path / "c",
        lambda t: t.update({Q: t[Q].float(), "model.norm.weight": t["model.norm.weight"].half()}),
    )
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
    """A cache with one repository, as huggingface_hub lays it out: snapshots of symlinks into
    blobs.
    """
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
    assert failure("openai/gpt-oss-120b", cache_dir=cache).endswith(
        "download it with: hf download openai/gpt-oss-120b"
    )
    assert "expected a checkpoint folder or a hub id" in failure("/no/such/folder", cache_dir=cache)
    repository = cache / "models--openai--gpt-oss-20b"
    (repository / "refs" / "main").write_text("def456")
    assert "found no such snapshot" in failure("openai/gpt-oss-20b", cache_dir=cache)
    (repository / "refs" / "main").unlink()
    text = failure("openai/gpt-oss-20b", cache_dir=cache)
    assert "pass one of the snapshot folders instead (abc123)" in text
    assert text.endswith("hf download openai/gpt-oss-20b")


# Weights that are not numbers


def test_finite_weights_pass(originals: Path) -> None:
    for name in ("mxfp4", "dense", "sharded"):
        with open_checkpoint(originals / name) as checkpoint:
            assert first_non_finite(checkpoint) is None


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        (Q, float("nan"), "is nan"),
        (Q, float("-inf"), "is -inf"),
        (SCALES, 255, "is a NaN scale (255)"),
    ],
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
