"""`plan`: its figures are those of transformers, and of packages and checkpoints as they are."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from gptoss_onnx.bench import machine
from gptoss_onnx.cli import main
from gptoss_onnx.errors import RuntimeUnavailable
from gptoss_onnx.exporter import Package, export
from gptoss_onnx.package import ASSEMBLED, EXPERTS_FILE, INT8_FILE, ORT_WEIGHTS, PACKED_FILE
from gptoss_onnx.reference.architectures import PRESETS
from gptoss_onnx.reference.synthetic import make_checkpoint, preset_document, tiny_document
from support.fp8_checkpoint import write_fp8
from support.transformers_models import write_by_transformers

FOREIGN = [name for name, document in PRESETS.items() if "lab" not in name]
# Figures that the issue of this command states, and that the published models have.
PUBLISHED = {
    "20b": (20_914_757_184, 49_152),
    "gpt-oss-120b": (116_829_156_672, 73_728),
}


def run(*arguments: object) -> dict[str, object]:
    done = CliRunner().invoke(main, ["plan", *map(str, arguments), "--json"])
    assert (done.exit_code, done.stderr) == (0, "")
    return json.loads(done.stdout)  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_figures(name: str) -> None:
    found = run(name, "--bandwidth", 30)
    assert (found["parameters"], found["cache_bytes_per_token"]) == PUBLISHED[name]


@pytest.mark.parametrize("name", FOREIGN)
def test_parameters_are_those_of_transformers(name: str) -> None:
    document = preset_document(name)
    document.pop("quantization_config", None)
    config = AutoConfig.for_model(document.pop("model_type"), **document)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    expected = sum(parameter.numel() for parameter in model.parameters())
    assert run(name, "--bandwidth", 1)["parameters"] == expected


def test_a_window_holds_no_more_than_its_tokens() -> None:
    short, long = (run("20b", "--context", n, "--bandwidth", 1) for n in (128, 131072))
    each = 2 * 8 * 64 * 2
    assert short["cache_bytes"] == 24 * 128 * each
    assert long["cache_bytes"] == 12 * (128 + 131072) * each


def test_the_most_tokens_a_second_are_bandwidth_over_what_a_token_reads() -> None:
    found = run("20b", "--context", 1, "--bandwidth", 30)
    choice = found["choices"]["portable, linked"]  # type: ignore[index]
    most = found["tokens_per_second"]["portable, linked"]  # type: ignore[index]
    assert most == pytest.approx(30e9 / (choice["read"] + found["cache_bytes"]))
    # the experts of four of 32, the dense matrices and lm_head: as measured on the real package
    assert choice["read"] == pytest.approx(1.269e9 + 1.274e9 + 1.158e9, rel=0.01)


def test_experts_that_are_stored_one_by_one_are_not_written_again() -> None:
    for name in ("qwen3-30b-a3b", "mixtral-8x7b"):
        found = run(name, "--bandwidth", 1)
        assert found["choices"]["portable, linked"]["written"] == 0  # type: ignore[index]


def test_a_checkpoint_and_its_package(tiny_checkpoint: Path, demo_package: Package) -> None:
    assert run(tiny_checkpoint, "--bandwidth", 1)["weight_bytes"] == _stored(tiny_checkpoint)
    assert run(demo_package.folder, "--bandwidth", 1) == {
        **run(Path("demo/checkpoint").resolve(), "--bandwidth", 1),
        "model": str(demo_package.folder),
    }


@pytest.fixture(scope="module")
def fp8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen3-MoE whose projections are in FP8, experts one by one, and all else in float32."""
    root = tmp_path_factory.mktemp("fp8")
    changes = {"num_hidden_layers": 1, "decoder_sparse_step": 1}
    write_by_transformers("qwen3_moe", changes, root / "float32", sharded=False)
    write_fp8(root / "float32", root / "fp8", root / "decoded", (16, 32))
    return root / "fp8"


