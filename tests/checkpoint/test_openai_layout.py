"""OpenAI's own layout, `original/`: every tensor of Hugging Face's is a range of its bytes."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from gptoss_onnx.checkpoint.locate import locate
from gptoss_onnx.reference import open_checkpoint
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document
from support.checkpoints import edit_json, failure
from support.openai_checkpoint import QKV, shift_tensors, write_original

DOCUMENT = tiny_document(layers=2)
SINGLE = "model.safetensors"
TENSORS = 41  # of Hugging Face's layout, in two layers; 33 of OpenAI's


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights in Hugging Face's layout."""
    folder = tmp_path_factory.mktemp("hf") / "checkpoint"
    make_checkpoint(folder, DOCUMENT)
    return folder


@pytest.fixture
def original(theirs: Path, tmp_path: Path) -> Path:
    return write_original(tmp_path / "repository" / "original", theirs)


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize(("files", "blanks"), [(1, 0), (3, 0), (1, 1), (1, 3)])
def test_every_tensor_has_the_bytes_of_hugging_faces(
    theirs: Path, tmp_path: Path, files: int, blanks: int
) -> None:
    """In one file or several, also where no tensor begins at a multiple of its element."""
    folder = write_original(tmp_path / "original", theirs, files)
    for path in folder.glob("*.safetensors"):
        shift_tensors(path, blanks)
    with open_checkpoint(theirs) as expected, open_checkpoint(folder) as found:
        assert found.config == expected.config
        assert len(found.tensors) == TENSORS
        assert len(found.files) == files
        for name, tensor in expected.state_dict():
            assert found.tensors[name].shape == tuple(tensor.shape)
            assert bits(found.load(name)) == bits(tensor), name


def test_every_parameter_is_a_view_of_the_file(original: Path) -> None:
    with open_checkpoint(original) as checkpoint:
        views = [parameter.view for parameter in checkpoint.parameters.values()]
        assert all(view is not None and view.file == original / SINGLE for view in views)
        taken = sorted((view.offset, view.nbytes) for view in views if view is not None)
    begin = taken[0][0]
    for offset, size in taken:  # all bytes behind the header, each once
        assert offset == begin
        begin += size
    assert begin == (original / SINGLE).stat().st_size


def test_the_maker_writes_what_the_outside_writer_writes(theirs: Path, tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "original", DOCUMENT, layout="openai", shard_bytes=60_000)
    files = sorted(path.name for path in (tmp_path / "original").glob("*.safetensors"))
    assert files[0] == f"model--00001-of-{len(files):05d}.safetensors"
    assert files[-1] == f"model--{len(files):05d}-of-{len(files):05d}.safetensors"
    with open_checkpoint(theirs) as expected, open_checkpoint(tmp_path / "original") as found:
        assert found.config == expected.config
        assert all(bits(found.load(name)) == bits(tensor) for name, tensor in expected.state_dict())
    types = json.loads((tmp_path / "original" / "dtypes.json").read_text())
    assert types["block.1.mlp.mlp2_weight.blocks"] == "FP4"
    assert types["block.1.mlp.mlp2_weight.scales"] == "UE8"
    assert types[QKV] == "BF16"


@pytest.mark.parametrize("factor", [1, 1.0, 0.5])
def test_a_factor_of_one_is_no_scaling(original: Path, factor: float) -> None:
    edit_json(
        original / "config.json", lambda document: document.update(rope_scaling_factor=factor)
    )
    with open_checkpoint(original) as checkpoint:
        assert checkpoint.config.longest == 64
        rope = checkpoint.config.layers[0].attention.rope
        assert rope is not None and rope.kind == "default"


def test_the_limit_is_read(original: Path) -> None:
    edit_json(original / "config.json", lambda document: document.update(swiglu_limit=5))
    with open_checkpoint(original) as checkpoint:
        assert checkpoint.settings["swiglu_limit"] == 5.0


def test_hugging_faces_config_may_lie_beside_openais_tensors(theirs: Path, original: Path) -> None:
    shutil.copy(theirs / "config.json", original)
    with open_checkpoint(theirs) as expected, open_checkpoint(original) as found:
        assert found.config == expected.config


# Where the tokenizer is


def test_the_tokenizer_lies_one_folder_up(original: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    above = original.parent
    for folder, name in ((above, "tokenizer.json"), (above, "chat_template.jinja")):
        (folder / name).write_text("{}")
    monkeypatch.chdir(original)
    for path in (original, Path(), Path("..") / "original"):
        with open_checkpoint(path) as checkpoint:
            assert checkpoint.read("tokenizer.json", 9) == b"{}"
            assert checkpoint.read("chat_template.jinja", 9) == b"{}"
            assert checkpoint.path_of("generation_config.json") is None


def test_a_tokenizer_beside_the_weights_comes_first(original: Path) -> None:
    (original.parent / "tokenizer.json").write_text("{}")
    (original / "tokenizer.json").write_text("[]")
    with open_checkpoint(original) as checkpoint:
        assert checkpoint.read("tokenizer.json", 9) == b"[]"


def test_a_folder_of_another_name_has_nothing_above(original: Path) -> None:
    (original.parent / "tokenizer.json").write_text("{}")
    with open_checkpoint(original.rename(original.parent / "mine")) as checkpoint:
        assert checkpoint.path_of("tokenizer.json") is None


# Which folder is meant


def test_a_repository_that_has_nothing_else_is_entered(
    original: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with open_checkpoint(original.parent) as checkpoint:
        assert (checkpoint.folder, checkpoint.layout) == (original, "openai")
    assert "no weights beside original/" in caplog.text


def test_hugging_faces_layout_beside_it_comes_first(original: Path, theirs: Path) -> None:
    for path in theirs.iterdir():
        shutil.copy(path, original.parent)
    assert locate(original.parent) == original.parent
    with open_checkpoint(original.parent) as checkpoint:
        assert checkpoint.layout == "hf"


def test_a_repository_does_not_lead_out(original: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "original").symlink_to(original)
    assert "outside of" in failure(tmp_path / "other")
