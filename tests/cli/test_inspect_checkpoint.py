"""`inspect CHECKPOINT`: what it is, and what an export makes of it, in any layout."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from gptoss_onnx.custom_ops.mxfp4 import decode_mxfp4
from gptoss_onnx.custom_ops.mxfp4_quantize import is_mxfp4
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document
from support.checkpoints import edit_json, rewrite
from support.command_line import done, run
from support.fp8_checkpoint import write_fp8
from support.openai_checkpoint import write_original

DOCUMENT = tiny_document(layers=2)
GATE_UP = "model.layers.1.mlp.experts.gate_up_proj"


def report(path: Path, *options: str) -> dict[str, Any]:
    return json.loads(done("inspect", path, "--json", *options))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed") / "checkpoint"
    make_checkpoint(folder, DOCUMENT)
    return folder


@pytest.fixture
def widened(packed: Path, tmp_path: Path) -> Path:
    """The same model, with experts in bfloat16 as transformers stores them."""
    tensors = load_file(packed / "model.safetensors")
    for name in [name for name in tensors if name.endswith("_blocks")]:
        stem = name.removesuffix("_blocks")
        values = decode_mxfp4(tensors.pop(name), tensors.pop(f"{stem}_scales"), torch.bfloat16)
        tensors[stem] = values.transpose(1, 2).contiguous()
    folder = tmp_path / "widened"
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    document = {key: value for key, value in DOCUMENT.items() if key != "quantization_config"}
    (folder / "config.json").write_text(json.dumps(document))
    return folder


def test_every_byte_is_counted_once(packed: Path, tmp_path: Path) -> None:
    stored = load_file(packed / "model.safetensors")
    total = sum(tensor.nbytes for tensor in stored.values())
    (packed / "tokenizer.json").write_text("{}")
    for path, layout in ((packed, "hf-mxfp4"), (tmp_path / "original", "openai-mxfp4")):
        if path != packed:
            write_original(path, packed)
        found = report(path)
        assert (found["kind"], found["layout"]) == ("checkpoint", layout)
        assert found["model_type"] == "gpt_oss"
        assert sum(found["dtypes"].values()) == sum(found["kinds"].values()) == total
        assert found["dtypes"]["U8"] == sum(
            tensor.nbytes for tensor in stored.values() if tensor.dtype == torch.uint8
        )
        assert found["kinds"]["lm_head"] == stored["lm_head.weight"].nbytes
        assert found["files"] == {"model.safetensors": (path / "model.safetensors").stat().st_size}
        assert found["export"] == {
            "linked": len(stored),
            "linked_bytes": total,
            "written": [],
            "ort": None,
        }
        assert found["experts"] == {"storage": "mxfp4", "exact": True, "inexact": None}
        assert found["side_files"] == (["tokenizer.json"] if path == packed else [])
        assert found["refusal"] is None


def test_the_text_says_it_in_lines(packed: Path, tmp_path: Path) -> None:
    text = done("inspect", write_original(tmp_path / "original", packed))
    for words in (
        "gpt_oss, layout openai-mxfp4",
        "parameters in 41 tensors",
        "num_local_experts 6",
        "rope_scaling rope_type yarn, factor 32.0",
        "BF16 173.2 kB, U8 117.5 kB",
        "attention 83.0 kB",
        "packed MXFP4",
        "none: name one with `export --tokenizer`",
        "41 weights linked where they lie (290.7 kB)",
        "no weight byte copied or converted",
        "--target ort: offered",
    ):
        assert words in text


def test_what_an_export_writes_anew_is_said(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "plain", tiny_document("llama", layers=2))
    write_fp8(tmp_path / "plain", tmp_path / "fp8", tmp_path / "decoded", (16, 16))
    found = report(tmp_path / "fp8")
    (written,) = found["export"]["written"]
    assert written["loss"] == "FP8 weights times their scales rounded to bfloat16"
    assert written["weights"] > 0
    assert "written anew" in done("inspect", tmp_path / "fp8")


def test_values_are_read_only_where_that_is_asked_for(widened: Path) -> None:
    assert report(widened)["experts"] == {"storage": "dense", "exact": None, "inexact": None}
    assert "not known without --values" in done("inspect", widened)
    found = report(widened, "--values")
    assert found["experts"] == {"storage": "dense", "exact": True, "inexact": None}
    assert "every value is MXFP4" in done("inspect", widened, "--values")


def _one(value: float) -> Callable[[dict[str, torch.Tensor]], object]:
    return lambda tensors: tensors[GATE_UP][5, 63, 191].fill_(value)


@pytest.mark.parametrize("value", [1.25, 100.0, float("nan"), float("inf")])
def test_one_value_that_is_none_is_enough(widened: Path, value: float) -> None:
    rewrite(widened, _one(value))
    assert report(widened, "--values")["experts"] == {
        "storage": "dense",
        "exact": False,
        "inexact": GATE_UP,
    }
    assert f"{GATE_UP} is the first with other values" in done("inspect", widened, "--values")


def test_every_scale_and_level_is_recognised() -> None:
    generator = torch.Generator().manual_seed(0)
    scales = torch.arange(1, 252, dtype=torch.uint8)[:, None]  # (251, 1), those of finite values
    blocks = torch.randint(0, 256, (251, 1, 16), dtype=torch.uint8, generator=generator)
    values = decode_mxfp4(blocks, scales)
    assert is_mxfp4(values)
    assert is_mxfp4(values.T.contiguous(), columns=True)
    assert is_mxfp4(torch.zeros(2, 32))
    for row in range(251):  # a step of a quarter level is none
        spoilt = values.clone()
        spoilt[row, 7] = spoilt[row].abs().max() * 1.125
        assert not is_mxfp4(spoilt)


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "another quantization": (
        lambda folder: edit_json(
            folder / "config.json",
            lambda document: document.update(quantization_config={"quant_method": "awq"}),
        ),
        "found quantization method 'awq'",
    ),
    "another model": (
        lambda folder: edit_json(
            folder / "config.json", lambda document: document.update(model_type="t5")
        ),
        "model_type: found 't5'",
    ),
    "an adapter beside": (
        lambda folder: (folder / "adapter_config.json").touch(),
        "found adapter_config.json",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_a_refused_checkpoint_is_described(
    widened: Path, spoil: Callable[[Path], object], message: str
) -> None:
    spoil(widened)
    found = report(widened)
    assert message in found["refusal"]
    assert found["dtypes"].keys() == {"BF16"}
    assert (found["export"], found["kinds"]) == (None, None)
    (line,) = [line for line in done("inspect", widened).splitlines() if "refused: " in line]
    assert message in line


def test_what_is_no_checkpoint_is_refused(tmp_path: Path, packed: Path) -> None:
    for path, words in (
        (tmp_path, "not a checkpoint: expected model.safetensors"),
        (packed / "model.safetensors", "found a file"),
        ("owner/name", "not in the Hugging Face cache"),
    ):
        result = run("inspect", path)
        assert (result.exit_code, result.stdout) == (2, "")
        assert words in result.stderr
        assert result.stderr.count("\n") == 1


def test_values_of_a_package_are_not_read(tiny_package: Any) -> None:
    result = run("inspect", tiny_package.folder, "--values")
    assert result.exit_code == 2
    assert "--values: found with the package" in result.stderr
