"""OpenAI's own layout, `original/`: every tensor of Hugging Face's is a range of its bytes."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from gptoss_onnx.checkpoint.locate import locate
from gptoss_onnx.reference import open_checkpoint
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document
from support.checkpoints import edit_json, failure, rewrite
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


# Files of strangers


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