def test_fp8_counts_as_it_is_stored(fp8: Path) -> None:
    found = run(fp8, "--bandwidth", 1)
    assert found["total_bytes"] == _payload(fp8 / "model.safetensors")


@pytest.mark.parametrize(
    ("choice", "options"),
    [
        ("portable, linked", {}),
        ("portable, copied", {"weights": "copy"}),
        ("portable, --dense int8", {"dense": "int8"}),
        ("portable, --experts mxfp4", {"experts": "mxfp4"}),
    ],
)
def test_fp8_counts_as_the_export_writes_it(
    fp8: Path, tmp_path: Path, choice: str, options: dict[str, Any]
) -> None:
    found = run(fp8, "--bandwidth", 1)
    folder = export(fp8, tmp_path / "package", **options).folder
    written = sum(map(_payload, (folder / name for name in (ASSEMBLED, INT8_FILE, EXPERTS_FILE))))
    assert found["choices"][choice]["written"] == written  # type: ignore[index]


@pytest.mark.parametrize(
    ("choice", "options"),
    [
        ("ort", {}),
        ("ort, --dense checkpoint", {"dense": "checkpoint"}),
        ("ort, --experts int8", {"experts": "int8"}),
        ("ort, --experts int4", {"experts": "int4"}),
    ],
)
def test_target_ort_counts_as_the_export_writes_it(
    tiny_checkpoint: Path, tmp_path: Path, choice: str, options: dict[str, Any]
) -> None:
    found = run(tiny_checkpoint, "--bandwidth", 1)
    folder = export(tiny_checkpoint, tmp_path / "package", target="ort", **options).folder
    written = _payload(folder / ORT_WEIGHTS)
    assert found["choices"][choice]["written"] == written  # type: ignore[index]


def test_packed_counts_all_but_the_exceptions(demo_checkpoint: Path, tmp_path: Path) -> None:
    found = run(demo_checkpoint, "--bandwidth", 1)
    folder = export(demo_checkpoint, tmp_path / "package", dense="packed").folder
    tensors = load_file(folder / PACKED_FILE)
    planes = sum(
        x.nbytes for name, x in tensors.items() if name.endswith(("_low", "_high", "_bases"))
    )
    assert found["choices"]["portable, --dense packed"]["written"] == planes  # type: ignore[index]
    assert planes > 0.99 * _payload(folder / PACKED_FILE)


def _payload(file: Path) -> int:
    """Bytes of the tensors in a safetensors file; 0 if there is no such file."""
    return sum(x.nbytes for x in load_file(file).values()) if file.exists() else 0


def _stored(folder: Path) -> dict[str, int]:
    """Bytes of a checkpoint by kind, from its own headers."""
    from gptoss_onnx.reference import open_checkpoint

    kinds = {"self_attn": "attention", "router": "router", "experts": "experts", "norm": "norms"}
    found = dict.fromkeys(
        ("embedding", "attention", "router", "experts", "feed-forward", "norms", "lm_head"), 0
    )
    with open_checkpoint(folder) as checkpoint:
        for name, tensor in checkpoint.tensors.items():
            kind = next((kinds[part] for part in kinds if part in name), None)
            kind = kind or ("lm_head" if name.startswith("lm_head") else "embedding")
            found[kind] += tensor.nbytes
    return found


def test_lines_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_library(_: int) -> float:
        raise RuntimeUnavailable("no native library")

    monkeypatch.setattr(machine, "read_rate", no_library)
    done = CliRunner().invoke(main, ["plan", "qwen3-30b-a3b"])
    assert done.exit_code == 0
    assert "bandwidth   no native library" in done.stdout
    assert "unknown" in done.stdout
    assert "experts" in done.stdout


def test_mistakes(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "c", tiny_document("gpt2"))
    done = CliRunner().invoke(main, ["plan", str(tmp_path / "c"), "--context", "129"])
    assert done.exit_code == 2
    assert "--context 129: expected at most 128, the longest this model takes" in done.stderr
    done = CliRunner().invoke(main, ["plan", "gpt-oss-21b"])
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
