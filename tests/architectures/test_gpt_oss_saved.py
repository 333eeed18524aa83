"""gpt-oss as trainers save it: widened from MXFP4 by transformers, and with each expert apart."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Mxfp4Config

from gptoss_onnx.custom_ops.mxfp4 import decode_mxfp4
from gptoss_onnx.errors import CheckpointError
from gptoss_onnx.exporter import export
from gptoss_onnx.package import ASSEMBLED, EXPERTS_FILE
from gptoss_onnx.reference import open_checkpoint
from gptoss_onnx.runtime import Session
from support.architecture_judge import Case
from support.exported import valid_manifest

EXPERTS = "model.layers.{}.mlp.experts"


@pytest.fixture(scope="module")
def widened(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that transformers has read as bfloat16 and saved."""
    folder = tmp_path_factory.mktemp("widened") / "checkpoint"
    settings = {"quantization_config": Mxfp4Config(dequantize=True), "dtype": torch.bfloat16}
    AutoModelForCausalLM.from_pretrained(tiny_checkpoint, **settings).save_pretrained(folder)
    return folder


def with_apart(folder: Path, router: str = "router.linear") -> None:
    """Rewrite a checkpoint of stacked experts as Unsloth's class for 4-bit training stores it."""
    path = folder / "model.safetensors"
    stored = {}
    for name, tensor in load_file(path).items():
        stem, _, last = name.rpartition(".")
        if stem.endswith("mlp.experts"):
            projection = last.removesuffix("_bias")
            for expert, part in enumerate(tensor):
                key = f"{stem}.{projection}s.{expert}."
                is_bias = last.endswith("_bias")
                # (in, out) stacked, (out, in) as a projection
                stored[key + ("bias" if is_bias else "weight")] = (
                    part if is_bias else part.T
                ).contiguous()
        else:
            stored[name.replace(".router.", f".{router}.")] = tensor
    save_file(stored, path)


def test_experts_that_transformers_has_widened_become_what_they_were(
    widened: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    package = export(widened, tmp_path / "package", experts="mxfp4")
    ours = load_file(package.folder / EXPERTS_FILE)
    theirs = load_file(tiny_checkpoint / "model.safetensors")
    stems = [name.removesuffix("_blocks") for name in theirs if name.endswith("_blocks")]
    assert len(ours) == 2 * len(stems) > 0
    for stem in stems:
        found, expected = (
            decode_mxfp4(tensors[f"{stem}_blocks"], tensors[f"{stem}_scales"])
            for tensors in (ours, theirs)
        )
        assert torch.equal(found.view(torch.int32), expected.view(torch.int32))
    manifest = valid_manifest(package.folder)
    assert manifest.lossy == ()
    assert manifest.weights.bit_identical
    assert [error.relative_rms for error in manifest.rounded[0].errors] == [0.0] * len(stems)


def test_widened_experts_are_read_without_quantizing(
    widened: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """Dense and MXFP4 have the same values, and so the same tokens."""
    tokens = list(range(3, 20))
    found = []
    for number, checkpoint in enumerate((widened, tiny_checkpoint)):
        folder = tmp_path / f"package-{number}"
        export(checkpoint, folder)
        with Session.open(folder, kernels="portable", threads=1) as session:
            found.append(torch.as_tensor(session.score(tokens, chunk=len(tokens))))
    assert torch.equal(found[0].argmax(-1), found[1].argmax(-1))


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Case:
    case = Case.write("gpt_oss", {}, tmp_path_factory.mktemp("apart") / "checkpoint")
    with_apart(case.judged.folder)
    return case


def test_experts_apart_against_transformers(apart: Case, tmp_path: Path) -> None:
    apart.check_reference()
    apart.check_package(tmp_path / "portable", "portable", "auto")
    apart.check_package(tmp_path / "portable", "portable", "portable")
    stored = load_file(tmp_path / "portable" / ASSEMBLED)
    assert stored[f"{EXPERTS.format(0)}.gate_up_proj"].shape == (6, 192, 64)
    assert stored[f"{EXPERTS.format(0)}.gate_up_proj_bias"].shape == (6, 192)
    apart.check_package(tmp_path / "ort", "ort", "auto")


def test_an_expert_that_is_missing_is_named(apart: Case, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for path in apart.judged.folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    stored = load_file(folder / "model.safetensors")
    name = f"{EXPERTS.format(2)}.down_projs.4.weight"
    del stored[name]
    save_file(stored, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=rf"{name}: missing, expected \(64, 96\)"):
        open_checkpoint(folder)
